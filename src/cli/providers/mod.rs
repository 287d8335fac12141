//! `providers`: the catalogue, what is configured of it, and tenants' own apps.

mod catalogue;
mod stored;

use clap::Subcommand;

use super::callers::TenantArgs;
use super::client::ClientArgs;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::settings::ConfigArgs;

const HELP: &str = "\
Examples:
  token-broker providers list
  token-broker providers show google
  token-broker providers configured --config /etc/token-broker.toml
  token-broker providers create google --client-id 1234.apps.example --client-secret-file google-secret
  token-broker providers create gitlab --tenant acme --client-id abcd --variable host=gitlab.acme.example \\
      --client-secret-file - < secret
  token-broker providers list --stored --tenant acme
  token-broker providers update google --client-secret-env NEW_SECRET
  token-broker providers delete google

`create`, `update`, `delete`, and `list` and `show` with --stored are about a tenant's own apps: they ask a broker, with an API
key whose caller has the admin right manage_providers. The others look at files, and need no broker.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the definitions, the built-in ones and those of your files; or a tenant's own apps
    List(List),
    /// Show a definition, its services and what a registration needs; or a tenant's own app
    Show(Show),
    /// List the providers that are configured for all tenants, with their services
    Configured(ConfigArgs),
    /// Make an app of the tenant's own known to the broker
    Create(Box<stored::Create>),
    /// Replace secret or keys of a tenant's own app, disable or enable it
    Update(Box<stored::Update>),
    /// Delete a tenant's own app
    Delete(stored::Delete),
}

/// Where to look.
#[derive(Debug, clap::Args)]
struct StoredArgs {
    /// Ask the broker for the tenant's own apps; needs an API key with `manage_providers`
    #[arg(long, conflicts_with = "config")]
    stored: bool,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    at: StoredArgs,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The definition's id; with --stored, the provider id of the tenant's own app
    id: String,
    #[command(flatten)]
    at: StoredArgs,
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    match args.command {
        Command::List(List { at }) if at.stored => stored::list(&at.client, &at.tenant, output).await,
        Command::List(List { at }) => catalogue::list(&at.config, output),
        Command::Show(Show { id, at }) if at.stored => stored::show(id, &at.client, &at.tenant, output).await,
        Command::Show(args) => catalogue::show(&args, output),
        Command::Configured(config) => catalogue::configured(&config, output),
        Command::Create(args) => stored::create(*args, output).await,
        Command::Update(args) => stored::update(*args, output).await,
        Command::Delete(args) => stored::delete(args, output).await,
    }
}
