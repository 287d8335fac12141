//! `list`: connected credentials, without their tokens.

use serde_json::{Value, json};

use super::client::ClientArgs;
use super::credential::{json_time, reason, short, time};
use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, table};
use crate::r#gen::v1::{CredentialStatus, CredentialSummary, ListCredentialsRequest};

const HELP: &str = "\
Examples:
  token-broker list
  token-broker list -u alice --provider google --output json";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Only this user's
    #[arg(short, long, value_name = "ID", default_value = "", hide_default_value = true)]
    user: String,
    /// Only this provider's
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    provider: String,
    /// Only those with this scope; repeat for more
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// The most that one answer holds.
const PAGE_SIZE: i32 = 1_000;

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect().await?;
    let mut request = ListCredentialsRequest {
        user_id: args.user,
        provider: args.provider,
        covering_scopes: args.scopes,
        page_size: PAGE_SIZE,
        page_token: String::new(),
    };
    let mut found = Vec::new();
    loop {
        let page = client.list_credentials(request.clone()).await?.into_inner();
        found.extend(page.credentials);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let header = ["PROVIDER", "USER", "SERVICES", "ACCOUNT", "STATUS", "EXPIRES", "GENERATION"];
    output.answer(&table(&header, &rows), &found.iter().map(entry).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

fn status(summary: &CredentialSummary) -> String {
    short(summary.status().as_str_name(), "CREDENTIAL_STATUS_")
}

fn row(summary: &CredentialSummary) -> Vec<String> {
    let status = if summary.status() == CredentialStatus::NeedsReauth {
        format!("{} ({})", status(summary), reason(summary.needs_reauth_reason()))
    } else {
        status(summary)
    };
    let label = summary.provider_account.as_ref().map(|account| account.label.as_str()).unwrap_or_default();
    let account =
        if label.is_empty() { summary.account.clone() } else { format!("{} ({label})", summary.account) };
    vec![
        summary.provider.clone(),
        summary.user_id.clone(),
        summary.services.join(","),
        account,
        status,
        time(summary.expire_time.as_ref()),
        summary.generation.to_string(),
    ]
}

fn entry(summary: &CredentialSummary) -> Value {
    let account = summary.provider_account.clone().unwrap_or_default();
    let needs_reauth = summary.status() == CredentialStatus::NeedsReauth;
    json!({
        "provider": summary.provider,
        "user_id": summary.user_id,
        "services": summary.services,
        "account": summary.account,
        "status": status(summary),
        "needs_reauth_reason": needs_reauth.then(|| reason(summary.needs_reauth_reason())),
        "scopes": summary.scopes,
        "scopes_assumed": summary.scopes_assumed,
        "generation": summary.generation,
        "provider_account": { "subject": account.subject, "label": account.label },
        "expire_time": json_time(summary.expire_time.as_ref()),
        "create_time": json_time(summary.create_time.as_ref()),
        "update_time": json_time(summary.update_time.as_ref()),
        "refreshable": summary.refreshable,
    })
}
