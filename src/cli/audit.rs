//! `audit`: who used whose token. Asks a running broker, but for `verify --file`, which needs nothing else.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::ClientArgs;
use super::credential::{json_time, short, time};
use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, table};
use crate::domain::audit::{Hash, Head, Line, Walk};
use crate::r#gen::v1::{
    AuditHead, AuditOutcome, AuditRow, ExportAuditRequest, QueryAuditRequest, VerifyAuditRequest,
};

const HELP: &str = "\
Examples:
  token-broker audit query -u alice --provider google --service gmail
  token-broker audit query --caller agents --outcome denied --since 2026-01-31T00:00:00Z --limit 20
  token-broker audit verify
  token-broker audit verify --noted 1042:9f86d081884c7d65…
  token-broker audit export --to audit.jsonl
  token-broker audit verify --file audit.jsonl --noted 1042:9f86d081884c7d65…";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show decisions, the newest first
    Query(Query),
    /// Find the first row that was changed, removed or inserted: of a running broker, or of a file
    Verify(Verify),
    /// Copy the log as lines of JSON
    Export(Export),
}

#[derive(Debug, clap::Args)]
struct Query {
    /// About this user
    #[arg(short, long, value_name = "ID", default_value = "", hide_default_value = true)]
    user: String,
    /// About this provider
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    provider: String,
    /// About this service
    #[arg(short, long, value_name = "ID", default_value = "", hide_default_value = true)]
    service: String,
    /// By this caller
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    caller: String,
    /// This RPC or event, as `GetCredential` or `Consent`
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    action: String,
    /// With this outcome
    #[arg(long, value_enum)]
    outcome: Option<OutcomeArg>,
    /// Not before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// At most so many rows
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OutcomeArg {
    Allowed,
    Denied,
    Failed,
}

#[derive(Debug, clap::Args)]
struct TenantArg {
    /// Of this tenant, for callers that administer all [default: the caller's own]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    tenant: String,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// Verify this file of exported or sunk lines instead of asking a broker; seals need the vault's key and are not looked at
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A head that was noted earlier, which must be in the log
    #[arg(long, value_name = "NUMBER:HASH", value_parser = noted)]
    noted: Option<Head>,
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Args)]
struct Export {
    /// Where to; made anew, mode 0600 [default: standard output]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Only rows behind this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    client: ClientArgs,
}

fn noted(text: &str) -> Result<Head, &'static str> {
    const WRONG: &str = "must be a number, a colon and 64 hex digits, as `audit verify` prints";
    let (sequence, hex) = text.split_once(':').ok_or(WRONG)?;
    let mut hash = [0; 32];
    hex::decode_to_slice(hex, &mut hash).map_err(|_| WRONG)?;
    Ok(Head { sequence: sequence.parse().map_err(|_| WRONG)?, hash: Hash(hash) })
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    match args.command {
        Command::Query(args) => query(args, output).await,
        Command::Verify(Verify { file: Some(file), noted, .. }) => verify_file(&file, noted, output),
        Command::Verify(args) => verify(args, output).await,
        Command::Export(args) => export(args).await,
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond().max(0) }
}

