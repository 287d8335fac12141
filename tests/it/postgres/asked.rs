//! Each method of each port, asked at one time. All in one place, so that one that is left out can be seen.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use token_broker::domain::access_policy::Identity;
use token_broker::domain::audit::{AuditQuery, AuditStore as _, Entry, Head, Outcome};
use token_broker::domain::caller_store::{CallerStore as _, Claim, Tenant, TenantStore as _};
use token_broker::domain::credential::Sealed;
use token_broker::domain::data_key::{
    DataKeyPurpose, DataKeyStore as _, PassStep, ReencryptionStore as _, SealedTable, WrappedDataKey,
};
use token_broker::domain::event::{EventPosition, EventQuery, EventStore as _};
use token_broker::domain::flow::FlowStatus;
use token_broker::domain::ports::{
    ClaimRequest, CredentialStore as _, DeadOwners, DueRequest, FlowStore as _, ListQuery, OutboxStore as _,
    RevocationOutcome, StoreError, StoreHealth as _,
};
use token_broker::domain::provider_config::ProviderConfigStore as _;
use token_broker::domain::user_key::{StoredUserKey, UserDeletion, UserKeyStore as _};
use token_broker::infra::storage::postgres::PgStore;

use crate::contract::samples::{
    BROWSER, at, fingerprint, flow, flow_id, held, key, lineage, new_grant, outbox_id, owner, provider,
    release, revocation, revoke_write, scopes, secret, state, tenant,
};
use crate::contract::{api_key, audit_rows, caller, provider_config};

const LEASE: Duration = Duration::from_secs(30);

