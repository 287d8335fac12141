//! `callers keys`: API keys of callers of the database, through AdminService.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::stored::Name;
use crate::cli::client::duration;
use crate::cli::credential::{json_time, time};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, table};
use crate::r#gen::v1 as pb;

const HELP: &str = "\
A key is shown once, when it is made. What is changed holds on every replica within authentication.cache_ttl, 5 seconds at
most.

Examples:
  token-broker callers keys new agents --label ci --lifetime 90d
  token-broker callers keys list agents
  token-broker callers keys rotate agents 0b5a… --overlap 1h
  token-broker callers keys revoke agents 0b5a…";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key
    New {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        new: NewKey,
    },
    /// List a caller's keys, the newest first
    List(Name),
    /// Make a key in place of another, which stays good for a while
    Rotate {
        #[command(flatten)]
        name: Name,
        /// The id of the key to be replaced
        key_id: String,
        /// How long that one stays good
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
        overlap: Duration,
        #[command(flatten)]
        new: NewKey,
    },
    /// End a key
    Revoke {
        #[command(flatten)]
        name: Name,
        /// The key's id
        key_id: String,
    },
}

#[derive(Debug, clap::Args)]
struct NewKey {
    /// For people
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// How long it is good [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    lifetime: Option<Duration>,
}

fn message(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), nanos: 0 }
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    match args.command {
        Command::New { name, new } => {
            let mut client = name.client.connect_admin().await?;
            let answer = client
                .create_api_key(pb::CreateApiKeyRequest {
                    tenant: name.tenant.text(),
                    caller: name.id.to_string(),
                    label: new.label,
                    lifetime: new.lifetime.map(message),
                })
                .await?
                .into_inner();
            made(&answer.key.unwrap_or_default(), &answer.api_key, output)
        }
        Command::Rotate { name, key_id, overlap, new } => {
            let mut client = name.client.connect_admin().await?;
            let answer = client
                .rotate_api_key(pb::RotateApiKeyRequest {
                    tenant: name.tenant.text(),
                    caller: name.id.to_string(),
                    key_id,
                    overlap: Some(message(overlap)),
                    label: new.label,
                    lifetime: new.lifetime.map(message),
                })
                .await?
                .into_inner();
            made(&answer.key.unwrap_or_default(), &answer.api_key, output)
        }
        Command::List(name) => {
            let mut client = name.client.connect_admin().await?;
            let request = pb::ListApiKeysRequest { tenant: name.tenant.text(), caller: name.id.to_string() };
            let keys = client.list_api_keys(request).await?.into_inner().keys;
            let rows: Vec<_> = keys.iter().map(row).collect();
            let json: Vec<_> = keys.iter().map(to_json).collect();
            output.answer(
                &table(&["KEY ID", "STATE", "CREATED", "EXPIRES", "LAST USED", "LABEL"], &rows),
                &json,
            )?;
            Ok(Exit::Done)
        }
        Command::Revoke { name, key_id } => {
            let mut client = name.client.connect_admin().await?;
            let request =
                pb::RevokeApiKeyRequest { tenant: name.tenant.text(), caller: name.id.to_string(), key_id };
            let key = client.revoke_api_key(request).await?.into_inner().key.unwrap_or_default();
            output.answer(&format!("revoked: {}", key.key_id), &to_json(&key))?;
            Ok(Exit::Done)
        }
    }
}

fn made(key: &pb::ApiKey, secret: &str, output: Output) -> Result<Exit, CliError> {
    let human = format!("API key {}, shown only now:\n\n  {secret}", key.key_id);
    let mut json = to_json(key);
    json["api_key"] = secret.into();
    output.answer(&human, &json)?;
    Ok(Exit::Done)
}

fn state(key: &pb::ApiKey) -> &'static str {
    match (key.good, key.revoke_time.is_some()) {
        (true, _) => "good",
        (false, true) => "revoked",
        (false, false) => "expired",
    }
}

fn row(key: &pb::ApiKey) -> Vec<String> {
    vec![
        key.key_id.clone(),
        state(key).to_owned(),
        time(key.create_time.as_ref()),
        time(key.expire_time.as_ref()),
        time(key.last_use_time.as_ref()),
        key.label.clone(),
    ]
}

pub(super) fn to_json(key: &pb::ApiKey) -> Value {
    json!({
        "key_id": key.key_id,
        "label": key.label,
        "state": state(key),
        "create_time": json_time(key.create_time.as_ref()),
        "expire_time": json_time(key.expire_time.as_ref()),
        "revoke_time": json_time(key.revoke_time.as_ref()),
        "last_use_time": json_time(key.last_use_time.as_ref()),
    })
}
