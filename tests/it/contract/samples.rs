//! Keys, tokens and flows for the contract cases. All made of small numbers, so that a failed assertion can be read.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use token_broker::domain::credential::{
    BackOff, Claim, Credential, Epoch, Fingerprint, Sealed, StoredRefreshToken, StoredTokens,
};
use token_broker::domain::flow::{
    ConsentBinding, ConsentOptions, Flow, FlowStatus, Proof, RecordedEndpoints, SecretHash, StateHash,
};
use token_broker::domain::key::{
    Account, CallerId, ClaimOwner, CredentialId, CredentialKey, FlowId, GrantId, GrantName, LeaseId,
    OutboxId, ProviderId, ServiceId, TenantId, UserId,
};
use token_broker::domain::ports::{
    ClaimRequest, Consumed, GrantCondition, HeldCode, LineageWrite, NewGrant, OutboxPair, PendingRevocation,
    Release, RevokeWrite, StoredGrant,
};
use token_broker::domain::scope::{Scope, ScopeSet};
use token_broker::domain::token_set::AccessLife;

use super::Stores;

/// A point in time, `seconds` after the beginning of the tests' world, with a fraction that only microseconds can hold.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_microsecond(1_800_000_000_123_456 + seconds * 1_000_000).unwrap()
}

fn id_bytes(n: u32) -> [u8; 16] {
    let mut bytes = [0xa5; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub(crate) fn credential_id(n: u32) -> CredentialId {
    CredentialId::from_bytes(id_bytes(n))
}

pub(crate) fn grant_id(n: u32) -> GrantId {
    GrantId::from_bytes(id_bytes(n))
}

pub(crate) fn flow_id(n: u32) -> FlowId {
    FlowId::from_bytes(id_bytes(n))
}

pub(crate) fn outbox_id(n: u32) -> OutboxId {
    OutboxId::from_bytes(id_bytes(n))
}

pub(crate) fn lease_id(n: u32) -> LeaseId {
    LeaseId::from_bytes(id_bytes(n))
}

pub(crate) fn owner(n: u32) -> ClaimOwner {
    ClaimOwner::from_bytes(id_bytes(n))
}

pub(crate) fn fingerprint(n: u32) -> Fingerprint {
    let mut bytes = [0x5a; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    Fingerprint(bytes)
}

pub(crate) fn state(n: u32) -> StateHash {
    StateHash(fingerprint(n).0)
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn service(name: &str) -> ServiceId {
    ServiceId::new(name).unwrap()
}

pub(crate) fn provider(name: &str) -> ProviderId {
    ProviderId::new(name).unwrap()
}

pub(crate) fn key_of(
    tenant_name: &str,
    provider_name: &str,
    user: &str,
    grant: &str,
    account: &str,
) -> CredentialKey {
    CredentialKey {
        tenant: tenant(tenant_name),
        provider: provider(provider_name),
        user: UserId::new(user).unwrap(),
        grant: GrantName::new(grant).unwrap(),
        account: Account::new(account).unwrap(),
    }
}

/// A user's key at the usual tenant and provider.
pub(crate) fn key(user: &str) -> CredentialKey {
    key_of("acme", "google", user, "mail", "default")
}

pub(crate) fn scopes(names: &[&str]) -> ScopeSet {
    names.iter().map(|name| Scope::new(*name).unwrap()).collect()
}

/// The pair number `n`: its refresh token has fingerprint `n` and comes from a consent.
pub(crate) fn tokens(n: u32) -> StoredTokens {
    StoredTokens {
        access_sealed: Sealed(format!("access {n}").into_bytes()),
        access_life: AccessLife { obtained_at: at(i64::from(n)), expires_at: Some(at(i64::from(n) + 3600)) },
        token_type: "Bearer".to_owned(),
        refresh: Some(StoredRefreshToken {
            sealed: Sealed(format!("refresh {n}").into_bytes()),
            fingerprint: fingerprint(n),
            parent_fingerprint: None,
            epoch: 0,
        }),
        profile_sealed: Sealed(format!("profile {n}").into_bytes()),
        scopes: scopes(&["mail.read", "mail.send"]),
        scopes_assumed: false,
        next_refresh_at: None,
    }
}

/// A grant for a key without conditions: grant, row and pair have the number `n`.
pub(crate) fn new_grant(key: CredentialKey, n: u32) -> NewGrant {
    NewGrant {
        id_if_new: credential_id(n),
        key,
        grant_id: grant_id(n),
        configuration: None,
        tokens: tokens(n),
        user_key: None,
        condition: GrantCondition::Overwrite,
        now: at(i64::from(n)),
    }
}

/// The claim of owner `n` taken at `now`: a request of 30 seconds, settled after 5 minutes.
pub(crate) fn claim(n: u32, now: Timestamp) -> Claim {
    let after = |seconds| now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    Claim { owner: owner(n), deadline: after(30), settle_at: after(300) }
}

/// A revocation of any grant under this key. The id of the outbox row for a refresh under way is `first`'s, turned over.
pub(crate) fn revoke_write(key: &CredentialKey, first: Option<OutboxId>, now: Timestamp) -> RevokeWrite {
    let outbox = first.map(|first| OutboxPair { first, after_refresh: after_refresh(first) });
    RevokeWrite { key: key.clone(), grant: None, outbox, now }
}

/// See [`revoke_write`].
pub(crate) fn after_refresh(first: OutboxId) -> OutboxId {
    OutboxId::from_bytes(first.as_bytes().map(|byte| !byte))
}

/// The end of a claim of owner `n` whose token was not spent.
pub(crate) fn release(
    id: CredentialId,
    epoch: Epoch,
    n: u32,
    back_off: Option<BackOff>,
    now: Timestamp,
) -> Release {
    Release { id, epoch, owner: owner(n), back_off, now }
}

/// A claim on a row as it was read.
pub(crate) fn claim_request(row: &Credential, n: u32, now: Timestamp) -> ClaimRequest {
    ClaimRequest {
        id: row.id,
        fingerprint: row.tokens().unwrap().refresh.as_ref().unwrap().fingerprint,
        generation: row.generation,
        epoch: row.epoch,
        claim: claim(n, now),
        now,
    }
}

/// The answer number `n` to a refresh of `row` under `epoch`.
pub(crate) fn lineage(row: &Credential, epoch: Epoch, n: u32, now: Timestamp) -> LineageWrite {
    let parent = row.tokens().unwrap().refresh.as_ref().unwrap().fingerprint;
    let mut tokens = tokens(n);
    if let Some(refresh) = &mut tokens.refresh {
        refresh.parent_fingerprint = Some(parent);
        refresh.epoch = epoch;
    }
    LineageWrite { id: row.id, grant_id: row.grant_id, epoch, parent_fingerprint: parent, tokens, now }
}

/// The browser that was let in to every flow of [`flow`].
pub(crate) const BROWSER: SecretHash = SecretHash([0xb0; 32]);

/// The hash of secret number `n`.
pub(crate) fn secret(n: u32) -> SecretHash {
    SecretHash(std::array::from_fn(|at| if at < 4 { n.to_be_bytes()[at] } else { 0x5e }))
}

/// A pending flow number `n` of the binding *app*.
pub(crate) fn app_flow(key: CredentialKey, n: u32, created: i64) -> Flow {
    let proof = Proof {
        binding: ConsentBinding::App,
        link: None,
        flow_secret: Some(secret(n)),
        browser: None,
        completion_code: None,
    };
    Flow { proof, ..flow(key, n, created) }
}

/// The code number `n` that a browser brought to flow number `n`.
pub(crate) fn held(n: u32) -> HeldCode {
    HeldCode {
        state: state(n),
        provider: provider("google"),
        code: Sealed(format!("code {n}").into_bytes()),
        completion_code: secret(1_000 + n),
    }
}

/// A pending flow number `n`, begun at `created`, with ten minutes to go.
pub(crate) fn flow(key: CredentialKey, n: u32, created: i64) -> Flow {
    let url = |path: &str| url::Url::parse(&format!("https://idp.example/{path}")).unwrap();
    Flow {
        id: flow_id(n),
        key,
        configuration: None,
        caller: CallerId::new("agent").unwrap(),
        services: ["gmail", "calendar"].map(|s| ServiceId::new(s).unwrap()).into(),
        scopes: scopes(&["mail.read", "calendar"]),
        grant_id: grant_id(n),
        state_hash: state(n),
        secrets_sealed: Sealed(format!("secrets {n}").into_bytes()),
        endpoints: RecordedEndpoints {
            issuer: Some("https://idp.example".to_owned()),
            iss_required: true,
            authorization: url("authorize"),
            token: url("token"),
            revocation: Some(url("revoke")),
            userinfo: None,
        },
        redirect_uri: url::Url::parse("https://broker.example/oauth/callback/google").unwrap(),
        options: ConsentOptions {
            return_url: Some(url::Url::parse("https://app.example/done?x=1").unwrap()),
            client_state: Some("opaque \u{1F511} \"'".to_owned()),
            login_hint: Some("alice@example.com".to_owned()),
        },
        proof: Proof {
            binding: ConsentBinding::Confirm,
            link: Some(secret(n)),
            flow_secret: None,
            browser: Some(BROWSER),
            completion_code: None,
        },
        code_sealed: None,
        status: FlowStatus::Pending,
        created_at: at(created),
        expires_at: at(created + 600),
        ended_at: None,
    }
}

/// Tokens number `n` that wait for their revocation since `created`.
pub(crate) fn revocation(key: CredentialKey, n: u32, created: i64) -> PendingRevocation {
    PendingRevocation {
        id: outbox_id(n),
        key,
        grant_id: grant_id(n),
        configuration: None,
        access_sealed: Sealed(format!("access {n}").into_bytes()),
        refresh_sealed: Some(Sealed(format!("refresh {n}").into_bytes())),
        attempts: 0,
        created_at: at(created),
        next_attempt_at: at(created),
    }
}

impl Stores {
    /// Stores [`new_grant`] and answers the row.
    pub(crate) async fn connected(&self, key: CredentialKey, n: u32) -> Credential {
        self.stored(new_grant(key, n)).await
    }

    /// Stores a grant whose condition holds and answers the row.
    pub(crate) async fn stored(&self, grant: NewGrant) -> Credential {
        match self.credentials.store_grant(grant).await.unwrap() {
            StoredGrant::Stored(row) => *row,
            other => panic!("{other:?}"),
        }
    }

    /// The row of a key that has one.
    pub(crate) async fn row(&self, key: &CredentialKey) -> Credential {
        self.credentials.load(key).await.unwrap().expect("the key has a row")
    }

    /// Claims a row that is free.
    pub(crate) async fn claimed(&self, row: &Credential, n: u32, now: Timestamp) -> Epoch {
        self.credentials.claim_for_refresh(claim_request(row, n, now)).await.unwrap().expect("free")
    }

    /// Stores a flow for which there is room.
    pub(crate) async fn begun(&self, flow: &Flow) {
        assert!(self.flows.insert_flow(flow, u32::MAX).await.unwrap());
    }

    /// Spends the one use of a flow of [`flow`].
    pub(crate) async fn consume(&self, n: u32, now: Timestamp) -> Consumed {
        self.flows.consume_flow(state(n), &provider("google"), BROWSER, now).await.unwrap()
    }

    /// Ends a flow that is being exchanged.
    pub(crate) async fn end(&self, n: u32, status: FlowStatus, now: Timestamp) -> bool {
        self.flows.end_flow(flow_id(n), FlowStatus::Exchanging, status, now).await.unwrap()
    }

    /// A flow of the usual tenant.
    pub(crate) async fn flow(&self, id: FlowId) -> Flow {
        self.flows.load_flow(&tenant("acme"), id).await.unwrap().expect("there is such a flow")
    }
}

/// A set from a list.
pub(crate) fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}
