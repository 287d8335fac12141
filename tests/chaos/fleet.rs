//! The replicas: started, watched, killed, stopped, started again.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use token_broker::domain::step::Step;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::broker::KILLED;
use crate::clock;
use crate::history::{Disturbance, Micros, Reached, Replica, Run};
use crate::record::Record;
use crate::site::Site;

/// How long a start or an end may take. Never waited for in a run that passes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a replica may take to say whether it is ready.
const ASK: Duration = Duration::from_secs(2);
/// Between two attempts to start while the database is away.
const START_AGAIN: Duration = Duration::from_millis(300);

/// Which program a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// The binary as it is delivered.
    Product,
    /// The same library in this binary, which listens to the steps and obeys orders.
    Obedient,
    /// That without the claim.
    Naive,
}

/// A replica's process, if it runs.
struct Live {
    run: Run,
    pid: Pid,
    stdin: ChildStdin,
    serves: bool,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    runs: u32,
    /// Steps to die at; they outlive the process, since some are reached at a start alone.
    orders: BTreeSet<Step>,
    /// The harness has asked the running process to end.
    asked: bool,
    /// When and how the harness killed the running process.
    killed: Option<(Micros, String)>,
    /// The killed run that no other has followed yet.
    fallen: Option<(Run, Micros)>,
}

/// The replicas.
pub(crate) struct Fleet {
    site: Arc<Site>,
    record: Arc<Record>,
    build: Build,
    states: Vec<Mutex<State>>,
    serving: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
}

impl Fleet {
    pub(crate) fn new(site: Arc<Site>, record: Arc<Record>, build: Build) -> Arc<Self> {
        let states = site.replicas.iter().map(|_| Mutex::default()).collect();
        Arc::new(Self {
            site,
            record,
            build,
            states,
            serving: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
        })
    }

    pub(crate) fn size(&self) -> usize {
        self.states.len()
    }

    /// Starts all and keeps them running. Answers when all serve.
    pub(crate) async fn start(self: &Arc<Self>) -> Vec<JoinHandle<Option<ExitStatus>>> {
        let keepers = (0..self.size()).map(|replica| tokio::spawn(Arc::clone(self).keep(replica))).collect();
        self.wait_until_all_serve().await;
        keepers
    }

