//! One of the replicas of a [`Rig`](super::rig::Rig): its own process run, journal, steps and faults; everything else is
//! shared.

use std::sync::Arc;

use token_broker::application::types::{
    AccessGrant, AuthorizationRequired, GetCredentialInput, RefreshInput, RevokeAnswer, TokenAnswer,
};
use token_broker::application::{Broker, error::BrokerError};
use token_broker::domain::access_policy::Principal;
use token_broker::domain::coordination::FormerRun;
use token_broker::domain::key::ClaimOwner;
use token_broker::domain::step::Step;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::faulty_store::Faults;
use super::life::Life;
use super::memory_journal::MemoryJournal;
use super::rig::{get_input, required, service, token, user_service};

#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) broker: Arc<Broker>,
    pub(crate) owner: ClaimOwner,
    pub(crate) life: Arc<Life>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) caller: Principal,
    pub(crate) tasks: TaskTracker,
}

impl Replica {
    /// Waits for everything that runs in the background.
    pub(crate) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// A round of the sweeper, and what it begins.
    pub(crate) async fn sweep(&self) {
        self.broker.sweep().await;
        self.settle().await;
    }

    /// A round of the refreshes ahead of expiry, and what it begins.
    pub(crate) async fn refresh_due(&self) -> bool {
        let more = self.broker.refresh_due().await;
        self.settle().await;
        more
    }

    pub(crate) async fn ask(&self, input: GetCredentialInput) -> Result<TokenAnswer, BrokerError> {
        self.broker.get_credential(&self.caller, input).await
    }

    pub(crate) async fn get(&self) -> Result<TokenAnswer, BrokerError> {
        self.ask(get_input("mail")).await
    }

    /// The same from a task of its own, which hangs with a replica that stops.
    pub(crate) fn get_meanwhile(&self) -> JoinHandle<Result<TokenAnswer, BrokerError>> {
        let replica = self.clone();
        tokio::spawn(async move { replica.get().await })
    }

    /// Begins to answer a reader, and stops at this step.
    pub(crate) async fn stops_at(&self, step: Step) -> JoinHandle<Result<TokenAnswer, BrokerError>> {
        self.life.stop_at(step);
        let reader = self.get_meanwhile();
        self.life.has_stopped().await;
        reader
    }

    pub(crate) async fn revoke(&self) -> Result<RevokeAnswer, BrokerError> {
        self.broker.revoke(&self.caller, service("mail"), false).await
    }

    /// The same from a task of its own, which hangs with a replica that stops.
    pub(crate) fn revoke_meanwhile(&self) -> JoinHandle<Result<RevokeAnswer, BrokerError>> {
        let replica = self.clone();
        tokio::spawn(async move { replica.revoke().await })
    }

    pub(crate) async fn get_of(&self, user: &str) -> Result<TokenAnswer, BrokerError> {
        let mut input = get_input("mail");
        input.key = user_service(user, "mail");
        self.ask(input).await
    }

    /// The token; anything else fails the test.
    pub(crate) async fn token(&self) -> Box<AccessGrant> {
        token(self.get().await)
    }

    /// The need to consent; anything else fails the test.
    pub(crate) async fn required(&self) -> AuthorizationRequired {
        required(self.get().await)
    }

    pub(crate) async fn refresh(&self, expected_generation: i64) -> Result<TokenAnswer, BrokerError> {
        let input = RefreshInput { key: service("mail"), expected_generation, time_left: None };
        self.broker.refresh(&self.caller, input).await
    }

    /// What the next process finds in this one's journal.
    pub(crate) fn left_behind(&self) -> FormerRun {
        self.journal.left_behind(self.owner)
    }
}
