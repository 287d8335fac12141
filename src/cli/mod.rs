//! The command line: one file per subcommand.

mod audit;
mod callers;
mod client;
mod config;
mod connect;
mod credential;
mod demo;
mod error;
mod exit;
mod get;
mod healthcheck;
mod init;
mod keys;
mod list;
mod migrate;
mod output;
mod providers;
mod refresh;
mod revoke;
mod serve;
mod settings;
mod tenants;
mod watch;
mod write;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::CliError;
pub use exit::Exit;
use output::{Format, Output};

/// Holds users' OAuth tokens for agents: asks users for consent, refreshes, revokes, and hands out access tokens by gRPC.
#[derive(Debug, Parser)]
#[command(name = "token-broker", version, max_term_width = 110, after_help = HELP)]
struct Cli {
    /// How answers and errors look
    #[arg(long, global = true, value_enum, default_value = "human")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

/// What ends every `--help` of the program itself.
const HELP: &str = "\
Examples:
  token-broker init && token-broker serve     a broker on this machine, with a new configuration and key
  token-broker connect google -u alice -s gmail --wait
  token-broker get google gmail -u alice --show-token
  token-broker COMMAND --help                 more examples

Exit codes:
   0 done                     5 database             10 the user has to consent
   1 failed, not serving      6 vault keys           11 the consent failed or was refused
   2 wrong command line       7 unavailable now      12 stopped before all calls had ended
   3 configuration            8 not allowed          13 migrations to apply
   4 address taken            9 wrong call";

#[derive(Debug, Subcommand)]
enum Command {
    /// See a consent, a refresh, two users kept apart and a revoke, with nothing to set up
    Demo(demo::Args),
    /// Run the broker until SIGTERM or SIGINT
    Serve(serve::Args),
    /// Make a configuration, a vault key and a first caller
    Init(init::Args),
    /// Bring the database to this version's schema, or look whether it is
    Migrate(migrate::Args),
    /// Print the default configuration, check one, or show what is in effect
    Config(config::Args),
    /// Ask a running broker whether it serves
    Healthcheck(healthcheck::Args),
    /// Begin a consent: prints the link that the user has to open
    Connect(connect::Args),
    /// Get a user's access token
    Get(get::Args),
    /// List connected credentials
    List(list::Args),
    /// Refresh a token that the provider's API refused
    Refresh(refresh::Args),
    /// Disconnect a user
    Revoke(revoke::Args),
    /// Follow what changes for users: consents, credentials that break or are revoked
    Watch(watch::Args),
    /// Ask, verify and copy the audit log
    Audit(audit::Args),
    /// Callers, their rules and API keys: make, change, explain
    Callers(callers::Args),
    /// Look after data keys: rotate, rewrap, see how far it is, retire
    Keys(keys::Args),
    /// Tenants: make, disable, delete; revoke all of a user's or a tenant's credentials
    Tenants(tenants::Args),
    /// Look at the provider catalogue and what is configured of it; make, change and delete a tenant's own apps
    Providers(providers::Args),
}

/// Parses the command line, runs the command, reports its error.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { output, command } = Cli::parse();
    let output = Output { format: output };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&CliError::from(error));
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(run(command, output)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output.error(&error);
            error.exit.into()
        }
    }
}

async fn run(command: Command, output: Output) -> Result<Exit, CliError> {
    match command {
        Command::Demo(args) => demo::run(&args).await,
        Command::Serve(args) => serve::run(&args).await,
        Command::Init(args) => init::run(&args, output),
        Command::Migrate(args) => migrate::run(&args, output).await,
        Command::Config(args) => config::run(&args, output),
        Command::Healthcheck(args) => healthcheck::run(&args, output).await,
        Command::Connect(args) => connect::run(args, output).await,
        Command::Get(args) => get::run(args, output).await,
        Command::List(args) => list::run(args, output).await,
        Command::Refresh(args) => refresh::run(args, output).await,
        Command::Revoke(args) => revoke::run(args, output).await,
        Command::Watch(args) => watch::run(args, output).await,
        Command::Audit(args) => audit::run(args, output).await,
        Command::Callers(args) => callers::run(args, output).await,
        Command::Keys(args) => keys::run(args, output).await,
        Command::Tenants(args) => tenants::run(args, output).await,
        Command::Providers(args) => providers::run(args, output).await,
    }
}
