//! `watch`: follows what changes for users.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;

use super::client::{Client, ClientArgs};
use super::credential::{json_time, reason, short, time};
use super::error::CliError;
use super::exit::Exit;
use super::output::{Format, Output};
use crate::r#gen::v1::credential_event::Change;
use crate::r#gen::v1::{CredentialEvent, CredentialStanding, WatchCredentialsRequest};

const HELP: &str = "\
Runs until it is stopped. When the stream ends, or the broker is away for a while, it goes on where it was. Every line
has a cursor: with --cursor a later watch goes on behind that line, for seven days.

Examples:
  token-broker watch
  token-broker watch -u alice --output json | jq -c '[.user_id, .new]'
  token-broker watch --output json --cursor AQAAAAAAAAAA…";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Only this user's [default: those of all users that the caller may act for]
    #[arg(short, long, value_name = "ID", default_value = "", hide_default_value = true)]
    user: String,
    /// Go on behind this place [default: from now on]
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    cursor: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Between attempts while the broker is away.
const RETRY: Duration = Duration::from_secs(1);

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect().await?;
    let mut request = WatchCredentialsRequest { user_id: args.user, cursor: args.cursor };
    let (mut watched, mut reported) = (false, false);
    loop {
        let mut opened = false;
        let ended = follow(&mut client, &mut request, &mut opened, output).await?;
        watched |= opened;
        reported &= !opened;
        match ended {
            // The broker's way to say that it stops or that the connection is old: the next one leads elsewhere.
            Ended::InOrder => {}
            Ended::Unread => return Ok(Exit::Done),
            Ended::Away(error) if watched => {
                // Once for each time that it is away.
                if !reported {
                    output.error(&error);
                    reported = true;
                }
                tokio::time::sleep(RETRY).await;
            }
            Ended::Away(error) => return Err(error),
        }
    }
}

enum Ended {
    InOrder,
    /// Nobody reads what is printed.
    Unread,
    /// The broker, or the way to it, is gone for now.
    Away(CliError),
}

/// Prints events until the stream ends; the request goes on behind what was printed.
async fn follow(
    client: &mut Client,
    request: &mut WatchCredentialsRequest,
    opened: &mut bool,
    output: Output,
) -> Result<Ended, CliError> {
    let away = |code| matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    let mut stream = match client.watch_credentials(request.clone()).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if away(status.code()) => return Ok(Ended::Away(status.into())),
        Err(status) => return Err(status.into()),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                *opened = true;
                if let Some(event) = message.event
                    && !print(&event, &message.cursor, output)?
                {
                    return Ok(Ended::Unread);
                }
                request.cursor = message.cursor;
            }
            Ok(None) => return Ok(Ended::InOrder),
            Err(status) if away(status.code()) => return Ok(Ended::Away(status.into())),
            Err(status) => return Err(status.into()),
        }
    }
}

/// False: nobody reads it any more.
fn print(event: &CredentialEvent, cursor: &str, output: Output) -> Result<bool, CliError> {
    let (what, old, new, why, generation) = match &event.change {
        Some(Change::Credential(change)) => {
            let standing =
                |standing: CredentialStanding| short(standing.as_str_name(), "CREDENTIAL_STANDING_");
            let needs_reauth = change.new_standing() == CredentialStanding::NeedsReauth;
            let why = needs_reauth.then(|| reason(change.needs_reauth_reason()));
            let (old, new) = (standing(change.old_standing()), standing(change.new_standing()));
            ("credential", old, new, why, Some(change.generation))
        }
        Some(Change::Flow(change)) => {
            let status = |name: &str| short(name, "FLOW_STATUS_");
            let why = (!change.failure.is_empty()).then(|| change.failure.clone());
            let old = status(change.old_status().as_str_name());
            ("consent", old, status(change.new_status().as_str_name()), why, None)
        }
        // A newer broker's.
        None => ("change", String::new(), String::new(), None, None),
    };
    match output.format {
        Format::Human => {
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            let state = Some(&event.client_state).filter(|state| !state.is_empty());
            let state = state.map(|state| format!("  client_state {state}")).unwrap_or_default();
            let line = format!(
                "{}  {}  {}  {}  {what} {old} -> {new}{why}{state}\n  cursor {cursor}",
                time(event.event_time.as_ref()),
                event.user_id,
                event.provider,
                event.services.join(","),
            );
            Output::part(&line)
        }
        Format::Json => super::output::write(
            &document(event, cursor, what, (old, new), why.as_deref(), generation).to_string(),
        ),
    }
}

/// One line of JSON.
fn document(
    event: &CredentialEvent,
    cursor: &str,
    what: &str,
    (old, new): (String, String),
    why: Option<&str>,
    generation: Option<i64>,
) -> Value {
    let given = |text: &String| if text.is_empty() { Value::Null } else { Value::String(text.clone()) };
    json!({
        "cursor": cursor,
        "event_id": event.event_id,
        "event_time": json_time(event.event_time.as_ref()),
        "provider": event.provider,
        "user_id": event.user_id,
        "services": event.services,
        "account": event.account,
        "what": what,
        "old": old,
        "new": new,
        "reason": why,
        "generation": generation,
        "flow_id": given(&event.flow_id),
        "client_state": given(&event.client_state),
    })
}
