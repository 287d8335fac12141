//! The connection for commands: one, shared by all calls, kept alive by a task of its own.
//!
//! A call never connects. It uses the connection that is there, waits a moment while the first attempt after a loss is under
//! way, and fails at once while Redis is known to be down.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connector::{Connector, Wire};
use super::error::{CallError, ConnectError};
use super::script::ScriptCall;
use crate::domain::coordination::CoordinationError;

/// How often a connection that nobody uses is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Between attempts to connect, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that lasted so long was a good one: the next attempt comes at once.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Link {
    state: watch::Receiver<State>,
    /// The number of the last connection that a call found broken.
    broken: watch::Sender<u64>,
    response_timeout: Duration,
    connect_timeout: Duration,
    _keeper: AbortOnDropHandle<()>,
}

#[derive(Clone)]
enum State {
    /// The first attempt, at the start or after a loss, is under way.
    Connecting,
    Up {
        wire: Wire,
        number: u64,
    },
    /// The last attempt failed, or a connection did not last. Attempts go on.
    Down(Option<Arc<ConnectError>>),
}

impl Link {
    /// Begins to connect.
    pub(super) fn start(connector: Connector) -> Self {
        let (state_sender, state) = watch::channel(State::Connecting);
        let (broken, broken_receiver) = watch::channel(0);
        let (response_timeout, connect_timeout) = (connector.response_timeout, connector.connect_timeout);
        let keeper = Keeper { connector, state: state_sender, broken: broken_receiver };
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        Self { state, broken, response_timeout, connect_timeout, _keeper: keeper }
    }

    /// Ends when the first attempt has.
    pub(super) async fn first_attempt(&self) {
        let ended =
            async { self.state.clone().wait_for(|state| !matches!(state, State::Connecting)).await.is_ok() };
        let _ = timeout(self.connect_timeout, ended).await;
    }

    /// Sends a command. `operation` is for the metric.
    pub(super) async fn command<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, CoordinationError> {
        self.call(operation, command, None).await
    }

    /// Runs a script. `operation` is for the metric.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        operation: &'static str,
        call: &ScriptCall,
    ) -> Result<T, CoordinationError> {
        self.call(operation, &call.by_hash, Some(&call.in_full)).await
    }

    async fn call<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
        without_script: Option<&Cmd>,
    ) -> Result<T, CoordinationError> {
        let error = match self.exchange(command, without_script).await {
            Ok(value) => match redis::from_redis_value(value) {
                Ok(value) => return Ok(value),
                Err(_) => CoordinationError::Corrupt("an answer of another kind"),
            },
            Err(CallError::Refused(error)) if error.code() == Some("WRONGTYPE") => {
                CoordinationError::Corrupt("a value of another kind")
            }
            Err(error) => CoordinationError::Unreachable(Box::new(error)),
        };
        failed(operation);
        Err(error)
    }

    async fn exchange(&self, command: &Cmd, without_script: Option<&Cmd>) -> Result<redis::Value, CallError> {
        let mut used = None;
        let exchange = async {
            let (mut wire, number) = self.wire().await?;
            used = Some(number);
            match (wire.send(command).await, without_script) {
                (Err(error), Some(in_full)) if is_unknown_script(&error) => wire.send(in_full).await,
                (result, _) => result,
            }
            .map_err(CallError::Refused)
        };
        let result = timeout(self.response_timeout, exchange).await.unwrap_or(Err(CallError::TimedOut));
        if let (Err(error), Some(number)) = (&result, used)
            && error.is_of_the_connection()
        {
            self.broken.send_if_modified(|broken| {
                let news = *broken < number;
                *broken = number.max(*broken);
                news
            });
        }
        result
    }

    /// The connection and its number.
    async fn wire(&self) -> Result<(Wire, u64), CallError> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match known.as_deref() {
            Ok(State::Up { wire, number }) => Ok((wire.clone(), *number)),
            Ok(State::Down(why)) => Err(CallError::NotConnected(why.clone())),
            _ => Err(CallError::NotConnected(None)),
        }
    }
}

/// Counts a call that had no answer, or none that can be read.
pub(super) fn failed(operation: &'static str) {
    metrics::counter!("token_broker_redis_errors_total", "operation" => operation).increment(1);
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Connects, looks after the connection, and connects again.
struct Keeper {
    connector: Connector,
    state: watch::Sender<State>,
    broken: watch::Receiver<u64>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pauses = Pauses::default();
        let mut number = 0;
        loop {
            let why = match self.connector.connect().await {
                Ok(wire) => {
                    number += 1;
                    let began = Instant::now();
                    self.tell(State::Up { wire: wire.clone(), number });
                    tracing::info!("Redis is connected");
                    self.until_broken(wire, number).await;
                    tracing::warn!("the connection to Redis is lost");
                    if began.elapsed() >= GOOD_LIFE {
                        pauses = Pauses::default();
                        self.tell(State::Connecting);
                        continue;
                    }
                    None
                }
                Err(error) => {
                    if pauses.is_first() {
                        tracing::warn!(%error, "Redis is not available");
                    }
                    Some(Arc::new(error))
                }
            };
            self.tell(State::Down(why));
            tokio::time::sleep(pauses.next()).await;
        }
    }

    fn tell(&self, state: State) {
        up(matches!(state, State::Up { .. }));
        self.state.send_replace(state);
    }

    /// Ends when a call or a heartbeat found the connection broken.
    async fn until_broken(&mut self, mut wire: Wire, number: u64) {
        // A cluster's connection mends itself, node by node: another one would know less of its nodes.
        let mends_itself = matches!(wire, Wire::Cluster(_));
        loop {
            let broken = self.broken.wait_for(|broken| *broken >= number && !mends_itself);
            if timeout(HEARTBEAT, broken).await.is_ok() {
                return;
            }
            // In a cluster, all nodes that own slots are asked.
            let answer = timeout(self.connector.response_timeout, wire.send(&redis::cmd("PING"))).await;
            let alive = matches!(answer, Ok(Ok(_)));
            if !alive && !mends_itself {
                return;
            }
            up(alive);
        }
    }
}

fn up(is: bool) {
    metrics::gauge!("token_broker_redis_up").set(if is { 1.0 } else { 0.0 });
}

/// Ever longer pauses.
#[derive(Default)]
pub(super) struct Pauses(u32);

impl Pauses {
    pub(super) fn is_first(&self) -> bool {
        self.0 == 0
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.0.min(8)).min(LONGEST_PAUSE);
        self.0 = self.0.saturating_add(1);
        pause
    }
}
