//! `connect`: begins a consent, and waits for its end if asked to.

use std::time::Duration;

use serde_json::json;
use tokio::time::{interval, timeout};

use super::client::{Client, ClientArgs, duration};
use super::credential::{empty_answer, json_time, short, time};
use super::error::CliError;
use super::exit::Exit;
use super::output::{Format, Output, print};
use crate::domain::flow::ConsentBinding as Binding;
use crate::r#gen::v1::{BeginOAuthRequest, ConsentBinding, ConsentOptions, Flow, FlowStatus, GetFlowRequest};

const HELP: &str = "\
Prints the link that the user has to open. The link is for this user alone. With the binding app the browser goes on to the
return URL, and the application there has to call CompleteOAuth; its half, flow_secret, is in the JSON. With --wait: exit code 0 if connected, 11 if the user said no, it failed or nobody came in time.

Examples:
  token-broker connect google -u alice -s gmail -s calendar --wait
  token-broker connect github -u bob -s repos --output json";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The provider, as `token-broker providers` names it
    provider: String,
    /// The user; not needed with --user-token-file
    #[arg(short, long, value_name = "ID", required_unless_present = "user_token_file")]
    user: Option<String>,
    /// A service to connect; repeat for more
    #[arg(short, long = "service", value_name = "ID", required = true)]
    services: Vec<String>,
    /// Which of the user's accounts
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    account: String,
    /// A scope beside the services'; repeat for more
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How the browser is proved to be the user's: app, login or confirm; without it, the broker's first one
    #[arg(long, value_name = "BINDING", value_parser = binding)]
    binding: Option<Binding>,
    /// Where the page at the end links to, or (binding app) where the browser is sent
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    return_url: String,
    /// The account name to suggest to the provider
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    login_hint: String,
    /// Wait until the consent has ended
    #[arg(long)]
    wait: bool,
    /// How long to wait for the user
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration, requires = "wait")]
    wait_timeout: Duration,
    #[command(flatten)]
    client: ClientArgs,
}

fn binding(text: &str) -> Result<Binding, String> {
    let names = || Binding::ALL.map(Binding::as_str).join(", ");
    Binding::parse(text).ok_or_else(|| format!("must be one of {}", names()))
}

fn asked(binding: Option<Binding>) -> ConsentBinding {
    match binding {
        None => ConsentBinding::Unspecified,
        Some(Binding::App) => ConsentBinding::App,
        Some(Binding::Login) => ConsentBinding::Login,
        Some(Binding::Confirm) => ConsentBinding::Confirm,
    }
}

/// How often a consent under way is looked at.
const POLL: Duration = Duration::from_millis(500);

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect().await?;
    let request = BeginOAuthRequest {
        provider: args.provider,
        user_id: args.user.unwrap_or_default(),
        services: args.services,
        account: args.account,
        scopes: args.scopes,
        options: Some(ConsentOptions {
            return_url: args.return_url,
            client_state: String::new(),
            login_hint: args.login_hint,
            binding: asked(args.binding).into(),
        }),
    };
    let answer = client.begin_o_auth(request).await?.into_inner();
    let flow = answer.flow.ok_or_else(empty_answer)?;
    let human = format!(
        "open this link as the user:\n\n  {}\n\nworks until {}; flow {}",
        flow.authorization_url,
        time(flow.expire_time.as_ref()),
        flow.flow_id
    );
    let of_app = flow.binding() == ConsentBinding::App;
    let started = json!({
        "flow_id": flow.flow_id,
        "authorization_url": flow.authorization_url,
        "binding": short(flow.binding().as_str_name(), "CONSENT_BINDING_"),
        "flow_secret": of_app.then_some(&flow.flow_secret),
        "expire_time": json_time(flow.expire_time.as_ref()),
        "scopes": answer.scopes,
    });
    if !args.wait {
        output.answer(&human, &started)?;
        return Ok(Exit::Done);
    }
    // The link must be seen while the command waits. In JSON that makes two documents, one a line.
    match output.format {
        Format::Human => output.answer(&human, &())?,
        Format::Json => print(&started.to_string())?,
    }
    let ended = timeout(args.wait_timeout, ended(&mut client, &flow.flow_id)).await;
    let ended = ended.map_err(|_| CliError::new(Exit::ConsentFailed, "the user did not come in time"))??;
    report(&ended, output)
}

/// The flow when it has ended.
async fn ended(client: &mut Client, flow_id: &str) -> Result<Flow, CliError> {
    let mut ticks = interval(POLL);
    loop {
        ticks.tick().await;
        let request = GetFlowRequest { flow_id: flow_id.to_owned() };
        let flow = client.get_flow(request).await?.into_inner().flow.ok_or_else(empty_answer)?;
        if !matches!(flow.status(), FlowStatus::Pending | FlowStatus::Returned | FlowStatus::Exchanging) {
            return Ok(flow);
        }
    }
}

fn report(flow: &Flow, output: Output) -> Result<Exit, CliError> {
    let status = short(flow.status().as_str_name(), "FLOW_STATUS_");
    let connected = flow.status() == FlowStatus::Completed;
    let human = if connected {
        format!("connected: {}", flow.services.join(", "))
    } else if flow.failure.is_empty() {
        format!("not connected: {status}")
    } else {
        format!("not connected: {status} ({})", flow.failure)
    };
    let json = json!({ "flow_id": flow.flow_id, "status": status, "failure": flow.failure });
    match output.format {
        Format::Human => output.answer(&human, &())?,
        Format::Json => print(&json.to_string())?,
    }
    Ok(if connected { Exit::Done } else { Exit::ConsentFailed })
}
