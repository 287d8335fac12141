//! A broker process of a run: the product, started by the harness's own binary so that it can listen to the steps of the
//! protocol and die at one. The product itself has no such code.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};
use token_broker::app::{self, Overrides};
use token_broker::config::{Config, Environment, LogFormat};
use token_broker::domain::key::CredentialId;
use token_broker::domain::step::{Step, Steps};
use token_broker::lifecycle::{self, Drained, StopSignals};
use token_broker::telemetry::logs::{self, LogOptions};

use crate::clock;
use crate::naive;

/// How the process is started.
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    pub(crate) config: PathBuf,
    /// Where each step is written, a line each: time, step, credential.
    pub(crate) steps: PathBuf,
    /// Take no claim.
    pub(crate) naive: bool,
    /// Steps to die at from the start, separated by commas.
    pub(crate) orders: String,
}

/// Written before the process ends itself, in place of a step.
pub(crate) const KILLED: &str = "killed";

/// Hears of each step, writes it down and obeys.
struct Obedient {
    /// Opened to append: one write a line, which survives the process.
    file: Mutex<File>,
    orders: Mutex<BTreeSet<Step>>,
}

impl Obedient {
    fn order(&self, text: &str) {
        let (spared, name) = text.strip_prefix('-').map_or((false, text), |name| (true, name));
        let Some(step) = Step::ALL.into_iter().find(|step| step.name() == name) else { return };
        let mut orders = self.orders.lock().unwrap();
        if spared {
            orders.remove(&step);
        } else {
            orders.insert(step);
        }
    }

    fn write(&self, what: &str, rest: &str) {
        let line = format!("{} {what} {rest}\n", clock::now());
        // A full disk would fail the run in other ways.
        let _ = self.file.lock().unwrap().write_all(line.as_bytes());
    }
}

impl Steps for Obedient {
    fn reached(&self, step: Step, credential: CredentialId) {
        self.write(step.name(), &credential.to_string());
        if self.orders.lock().unwrap().contains(&step) {
            self.write(KILLED, step.name());
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}

/// Runs until SIGTERM, an order, or the end of the harness.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    // A harness that is killed takes its brokers with it, stopped ones too; the closed pipe below is for one that was gone
    // before this.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let file = File::options().create(true).append(true).open(&arguments.steps).unwrap();
    let steps = Arc::new(Obedient { file: Mutex::new(file), orders: Mutex::default() });
    arguments.orders.split(',').for_each(|order| steps.order(order));
    let listener = Arc::clone(&steps);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            listener.order(&line);
        }
        std::process::exit(3);
    });

    let config = Config::load(Some(&arguments.config), &Environment::default()).unwrap();
    let options = LogOptions { json: config.log.format == LogFormat::Json, level: config.log.level.clone() };
    logs::init(&options).unwrap();
    let overrides = overrides(steps, arguments.naive);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let signals = StopSignals::catch().unwrap();
        let running = match app::start(config, overrides).await {
            Ok(running) => running,
            Err(error) => {
                tracing::error!(%error, "the broker does not start");
                return ExitCode::from(1);
            }
        };
        println!("listening");
        match lifecycle::run_until_stopped(running, signals).await {
            Drained::Completely => ExitCode::SUCCESS,
            Drained::CutOff => ExitCode::from(2),
        }
    })
}

fn overrides(steps: Arc<dyn Steps>, naive: bool) -> Overrides {
    let mut overrides = Overrides { steps: Some(steps), ..Overrides::default() };
    if naive {
        overrides.wrap_credentials = Some(Box::new(naive::credentials));
        overrides.wrap_permits = Some(Box::new(naive::permits));
    }
    overrides
}
