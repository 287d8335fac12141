//! Users of two tenants at two replicas, in any order: whatever is answered is of the user and tenant that was asked about.
//! Both tenants have users of the same names, so that a lock, cache, list or event that forgot the tenant shows.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use tempfile::NamedTempFile;
use token_broker::r#gen::v1 as pb;
use token_broker::r#gen::v1::acquire_lease_response::Result as Acquired;
use token_broker::r#gen::v1::get_credential_response::Result as Got;
use tokio::task::JoinSet;
use tonic::Streaming;

use crate::engines::postgres;
use crate::engines::redis::{Options as RedisOptions, Redis};
use crate::splitmix;
use crate::support::broker::{BrokerBuilder, CallerRights, TestBroker, answered};
use crate::support::browser::{Answer, Browser};
use crate::support::consent::key;
use crate::support::oidc::{OidcOptions, OidcServer, digest, subject};

/// (Caller, the callers' tenants differ; user; who that is at the provider). No name means the same in both tenants.
const PEOPLE: [(&str, &str, &str); 6] = [
    ("of-acme", "alice", "alice"),
    ("of-acme", "bob", "bob"),
    ("of-acme", "carol", "carol"),
    ("of-globex", "alice", "bob"),
    ("of-globex", "bob", "carol"),
    ("of-globex", "carol", "alice"),
];
/// Whose connection is revoked in the middle; the one of the same name in the other tenant stays.
const REVOKED: usize = 1;
/// Whose connection is revoked at the end, of the other tenant.
const LAST: usize = 3;
const WORKERS: u64 = 12;
const CALLS: u64 = 24;

/// The order of a worker's calls comes from its seed. How they meet, the scheduler decides.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        splitmix::next(&mut self.0) % sides
    }
}

struct World {
    oidc: OidcServer,
    replicas: [TestBroker; 2],
    /// Tokens that were answered: whom for, and the token.
    got: Mutex<Vec<(usize, String)>>,
    /// Of the last token that each was given.
    generations: Mutex<[i64; 6]>,
    _redis: Redis,
    _key: NamedTempFile,
}

impl World {
    async fn new() -> Self {
        let oidc = OidcServer::start(OidcOptions::default()).await;
        let redis = Redis::start(RedisOptions::default());
        let database = postgres::shared().url(&postgres::shared().migrated_database().await);
        let vault_key = NamedTempFile::new().unwrap();
        std::fs::write(vault_key.path(), BASE64_STANDARD.encode([9; 32])).unwrap();
        let replica = || {
            BrokerBuilder::new()
                .oidc(&oidc)
                .caller("of-acme", CallerRights::all("acme"))
                .caller("of-globex", CallerRights::all("globex"))
                .set("storage.url", database.as_str())
                .set("redis.url", redis.url())
                .set("vault.keys.test.file", vault_key.path().to_str().unwrap())
                .spawn_process()
        };
        let replicas = [replica().await, replica().await];
        Self {
            oidc,
            replicas,
            got: Mutex::default(),
            generations: Mutex::new([1; 6]),
            _redis: redis,
            _key: vault_key,
        }
    }

    /// One consent after the other: the provider's first token requests are in the order of [`PEOPLE`].
    async fn connect(&self) {
        for (caller, user, person) in PEOPLE {
            let request = pb::BeginOAuthRequest {
                provider: "oidc".to_owned(),
                user_id: user.to_owned(),
                services: vec!["mail".to_owned()],
                ..pb::BeginOAuthRequest::default()
            };
            let mut client = self.replicas[0].client(caller).await;
            let flow = answered(client.begin_o_auth(request).await).flow.unwrap();
            let page = Browser::new().consent(&flow.authorization_url, person, Answer::Allow).await;
            assert!(page.status.is_success(), "{}", page.text());
        }
    }

    /// Whose each access token is that the provider has given out: it descends from the consent.
    async fn owners(&self) -> HashMap<String, usize> {
        let (mut refresh, mut access, mut consents) = (HashMap::new(), HashMap::new(), 0);
        for request in self.oidc.token_requests().await.into_iter().filter(|r| r.outcome == "ok") {
            let owner = match &request.presented {
                Some(presented) => refresh[presented],
                None => consents,
            };
            consents += usize::from(request.presented.is_none());
            refresh.insert(request.issued_refresh.unwrap(), owner);
            access.insert(request.issued_access.unwrap(), owner);
        }
        assert_eq!(consents, PEOPLE.len());
        access
    }

