//! What the demo plays on: a temporary folder with a configuration and a database, the authorization server, and a broker
//! started as `serve` starts one.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

use super::agent::Agent;
use super::error::DemoError;
use super::report::Report;
use super::server::{CLIENT_ID, CLIENT_SECRET, DemoServer};
use crate::app::{self, Overrides};
use crate::config::{Config, Environment};
use crate::domain::access_policy::API_KEY_PREFIX;
use crate::domain::access_policy::hash_api_key;
use crate::domain::ports::Entropy;
use crate::domain::secret::SecretString;
use crate::infra::system::{SystemClock, SystemEntropy};
use crate::lifecycle::Running;

/// The provider's id in calls.
pub(super) const PROVIDER: &str = "demo";
/// The service's id in calls.
pub(super) const SERVICE: &str = "notes";
/// How long the server's access tokens live: short enough to wait for, long enough for a slow machine.
pub(super) const ACCESS_LIFE: Duration = Duration::from_secs(5);

const BROKER: &str = include_str!("broker.toml");
const DEFINITION: &str = include_str!("provider.toml");

/// Everything, while the demo is played.
pub(super) struct Stage {
    pub(super) server: DemoServer,
    running: Running,
    folder: Folder,
    agent_key: SecretString,
    stranger_key: SecretString,
}

impl Stage {
    /// Starts the authorization server and the broker.
    pub(super) async fn set_up() -> Result<Self, DemoError> {
        let entropy = Arc::new(SystemEntropy);
        let server = DemoServer::start(ACCESS_LIFE, Arc::new(SystemClock), entropy.clone()).await?;
        let (agent_key, stranger_key) = (api_key(entropy.as_ref()), api_key(entropy.as_ref()));
        let folder = Folder::new(entropy.as_ref())?;
        folder.write("provider.toml", DEFINITION)?;
        folder.write("vault.key", &BASE64_STANDARD.encode(random(entropy.as_ref())))?;
        let file = folder.write("broker.toml", &configuration(&server, &agent_key, &stranger_key))?;
        let config = Config::load(Some(&file), &Environment::default())?;
        let running = app::start(config, Overrides::default()).await?;
        server.allow_redirect(&format!("http://{}/oauth/callback/{PROVIDER}", running.public_addr));
        Ok(Self { server, running, folder, agent_key, stranger_key })
    }

    /// Stops the broker, then everything else.
    pub(super) async fn take_down(self) {
        self.running.shutdown().await;
    }

    /// An agent of the tenant "acme", over a connection of its own.
    pub(super) async fn agent(&self) -> Result<Agent, DemoError> {
        Agent::connect(self.running.grpc_addr, &self.agent_key).await
    }

    /// A caller of the tenant "globex", with the same rights there.
    pub(super) async fn stranger(&self) -> Result<Agent, DemoError> {
        Agent::connect(self.running.grpc_addr, &self.stranger_key).await
    }

    /// Says what was started.
    pub(super) fn introduce(&self, report: &mut Report<'_>) -> Result<(), DemoError> {
        let Running { grpc_addr, public_addr, .. } = &self.running;
        report.line("")?;
        report.act("broker", &format!("gRPC on {grpc_addr}, callback pages on http://{public_addr}"))?;
        report
            .act("database", &format!("SQLite in {}, gone when the demo ends", self.folder.path.display()))?;
        report.act(
            "provider",
            &format!("{}: the demo's own authorization server, in this", self.server.url()),
        )?;
        report.act(
            "",
            &format!("process. Its access tokens live {} seconds; a refresh token", ACCESS_LIFE.as_secs()),
        )?;
        report.act("", "that is used twice ends the user's consent.")
    }

    /// Commands for another terminal.
    pub(super) fn show_what_to_try(&self, report: &mut Report<'_>) -> Result<(), DemoError> {
        let Running { grpc_addr, operations_addr, .. } = &self.running;
        let program = std::env::current_exe()?;
        let bin = program.parent().unwrap_or(Path::new("."));
        let env = self.folder.write(
            "env",
            &format!(
                "export TOKEN_BROKER_ENDPOINT='http://{grpc_addr}'\nexport TOKEN_BROKER_API_KEY='{}'\nexport PATH='{}':\"$PATH\"\n",
                self.agent_key.expose_secret(),
                bin.display()
            ),
        )?;
        report.line(&format!(
            "\nThe broker stays up. Try, in another terminal:

  . {}
  token-broker get {PROVIDER} {SERVICE} -u bob
  token-broker connect {PROVIDER} -u carol -s {SERVICE} --wait      (open the link in a browser)
  token-broker list
  grpcurl -plaintext -H \"authorization: Bearer $TOKEN_BROKER_API_KEY\" \\
    -d '{{\"key\": {{\"provider\": \"{PROVIDER}\", \"user_id\": \"bob\", \"service\": \"{SERVICE}\"}}}}' \\
    {grpc_addr} tokenbroker.v1.TokenBrokerService/GetCredential
  curl http://{operations_addr}/metrics
  token-broker revoke {PROVIDER} {SERVICE} -u bob

Ctrl-C ends it.",
            env.display()
        ))
    }
}

fn configuration(server: &DemoServer, agent: &SecretString, stranger: &SecretString) -> String {
    let mut text = BROKER.to_owned();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\n[providers.{PROVIDER}]\nclient_id = \"{CLIENT_ID}\"\nclient_secret = \"{CLIENT_SECRET}\"\n\
         [providers.{PROVIDER}.variables]\nserver = \"{}\"\n",
        server.url()
    );
    for (caller, tenant, key) in [("agents", "acme", agent), ("stranger", "globex", stranger)] {
        let _ = write!(
            text,
            "\n[callers.{caller}]\ntenant = \"{tenant}\"\nkey_sha256 = [\"{}\"]\n[[callers.{caller}.allow]]\nactions = \"any\"\n\
             providers = \"any\"\nusers = \"any\"\nassert_user_id = true\n",
            hex::encode(hash_api_key(key))
        );
    }
    text
}

fn random(entropy: &dyn Entropy) -> [u8; 32] {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    bytes
}

fn api_key(entropy: &dyn Entropy) -> SecretString {
    SecretString::new(format!("{API_KEY_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random(entropy))))
}

/// A temporary folder for this user alone; dropping it deletes it.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(entropy: &dyn Entropy) -> std::io::Result<Self> {
        let name = format!("token-broker-demo-{}", hex::encode(&random(entropy)[..6]));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    fn write(&self, name: &str, content: &str) -> std::io::Result<PathBuf> {
        let path = self.path.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(content.as_bytes())?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody is left to tell; the system clears its temporary folder.
        let _ = fs::remove_dir_all(&self.path);
    }
}
