//! Keys on the command line, and credentials on the screen.

use prost_types::Timestamp;
use serde_json::{Value, json};

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use crate::r#gen::v1::{
    AuthorizationRequired, AuthorizationRequiredReason, Credential, CredentialKey, RefreshState,
};

/// Whose token for what.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct KeyArgs {
    /// The provider, as `token-broker providers` names it
    provider: String,
    /// The service of the provider
    service: String,
    /// The user; not needed with --user-token-file
    #[arg(short, long, value_name = "ID", required_unless_present = "user_token_file")]
    user: Option<String>,
    /// Which of the user's accounts
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    account: String,
}

impl From<KeyArgs> for CredentialKey {
    fn from(args: KeyArgs) -> Self {
        Self {
            provider: args.provider,
            user_id: args.user.unwrap_or_default(),
            service: args.service,
            account: args.account,
        }
    }
}

/// As RFC 3339 writes it; empty if there is none.
pub(super) fn time(timestamp: Option<&Timestamp>) -> String {
    timestamp
        .and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok())
        .map(|t| t.to_string())
        .unwrap_or_default()
}

/// The same for JSON; null if there is none.
pub(super) fn json_time(timestamp: Option<&Timestamp>) -> Value {
    timestamp.map_or(Value::Null, |t| Value::String(time(Some(t))))
}

/// An enum value's name without the enum's.
pub(super) fn short(full: &str, prefix: &str) -> String {
    full.strip_prefix(prefix).unwrap_or(full).to_owned()
}

/// The name of a reason to consent.
pub(super) fn reason(reason: AuthorizationRequiredReason) -> String {
    short(reason.as_str_name(), "AUTHORIZATION_REQUIRED_REASON_")
}

/// A token: whole if it was asked for, else a few characters, so that nobody copies one to a log by mistake.
fn shown(token: &str, whole: bool) -> String {
    if whole {
        return token.to_owned();
    }
    let length = token.chars().count();
    // A short token is not shown at all: a few of its characters would be much of it.
    let begin: String = token.chars().take(if length >= 32 { 4 } else { 0 }).collect();
    format!("{begin}… ({length} characters; --show-token shows it)")
}

/// Prints a credential.
pub(super) fn credential(credential: &Credential, whole: bool, output: Output) -> Result<Exit, CliError> {
    let key = credential.key.clone().unwrap_or_default();
    let account = credential.account.clone().unwrap_or_default();
    let failed = credential.refresh_state() == RefreshState::LastRefreshFailed;
    let mut lines = vec![
        ("token", shown(&credential.access_token, whole)),
        ("type", credential.token_type.clone()),
        ("user", key.user_id.clone()),
        ("service", format!("{} {}", key.provider, key.service)),
        ("expires", time(credential.expire_time.as_ref())),
        ("scopes", credential.scopes.join(" ")),
        ("generation", credential.generation.to_string()),
        ("account", account.label.clone()),
    ];
    if failed {
        lines.push(("refresh failed", credential.refresh_failure.clone()));
    }
    lines.retain(|(_, value)| !value.is_empty());
    let human: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<15} {value}")).collect();
    let json = json!({
        "access_token": whole.then_some(&credential.access_token),
        "token_type": credential.token_type,
        "expire_time": json_time(credential.expire_time.as_ref()),
        "scopes": credential.scopes,
        "scopes_assumed": credential.scopes_assumed,
        "generation": credential.generation,
        "provider": key.provider,
        "service": key.service,
        "user_id": key.user_id,
        "account": key.account,
        "provider_account": { "subject": account.subject, "label": account.label },
        "extra": credential.extra,
        "refresh_failure": failed.then_some(&credential.refresh_failure),
    });
    output.answer(&human.join("\n"), &json)?;
    Ok(Exit::Done)
}

/// Says that the user has to consent.
pub(super) fn authorization_required(
    answer: &AuthorizationRequired,
    output: Output,
) -> Result<Exit, CliError> {
    let reason = reason(answer.reason());
    let mut human = vec![format!("the user has to consent: {reason}")];
    if !answer.missing_scopes.is_empty() {
        human.push(format!("missing scopes: {}", answer.missing_scopes.join(" ")));
    }
    if let Some(flow) = &answer.flow {
        human.push(format!("link for this user alone: {}", flow.authorization_url));
        human.push(format!("works until {}", time(flow.expire_time.as_ref())));
    }
    let flow = answer.flow.as_ref().map(|flow| {
        json!({
            "flow_id": flow.flow_id,
            "authorization_url": flow.authorization_url,
            "expire_time": json_time(flow.expire_time.as_ref()),
        })
    });
    let json = json!({ "authorization_required": {
        "reason": reason, "missing_scopes": answer.missing_scopes, "flow": flow,
    }});
    output.answer(&human.join("\n"), &json)?;
    Ok(Exit::ConsentNeeded)
}

/// The broker's answer has none of what it may have.
pub(super) fn empty_answer() -> CliError {
    CliError::new(Exit::Failed, "the broker's answer is empty: is it a newer version?")
}
