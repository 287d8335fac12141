//! `revoke`: disconnects a user.

use serde_json::json;

use super::client::ClientArgs;
use super::credential::{KeyArgs, short};
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use crate::r#gen::v1::{ProviderRevocation, RevokeRequest};

const HELP: &str = "\
Deletes the credential at once and revokes it at the provider; what the provider is not told at once it is told later.
Services that share the grant go with it. Revoking twice is no error. While somebody has a lease of the token it is
refused, unless --force is given.

Examples:
  token-broker revoke google gmail -u alice
  token-broker revoke google gmail -u alice --force";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
    /// Although the token is in use: the holders of its leases learn it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect().await?;
    let answer =
        client.revoke(RevokeRequest { key: Some(args.key.into()), force: args.force }).await?.into_inner();
    let at_provider = match answer.provider_revocation() {
        ProviderRevocation::Unspecified => "there was nothing to revoke at the provider",
        ProviderRevocation::Revoked => "revoked at the provider",
        ProviderRevocation::Pending => "the provider could not be told yet; the broker goes on trying",
        ProviderRevocation::Failed => "the provider refused; the user can remove the grant in its settings",
        ProviderRevocation::NotSupported => {
            "the provider has no way to revoke; the user can remove the grant in its settings"
        }
    };
    let here = if answer.deleted {
        format!("disconnected: {}", answer.services.join(", "))
    } else {
        "there was no credential".to_owned()
    };
    let mut human = vec![here, at_provider.to_owned()];
    if answer.cancelled_flows > 0 {
        human.push(format!("pending consents cancelled: {}", answer.cancelled_flows));
    }
    let json = json!({
        "deleted": answer.deleted,
        "provider_revocation": short(answer.provider_revocation().as_str_name(), "PROVIDER_REVOCATION_"),
        "services": answer.services,
        "cancelled_flows": answer.cancelled_flows,
    });
    output.answer(&human.join("\n"), &json)?;
    Ok(Exit::Done)
}