    /// Waits until every replica serves.
    pub(crate) async fn wait_until_all_serve(&self) {
        let mut changes = self.serving.subscribe();
        let all = async {
            loop {
                changes.borrow_and_update();
                let mut serving = 0;
                for state in &self.states {
                    let state = state.lock().await;
                    serving += usize::from(state.live.as_ref().is_some_and(|live| live.serves));
                }
                if serving == self.size() {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            self.record.incident("not all replicas serve".to_owned());
        }
    }

    /// Waits until every replica says that it can use the database.
    pub(crate) async fn wait_until_all_are_ready(&self) {
        let browser = reqwest::Client::builder().no_proxy().timeout(ASK).build().unwrap();
        let all = async {
            for replica in &self.site.replicas {
                let url = format!("http://127.0.0.1:{}/readyz", replica.operations);
                while !browser.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                    sleep(START_AGAIN).await;
                }
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            self.record.incident("not all replicas are ready".to_owned());
        }
    }

    /// One replica, for the length of the run. Answers how its last process ended.
    async fn keep(self: Arc<Self>, replica: Replica) -> Option<ExitStatus> {
        let mut last = None;
        while !*self.stopping.borrow() {
            let (run, mut child) = self.spawn(replica).await;
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let serves = tokio::select! {
                line = lines.next_line() => matches!(line, Ok(Some(_))),
                _ = child.wait() => false,
            };
            if serves {
                self.serves(replica, run).await;
            }
            let status = child.wait().await.unwrap();
            self.ended(replica, run, status, serves).await;
            last = Some(status);
            if !serves {
                sleep(START_AGAIN).await;
            }
        }
        last
    }

    async fn spawn(&self, replica: Replica) -> (Run, Child) {
        let mut state = self.states[replica].lock().await;
        state.runs += 1;
        let run = Run { replica, number: state.runs };
        let mut command = self.command(run, &state.orders);
        let log = std::fs::File::options().create(true).append(true).open(&self.site.replicas[replica].log);
        let mut child = command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        state.live = Some(Live { run, pid, stdin: child.stdin.take().unwrap(), serves: false });
        (run, child)
    }

    fn command(&self, run: Run, orders: &BTreeSet<Step>) -> Command {
        let config = &self.site.replicas[run.replica].config;
        if self.build == Build::Product {
            // The product knows nothing of a harness that it should end with.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_token-broker"), "serve", "--config"]);
            command.arg(config);
            return command;
        }
        let orders: Vec<&str> = orders.iter().map(|step| step.name()).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--broker").arg(config).arg("--steps").arg(self.steps_file(run));
        command.arg("--orders").arg(orders.join(","));
        if self.build == Build::Naive {
            command.arg("--naive");
        }
        command
    }

    async fn serves(&self, replica: Replica, run: Run) {
        let mut state = self.states[replica].lock().await;
        if let Some(live) = state.live.as_mut().filter(|live| live.run == run) {
            live.serves = true;
        }
        if let Some((fallen, from)) = state.fallen.take() {
            self.record.window(Disturbance::Killed(fallen), from);
        }
        drop(state);
        self.serving.send_modify(|count| *count += 1);
    }

    async fn ended(&self, replica: Replica, run: Run, status: ExitStatus, served: bool) {
        let mut state = self.states[replica].lock().await;
        state.live = None;
        let by_itself = self.last_words(run);
        let killed = by_itself.or(state.killed.take());
        state.killed = None;
        match (status.signal(), killed) {
            (Some(9), Some((at, how))) => {
                self.record.kill(&how);
                state.orders.retain(|step| step.name() != how);
                if let Some((earlier, from)) = state.fallen.replace((run, at)) {
                    // Killed again before it served.
                    self.record.window(Disturbance::Killed(earlier), from);
                }
            }
            _ if *self.stopping.borrow() => {}
            (None, _) if std::mem::take(&mut state.asked) && status.success() => {}
            // The database may be away when a killed replica comes back: whoever keeps it running tries again.
            (None, _) if !served && status.code() == Some(1) => {}
            (_, _) => self.record.incident(format!("replica {replica} ended by itself: {status}")),
        }
        drop(state);
        self.serving.send_modify(|count| *count += 1);
    }

    /// When and at which step the run killed itself.
    fn last_words(&self, run: Run) -> Option<(Micros, String)> {
        let text = std::fs::read_to_string(self.steps_file(run)).ok()?;
        // Its other threads may have reached steps after that line, before the signal came.
        text.lines().rev().find_map(|line| {
            let mut words = line.split(' ');
            let at = words.next()?.parse().ok()?;
            (words.next()? == KILLED).then_some(())?;
            Some((at, words.next()?.to_owned()))
        })
    }

    fn steps_file(&self, run: Run) -> std::path::PathBuf {
        self.site.folder().join(format!("steps-{}-{}", run.replica, run.number))
    }

    /// Orders a replica to die when it reaches a step, and to be started again.
    pub(crate) async fn order(&self, replica: Replica, step: Step) {
        let mut state = self.states[replica].lock().await;
        state.orders.insert(step);
        if let Some(live) = &mut state.live {
            // A process that has just died gets it at its next start.
            let _ = live.stdin.write_all(format!("{}\n", step.name()).as_bytes()).await;
        }
    }

    /// Takes back an order at all replicas.
    pub(crate) async fn spare(&self, step: Step) {
        for state in &self.states {
            let mut state = state.lock().await;
            state.orders.remove(&step);
            if let Some(live) = &mut state.live {
                let _ = live.stdin.write_all(format!("-{}\n", step.name()).as_bytes()).await;
            }
        }
    }

    /// SIGKILL, now.
    pub(crate) async fn kill(&self, replica: Replica) -> bool {
        let mut state = self.states[replica].lock().await;
        let Some(pid) = state.live.as_ref().filter(|live| live.serves).map(|live| live.pid) else {
            return false;
        };
        state.killed = Some((clock::now(), "at random".to_owned()));
        kill_process(pid, Signal::KILL).is_ok()
    }

    /// SIGSTOP, for a while.
    pub(crate) async fn pause(&self, replica: Replica, lasts: Duration) -> bool {
        let live = |state: &State| state.live.as_ref().filter(|l| l.serves).map(|l| (l.run, l.pid));
        let Some((run, pid)) = live(&*self.states[replica].lock().await) else { return false };
        let from = clock::now();
        if kill_process(pid, Signal::STOP).is_err() {
            return false;
        }
        sleep(lasts).await;
        // Nobody else kills a replica that is stopped, so the process is still this one.
        let woken = kill_process(pid, Signal::CONT).is_ok();
        self.record.window(Disturbance::Paused(run), from);
        woken
    }

    /// SIGTERM; whoever keeps it running starts it again. Answers when its successor serves.
    pub(crate) async fn restart(&self, replica: Replica) {
        let mut changes = self.serving.subscribe();
        let mut state = self.states[replica].lock().await;
        let Some((run, pid)) = state.live.as_ref().map(|live| (live.run, live.pid)) else { return };
        state.asked = true;
        drop(state);
        let successor = async {
            let _ = kill_process(pid, Signal::TERM);
            while !self.states[replica].lock().await.live.as_ref().is_some_and(|l| l.run != run && l.serves) {
                changes.changed().await.unwrap();
            }
        };
        if timeout(PATIENCE, successor).await.is_err() {
            self.record.incident(format!("replica {replica} did not come back"));
        }
    }

    /// The running process.
    pub(crate) async fn pid(&self, replica: Replica) -> Option<u32> {
        let state = self.states[replica].lock().await;
        state.live.as_ref().map(|live| live.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// SIGTERM to all. Answers how they ended.
    pub(crate) async fn stop(&self, keepers: Vec<JoinHandle<Option<ExitStatus>>>) -> Vec<Option<ExitStatus>> {
        self.stopping.send_replace(true);
        for state in &self.states {
            if let Some(live) = &state.lock().await.live {
                let _ = kill_process(live.pid, Signal::TERM);
            }
        }
        let mut ends = Vec::new();
        for keeper in keepers {
            ends.push(timeout(PATIENCE, keeper).await.ok().and_then(Result::ok).flatten());
        }
        ends
    }

    /// All steps of all runs; `credential` resolves the ids.
    pub(crate) async fn reached(&self, credential: impl Fn(&str) -> Option<u32>) -> Vec<Reached> {
        let mut all = Vec::new();
        for (replica, state) in self.states.iter().enumerate() {
            for number in 1..=state.lock().await.runs {
                let run = Run { replica, number };
                read_steps(&self.steps_file(run), run, &credential, &mut all);
            }
        }
        all.sort_by_key(|reached| reached.at);
        all
    }
}

fn read_steps(file: &Path, run: Run, credential: &impl Fn(&str) -> Option<u32>, all: &mut Vec<Reached>) {
    let Ok(text) = std::fs::read_to_string(file) else { return };
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(at), Some(step), Some(id)) = (words.next(), words.next(), words.next()) else { continue };
        let Ok(at) = at.parse() else { continue };
        if step != KILLED {
            all.push(Reached { run, at, step: step.to_owned(), credential: credential(id) });
        }
    }
}
