//! `callers create | show | update | delete`: callers of the database, through AdminService.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::keys;
use super::list::{lines, shown};
use super::rule_args::{AdminArgs, RuleArgs, summary};
use crate::cli::client::{ClientArgs, pages};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::init::caller_id;
use crate::cli::output::{Output, table};
use crate::domain::access_policy::Rule;
use crate::domain::admin_policy::AdminAction;
use crate::domain::key::{CallerId, TenantId};
use crate::r#gen::v1 as pb;
use crate::transport::grpc::{read_rule, rule_message};

/// Which caller, at which broker.
#[derive(Debug, clap::Args)]
pub(super) struct Name {
    /// The caller's id
    #[arg(value_parser = caller_id)]
    pub(super) id: CallerId,
    #[command(flatten)]
    pub(super) tenant: TenantArgs,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

/// Which tenant.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct TenantArgs {
    /// What it belongs to [default: your own tenant]
    #[arg(long, value_name = "ID", value_parser = |text: &str| TenantId::new(text))]
    tenant: Option<TenantId>,
}

impl TenantArgs {
    pub(in crate::cli) fn text(&self) -> String {
        self.tenant.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

/// What is decided about it.
#[derive(Debug, clap::Args)]
struct Settings {
    /// A file with its rules, as `[[allow]]` tables; instead of the flags, which make one rule
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// For people
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// A SPIFFE id that it proves to be; repeat for more
    #[arg(long = "spiffe-id", value_name = "ID")]
    spiffe_ids: Vec<String>,
    /// Issuer and subject of a JWT that it proves to be; repeat for more
    #[arg(long = "subject", num_args = 2, value_names = ["ISSUER", "SUBJECT"])]
    subjects: Vec<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    allow: Vec<Rule>,
}

impl Settings {
    fn rules(&self) -> Result<Vec<Rule>, CliError> {
        let usage = |text: String| CliError::new(Exit::Usage, text);
        let flags = self.rule.rule().map_err(usage)?;
        let Some(path) = &self.rules else { return Ok(flags.into_iter().collect()) };
        if flags.is_some() {
            return Err(usage("name the rules in --rules, or one by flags, not both".to_owned()));
        }
        let shown = path.display();
        let text =
            std::fs::read_to_string(path).map_err(|error| usage(format!("--rules {shown}: {error}")))?;
        let file: RulesFile =
            toml::from_str(&text).map_err(|error| usage(format!("--rules {shown}: {error}")))?;
        Ok(file.allow)
    }

    fn message(&self, disabled: bool) -> Result<pb::CallerSettings, CliError> {
        let rights = self.admin.rights();
        let subjects = self.subjects.chunks(2).filter_map(|pair| match pair {
            [issuer, subject] => Some(pb::JwtSubject { issuer: issuer.clone(), subject: subject.clone() }),
            _ => None,
        });
        Ok(pb::CallerSettings {
            description: self.description.clone(),
            allow: self.rules()?.into_iter().map(rule_message).collect(),
            admin_actions: rights.actions.into_iter().map(|action| admin_message(action).into()).collect(),
            all_tenants: rights.all_tenants,
            spiffe_ids: self.spiffe_ids.clone(),
            subjects: subjects.collect(),
            disabled,
        })
    }
}

fn admin_message(action: AdminAction) -> pb::AdminAction {
    let name = format!("ADMIN_ACTION_{}", action.name().to_ascii_uppercase());
    // A test sees that every action has its message.
    pb::AdminAction::from_str_name(&name).unwrap_or(pb::AdminAction::Unspecified)
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    settings: Settings,
    /// Make no API key: it comes in by another identity, or gets a key later
    #[arg(long)]
    no_key: bool,
}

pub(super) async fn create(args: Create, output: Output) -> Result<Exit, CliError> {
    let mut client = args.name.client.connect_admin().await?;
    let (tenant, caller) = (args.name.tenant.text(), args.name.id.to_string());
    let request = pb::CreateCallerRequest {
        tenant: tenant.clone(),
        caller: caller.clone(),
        settings: Some(args.settings.message(false)?),
    };
    let made = client.create_caller(request).await?.into_inner().caller.unwrap_or_default();
    let mut json = to_json(&made);
    let mut human = to_human(&made);
    if !args.no_key {
        let request = pb::CreateApiKeyRequest { tenant, caller, label: String::new(), lifetime: None };
        let answer = client.create_api_key(request).await?.into_inner();
        human = format!("{human}\n\nAPI key, shown only now:\n\n  {}", answer.api_key);
        json["api_key"] = answer.api_key.into();
        json["key"] = answer.key.as_ref().map_or(Value::Null, keys::to_json);
    }
    output.answer(&human, &json)?;
    Ok(Exit::Done)
}

pub(super) async fn show(args: Name, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect_admin().await?;
    let caller = read(&mut client, &args.tenant, &args.id).await?;
    output.answer(&to_human(&caller), &to_json(&caller))?;
    Ok(Exit::Done)
}

async fn read(
    client: &mut crate::cli::client::AdminClient,
    tenant: &TenantArgs,
    id: &CallerId,
) -> Result<pb::Caller, CliError> {
    let request = pb::GetCallerRequest { tenant: tenant.text(), caller: id.to_string() };
    Ok(client.get_caller(request).await?.into_inner().caller.unwrap_or_default())
}

#[derive(Debug, clap::Args)]
pub(super) struct Update {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    settings: Settings,
    /// It may do nothing from now on
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// It may do again what its rules allow
    #[arg(long)]
    enable: bool,
    /// Replace rules, admin rights, identities and description by those given here; without it they stay, and only
    /// --disable and --enable change something
    #[arg(long)]
    replace: bool,
}

pub(super) async fn update(args: Update, output: Output) -> Result<Exit, CliError> {
    if !args.replace && !args.disable && !args.enable {
        return Err(CliError::new(
            Exit::Usage,
            "there is nothing to change: --replace, --disable or --enable",
        ));
    }
    let mut client = args.name.client.connect_admin().await?;
    let there = read(&mut client, &args.name.tenant, &args.name.id).await?;
    let before = there.settings.unwrap_or_default();
    let disabled = args.disable || (before.disabled && !args.enable);
    let settings = if args.replace {
        args.settings.message(disabled)?
    } else {
        pb::CallerSettings { disabled, ..before }
    };
    let request = pb::UpdateCallerRequest {
        tenant: args.name.tenant.text(),
        caller: args.name.id.to_string(),
        revision: there.revision,
        settings: Some(settings),
    };
    let changed = client.update_caller(request).await?.into_inner().caller.unwrap_or_default();
    output.answer(&to_human(&changed), &to_json(&changed))?;
    Ok(Exit::Done)
}

pub(super) async fn delete(args: Name, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect_admin().await?;
    let request = pb::DeleteCallerRequest { tenant: args.tenant.text(), caller: args.id.to_string() };
    client.delete_caller(request).await?;
    output
        .answer(&format!("deleted, with its keys: {}", args.id), &json!({ "deleted": args.id.as_str() }))?;
    Ok(Exit::Done)
}

/// All callers that the broker knows.
pub(super) async fn list(client: &ClientArgs, tenant: &TenantArgs, output: Output) -> Result<Exit, CliError> {
    let mut client = client.connect_admin().await?;
    let all = pages(async |page_token| {
        let request = pb::ListCallersRequest { tenant: tenant.text(), page_size: 0, page_token };
        let page = client.list_callers(request).await?.into_inner();
        Ok((page.callers, page.next_page_token))
    })
    .await?;
    let rows: Vec<_> = all.iter().flat_map(rows).collect();
    let json: Vec<_> = all.iter().map(to_json).collect();
    output.answer(&table(&["CALLER", "TENANT", "FROM", "RULES", "ADMIN", "STATE", "IS"], &rows), &json)?;
    Ok(Exit::Done)
}

fn rows(caller: &pb::Caller) -> Vec<Vec<String>> {
    let settings = caller.settings.clone().unwrap_or_default();
    let first = [
        caller.caller.clone(),
        caller.tenant.clone(),
        from(caller).to_owned(),
        settings.allow.len().to_string(),
        admin_names(&settings).join(","),
        if settings.disabled { "disabled" } else { "enabled" }.to_owned(),
    ];
    lines(&first, &[shown(&settings.spiffe_ids, &settings.subjects)])
}

fn from(caller: &pb::Caller) -> &'static str {
    if caller.revision == 0 { "configuration" } else { "database" }
}

fn admin_names(settings: &pb::CallerSettings) -> Vec<String> {
    settings
        .admin_actions()
        .map(|action| crate::cli::credential::short(action.as_str_name(), "ADMIN_ACTION_"))
        .collect()
}

fn to_human(caller: &pb::Caller) -> String {
    let settings = caller.settings.clone().unwrap_or_default();
    let mut text = format!("caller {} of tenant {}, from the {}", caller.caller, caller.tenant, from(caller));
    if !settings.description.is_empty() {
        text = format!("{text}: {}", settings.description);
    }
    if settings.disabled {
        text.push_str("\n  disabled");
    }
    for (index, rule) in settings.allow.iter().enumerate() {
        let shown = read_rule(rule.clone())
            .map_or_else(|| "unknown to this version".to_owned(), |rule| summary(&rule));
        text = format!("{text}\n  allow[{index}] {shown}");
    }
    let admin = admin_names(&settings);
    if !admin.is_empty() {
        let tenants = if settings.all_tenants { "all tenants" } else { "its tenant" };
        text = format!("{text}\n  administers {} of {tenants}", admin.join(", "));
    }
    for identity in shown(&settings.spiffe_ids, &settings.subjects) {
        text = format!("{text}\n  is {identity}");
    }
    text
}

pub(super) fn subject_to_json(of: &pb::JwtSubject) -> Value {
    json!({ "issuer": of.issuer, "subject": of.subject })
}

fn to_json(caller: &pb::Caller) -> Value {
    let settings = caller.settings.clone().unwrap_or_default();
    json!({
        "caller": caller.caller,
        "tenant": caller.tenant,
        "from": from(caller),
        "revision": caller.revision,
        "description": settings.description,
        "disabled": settings.disabled,
        "allow": settings.allow.iter().cloned().filter_map(read_rule).collect::<Vec<_>>(),
        "admin": admin_names(&settings),
        "all_tenants": settings.all_tenants,
        "spiffe_ids": settings.spiffe_ids,
        "subjects": settings.subjects.iter().map(subject_to_json).collect::<Vec<_>>(),
    })
}
