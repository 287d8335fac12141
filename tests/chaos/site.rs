//! The folder of a run: one configuration file for each replica, the vault's key, the providers' definitions, the logs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use token_broker::domain::ports::Entropy as _;
use token_broker::infra::system::SystemEntropy;

use crate::backing::Backing;
use crate::engines::free_port;
use crate::provider::{PROVIDERS, Provider};

/// The tenant of the run's caller.
pub(crate) const TENANT: &str = "chaos";

/// One replica's files and doors.
pub(crate) struct ReplicaSite {
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) grpc: u16,
    pub(crate) public: u16,
    pub(crate) operations: u16,
}

/// How long refreshes may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) http_deadline: Duration,
    pub(crate) strict_settle: Duration,
    pub(crate) refresh_ahead: Duration,
}

/// The folder. Deleted with this value, unless it is kept.
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) replicas: Vec<ReplicaSite>,
    pub(crate) api_key: String,
    pub(crate) vault_key: Vec<u8>,
}

impl Site {
    pub(crate) fn write(replicas: usize, times: Times, backing: &Backing, provider: &Provider) -> Self {
        let folder = tempfile::Builder::new().prefix("token-broker-chaos-").tempdir().unwrap();
        let path = folder.path();
        let (vault_key, caller_key) = (random(), random());
        std::fs::write(path.join("vault.key"), BASE64_STANDARD.encode(&vault_key)).unwrap();
        for id in PROVIDERS {
            std::fs::write(path.join(format!("{id}.toml")), provider.definition(id)).unwrap();
        }
        let api_key = format!("tb_{}", BASE64_URL_SAFE_NO_PAD.encode(caller_key));
        let key_hash = hex::encode(Sha256::digest(api_key.as_bytes()));
        // One address for all, as a load balancer has it: the harness's browsers go to any replica.
        let base_url = format!("http://127.0.0.1:{}", free_port());
        let registrations = PROVIDERS
            .map(|id| format!("[providers.{id}]\nclient_id = \"chaos\"\nclient_secret = \"chaos-secret\"\n"))
            .concat();
        let replicas = (0..replicas)
            .map(|number| {
                let site = ReplicaSite {
                    config: path.join(format!("replica-{number}.toml")),
                    log: path.join(format!("replica-{number}.log")),
                    grpc: free_port(),
                    public: free_port(),
                    operations: free_port(),
                };
                let ReplicaSite { grpc, public, operations, .. } = site;
                let text = format!(
                    r#"[grpc]
listen = "127.0.0.1:{grpc}"
[public]
listen = "127.0.0.1:{public}"
base_url = "{base_url}"
[operations]
listen = "127.0.0.1:{operations}"
[vault]
active_key = "chaos"
reencrypt_rows_per_second = 10000
[vault.keys.chaos]
file = "vault.key"
{backing}
[journal]
directory = "journal-{number}"
[oauth]
{times}
# The load is to be borne, not refused.
[limits]
tenant = 0
caller = 0
user = 0
consents = 0
lists = 0
changes = 0
pages = 0
[consent]
bindings = ["confirm"]
[provider_definitions]
files = [{files}]
{registrations}
[callers.chaos]
tenant = "{TENANT}"
key_sha256 = ["{key_hash}"]
admin = "any"
all_tenants = true
[[callers.chaos.allow]]
actions = "any"
providers = "any"
users = "any"
assert_user_id = true
[log]
level = "info"
[shutdown]
announce = "0s"
"#,
                    backing = backing.settings(),
                    times = oauth_settings(times),
                    files = PROVIDERS.map(|id| format!("\"{id}.toml\"")).join(", "),
                );
                std::fs::write(&site.config, text).unwrap();
                site
            })
            .collect();
        Self { folder, replicas, api_key, vault_key }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder where it is, for a look at its logs.
    pub(crate) fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }
}

fn oauth_settings(times: Times) -> String {
    format!(
        "request_timeout = \"{}s\"\nstrict_settle = \"{}s\"\nrefresh_ahead = \"{}s\"",
        times.http_deadline.as_secs(),
        times.strict_settle.as_secs(),
        times.refresh_ahead.as_secs()
    )
}

fn random() -> Vec<u8> {
    let mut bytes = vec![0; 32];
    SystemEntropy.fill(&mut bytes);
    bytes
}
