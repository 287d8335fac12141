//! `keys`: data keys, at a running broker.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{AdminClient, ClientArgs};
use super::credential::{json_time, short, time};
use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, table};
use crate::r#gen::v1::{
    DataKey, ListDataKeysRequest, ListDataKeysResponse, Reencryption, RetireDataKeyRequest,
    RewrapDataKeysRequest, RotateDataKeysRequest,
};

const HELP: &str = "\
The caller needs the admin right `manage_keys`. docs/KEYS.md has the whole procedure.

Examples:
  token-broker keys status
  token-broker keys rotate --all-tenants      new data keys; rows move to them in the background
  token-broker keys rewrap                    after vault.active_key was changed: data keys move to it
  token-broker keys retire 0b7c6f2e-…         delete a data key that no row needs any more";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Whose keys.
#[derive(Debug, clap::Args)]
struct Whose {
    /// This tenant's [default: the caller's own]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    tenant: String,
    /// Every tenant's
    #[arg(long, conflicts_with = "tenant")]
    all_tenants: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show data keys, the rows sealed with each, the key-encryption keys in use, and how far the work is
    Status {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Give a tenant another data key; its rows move to it in the background
    Rotate {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Wrap all data keys under the active key-encryption key
    Rewrap {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a superseded data key, for good
    Retire {
        /// Its id
        #[arg(value_name = "DATA_KEY")]
        data_key: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// The most that one answer holds.
const PAGE_SIZE: i32 = 1_000;

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    match args.command {
        Command::Status { whose, client } => status(whose, client.connect_admin().await?, output).await?,
        Command::Rotate { whose, client } => rotate(whose, client.connect_admin().await?, output).await?,
        Command::Rewrap { client } => return rewrap(client.connect_admin().await?, output).await,
        Command::Retire { data_key, client } => {
            let mut client = client.connect_admin().await?;
            client.retire_data_key(RetireDataKeyRequest { data_key: data_key.clone() }).await?;
            output.answer(&format!("{data_key} is deleted"), &json!({ "retired": data_key }))?;
        }
    }
    Ok(Exit::Done)
}

async fn status(whose: Whose, mut client: AdminClient, output: Output) -> Result<(), CliError> {
    let mut request = ListDataKeysRequest {
        tenant: whose.tenant,
        all_tenants: whose.all_tenants,
        page_size: PAGE_SIZE,
        page_token: String::new(),
    };
    let mut keys = Vec::new();
    let last = loop {
        let page = client.list_data_keys(request.clone()).await?.into_inner();
        let ListDataKeysResponse { data_keys, next_page_token, .. } = &page;
        keys.extend(data_keys.iter().cloned());
        if next_page_token.is_empty() {
            break page;
        }
        request.page_token.clone_from(next_page_token);
    };
    let work = last.reencryption.unwrap_or_default();
    let mut under: BTreeMap<&str, usize> = last.configured_keks.iter().map(|kek| (kek.as_str(), 0)).collect();
    for key in &keys {
        *under.entry(&key.kek).or_default() += 1;
    }
    let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
    let header = [
        "TENANT",
        "PURPOSE",
        "DATA KEY",
        "KEK",
        "STATUS",
        "CREDENTIALS",
        "FLOWS",
        "REVOCATIONS",
        "APPS",
        "USER KEYS",
    ];
    let kek_rows: Vec<Vec<String>> = under
        .iter()
        .map(|(kek, count)| {
            let active = if **kek == last.active_kek { "active" } else { "" };
            vec![(*kek).to_owned(), active.to_owned(), count.to_string()]
        })
        .collect();
    let human = [table(&header, &rows), table(&["KEK", "", "DATA KEYS"], &kek_rows), progress(&work)];
    let json = json!({
        "data_keys": keys.iter().map(entry).collect::<Vec<_>>(),
        "active_kek": last.active_kek,
        "keks": under,
        "reencryption": {
            "under_way": work.under_way,
            "pass": work.pass,
            "begin_time": json_time(work.begin_time.as_ref()),
            "end_time": json_time(work.end_time.as_ref()),
            "looked_at": work.looked_at,
            "renewed": work.renewed,
            "skipped": work.skipped,
            "unreadable": work.unreadable,
            "left": work.left,
            "rows_per_second": work.rows_per_second,
        },
    });
    output.answer(&human.join("\n\n"), &json)
}

fn progress(work: &Reencryption) -> String {
    let Reencryption {
        under_way, pass, looked_at, renewed, skipped, unreadable, left, rows_per_second, ..
    } = work;
    let state = match (under_way, pass) {
        (false, 0) => return "no row was ever moved".to_owned(),
        (true, 0) => return "rows will be moved in some seconds".to_owned(),
        (true, _) => "rows are being moved",
        (false, _) => "all rows are moved",
    };
    let end = time(work.end_time.as_ref());
    format!(
        "{state}: pass {pass} looked at {looked_at} rows ({rows_per_second:.0} a second), moved {renewed}, \
         left out {skipped}, could not read {unreadable}; about {left} are left. The last whole pass ended: {end}"
    )
}

fn row(key: &DataKey) -> Vec<String> {
    let count = |rows: Option<i64>| rows.map_or("-".to_owned(), |rows| rows.to_string());
    let rows = key.rows.as_ref();
    vec![
        key.tenant.clone(),
        short(key.purpose().as_str_name(), "DATA_KEY_PURPOSE_"),
        key.id.clone(),
        key.kek.clone(),
        key.supersede_time
            .as_ref()
            .map_or("active".to_owned(), |at| format!("superseded {}", time(Some(at)))),
        count(rows.map(|rows| rows.credentials)),
        count(rows.map(|rows| rows.flows)),
        count(rows.map(|rows| rows.revocations)),
        count(rows.map(|rows| rows.provider_configurations)),
        count(rows.map(|rows| rows.user_keys)),
    ]
}

fn entry(key: &DataKey) -> Value {
    json!({
        "id": key.id,
        "tenant": key.tenant,
        "purpose": short(key.purpose().as_str_name(), "DATA_KEY_PURPOSE_"),
        "kek": key.kek,
        "create_time": json_time(key.create_time.as_ref()),
        "supersede_time": json_time(key.supersede_time.as_ref()),
        "rows": key.rows.as_ref().map(|rows| json!({
            "credentials": rows.credentials,
            "flows": rows.flows,
            "revocations": rows.revocations,
            "provider_configurations": rows.provider_configurations,
            "user_keys": rows.user_keys,
        })),
    })
}

async fn rotate(whose: Whose, mut client: AdminClient, output: Output) -> Result<(), CliError> {
    let request = RotateDataKeysRequest { tenant: whose.tenant, all_tenants: whose.all_tenants };
    let rotated = client.rotate_data_keys(request).await?.into_inner().rotated;
    let rows: Vec<Vec<String>> =
        rotated.iter().map(|one| vec![one.tenant.clone(), one.data_key.clone()]).collect();
    let json: Vec<Value> =
        rotated.iter().map(|one| json!({ "tenant": one.tenant, "data_key": one.data_key })).collect();
    let human = if rows.is_empty() {
        "there is no data key to replace: one is made with the first token".to_owned()
    } else {
        table(&["TENANT", "ACTIVE DATA KEY"], &rows)
    };
    output.answer(&human, &json)
}

async fn rewrap(mut client: AdminClient, output: Output) -> Result<Exit, CliError> {
    let mut done = 0;
    let failed = loop {
        let step = client.rewrap_data_keys(RewrapDataKeysRequest {}).await?.into_inner();
        done += step.rewrapped;
        if !step.more {
            break step.failed;
        }
    };
    let human = format!("{done} data keys were wrapped anew, {failed} do not open");
    output.answer(&human, &json!({ "rewrapped": done, "failed": failed }))?;
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}
