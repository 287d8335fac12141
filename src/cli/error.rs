//! What a command fails with: a text for people, fields for scripts, an exit code.

use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::exit::Exit;
use crate::app::StartError;
use crate::config::ConfigErrors;
use crate::infra::storage::postgres;
use crate::infra::storage::sqlite::OpenError;
use crate::transport::grpc::status::code_name;

/// A failed command.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CliError {
    #[serde(skip)]
    pub(super) exit: Exit,
    /// Boxed, since every answer of a command would be as large.
    #[serde(flatten)]
    text: Box<Text>,
}

/// What is said of it.
#[derive(Debug, Clone, Default, Serialize)]
struct Text {
    /// The gRPC status code, of a failed call.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The broker's stable reason, of a failed call.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    message: String,
    /// Field and what is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<(String, String)>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl CliError {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, text: Box::new(Text { message: message.into(), ..Text::default() }) }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.text.hint = Some(hint.into());
        self
    }

    /// For people: what, then what to do.
    pub(super) fn human(&self) -> String {
        let Text { code, reason, message, violations, hint } = &*self.text;
        let mut text = String::from("error: ");
        for part in [code.clone(), reason.as_ref().map(|reason| format!("({reason})"))].into_iter().flatten()
        {
            text = text + &part + " ";
        }
        text.push_str(message);
        for (field, description) in violations {
            text = text + "\n  " + field + ": " + description;
        }
        if let Some(hint) = hint {
            text = text + "\nhint: " + hint;
        }
        text
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        let (exit, hint) = match status.code() {
            Code::Unauthenticated => (
                Exit::Denied,
                Some(
                    "set TOKEN_BROKER_API_KEY, or pass --api-key-file; `token-broker callers new` makes a key",
                ),
            ),
            Code::PermissionDenied => {
                (Exit::Denied, Some("the caller's rights are in [callers.<id>] of the configuration"))
            }
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
                (Exit::Unavailable, None)
            }
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented => (Exit::Refused, None),
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
                (Exit::Failed, Some("the broker's log has the cause"))
            }
        };
        let broken = matches!(status.code(), Code::Unknown | Code::Internal | Code::Unavailable);
        let (exit, hint) = if broken && std::error::Error::source(&status).is_some() {
            // Made on this side: the connection broke, or what answers does not speak gRPC.
            (Exit::Unavailable, Some("does the endpoint begin with the right one of http:// and https://?"))
        } else {
            (exit, hint)
        };
        let details = status.get_error_details();
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        let retry = retry.map(|delay| format!("try again in {} s", delay.as_secs_f64().ceil()));
        let violations = details.bad_request().map(|bad| &bad.field_violations[..]).unwrap_or_default();
        let text = Text {
            code: Some(code_name(status.code()).to_owned()),
            reason: details.error_info().map(|info| info.reason.clone()),
            message: status.message().to_owned(),
            violations: violations.iter().map(|v| (v.field.clone(), v.description.clone())).collect(),
            hint: retry.or_else(|| hint.map(str::to_owned)),
        };
        Self { exit, text: Box::new(text) }
    }
}

impl From<ConfigErrors> for CliError {
    fn from(error: ConfigErrors) -> Self {
        Self::new(Exit::Config, error.to_string())
            .hint("`token-broker config default` prints every setting with its meaning")
    }
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        Self::new(Exit::Database, error.to_string())
    }
}

impl From<postgres::OpenError> for CliError {
    fn from(error: postgres::OpenError) -> Self {
        Self::new(Exit::Database, error.to_string())
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Bind { .. } => Exit::Bind,
            StartError::Store(_)
            | StartError::Postgres(_)
            | StartError::Company(_)
            | StartError::StoreUse(_)
            | StartError::Journal(_) => Exit::Database,
            StartError::Vault(_) => Exit::Vault,
            StartError::Keyring(_)
            | StartError::KeyService { .. }
            | StartError::Definitions(_)
            | StartError::Registrations(_)
            | StartError::Keys { .. }
            | StartError::Tls(_)
            | StartError::NoBaseUrl
            | StartError::CallerTwice { .. }
            | StartError::IdentityTwice { .. }
            | StartError::AuditFile(_)
            | StartError::NoLogin
            | StartError::Redis(_) => Exit::Config,
            StartError::Http(_) | StartError::Metrics(_) | StartError::AuditStdout(_) => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}