/// A method's name, and its error.
type Said = (&'static str, Option<StoreError>);

/// What each says.
pub(super) async fn everything(store: &PgStore, claim: &ClaimRequest) -> Vec<Said> {
    let (rows, keys, configs, callers, log) = tokio::join!(
        about_rows(store, claim),
        about_keys(store),
        about_configs(store),
        about_callers(store),
        about_the_log(store)
    );
    [rows, keys, configs, callers, log].into_iter().flatten().collect()
}

/// Of credentials, flows and revocations.
async fn about_rows(store: &PgStore, claim: &ClaimRequest) -> Vec<Said> {
    let alice = key("alice");
    let (acme, google) = (tenant("acme"), provider("google"));
    let row = new_grant(alice.clone(), 1);
    let list = ListQuery {
        tenant: acme.clone(),
        user: None,
        among: None,
        providers: None,
        covering: scopes(&[]),
        after: None,
        limit: 9,
    };
    let due =
        DueRequest { provider: google.clone(), configuration: None, now: at(1), until: at(2), limit: 9 };
    let credential = token_broker::domain::credential::Credential {
        id: claim.id,
        key: alice.clone(),
        created_at: at(1),
        updated_at: at(1),
        grant_id: row.grant_id,
        configuration: None,
        generation: claim.generation,
        epoch: claim.epoch,
        state: token_broker::domain::credential::CredentialState::Active {
            tokens: row.tokens.clone(),
            back_off: None,
        },
    };
    let reason = token_broker::domain::credential::ReauthReason::RefreshTokenRejected;
    let id = claim.id;
    futures_util::future::join_all([
        said("load", async { store.load(&alice).await.err() }),
        said("load_by_id", async { store.load_by_id(id).await.err() }),
        said("claim_for_refresh", async { store.claim_for_refresh(claim.clone()).await.err() }),
        said("claim_for_settle", async { store.claim_for_settle(claim.clone()).await.err() }),
        said("persist_lineage", async {
            store.persist_lineage(lineage(&credential, 2, 2, at(3))).await.err()
        }),
        said("release_claim", async { store.release_claim(release(id, 2, 1, None, at(1))).await.err() }),
        said("mark_needs_reauth", async {
            store.mark_needs_reauth(id, 2, fingerprint(1), reason, at(1)).await.err()
        }),
        said("store_grant", async { store.store_grant(row).await.err() }),
        said("revoke", async { store.revoke_with_outbox(revoke_write(&alice, None, at(1))).await.err() }),
        said("list", async { store.list(list).await.err() }),
        said("due_for_settle", async { store.due_for_settle(at(1), 9).await.err() }),
        said("settle_early", async { store.settle_early(DeadOwners::One(owner(1))).await.err() }),
        said("reserve_due", async { store.reserve_due(due).await.err() }),
        said("reschedule", async { store.reschedule(id, None).await.err() }),
        said("mark_used", async { store.mark_used(&[id], at(1)).await.err() }),
        said("insert_flow", async { store.insert_flow(&flow(alice.clone(), 1, 0), 9).await.err() }),
        said("load_flow", async { store.load_flow(&acme, flow_id(1)).await.err() }),
        said("latest_flow", async { store.latest_flow(&alice).await.err() }),
        said("pending_flows", async { store.pending_flows(&alice, at(1)).await.err() }),
        said("consume_flow", async { store.consume_flow(state(1), &google, BROWSER, at(1)).await.err() }),
        said("flow_of_state", async { store.flow_of_state(state(1), &google).await.err() }),
        said("flow_of_link", async { store.flow_of_link(secret(1)).await.err() }),
        said("flow_of_browser", async { store.flow_of_browser(flow_id(1)).await.err() }),
        said("admit_browser", async { store.admit_browser(flow_id(1), BROWSER, at(1)).await.err() }),
        said("hold_code", async { store.hold_code(held(1), at(1)).await.err() }),
        said("redeem_flow", async { store.redeem_flow(flow_id(1), secret(1), at(1)).await.err() }),
        said("end_flow", async {
            store.end_flow(flow_id(1), FlowStatus::Exchanging, FlowStatus::Denied, at(1)).await.err()
        }),
        said("cancel_flow", async { store.cancel_flow(&acme, flow_id(1), at(1)).await.err() }),
        said("sweep_flows", async { store.sweep_flows(at(1), at(0), at(0)).await.err() }),
        said("enqueue", async { store.enqueue_revocation(revocation(alice.clone(), 1, 0)).await.err() }),
        said("take", async { store.take_revocation(outbox_id(1), at(1), at(2)).await.err() }),
        said("due_revocations", async { store.due_revocations(at(1), 9).await.err() }),
        said("postpone", async { store.postpone_revocation(outbox_id(1), at(2)).await.err() }),
        said("finish", async {
            store.finish_revocation(outbox_id(1), RevocationOutcome::Failed, at(2)).await.err()
        }),
        said("delete_finished", async { store.delete_finished_revocations(at(1)).await.err() }),
        said("ping", async { store.ping().await.err() }),
    ])
    .await
}

/// Of data keys and users' keys.
async fn about_keys(store: &PgStore) -> Vec<Said> {
    let acme = tenant("acme");
    let data_key = WrappedDataKey {
        id: [1; 16],
        tenant: acme.clone(),
        purpose: DataKeyPurpose::Encryption,
        kek_id: "k".to_owned(),
        wrapped: vec![1],
        created_at: at(1),
        superseded_at: None,
    };
    let (wrapped, step) = (data_key.clone(), PassStep::default());
    let user = key("alice").user;
    let user_key = StoredUserKey {
        id: [1; 16],
        tenant: acme.clone(),
        user: user.clone(),
        sealed: Sealed(vec![1]),
        created_at: at(1),
    };
    let deletion = UserDeletion { tenant: acme.clone(), user, abandon_revocations: true, limit: 9 };
    futures_util::future::join_all([
        said("data_key", async { store.data_key([1; 16]).await.err() }),
        said("newest_or_insert", async { store.newest_data_key_or_insert(data_key).await.err() }),
        said("newest", async { store.newest_data_key(&acme, DataKeyPurpose::Encryption).await.err() }),
        said("kek_ids", async { store.kek_ids_in_use().await.err() }),
        said("under", async { store.data_keys_under("k", 9).await.err() }),
        said("data_keys", async { store.data_keys(None, None, 9).await.err() }),
        said("key_states", async { store.data_key_states(&[[1; 16]]).await.err() }),
        said("supersede", async { store.supersede_data_key([1; 16], wrapped.clone()).await.err() }),
        said("rewrap", async { store.rewrap_data_key(&wrapped, &wrapped).await.err() }),
        said("retire", async { store.retire_data_key([1; 16], at(1)).await.err() }),
        said("user_key", async { store.user_key([1; 16]).await.err() }),
        said("user_keys", async { store.user_keys(&[[1; 16]]).await.err() }),
        said("user_key_of", async { store.user_key_of(&acme, &deletion.user).await.err() }),
        said("user_key_or_insert", async { store.user_key_or_insert(user_key).await.err() }),
        said("delete_user", async { store.delete_user(&deletion).await.err() }),
        said("sealed_rows", async { store.sealed_rows(SealedTable::Flows, None, 9).await.err() }),
        said("replace_sealed", async { store.replace_sealed(SealedTable::Flows, &[]).await.err() }),
        said("expected_rows", async { store.expected_rows().await.err() }),
        said("reencryption", async { store.reencryption().await.err() }),
        said("request", async { store.request_reencryption(at(1)).await.err() }),
        said("take_work", async { store.take_reencryption(owner(1), at(1), LEASE).await.err() }),
        said("save_work", async { store.save_reencryption(owner(1), &step, at(1), LEASE).await.err() }),
        said("rows_per_key", async { store.rows_per_key(1).await.err() }),
        said("forget_passes", async { store.forget_passes(1).await.err() }),
    ])
    .await
}

/// Of tenants' own apps.
async fn about_configs(store: &PgStore) -> Vec<Said> {
    let (acme, google) = (tenant("acme"), provider("google"));
    let config = provider_config("acme", "google", 1);
    futures_util::future::join_all([
        said("list_configs", async { store.list_provider_configs(&acme, None, 9).await.err() }),
        said("load_config", async { store.load_provider_config(&acme, &google).await.err() }),
        said("insert_config", async { store.insert_provider_config(config.clone()).await.err() }),
        said("update_config", async { store.update_provider_config(config.clone()).await.err() }),
        said("delete_config", async { store.delete_provider_config(&acme, &google, true).await.err() }),
        said("due_configs", async { store.due_provider_configs(at(1), 9).await.err() }),
    ])
    .await
}

/// Of callers and tenants.
async fn about_callers(store: &PgStore) -> Vec<Said> {
    let acme = tenant("acme");
    let row = caller("acme", "agents");
    let key = api_key(1, &row, 1);
    let identity = Identity::ApiKey(key.hash);
    let claim = Claim::Id(acme.clone(), row.id.clone());
    let new = Tenant {
        id: acme.clone(),
        display_name: "Acme".to_owned(),
        created_at: at(1),
        disabled_at: None,
        deleted_at: None,
    };
    futures_util::future::join_all([
        said("find_caller", async { store.find_caller(&identity).await.err() }),
        said("load_caller", async { store.load_caller(&acme, &row.id).await.err() }),
        said("taken", async { store.taken(&[claim]).await.err() }),
        said("list_callers", async { store.list_callers(&acme, None, 9).await.err() }),
        said("insert_caller", async { store.insert_caller(row.clone()).await.err() }),
        said("update_caller", async { store.update_caller(row.clone()).await.err() }),
        said("delete_caller", async { store.delete_caller(&acme, &row.id).await.err() }),
        said("insert_api_key", async { store.insert_api_key(key.clone()).await.err() }),
        said("list_api_keys", async { store.list_api_keys(&acme, &row.id).await.err() }),
        said("rotate_api_key", async { store.rotate_api_key(key.key.id, at(2), key.clone()).await.err() }),
        said("revoke_api_key", async { store.revoke_api_key(&acme, &row.id, key.key.id, at(2)).await.err() }),
        said("mark_api_key_used", async { store.mark_api_key_used(key.key.id, at(2)).await.err() }),
        said("load_tenant", async { store.load_tenant(&acme).await.err() }),
        said("list_tenants", async { store.list_tenants(None, 9).await.err() }),
        said("insert_tenant", async { store.insert_tenant(new.clone()).await.err() }),
        said("update_tenant", async { store.update_tenant(new.clone()).await.err() }),
    ])
    .await
}

/// Of the audit log and events.
async fn about_the_log(store: &PgStore) -> Vec<Said> {
    let acme = tenant("acme");
    let over = Head::default();
    let row = audit_rows(over, vec![Entry::new(at(1), acme.clone(), "GetCredential", Outcome::Allowed)]);
    let query = AuditQuery::all(acme.clone(), 9);
    let start = EventPosition::default();
    let events = EventQuery { tenant: acme.clone(), user: None, after: start, limit: 9 };
    futures_util::future::join_all([
        said("audit_head", async { store.audit_head(&acme).await.err() }),
        said("append_audit", async { store.append_audit(&acme, over, &row).await.err() }),
        said("audit_after", async { store.audit_after(&acme, 0, 9).await.err() }),
        said("find_audit", async { store.find_audit(&query).await.err() }),
        said("last_prune", async { store.last_audit_prune(&acme).await.err() }),
        said("last_before", async { store.last_audit_before(&acme, at(1)).await.err() }),
        said("delete_through", async { store.delete_audit_through(&acme, 1, 9).await.err() }),
        said("audit_tenants", async { store.audit_tenants().await.err() }),
        said("events_after", async { store.events_after(events).await.err() }),
        said("newest_position", async { store.newest_position().await.err() }),
        said("may_follow", async { store.may_follow(start).await.err() }),
        said("delete_events", async { store.delete_events_before(at(1), 9).await.err() }),
    ])
    .await
}

fn said<'c>(
    method: &'static str,
    call: impl Future<Output = Option<StoreError>> + 'c,
) -> LocalBoxFuture<'c, Said> {
    async move { (method, call.await) }.boxed_local()
}
