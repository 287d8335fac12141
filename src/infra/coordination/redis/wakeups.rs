//! Wake-ups between replicas, by one channel. Waiters of this process are woken directly as well.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use redis::aio::PubSub;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connector::Connector;
use super::link::{Link, Pauses};
use crate::domain::coordination::{Wake, Wakeups};
use crate::domain::key::{CredentialId, TenantId};
use crate::infra::coordination::waiters::Waiters;

/// How often a silent channel is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A subscription that lasted so long was a good one: the next attempt comes at once.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct RedisWakeups {
    link: Arc<Link>,
    channel: String,
    waiters: Arc<Waiters>,
    attempted: watch::Receiver<bool>,
    connect_timeout: Duration,
    _subscriber: AbortOnDropHandle<()>,
}

impl RedisWakeups {
    /// Begins to subscribe. Goes on for good, whatever breaks.
    pub(super) fn start(connector: Connector, link: Arc<Link>, channel: String) -> Self {
        let waiters = Arc::new(Waiters::default());
        let connect_timeout = connector.connect_timeout;
        let (attempted_sender, attempted) = watch::channel(false);
        let subscriber = Subscriber {
            connector,
            channel: channel.clone(),
            waiters: waiters.clone(),
            attempted: attempted_sender,
        };
        let subscriber = AbortOnDropHandle::new(tokio::spawn(subscriber.run()));
        Self { link, channel, waiters, attempted, connect_timeout, _subscriber: subscriber }
    }

    /// Ends when the first attempt has.
    pub(super) async fn first_attempt(&self) {
        let ended = async { self.attempted.clone().wait_for(|attempted| *attempted).await.is_ok() };
        let _ = timeout(self.connect_timeout, ended).await;
    }
}

#[async_trait]
impl Wakeups for RedisWakeups {
    async fn publish(&self, wake: Wake) {
        self.waiters.wake(&wake);
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.channel).arg(to_message(&wake));
        // Whoever misses it polls; the failure is counted where the command was sent.
        let _ = self.link.command::<()>("publish", &command).await;
    }

    fn listen(&self, wake: &Wake) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.waiters.listen(wake)
    }
}

fn to_message(wake: &Wake) -> String {
    match wake {
        Wake::Credential(id) => format!("c:{id}"),
        Wake::Events(tenant) => format!("e:{tenant}"),
    }
}

/// `None`: a later version's, or not a broker's.
fn from_message(message: &[u8]) -> Option<Wake> {
    match std::str::from_utf8(message).ok()?.split_once(':')? {
        ("c", id) => CredentialId::parse(id).map(Wake::Credential),
        ("e", tenant) => TenantId::new(tenant).ok().map(Wake::Events),
        _ => None,
    }
}

/// Hears the channel.
struct Subscriber {
    connector: Connector,
    channel: String,
    waiters: Arc<Waiters>,
    attempted: watch::Sender<bool>,
}

impl Subscriber {
    async fn run(mut self) {
        let mut pauses = Pauses::default();
        loop {
            let began = Instant::now();
            let subscribed = self.connector.subscribe(&self.channel).await;
            if subscribed.is_ok() {
                // Nobody knows what was told meanwhile.
                self.waiters.wake_all();
            }
            self.attempted.send_replace(true);
            if let Ok(messages) = subscribed {
                self.hear(messages).await;
                if began.elapsed() >= GOOD_LIFE {
                    pauses = Pauses::default();
                    continue;
                }
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Ends with the connection.
    async fn hear(&self, messages: PubSub) {
        let (mut asking, mut messages) = messages.split();
        loop {
            match timeout(HEARTBEAT, messages.next()).await {
                Ok(Some(message)) => {
                    if let Some(wake) = from_message(message.get_payload_bytes()) {
                        self.waiters.wake(&wake);
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    let answer =
                        timeout(self.connector.response_timeout, asking.ping::<redis::Value>()).await;
                    if !matches!(answer, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let wakes = [
            Wake::Credential(CredentialId::from_bytes([7; 16])),
            Wake::Events(TenantId::new("acme.example").unwrap()),
        ];
        for wake in wakes {
            assert_eq!(from_message(to_message(&wake).as_bytes()), Some(wake));
        }
        for other in [&b""[..], b"c:", b"c:7", b"e:", b"e:A", b"x:1", b"c", b"\xff:", b"c:\xff"] {
            assert_eq!(from_message(other), None, "{other:?}");
        }
    }
}
