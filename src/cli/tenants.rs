//! `tenants`: tenants, and breaking glass, through AdminService.

use clap::Subcommand;
use serde_json::{Value, json};

use super::callers::TenantArgs;
use super::client::{AdminClient, ClientArgs, pages};
use super::credential::{json_time, time};
use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, table};
use crate::domain::key::{TenantId, UserId};
use crate::r#gen::v1 as pb;

const HELP: &str = "\
Needs an API key whose caller has the admin right manage_tenants; revoke-user, revoke-all and delete-user, break_glass. For
other tenants than its own the caller needs all_tenants.

Examples:
  token-broker tenants create acme --name 'Acme, Inc.'
  token-broker tenants update acme --disable
  token-broker tenants revoke-user alice --tenant acme
  token-broker tenants delete-user alice --tenant acme --yes
  token-broker tenants revoke-all --tenant acme --yes";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a tenant
    Create {
        /// Its id
        #[arg(value_parser = tenant_id)]
        id: TenantId,
        /// For people
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
    },
    /// Show a tenant
    Show {
        /// Its id
        #[arg(value_parser = tenant_id)]
        id: TenantId,
    },
    /// List tenants
    List,
    /// Rename, disable or enable a tenant
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args(["name", "disable", "enable"]))]
    Update {
        /// Its id
        #[arg(value_parser = tenant_id)]
        id: TenantId,
        /// For people
        #[arg(long)]
        name: Option<String>,
        /// Its callers may do nothing from now on
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Its callers may do again what their rules allow
        #[arg(long)]
        enable: bool,
    },
    /// Delete a tenant for good, with its callers and the keys to its users' tokens; its id is never used again
    Delete {
        /// Its id
        #[arg(value_parser = tenant_id)]
        id: TenantId,
        /// Really
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Revoke all credentials of a user
    RevokeUser {
        /// Whose
        #[arg(value_parser = |text: &str| UserId::new(text))]
        user: UserId,
        #[command(flatten)]
        tenant: TenantArgs,
    },
    /// Delete all that is known of a user, with the key to the user's tokens; not the audit log
    DeleteUser {
        /// Whose
        #[arg(value_parser = |text: &str| UserId::new(text))]
        user: UserId,
        #[command(flatten)]
        tenant: TenantArgs,
        /// Do not wait for providers: those that have not been told yet are never told
        #[arg(long)]
        abandon_revocations: bool,
        /// Really
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Revoke all credentials of a tenant
    RevokeAll {
        #[command(flatten)]
        tenant: TenantArgs,
        /// Really
        #[arg(long, required = true)]
        yes: bool,
    },
}

fn tenant_id(text: &str) -> Result<TenantId, crate::domain::key::KeyError> {
    TenantId::new(text)
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut client = args.client.connect_admin().await?;
    match args.command {
        Command::Create { id, name } => {
            let request = pb::CreateTenantRequest { tenant: id.into(), display_name: name };
            show(client.create_tenant(request).await?.into_inner().tenant, output)
        }
        Command::Show { id } => {
            let request = pb::GetTenantRequest { tenant: id.into() };
            show(client.get_tenant(request).await?.into_inner().tenant, output)
        }
        Command::List => list(&mut client, output).await,
        Command::Update { id, name, disable, enable } => {
            let disabled = if disable { Some(true) } else { enable.then_some(false) };
            let request = pb::UpdateTenantRequest { tenant: id.into(), display_name: name, disabled };
            show(client.update_tenant(request).await?.into_inner().tenant, output)
        }
        Command::Delete { id, yes: _ } => {
            let request = pb::DeleteTenantRequest { tenant: id.to_string() };
            client.delete_tenant(request).await?;
            output.answer(
                &format!("deleted, with its callers and the keys to its users' tokens: {id}"),
                &json!({ "deleted": id.as_str() }),
            )?;
            Ok(Exit::Done)
        }
        Command::RevokeUser { user, tenant } => {
            let mut done = Done::default();
            loop {
                let request =
                    pb::RevokeUserCredentialsRequest { tenant: tenant.text(), user_id: user.to_string() };
                let answer = client.revoke_user_credentials(request).await?.into_inner();
                if !done.add(answer.revoked, answer.cancelled_flows, answer.more) {
                    return done.answer(output);
                }
            }
        }
        Command::DeleteUser { user, tenant, abandon_revocations, yes: _ } => {
            let request = pb::DeleteUserDataRequest {
                tenant: tenant.text(),
                user_id: user.to_string(),
                abandon_revocations,
            };
            delete_user(&mut client, request, output).await
        }
        Command::RevokeAll { tenant, yes: _ } => {
            let mut done = Done::default();
            loop {
                let request = pb::RevokeTenantCredentialsRequest { tenant: tenant.text() };
                let answer = client.revoke_tenant_credentials(request).await?.into_inner();
                if !done.add(answer.revoked, answer.cancelled_flows, answer.more) {
                    return done.answer(output);
                }
            }
        }
    }
}

/// What all calls of one command have done.
#[derive(Default)]
struct Done {
    revoked: i64,
    cancelled_flows: i64,
}

impl Done {
    /// Whether to ask again.
    fn add(&mut self, revoked: i32, cancelled_flows: i32, more: bool) -> bool {
        self.revoked += i64::from(revoked);
        self.cancelled_flows += i64::from(cancelled_flows);
        more
    }

    fn answer(self, output: Output) -> Result<Exit, CliError> {
        let Self { revoked, cancelled_flows } = self;
        let human = format!("revoked: {revoked}; pending consents cancelled: {cancelled_flows}");
        output.answer(&human, &json!({ "revoked": revoked, "cancelled_flows": cancelled_flows }))?;
        Ok(Exit::Done)
    }
}

async fn delete_user(
    client: &mut AdminClient,
    request: pb::DeleteUserDataRequest,
    output: Output,
) -> Result<Exit, CliError> {
    let mut done = Done::default();
    let last = loop {
        let answer = client.delete_user_data(request.clone()).await?.into_inner();
        if !done.add(answer.revoked, answer.cancelled_flows, answer.more) {
            break answer;
        }
    };
    let (user, waiting) = (&request.user_id, last.waiting_revocations);
    let human = if last.deleted {
        format!("deleted, with the key to the user's tokens: {user}")
    } else {
        format!(
            "revoked, but not deleted yet: {waiting} revocations wait for their providers. Run it again, or with \
             --abandon-revocations: {user}"
        )
    };
    let json = json!({
        "deleted": last.deleted,
        "revoked": done.revoked,
        "cancelled_flows": done.cancelled_flows,
        "waiting_revocations": waiting,
    });
    output.answer(&human, &json)?;
    Ok(if last.deleted { Exit::Done } else { Exit::Unavailable })
}

async fn list(client: &mut AdminClient, output: Output) -> Result<Exit, CliError> {
    let all = pages(async |page_token| {
        let request = pb::ListTenantsRequest { page_size: 0, page_token };
        let page = client.list_tenants(request).await?.into_inner();
        Ok((page.tenants, page.next_page_token))
    })
    .await?;
    let rows: Vec<_> = all.iter().map(row).collect();
    let json: Vec<_> = all.iter().map(to_json).collect();
    output.answer(&table(&["TENANT", "STATE", "CREATED", "NAME"], &rows), &json)?;
    Ok(Exit::Done)
}

fn show(tenant: Option<pb::Tenant>, output: Output) -> Result<Exit, CliError> {
    let tenant = tenant.unwrap_or_default();
    output.answer(&table(&["TENANT", "STATE", "CREATED", "NAME"], &[row(&tenant)]), &to_json(&tenant))?;
    Ok(Exit::Done)
}

fn row(tenant: &pb::Tenant) -> Vec<String> {
    let state = if tenant.disable_time.is_some() { "disabled" } else { "enabled" };
    vec![
        tenant.tenant.clone(),
        state.to_owned(),
        time(tenant.create_time.as_ref()),
        tenant.display_name.clone(),
    ]
}

fn to_json(tenant: &pb::Tenant) -> Value {
    json!({
        "tenant": tenant.tenant,
        "display_name": tenant.display_name,
        "create_time": json_time(tenant.create_time.as_ref()),
        "disable_time": json_time(tenant.disable_time.as_ref()),
    })
}
