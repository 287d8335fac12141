//! `healthcheck`: does it serve?

use serde_json::json;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::EndpointArgs;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;

const HELP: &str = "\
Needs no API key. Exit code 0: serving; 1: anything else, as container health checks want it.

Examples:
  token-broker healthcheck
  token-broker healthcheck --endpoint https://broker.example.com --timeout 2s";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// A service's full name [default: the whole server]
    #[arg(long, default_value = "", hide_default_value = true)]
    service: String,
}

pub(super) async fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    let unhealthy = |mut error: CliError| {
        error.exit = Exit::Failed;
        error
    };
    let channel = args.endpoint.connect().await.map_err(unhealthy)?;
    let request = HealthCheckRequest { service: args.service.clone() };
    let status = match HealthClient::new(channel).check(request).await {
        Ok(response) => response.into_inner().status().as_str_name(),
        Err(status) if status.code() == Code::NotFound => "SERVICE_UNKNOWN",
        Err(status) => return Err(unhealthy(status.into())),
    };
    output.answer(status, &json!({ "status": status }))?;
    Ok(if status == ServingStatus::Serving.as_str_name() { Exit::Done } else { Exit::Failed })
}
