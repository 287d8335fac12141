//! `providers create | update | delete`, and `list` and `show` with `--stored`: tenants' own apps, through AdminService.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::callers::TenantArgs;
use crate::cli::client::{AdminClient, ClientArgs, pages};
use crate::cli::credential::{json_time, time};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, table};
use crate::config::Environment;
use crate::domain::client::{AssertionAlgorithm, ClientAuth};
use crate::domain::key::ProviderId;
use crate::domain::secret::SecretString;
use crate::r#gen::v1 as pb;

/// More than any key or chain of certificates, in bytes.
const MAX_FILE_BYTES: u64 = 128 * 1024;

/// Which app, at which broker.
#[derive(Debug, clap::Args)]
struct Name {
    /// What callers call the provider
    #[arg(value_parser = |text: &str| ProviderId::new(text))]
    id: ProviderId,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// By what the client shows who it is. Never on the command line, which every user of the machine can read.
#[derive(Debug, clap::Args)]
struct Authentication {
    /// How the client authenticates: `private_key_jwt`, `tls_client_auth`, `client_secret_basic`, `client_secret_post` or none
    /// [default: the best that is given]
    #[arg(long, value_name = "METHOD", value_parser = |text: &str| ClientAuth::parse(text))]
    client_auth: Option<ClientAuth>,
    /// File with the client secret; `-`: standard input
    #[arg(long, value_name = "FILE", conflicts_with = "client_secret_env")]
    client_secret_file: Option<PathBuf>,
    /// Variable with the client secret
    #[arg(long, value_name = "NAME")]
    client_secret_env: Option<String>,
    /// File with the private key that signs assertions, as PKCS#8 in PEM; `-`: standard input
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
    /// `kid` of the private key
    #[arg(long, value_name = "ID", requires = "private_key_file")]
    private_key_id: Option<String>,
    /// `ES256`, `RS256`, `PS256` or `EdDSA` [default: what fits the key]
    #[arg(long, value_name = "NAME", requires = "private_key_file", value_parser = |text: &str| AssertionAlgorithm::parse(text))]
    private_key_algorithm: Option<AssertionAlgorithm>,
    /// File with a certificate for TLS and what leads to its authority, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    tls_certificate_file: Option<PathBuf>,
    /// File with the certificate's private key, in PEM; `-`: standard input
    #[arg(long, value_name = "FILE", requires = "tls_certificate_file")]
    tls_key_file: Option<PathBuf>,
}

impl Authentication {
    fn is_given(&self) -> bool {
        self.client_auth.is_some()
            || self.client_secret_file.is_some()
            || self.client_secret_env.is_some()
            || self.private_key_file.is_some()
            || self.tls_certificate_file.is_some()
    }

