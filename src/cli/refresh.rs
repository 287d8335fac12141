//! `refresh`: a newer token than one that did not work.

use super::client::ClientArgs;
use super::credential::{self, KeyArgs};
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use crate::r#gen::v1::RefreshRequest;
use crate::r#gen::v1::refresh_response::Result as Answer;

const HELP: &str = "\
For a token that the provider's API answered with 401. If the stored token is newer already, that one is answered and the
provider is not asked.

Examples:
  token-broker refresh google gmail -u alice --generation 3";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
    /// The generation of the token that did not work, as `get` shows it
    #[arg(long, value_name = "NUMBER")]
    generation: i64,
    /// Show the whole token
    #[arg(long)]
    show_token: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect().await?;
    let request = RefreshRequest { key: Some(args.key.into()), expected_generation: args.generation };
    match client.refresh(request).await?.into_inner().result {
        Some(Answer::Credential(found)) => credential::credential(&found, args.show_token, output),
        Some(Answer::AuthorizationRequired(answer)) => credential::authorization_required(&answer, output),
        None => Err(credential::empty_answer()),
    }
}
