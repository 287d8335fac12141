//! `serve`: the broker.

use super::error::CliError;
use super::exit::Exit;
use super::output::print;
use super::settings::ConfigArgs;
use crate::app::{self, Overrides};
use crate::config::LogFormat;
use crate::lifecycle::{self, Drained, StopSignals};
use crate::telemetry::logs::{self, LogOptions};
use crate::telemetry::panics;

const HELP: &str = "\
Logs go to standard error. When it listens, one line of JSON goes to standard output:
  {\"listening\":{\"grpc\":\"127.0.0.1:50051\",\"public\":\"127.0.0.1:8080\",\"operations\":\"127.0.0.1:9090\"}}
SIGTERM and SIGINT end it in order (see [shutdown] in the configuration); a second signal ends it at once.

Examples:
  token-broker serve --config /etc/token-broker.toml
  TOKEN_BROKER_LOG__LEVEL=debug token-broker serve";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) async fn run(args: &Args) -> Result<Exit, CliError> {
    let config = args.config.load()?;
    let options = LogOptions { json: config.log.format == LogFormat::Json, level: config.log.level.clone() };
    logs::init(&options).map_err(|error| CliError::new(Exit::Failed, error.to_string()))?;
    panics::install();

    // Before it can be seen to run, or a signal sent then would end it without a drain.
    let mut signals = StopSignals::catch()?;
    let running = tokio::select! {
        running = app::start(config, Overrides::default()) => running?,
        // It may wait long for another replica's migrations, or for a database.
        () = signals.next() => {
            tracing::info!("stopped before it served");
            return Ok(Exit::Done);
        }
    };
    let addresses = serde_json::json!({ "listening": {
        "grpc": running.grpc_addr,
        "admin": running.admin_addr,
        "public": running.public_addr,
        "operations": running.operations_addr,
    }});
    print(&addresses.to_string())?;
    match lifecycle::run_until_stopped(running, signals).await {
        Drained::Completely => Ok(Exit::Done),
        Drained::CutOff => Ok(Exit::CutOff),
    }
}
