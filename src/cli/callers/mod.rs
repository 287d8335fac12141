//! `callers`: who may call, with what, and what they may do.

mod can;
mod keys;
mod list;
mod new;
mod rule_args;
mod stored;

use clap::Subcommand;

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
pub(super) use new::table_of;
pub(super) use stored::TenantArgs;

const HELP: &str = "\
Examples:
  token-broker callers new agents --action get_credential --action begin_oauth --provider google --any-user \\
      --assert-user-id
  token-broker callers new chat --any-action --any-provider --own
  token-broker callers list --config /etc/token-broker.toml
  token-broker callers can agents get_credential --provider google --service gmail --user alice
  token-broker callers create ci --any-action --any-provider --user-prefix ci/ --assert-user-id
  token-broker callers update ci --disable

`new` is for the configuration file and needs no broker. All others but `list` and `can` (without --stored) ask a broker,
with an API key whose caller has the admin right manage_callers.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an API key: prints it once, with the table for the configuration, which holds only its hash
    New(new::Args),
    /// List callers with their rules
    List(list::Args),
    /// Say whether a caller may do something, and which rule decides
    Can(can::Args),
    /// Make a caller in the broker's database, and an API key
    Create(Box<stored::Create>),
    /// Show a caller
    Show(stored::Name),
    /// Change, disable or enable a caller of the database
    Update(Box<stored::Update>),
    /// Delete a caller of the database with its keys
    Delete(stored::Name),
    /// API keys of callers of the database: make, list, rotate, revoke
    Keys(keys::Args),
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    match args.command {
        Command::New(args) => new::run(&args, output),
        Command::List(args) => list::run(args, output).await,
        Command::Can(args) => can::run(args, output).await,
        Command::Create(args) => stored::create(*args, output).await,
        Command::Show(args) => stored::show(args, output).await,
        Command::Update(args) => stored::update(*args, output).await,
        Command::Delete(args) => stored::delete(args, output).await,
        Command::Keys(args) => keys::run(args, output).await,
    }
}
