//! `callers can`: which rule decides.

use serde_json::json;

use super::stored::TenantArgs;
use crate::cli::client::ClientArgs;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::init::caller_id;
use crate::cli::output::Output;
use crate::cli::settings::ConfigArgs;
use crate::domain::access_policy::{Action, Principal, Question};
use crate::domain::key::{CallerId, ProviderId, ServiceId, UserId};
use crate::domain::scope::{Scope, ScopeSet};
use crate::r#gen::v1 as pb;

const HELP: &str = "\
Answers `yes` with the rule that allows it (exit code 0), or `no` with what each rule lacks (exit code 8). What is not
given is not asked about.

Examples:
  token-broker callers can agents get_credential --provider google --service gmail --user alice
  token-broker callers can chat get_credential --provider google --service gmail --user alice --own
  token-broker callers can agents refresh --provider google --user alice --stored";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The caller's id
    #[arg(value_parser = caller_id)]
    caller: CallerId,
    /// What it wants to do, as `get_credential`
    #[arg(value_parser = str::parse::<Action>)]
    action: Action,
    /// Where
    #[arg(long, value_name = "ID", value_parser = |text: &str| ProviderId::new(text))]
    provider: Option<ProviderId>,
    /// With what; repeat for more
    #[arg(long = "service", value_name = "ID", value_parser = |text: &str| ServiceId::new(text))]
    services: Vec<ServiceId>,
    /// A scope that the call names; repeat for more
    #[arg(long = "scope", value_name = "SCOPE", value_parser = |text: &str| Scope::new(text))]
    scopes: Vec<Scope>,
    /// For whom
    #[arg(long, value_name = "ID", value_parser = |text: &str| UserId::new(text))]
    user: Option<UserId>,
    /// The call carries the user's own token
    #[arg(long, requires = "user")]
    own: bool,
    /// Ask the broker, which knows the callers of its database, too; needs an API key with `manage_callers`
    #[arg(long, conflicts_with = "config")]
    stored: bool,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    if args.stored { ask(args, output).await } else { look(&args, output) }
}

/// In the broker's database and configuration.
async fn ask(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect_admin().await?;
    let request = pb::ExplainAccessRequest {
        tenant: args.tenant.text(),
        caller: args.caller.into(),
        action: args.action.name().to_owned(),
        provider: args.provider.map(Into::into).unwrap_or_default(),
        services: args.services.into_iter().map(Into::into).collect(),
        scopes: args.scopes.into_iter().map(Into::into).collect(),
        user_id: args.user.map(Into::into).unwrap_or_default(),
        own_token: args.own,
    };
    let pb::ExplainAccessResponse { allowed, decided_by, rules } =
        client.explain_access(request).await?.into_inner();
    answer(allowed, &decided_by, &rules, output)
}

/// In the configuration here.
fn look(args: &Args, output: Output) -> Result<Exit, CliError> {
    let config = args.config.load()?;
    let found = config.callers.iter().find(|entry| entry.caller.id == args.caller);
    let Some(entry) = found else {
        return Err(CliError::new(Exit::Refused, format!("there is no caller {} here", args.caller)));
    };
    let user = args.user.clone().filter(|_| args.own);
    let principal = Principal { user, ..entry.caller.clone().into() };
    let scopes: ScopeSet = args.scopes.iter().cloned().collect();
    let question = Question {
        action: args.action,
        provider: args.provider.as_ref(),
        services: args.services.iter().collect(),
        scopes: Some(&scopes),
        user: args.user.as_ref(),
    };
    let decision = principal.decide(&question);
    let reasons: Vec<_> = principal
        .explain(&question)
        .into_iter()
        .map(|mismatch| mismatch.map_or_else(|| "allows it".to_owned(), |why| why.to_string()))
        .collect();
    answer(decision.is_allowed(), &decision.to_string(), &reasons, output)
}

fn answer(allowed: bool, decided_by: &str, reasons: &[String], output: Output) -> Result<Exit, CliError> {
    let mut human = format!("{}: {decided_by}", if allowed { "yes" } else { "no" });
    if !allowed {
        for (index, reason) in reasons.iter().enumerate() {
            human = format!("{human}\n  allow[{index}] {reason}");
        }
    }
    let json = json!({ "allowed": allowed, "decided_by": decided_by, "rules": reasons });
    output.answer(&human, &json)?;
    Ok(if allowed { Exit::Done } else { Exit::Denied })
}