    fn message(&self) -> Result<pb::ClientAuthentication, CliError> {
        let from_input = [&self.client_secret_file, &self.private_key_file, &self.tls_key_file];
        if from_input.into_iter().flatten().filter(|path| is_input(path)).count() > 1 {
            return Err(CliError::new(
                Exit::Usage,
                "standard input holds one secret: name files for the others",
            ));
        }
        let secret = match (&self.client_secret_file, &self.client_secret_env) {
            (Some(path), _) => line(&read("--client-secret-file", path)?),
            (None, Some(name)) => {
                Environment::of_process().get(name).map(str::to_owned).ok_or_else(|| {
                    let name = name.escape_default();
                    CliError::new(Exit::Usage, format!("--client-secret-env: the variable {name} is not set"))
                })?
            }
            (None, None) => String::new(),
        };
        let file = |argument: &str, path: &Option<PathBuf>| match path {
            Some(path) => read(argument, path).map(|text| text.expose_secret().to_owned()),
            None => Ok(String::new()),
        };
        Ok(pb::ClientAuthentication {
            method: self.client_auth.map(|method| method.name().to_owned()).unwrap_or_default(),
            client_secret: secret,
            private_key: file("--private-key-file", &self.private_key_file)?,
            private_key_id: self.private_key_id.clone().unwrap_or_default(),
            private_key_algorithm: self
                .private_key_algorithm
                .map(|algorithm| algorithm.name().to_owned())
                .unwrap_or_default(),
            tls_certificate: file("--tls-certificate-file", &self.tls_certificate_file)?,
            tls_key: file("--tls-key-file", &self.tls_key_file)?,
        })
    }
}

fn is_input(path: &Path) -> bool {
    path == Path::new("-")
}

fn read(argument: &str, path: &Path) -> Result<SecretString, CliError> {
    let failed =
        |error: std::io::Error| CliError::new(Exit::Usage, format!("{argument} {}: {error}", path.display()));
    let mut text = String::new();
    if is_input(path) {
        std::io::stdin().lock().take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(SecretString::new(text))
}

/// Without the end of the line that editors write.
fn line(text: &SecretString) -> String {
    text.expose_secret().trim_end_matches(['\r', '\n']).to_owned()
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    name: Name,
    /// Which definition it is of [default: the one of its id]; `token-broker providers list` has those there are
    #[arg(long, value_name = "ID", value_parser = |text: &str| ProviderId::new(text))]
    definition: Option<ProviderId>,
    /// The client's id at the provider
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// What the definition leaves open; repeat for more
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    #[command(flatten)]
    authentication: Authentication,
    /// It may not be used for now
    #[arg(long)]
    disabled: bool,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn create(args: Create, output: Output) -> Result<Exit, CliError> {
    let request = pb::CreateProviderConfigurationRequest {
        tenant: args.name.tenant.text(),
        provider: args.name.id.to_string(),
        definition: args.definition.map(Into::into).unwrap_or_default(),
        client_id: args.client_id,
        variables: args.variables.into_iter().collect(),
        authentication: Some(args.authentication.message()?),
        disabled: args.disabled,
    };
    let mut client = args.name.client.connect_admin().await?;
    let made = client.create_provider_configuration(request).await?.into_inner().configuration;
    let made = made.unwrap_or_default();
    let human = format!(
        "{}\n\nRegister this redirect URI with the app at the provider:\n\n  {}",
        to_human(&made),
        made.redirect_uri
    );
    output.answer(&human, &to_json(&made))?;
    Ok(Exit::Done)
}

pub(super) async fn show(
    id: String,
    client: &ClientArgs,
    tenant: &TenantArgs,
    output: Output,
) -> Result<Exit, CliError> {
    let mut client = client.connect_admin().await?;
    let found = get(&mut client, tenant, id).await?;
    output.answer(&to_human(&found), &to_json(&found))?;
    Ok(Exit::Done)
}

async fn get(
    client: &mut AdminClient,
    tenant: &TenantArgs,
    provider: String,
) -> Result<pb::ProviderConfiguration, CliError> {
    let request = pb::GetProviderConfigurationRequest { tenant: tenant.text(), provider };
    let found = client.get_provider_configuration(request).await?.into_inner().configuration;
    Ok(found.unwrap_or_default())
}

pub(super) async fn list(client: &ClientArgs, tenant: &TenantArgs, output: Output) -> Result<Exit, CliError> {
    let mut client = client.connect_admin().await?;
    let all = pages(async |page_token| {
        let request =
            pb::ListProviderConfigurationsRequest { tenant: tenant.text(), page_size: 0, page_token };
        let page = client.list_provider_configurations(request).await?.into_inner();
        Ok((page.configurations, page.next_page_token))
    })
    .await?;
    let row = |config: &pb::ProviderConfiguration| {
        vec![
            config.provider.clone(),
            config.tenant.clone(),
            config.definition.clone(),
            config.client_id.clone(),
            state(config).to_owned(),
            time(config.update_time.as_ref()),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let json: Vec<_> = all.iter().map(to_json).collect();
    let head = ["PROVIDER", "TENANT", "DEFINITION", "CLIENT", "STATE", "CHANGED"];
    output.answer(&table(&head, &rows), &json)?;
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub(super) struct Update {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    authentication: Authentication,
    /// It may not be used from now on, but to end grants
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// It may be used again
    #[arg(long)]
    enable: bool,
}

pub(super) async fn update(args: Update, output: Output) -> Result<Exit, CliError> {
    let given = args.authentication.is_given();
    if !given && !args.disable && !args.enable {
        return Err(CliError::new(
            Exit::Usage,
            "there is nothing to change: a secret or keys, which replace all that there are, --disable or --enable",
        ));
    }
    let authentication = if given { Some(args.authentication.message()?) } else { None };
    let mut client = args.name.client.connect_admin().await?;
    let there = get(&mut client, &args.name.tenant, args.name.id.to_string()).await?;
    let request = pb::UpdateProviderConfigurationRequest {
        tenant: args.name.tenant.text(),
        provider: args.name.id.into(),
        revision: there.revision,
        authentication,
        disabled: (args.disable || args.enable).then_some(args.disable),
    };
    let changed = client.update_provider_configuration(request).await?.into_inner().configuration;
    let changed = changed.unwrap_or_default();
    output.answer(&to_human(&changed), &to_json(&changed))?;
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    #[command(flatten)]
    name: Name,
    /// Although users are connected by it, who then have to consent anew, and whose grants nobody ends at the provider
    #[arg(long)]
    force: bool,
}

pub(super) async fn delete(args: Delete, output: Output) -> Result<Exit, CliError> {
    let mut client = args.name.client.connect_admin().await?;
    let request = pb::DeleteProviderConfigurationRequest {
        tenant: args.name.tenant.text(),
        provider: args.name.id.to_string(),
        force: args.force,
    };
    client.delete_provider_configuration(request).await?;
    output.answer(&format!("deleted: {}", args.name.id), &json!({ "deleted": args.name.id.as_str() }))?;
    Ok(Exit::Done)
}

fn state(config: &pb::ProviderConfiguration) -> &'static str {
    if config.disable_time.is_some() { "disabled" } else { "enabled" }
}

fn to_human(config: &pb::ProviderConfiguration) -> String {
    let mut text = format!("provider {} of tenant {}, {}", config.provider, config.tenant, state(config));
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            text = format!("{text}\n  {:<15}{value}", format!("{name}:"));
        }
    };
    add("definition", &config.definition);
    add("client id", &config.client_id);
    let variables: std::collections::BTreeMap<_, _> = config.variables.iter().collect();
    for (name, value) in variables {
        add("variable", &format!("{name}={value}"));
    }
    let shows = [
        (config.has_client_secret, "a secret"),
        (config.has_private_key, "a private key"),
        (!config.tls_certificate.is_empty(), "a certificate"),
    ];
    let shows: Vec<_> = shows.into_iter().filter(|(has, _)| *has).map(|(_, what)| what).collect();
    add("has", &shows.join(", "));
    add("method", &config.method);
    add("key id", &config.private_key_id);
    add("algorithm", &config.private_key_algorithm);
    add("redirect URI", &config.redirect_uri);
    text
}

fn to_json(config: &pb::ProviderConfiguration) -> Value {
    json!({
        "tenant": config.tenant,
        "provider": config.provider,
        "configuration_id": config.configuration_id,
        "redirect_uri": config.redirect_uri,
        "definition": config.definition,
        "client_id": config.client_id,
        "variables": config.variables,
        "method": config.method,
        "private_key_id": config.private_key_id,
        "private_key_algorithm": config.private_key_algorithm,
        "tls_certificate": config.tls_certificate,
        "has_client_secret": config.has_client_secret,
        "has_private_key": config.has_private_key,
        "disable_time": json_time(config.disable_time.as_ref()),
        "revision": config.revision,
        "create_time": json_time(config.create_time.as_ref()),
        "update_time": json_time(config.update_time.as_ref()),
    })
}
