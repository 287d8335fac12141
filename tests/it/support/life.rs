//! The life of one replica: a test hears of the steps of its refreshes, and stops it at one of them, for a while or for
//! good. A replica that is stopped does nothing to the world any more: each call through a port waits until it goes on.

use std::sync::Mutex;

use token_broker::domain::key::CredentialId;
use token_broker::domain::step::{Step, Steps};
use tokio::sync::watch;

pub(crate) struct Life {
    stopped: watch::Sender<bool>,
    taken: watch::Sender<Vec<Step>>,
    stop_at: Mutex<Option<Step>>,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            stopped: watch::Sender::new(false),
            taken: watch::Sender::default(),
            stop_at: Mutex::default(),
        }
    }
}

impl Life {
    /// Stops when it next takes this step.
    pub(crate) fn stop_at(&self, step: Step) {
        *self.stop_at.lock().unwrap() = Some(step);
    }

    /// Waits until it has stopped.
    pub(crate) async fn has_stopped(&self) {
        self.stopped.subscribe().wait_for(|stopped| *stopped).await.unwrap();
    }

    /// Stopped, it goes on.
    pub(crate) fn resume(&self) {
        self.stopped.send_replace(false);
    }

    /// The steps so far.
    pub(crate) fn taken(&self) -> Vec<Step> {
        self.taken.borrow().clone()
    }

    /// Waits until it has taken this step.
    pub(crate) async fn has_taken(&self, step: Step) {
        self.taken.subscribe().wait_for(|taken| taken.contains(&step)).await.unwrap();
    }

    /// At the door of every port.
    pub(crate) async fn goes_on(&self) {
        self.stopped.subscribe().wait_for(|stopped| !*stopped).await.unwrap();
    }
}

impl Steps for Life {
    fn reached(&self, step: Step, _: CredentialId) {
        if self.stop_at.lock().unwrap().take_if(|at| *at == step).is_some() {
            self.stopped.send_replace(true);
        }
        self.taken.send_modify(|taken| taken.push(step));
    }
}
