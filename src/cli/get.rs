//! `get`: a user's access token.

use std::time::Duration;

use super::client::{ClientArgs, duration};
use super::credential::{self, KeyArgs};
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use crate::r#gen::v1::get_credential_response::Result as Answer;
use crate::r#gen::v1::{ConsentOptions, GetCredentialRequest};

const HELP: &str = "\
The token is masked unless --show-token is given, in JSON too (access_token is null then). Exit code 10: the user has to
consent.

Examples:
  token-broker get google gmail -u alice
  token-broker get google gmail -u alice --show-token --output json | jq -r .access_token
  token-broker get github repos -u bob --begin";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
    /// A scope it must have beside the service's; repeat for more
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long it must still be valid
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    min_ttl: Option<Duration>,
    /// Begin a consent if there is no token
    #[arg(long)]
    begin: bool,
    /// Show the whole token
    #[arg(long)]
    show_token: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect().await?;
    let min_ttl = args.min_ttl.map(prost_types::Duration::try_from).transpose();
    let request = GetCredentialRequest {
        key: Some(args.key.into()),
        scopes: args.scopes,
        min_ttl: min_ttl.map_err(|_| CliError::new(Exit::Usage, "--min-ttl is too long"))?,
        begin_if_missing: args.begin.then(ConsentOptions::default),
    };
    match client.get_credential(request).await?.into_inner().result {
        Some(Answer::Credential(found)) => credential::credential(&found, args.show_token, output),
        Some(Answer::AuthorizationRequired(answer)) => credential::authorization_required(&answer, output),
        None => Err(credential::empty_answer()),
    }
}
