//! A whole broker for a test: its own folder, database, key and ports; as a process of the real binary or inside the test.
//!
//! ```ignore
//! let oidc = OidcServer::start(OidcOptions::default()).await;
//! let broker = BrokerBuilder::new().oidc(&oidc).spawn_process().await;
//! let mut agent = broker.client("agent").await;           // a fresh channel, with the caller's API key
//! agent.get_credential(…).await?;
//! broker.kill().await;                                    // SIGKILL
//! broker.restart().await;                                 // the same folder, database and ports
//! ```

mod builder;
mod clients;
mod process;
mod site;

pub(crate) use builder::{BrokerBuilder, CallerRights};
pub(crate) use clients::{AdminClient, Client, answered, reason, refused};
pub(crate) use site::free_port;
pub(crate) use site::{Site, binary};

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Mutex;

use token_broker::app::{self, Overrides};
use token_broker::config::{Config, Environment};
use token_broker::lifecycle::{Drained, Running};
use tonic::transport::Channel;

use process::Process;

/// A running, or stopped, broker. Dropping it stops it and deletes its folder.
pub(crate) struct TestBroker {
    site: Site,
    server: Mutex<Server>,
    shared: tokio::sync::OnceCell<Channel>,
}

enum Server {
    Process(Process),
    InProcess(Box<Running>),
    Stopped,
}

impl TestBroker {
    async fn spawn(site: Site) -> Self {
        let server = Server::Process(Process::start(&site).await);
        Self { site, server: Mutex::new(server), shared: tokio::sync::OnceCell::new() }
    }

    async fn start(site: Site, overrides: Overrides, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::load(Some(&site.config_path()), &Environment::default()).unwrap();
        change(&mut config);
        let running = app::start(config, overrides).await.unwrap();
        let server = Server::InProcess(Box::new(running));
        Self { site, server: Mutex::new(server), shared: tokio::sync::OnceCell::new() }
    }

    /// The folder, and everything that is known without the broker running.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// Where browsers come to, as `http://127.0.0.1:port`; also the base of redirect URIs.
    pub(crate) fn public_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.site.ports.public)
    }

    /// `/livez`, `/readyz`, `/metrics` are here.
    pub(crate) fn operations_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.site.ports.operations)
    }

    /// What `/metrics` says of a metric, its labels in the name; empty if nothing.
    pub(crate) async fn metric(&self, name: &str) -> String {
        let text =
            reqwest::get(format!("{}/metrics", self.operations_url())).await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned()
    }

    /// What gRPC clients of other languages connect to: `127.0.0.1:port`.
    pub(crate) fn grpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.site.ports.grpc)
    }

    /// The SQLite file. `-wal` and `-shm` stand beside it while the broker runs.
    pub(crate) fn database(&self) -> &Path {
        &self.site.database
    }

    /// A caller's API key.
    pub(crate) fn api_key(&self, caller: &str) -> &str {
        self.site.api_key(caller)
    }

    /// Everything that the processes of this broker have printed so far, standard output and error; empty in-process.
    pub(crate) fn logs(&self) -> String {
        self.site.logs.text()
    }

    /// Waits until the logs contain a text.
    pub(crate) async fn wait_for_log(&self, text: &str) {
        self.site.logs.wait_for(text).await;
    }

    /// Waits until the logs contain a text so many times.
    pub(crate) async fn wait_for_log_times(&self, text: &str, times: usize) {
        self.site.logs.wait_for_times(text, times).await;
    }

    /// A new connection.
    pub(crate) async fn channel(&self) -> Channel {
        clients::connect(&self.grpc_address()).await
    }

    /// A client of the caller on a connection of its own.
    pub(crate) async fn client(&self, caller: &str) -> Client {
        clients::with_key(self.channel().await, Some(self.api_key(caller)))
    }

    /// A client of the caller for the service for operators.
    pub(crate) async fn admin(&self, caller: &str) -> AdminClient {
        self.admin_client(caller, &self.grpc_address()).await
    }

    /// The same at another address, such as one of the service for operators alone.
    pub(crate) async fn admin_client(&self, caller: &str, address: &str) -> AdminClient {
        clients::admin_with_key(clients::connect(address).await, Some(self.api_key(caller)))
    }

    /// A client of the caller for agents' service, at another address than its own.
    pub(crate) async fn client_at(&self, address: &str, caller: &str) -> Client {
        clients::with_key(clients::connect(address).await, Some(self.api_key(caller)))
    }

    /// A client of the caller on the one connection that all such clients share.
    pub(crate) async fn shared_client(&self, caller: &str) -> Client {
        let channel = self.shared.get_or_init(|| self.channel()).await;
        clients::with_key(channel.clone(), Some(self.api_key(caller)))
    }

    /// A client with whatever stands in the `authorization` header after `Bearer `; `None`: without the header.
    pub(crate) async fn client_with_key(&self, key: Option<&str>) -> Client {
        clients::with_key(self.channel().await, key)
    }

    /// SIGKILL: nothing is drained, nothing is closed.
    pub(crate) async fn kill(&self) {
        self.process().kill().await;
    }

    /// SIGTERM, and how the process ended.
    pub(crate) async fn terminate(&self) -> ExitStatus {
        let process = self.process();
        process.signal("TERM").await;
        process.ended().await
    }

    /// Sends a signal (`TERM`, `INT`, `STOP`, `CONT`) and does not wait. The process stays this broker's.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = match &*self.server.lock().unwrap() {
            Server::Process(process) => process.pid(),
            Server::InProcess(_) | Server::Stopped => panic!("only a process gets signals"),
        };
        process::signal(pid, name).await;
    }

    /// Waits for the end of a process that was sent a signal.
    pub(crate) async fn ended(&self) -> ExitStatus {
        self.process().ended().await
    }

    /// Ends a broker in the test's own process, in order.
    pub(crate) async fn shutdown(&self) -> Drained {
        let server = std::mem::replace(&mut *self.server.lock().unwrap(), Server::Stopped);
        match server {
            Server::InProcess(running) => running.shutdown().await,
            Server::Process(_) | Server::Stopped => panic!("not running in this process"),
        }
    }

    /// Starts a stopped process again: the same folder, database and ports.
    pub(crate) async fn restart(&self) {
        let process = Process::start(&self.site).await;
        let before = std::mem::replace(&mut *self.server.lock().unwrap(), Server::Process(process));
        assert!(matches!(before, Server::Stopped), "stop it first");
    }

    /// Takes the process out: whoever calls this waits for its end.
    fn process(&self) -> Process {
        match std::mem::replace(&mut *self.server.lock().unwrap(), Server::Stopped) {
            Server::Process(process) => process,
            Server::InProcess(_) | Server::Stopped => panic!("there is no process"),
        }
    }
}