    async fn one_call(&self, dice: &mut Dice) {
        let replica = &self.replicas[usize::try_from(dice.below(2)).unwrap()];
        let who = usize::try_from(dice.below(6)).unwrap();
        let (caller, user, person) = PEOPLE[who];
        let mut client = if dice.below(4) == 0 {
            replica.client(caller).await
        } else {
            replica.shared_client(caller).await
        };
        match dice.below(10) {
            0..5 => {
                let request = pb::GetCredentialRequest { key: Some(key(user, "mail")), ..Default::default() };
                match answered(client.get_credential(request).await).result.unwrap() {
                    Got::Credential(token) => self.take(who, token),
                    Got::AuthorizationRequired(_) => Self::is_gone(who),
                }
            }
            5..7 => {
                let expected_generation = self.generations.lock().unwrap()[who];
                let request = pb::RefreshRequest { key: Some(key(user, "mail")), expected_generation };
                match answered(client.refresh(request).await).result.unwrap() {
                    pb::refresh_response::Result::Credential(token) => self.take(who, token),
                    pb::refresh_response::Result::AuthorizationRequired(_) => Self::is_gone(who),
                }
            }
            7 => {
                let request = pb::AcquireLeaseRequest { key: Some(key(user, "mail")), ..Default::default() };
                match answered(client.acquire_lease(request).await).result.unwrap() {
                    Acquired::Leased(leased) => {
                        self.take(who, leased.credential.unwrap());
                        let lease_id = leased.lease.unwrap().lease_id;
                        let request = pb::ReleaseLeaseRequest { key: Some(key(user, "mail")), lease_id };
                        answered(client.release_lease(request).await);
                    }
                    Acquired::AuthorizationRequired(_) => Self::is_gone(who),
                }
            }
            _ => {
                // Of everybody, or of one.
                let all = dice.below(2) == 0;
                let user_id = if all { String::new() } else { user.to_owned() };
                let request = pb::ListCredentialsRequest { user_id, ..Default::default() };
                let listed = answered(client.list_credentials(request).await).credentials;
                assert!(listed.len() <= if all { 3 } else { 1 }, "{caller}: {}", listed.len());
                for one in listed {
                    let whose = one.user_id;
                    let person = if all { person_of(caller, &whose) } else { person };
                    assert_eq!(one.provider_account.unwrap().subject, subject(person), "{caller}, {whose}");
                }
            }
        }
    }

    fn take(&self, who: usize, token: pb::Credential) {
        assert_eq!(token.account.unwrap().subject, subject(PEOPLE[who].2), "{:?}", PEOPLE[who]);
        self.generations.lock().unwrap()[who] = token.generation;
        self.got.lock().unwrap().push((who, token.access_token));
    }

    fn is_gone(who: usize) {
        assert_eq!(who, REVOKED, "the others stay connected");
    }

    /// Watches a tenant at each replica, from now on.
    async fn watch(&self, caller: &str) -> Vec<Streaming<pb::WatchCredentialsResponse>> {
        let mut streams = Vec::new();
        for replica in &self.replicas {
            let request = pb::WatchCredentialsRequest::default();
            let mut stream = answered(replica.client(caller).await.watch_credentials(request).await);
            assert!(stream.next().await.unwrap().unwrap().event.is_none(), "the first only has the cursor");
            streams.push(stream);
        }
        streams
    }

    async fn revoke(&self, who: usize) {
        let (caller, user, _) = PEOPLE[who];
        let request = pb::RevokeRequest { key: Some(key(user, "mail")), force: true };
        answered(self.replicas[1].client(caller).await.revoke(request).await);
    }
}

/// The user of the next event.
async fn next_user(stream: &mut Streaming<pb::WatchCredentialsResponse>) -> String {
    loop {
        if let Some(event) = stream.next().await.unwrap().unwrap().event {
            return event.user_id;
        }
    }
}

fn person_of(caller: &str, user: &str) -> &'static str {
    PEOPLE.iter().find(|(of, id, _)| *of == caller && *id == user).unwrap().2
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_is_of_the_user_and_tenant_that_was_asked_about() {
    let world = Arc::new(World::new().await);
    world.connect().await;
    let (acme, globex) = (world.watch("of-acme").await, world.watch("of-globex").await);
    for seed in [2026, 11, 26] {
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let world = Arc::clone(&world);
            workers.spawn(async move {
                let mut dice = Dice(seed << 32 | worker);
                for call in 0..CALLS {
                    if (seed, worker, call) == (11, 0, CALLS / 2) {
                        world.revoke(REVOKED).await;
                    }
                    world.one_call(&mut dice).await;
                }
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
    let owners = world.owners().await;
    let got = world.got.lock().unwrap().clone();
    for (who, token) in &got {
        assert_eq!(
            owners[&digest(token)],
            *who,
            "{:?} got a token of {:?}",
            PEOPLE[*who],
            owners[&digest(token)]
        );
    }
    let served: BTreeSet<_> = got.iter().map(|(who, _)| who).collect();
    assert_eq!(served.len(), PEOPLE.len(), "everybody got tokens");
    let distinct: BTreeSet<_> = got.iter().map(|(_, token)| token).collect();
    assert!(distinct.len() > 2 * PEOPLE.len(), "they were refreshed on the way: {}", distinct.len());
    assert!(world.oidc.refreshes().await.iter().all(|r| !r.presented_before));
    // The revocation in acme is the last but one event of all, and nobody in globex has heard of it.
    world.revoke(LAST).await;
    for (streams, user) in [(acme, PEOPLE[REVOKED].1), (globex, PEOPLE[LAST].1)] {
        for mut stream in streams {
            assert_eq!(next_user(&mut stream).await, user);
        }
    }
}
