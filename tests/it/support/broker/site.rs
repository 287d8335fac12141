//! A broker's folder: configuration, key, definitions, database; and its ports.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU16, Ordering};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;
use tokio::time::timeout;
use toml::{Table, Value};

use super::builder::CallerRights;
use super::process::{Logs, PATIENCE};
use crate::support::keep::{self, KeptFolder};
use token_broker::domain::ports::Entropy as _;
use token_broker::infra::system::SystemEntropy;

/// See [`super::BrokerBuilder`].
#[derive(Clone, Default)]
pub(super) struct Spec {
    pub(super) callers: Vec<SpecCaller>,
    pub(super) definitions: Vec<String>,
    /// Dotted name and value; later ones win.
    pub(super) settings: Vec<(String, Value)>,
    /// Names from the outermost, and what stands below.
    pub(super) tables: Vec<(Vec<String>, Table)>,
    pub(super) environment: Vec<(String, String)>,
}

#[derive(Clone)]
pub(super) struct SpecCaller {
    pub(super) id: String,
    pub(super) rights: CallerRights,
}

/// Fixed for the life of a broker, so that a restarted one has the same redirect URIs.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) grpc: u16,
    pub(crate) public: u16,
    pub(crate) operations: u16,
}

/// The folder.
pub(crate) struct Site {
    folder: KeptFolder,
    pub(crate) ports: Ports,
    pub(crate) database: PathBuf,
    keys: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    pub(super) logs: Logs,
}

impl Site {
    pub(super) fn write(spec: Spec) -> Self {
        let folder = KeptFolder::new();
        let ports = Ports { grpc: free_port(), public: free_port(), operations: free_port() };
        std::fs::write(folder.path().join("vault.key"), BASE64_STANDARD.encode(random())).unwrap();

        let mut config = Table::new();
        for (name, port) in [("grpc", ports.grpc), ("public", ports.public), ("operations", ports.operations)]
        {
            set(&mut config, &format!("{name}.listen"), format!("127.0.0.1:{port}").into());
        }
        set(&mut config, "vault.active_key", "test".into());
        set(&mut config, "vault.keys.test.file", "vault.key".into());
        let mut keys = Vec::new();
        for caller in spec.callers {
            let key = format!("tb_{}", BASE64_URL_SAFE_NO_PAD.encode(random()));
            let hash = hex::encode(Sha256::digest(key.as_bytes()));
            let rights = caller.rights;
            let rule = Table::from_iter([
                ("actions".to_owned(), rights.actions.clone()),
                ("providers".to_owned(), rights.providers),
                ("services".to_owned(), rights.services),
                ("users".to_owned(), rights.users),
                ("assert_user_id".to_owned(), true.into()),
            ]);
            // A rule for no action is a mistake, and no rule the same.
            let nothing = rights.actions == Value::Array(Vec::new());
            let allow = if nothing { Vec::new() } else { vec![Value::Table(rule)] };
            let fields = [
                ("tenant", rights.tenant.into()),
                ("key_sha256", Value::Array(vec![hash.into()])),
                ("admin", rights.admin),
                ("all_tenants", rights.all_tenants.into()),
                ("allow", Value::Array(allow)),
            ];
            for (field, value) in fields {
                set(&mut config, &format!("callers.{}.{field}", caller.id), value);
            }
            keys.push((caller.id, key));
        }
        let mut files = Vec::new();
        for (index, definition) in spec.definitions.iter().enumerate() {
            let name = format!("definition-{index}.toml");
            std::fs::write(folder.path().join(&name), definition).unwrap();
            files.push(Value::from(name));
        }
        set(&mut config, "provider_definitions.files", Value::Array(files));
        for (key, value) in spec.settings {
            set(&mut config, &key, value);
        }
        for (names, table) in spec.tables {
            let mut at = &mut config;
            for name in names {
                let below = at.entry(name).or_insert_with(|| Value::Table(Table::new()));
                at = below.as_table_mut().unwrap();
            }
            at.extend(table);
        }
        std::fs::write(folder.path().join("token-broker.toml"), config.to_string()).unwrap();
        let database = folder.path().join("token-broker.db");
        Self { folder, ports, database, keys, environment: spec.environment, logs: Logs::default() }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file. A test may change it before a (re)start.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("token-broker.toml")
    }

    /// A caller's API key.
    pub(crate) fn api_key(&self, caller: &str) -> &str {
        let found = self.keys.iter().find(|(id, _)| id == caller);
        &found.unwrap_or_else(|| panic!("there is no caller {caller}")).1
    }

    /// The binary in the folder, with a clean environment and the site's variables.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = binary(self.folder.path(), args);
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Runs the binary to its end. For a client command the endpoint is this broker's and the API key is `agent`'s.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.env("TOKEN_BROKER_ENDPOINT", format!("http://127.0.0.1:{}", self.ports.grpc));
        if let Some((_, key)) = self.keys.iter().find(|(id, _)| id == "agent") {
            command.env("TOKEN_BROKER_API_KEY", key);
        }
        timeout(PATIENCE, command.output()).await.expect("it ends in time").unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if keep::place().is_some() {
            let _ = std::fs::write(self.folder.path().join("log"), self.logs.text());
        }
    }
}

/// The binary, in a folder, with nothing of the test's environment.
pub(crate) fn binary(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_token-broker"));
    command.args(args).current_dir(folder).env_clear().kill_on_drop(true);
    command
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes);
    bytes
}

/// Sets a value by its dotted name.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let below = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            set(below.as_table_mut().unwrap(), rest, value);
        }
    }
}

/// A port that nothing listens on. From below the system's range for outgoing connections and port 0, so that nobody is
/// given it between this look and the broker's start; each is given out once in this process.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another process of the tests begins elsewhere.
    let start = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).unwrap();
    loop {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(("127.0.0.1", FIRST + offset)).is_ok() {
            return FIRST + offset;
        }
    }
}