async fn query(args: Query, output: Output) -> Result<Exit, CliError> {
    const PAGE: u32 = 1_000;
    let mut client = args.client.connect_admin().await?;
    let outcome = match args.outcome {
        None => AuditOutcome::Unspecified,
        Some(OutcomeArg::Allowed) => AuditOutcome::Allowed,
        Some(OutcomeArg::Denied) => AuditOutcome::Denied,
        Some(OutcomeArg::Failed) => AuditOutcome::Failed,
    };
    let mut request = QueryAuditRequest {
        tenant: args.tenant.tenant,
        user_id: args.user,
        provider: args.provider,
        service: args.service,
        caller: args.caller,
        action: args.action,
        outcome: outcome.into(),
        start_time: args.since.map(timestamp),
        end_time: args.until.map(timestamp),
        page_size: 0,
        page_token: String::new(),
    };
    let mut found = Vec::new();
    let mut left = args.limit;
    while left > 0 {
        request.page_size = i32::try_from(left.min(PAGE)).unwrap_or_default();
        let page = client.query_audit(request.clone()).await?.into_inner();
        left = left.saturating_sub(u32::try_from(page.rows.len()).unwrap_or(u32::MAX));
        found.extend(page.rows);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let header =
        ["NUMBER", "TIME", "CALLER", "ACTION", "OUTCOME", "USER", "PROVIDER", "SERVICES", "TOKEN", "TARGET"];
    output.answer(&table(&header, &rows), &found.iter().map(entry).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

fn outcome(row: &AuditRow) -> String {
    short(row.outcome().as_str_name(), "AUDIT_OUTCOME_").to_lowercase()
}

fn row(row: &AuditRow) -> Vec<String> {
    let why = if row.reason.is_empty() { String::new() } else { format!(" ({})", row.reason) };
    let token = match row.token_fingerprint.get(..12) {
        Some(start) => format!("{} {start}", row.generation),
        None => String::new(),
    };
    vec![
        row.sequence.to_string(),
        time(row.time.as_ref()),
        row.caller.clone(),
        row.action.clone(),
        outcome(row) + &why,
        row.user_id.clone(),
        row.provider.clone(),
        row.services.join(","),
        token,
        row.target.clone(),
    ]
}

fn entry(row: &AuditRow) -> Value {
    json!({
        "sequence": row.sequence,
        "time": json_time(row.time.as_ref()),
        "caller": row.caller,
        "identified_by": row.identified_by,
        "action": row.action,
        "outcome": outcome(row),
        "reason": row.reason,
        "user_id": row.user_id,
        "provider": row.provider,
        "services": row.services,
        "account": row.account,
        "flow_id": row.flow_id,
        "target": row.target,
        "generation": row.generation,
        "token_fingerprint": row.token_fingerprint,
        "purpose": row.purpose,
        "request_id": row.request_id,
        "hash": row.hash,
    })
}

/// What a verification found, of one tenant.
fn report(
    tenant: &str,
    head: (u64, &str),
    flaw: Option<&(u64, String)>,
    output: Output,
) -> Result<Exit, CliError> {
    let (sequence, hash) = head;
    let of = if tenant.is_empty() { String::new() } else { format!(" of {tenant}") };
    let human = match flaw {
        None => format!("The log{of} is in order up to {sequence}:{hash}\nWrite that down elsewhere."),
        Some((number, what)) => {
            format!("The log{of} is NOT in order: row {number} {what}.\nIn order up to {sequence}:{hash}")
        }
    };
    let json = json!({
        "tenant": tenant,
        "in_order": flaw.is_none(),
        "head": { "sequence": sequence, "hash": hash },
        "flaw": flaw.map(|(sequence, what)| json!({ "sequence": sequence, "what": what })),
    });
    output.answer(&human, &json)?;
    Ok(if flaw.is_some() { Exit::Failed } else { Exit::Done })
}

async fn verify(args: Verify, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect_admin().await?;
    let noted_head = args.noted.map(|head| AuditHead {
        sequence: i64::try_from(head.sequence).unwrap_or(i64::MAX),
        hash: hex::encode(head.hash.0),
    });
    let tenant = args.tenant.tenant.clone();
    let request = VerifyAuditRequest { tenant: args.tenant.tenant, noted_head };
    let verdict = client.verify_audit(request).await?.into_inner();
    let head = verdict.head.unwrap_or_default();
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let flaw = (verdict.flawed_sequence > 0).then(|| (number(verdict.flawed_sequence), verdict.flaw));
    report(&tenant, (number(head.sequence), &head.hash), flaw.as_ref(), output)
}

/// One tenant's lines of a file.
struct Found {
    walk: Walk,
    noted: Option<Head>,
    met: bool,
}

fn verify_file(path: &Path, noted: Option<Head>, output: Output) -> Result<Exit, CliError> {
    let wrong = |message: String| CliError::new(Exit::Usage, format!("--file {}: {message}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    // A sink's file has the lines of all tenants; a head is of one, so it is looked for in each.
    let mut tenants: BTreeMap<String, Found> = BTreeMap::new();
    for (number, line) in (1_u64..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(|error| wrong(error.to_string()))?;
        let parsed: Line = serde_json::from_str(&line)
            .map_err(|_| wrong(format!("line {number} is not one of an audit log")))?;
        let tenant = parsed.tenant.clone();
        let (over, row) = parsed.read().map_err(|bad| wrong(format!("line {number}: {bad}")))?;
        let found = tenants.entry(tenant.clone()).or_insert_with(|| Found {
            walk: Walk::from(over),
            noted,
            met: noted == Some(over),
        });
        let before = found.walk.head();
        if let Err(flaw) = found.walk.step(&row) {
            let hash = hex::encode(before.hash.0);
            return report(
                &tenant,
                (before.sequence, &hash),
                Some(&(flaw.sequence, flaw.kind.to_string())),
                output,
            );
        }
        found.met |= found.noted == Some(row.head());
    }
    if let Some(noted) = noted
        && !tenants.values().any(|found| found.met)
    {
        let what = "is not the noted head: rows were cut off or replaced, or the file is another log's";
        let hash = hex::encode(noted.hash.0);
        return report("", (0, &hash), Some(&(noted.sequence, what.to_owned())), output);
    }
    for (tenant, found) in &tenants {
        let head = found.walk.head();
        report(tenant, (head.sequence, &hex::encode(head.hash.0)), None, output)?;
    }
    if tenants.is_empty() {
        return Err(wrong("there is no line in it".to_owned()));
    }
    Ok(Exit::Done)
}

async fn export(args: Export) -> Result<Exit, CliError> {
    let mut client = args.client.connect_admin().await?;
    let mut to: Box<dyn std::io::Write + Send> = match &args.to {
        None => Box::new(std::io::stdout()),
        Some(path) => {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options
                .open(path)
                .map_err(|error| CliError::new(Exit::Usage, format!("--to {}: {error}", path.display())))?;
            Box::new(file)
        }
    };
    let request = ExportAuditRequest { tenant: args.tenant.tenant, after_sequence: args.after };
    let mut chunks = client.export_audit(request).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        to.write_all(&chunk.lines)?;
    }
    to.flush()?;
    Ok(Exit::Done)
}
