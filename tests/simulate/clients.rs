//! Those who call the brokers, and what they remember.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use token_broker::application::error::BrokerError;
use token_broker::application::types::{
    GetCredentialInput, ImportInput, RefreshInput, ServiceKey, TokenAnswer,
};
use token_broker::domain::key::{Account, ServiceId, UserId};
use token_broker::domain::scope::ScopeSet;
use token_broker::domain::secret::SecretString;
use token_broker::domain::token_set::ProviderAccount;
use tokio::time::{Instant, sleep, timeout};

use super::faults::Fault;
use super::provider::ACCESS_LIFE;
use super::world::{World, caller, provider_id};

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(8);

/// A call that was made, with its times. `acknowledged`: `None` if nobody knows what became of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) invoked: Instant,
    pub(crate) acknowledged: Option<Instant>,
}

/// What was done for one user.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// Consents, with the number of the provider's grant.
    pub(crate) consents: Vec<(usize, Call)>,
    pub(crate) revokes: Vec<Call>,
    /// Access tokens that were handed out, and when they were asked for.
    pub(crate) reads: Vec<(Instant, String)>,
}

pub(crate) struct Clients {
    world: Arc<World>,
    histories: Vec<Mutex<History>>,
    /// A user consents once at a time.
    consenting: Vec<tokio::sync::Mutex<()>>,
}

pub(crate) fn service_key(user: usize) -> ServiceKey {
    ServiceKey {
        provider: provider_id(),
        user: UserId::new(format!("user-{user}")).unwrap(),
        service: ServiceId::new("files").unwrap(),
        account: Account::default(),
    }
}

impl Clients {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        let users = world.faults.plan.users;
        Arc::new(Self {
            world: Arc::clone(world),
            histories: (0..users).map(|_| Mutex::default()).collect(),
            consenting: (0..users).map(|_| tokio::sync::Mutex::default()).collect(),
        })
    }

    pub(crate) fn histories(&self) -> Vec<History> {
        self.histories.iter().map(|history| history.lock().unwrap().clone()).collect()
    }

    /// Calls now and then, until the time is over.
    pub(crate) async fn live(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            sleep(self.world.dice.up_to(Duration::from_secs(10))).await;
            let user = usize::try_from(self.world.dice.below(self.histories.len() as u64)).unwrap();
            match self.world.dice.below(20) {
                0 if self.world.dice.one_in(2) => self.revoke(user).await,
                0..4 => self.report(user).await,
                _ => self.read(user).await,
            }
        }
    }

    /// `GetCredential`; consents if that is what it takes.
    pub(crate) async fn read(&self, user: usize) {
        let input = GetCredentialInput {
            key: service_key(user),
            scopes: ScopeSet::default(),
            min_ttl: self.world.dice.up_to(ACCESS_LIFE / 4),
            begin_if_missing: None,
            time_left: None,
        };
        let (broker, invoked) = (self.world.any_broker(), Instant::now());
        let answer = timeout(PATIENCE, broker.get_credential(&caller(), input)).await;
        self.answered(user, invoked, answer.ok()).await;
    }

    /// `Refresh`: the provider's API has refused the token.
    async fn report(&self, user: usize) {
        let row =
            self.world.store.credentials().into_iter().find(|row| row.key.user == service_key(user).user);
        let Some(row) = row else { return };
        let back = i64::from(self.world.dice.one_in(4));
        let input = RefreshInput {
            key: service_key(user),
            expected_generation: row.generation - back,
            time_left: None,
        };
        let (broker, invoked) = (self.world.any_broker(), Instant::now());
        let answer = timeout(PATIENCE, broker.refresh(&caller(), input)).await;
        self.answered(user, invoked, answer.ok()).await;
    }

    async fn answered(
        &self,
        user: usize,
        invoked: Instant,
        answer: Option<Result<TokenAnswer, BrokerError>>,
    ) {
        match answer {
            Some(Ok(TokenAnswer::Token(token))) => {
                let access = token.access_token.expose_secret().to_owned();
                self.histories[user].lock().unwrap().reads.push((invoked, access));
            }
            Some(Ok(TokenAnswer::AuthorizationRequired(_))) => self.consent(user).await,
            Some(Err(error @ (BrokerError::DataLoss | BrokerError::Internal))) => {
                self.world.violated(format!("a reader was told: {error}"));
            }
            Some(Err(_)) | None => {}
        }
    }

    pub(crate) async fn revoke(&self, user: usize) {
        let (broker, invoked) = (self.world.any_broker(), Instant::now());
        let answer = timeout(PATIENCE, broker.revoke(&caller(), service_key(user), false)).await;
        let done = matches!(answer, Ok(Ok(_)));
        let call = Call { invoked, acknowledged: done.then(Instant::now) };
        self.histories[user].lock().unwrap().revokes.push(call);
        self.world.faults.happened(Fault::Revoked);
    }

    /// A new grant, unless somebody else is at it.
    pub(crate) async fn consent(&self, user: usize) {
        let Ok(_turn) = self.consenting[user].try_lock() else { return };
        let (grant, access, refresh) = self.world.provider.consent();
        let again = !self.histories[user].lock().unwrap().consents.is_empty();
        let input = ImportInput {
            key: service_key(user),
            access_token: SecretString::new(access),
            refresh_token: Some(SecretString::new(refresh)),
            token_type: "Bearer".to_owned(),
            expires_at: Some(
                token_broker::domain::ports::Clock::now(&super::link::SimClock(self.world.began))
                    + ACCESS_LIFE,
            ),
            scopes: ScopeSet::default(),
            account: ProviderAccount::default(),
            extra: BTreeMap::new(),
            overwrite: true,
        };
        let (broker, invoked) = (self.world.any_broker(), Instant::now());
        let answer = timeout(PATIENCE, broker.import_credential(&caller(), input)).await;
        let done = matches!(answer, Ok(Ok(_)));
        let call = Call { invoked, acknowledged: done.then(Instant::now) };
        self.histories[user].lock().unwrap().consents.push((grant, call));
        if again {
            self.world.faults.happened(Fault::ConsentedAgain);
        }
    }
}
