//! `PostgreSQL`: one private server for a test process, a fresh database for each test, and servers of one's own to be
//! stopped, killed and started again.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use token_broker::infra::storage::postgres::{DatabaseClock, PgSettings, PgStore, RowClock};
use token_broker::infra::system::SystemClock;
use tokio::sync::OnceCell;

use super::{Watchdog, free_port, program};

/// The superuser. Connections from this machine are trusted, but for those of [`WITH_PASSWORD`].
const SUPERUSER: &str = "broker";
/// A role that has to give its password, once a test has made it.
pub(crate) const WITH_PASSWORD: &str = "with_password";

/// How the server runs.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether commits reach the disk. Only a test that crashes the machine would notice; one that crashes the server
    /// wants what production has.
    pub(crate) fsync: bool,
    /// How many connections at a time.
    pub(crate) max_connections: u32,
    /// Further arguments of the server.
    pub(crate) more: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self { fsync: false, max_connections: 300, more: "" }
    }
}

/// How the server is stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// Disconnects everybody, writes everything.
    Fast,
    /// Like a crash: the next start recovers from the log.
    Immediate,
}

/// A server in a folder of its own. Stopped and deleted when dropped, or when this process ends.
pub(crate) struct Postgres {
    home: PathBuf,
    programs: PathBuf,
    user: Option<&'static str>,
    port: u16,
    options: Options,
    databases: AtomicU32,
    migrated: OnceCell<String>,
    _watchdog: Watchdog,
}

impl Postgres {
    /// Makes and starts one. Answers when it takes connections.
    pub(crate) fn start(options: Options) -> Self {
        let programs = programs();
        let home = tempfile::Builder::new().prefix("token-broker-pg-").tempdir().expect("a folder").keep();
        let user = unprivileged(&home);
        let stop = format!(
            "cd \"$1\" && {} \"$2\"/pg_ctl stop -w -m immediate -D \"$1\"/data; \
             [ -z \"$TOKEN_BROKER_TEST_KEEP\" ] || grep -rlaF -e canary- -e 63616e6172792d \"$1\"/data/base \"$1\"/data/pg_wal \"$1\"/log \
             >>\"$TOKEN_BROKER_TEST_KEEP\"/hits-in-postgres; cd /; rm -rf \"$1\" || rm -rf \"$1\"",
            prefix(user).join(" "),
        );
        let watchdog = Watchdog::start(&stop, &[&home, &programs]);
        let server = Self {
            home,
            programs,
            user,
            port: free_port(),
            options,
            databases: AtomicU32::new(0),
            migrated: OnceCell::new(),
            _watchdog: watchdog,
        };
        let data = server.home.join("data");
        let name = format!("--username={SUPERUSER}");
        server.run(
            "initdb",
            &["-N", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", &name, "-D", text(&data)],
        );
        let rules = format!(
            "local all all trust\nhost all {WITH_PASSWORD} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        );
        std::fs::write(data.join("pg_hba.conf"), rules).expect("pg_hba.conf");
        server.start_again();
        server
    }

    /// Starts it after a stop, on the same port.
    pub(crate) fn start_again(&self) {
        let (data, log) = (self.home.join("data"), self.home.join("log"));
        let fsync = if self.options.fsync { "on" } else { "off" };
        let settings = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c fsync={fsync} -c full_page_writes={fsync} \
             -c max_connections={} -c shared_buffers=64MB -c autovacuum_naptime=10s -c log_line_prefix='%m [%p] %d ' {}",
            self.port,
            text(&self.home),
            self.options.max_connections,
            self.options.more,
        );
        self.run("pg_ctl", &["start", "-w", "-D", text(&data), "-l", text(&log), "-o", &settings]);
    }

    /// Stops it. Answers when it is gone.
    pub(crate) fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        self.run("pg_ctl", &["stop", "-w", "-m", mode, "-D", text(&self.home.join("data"))]);
    }

    /// The server's first process, for signals.
    pub(crate) fn pid(&self) -> u32 {
        let file = std::fs::read_to_string(self.home.join("data/postmaster.pid")).expect("it runs");
        file.lines().next().and_then(|line| line.parse().ok()).expect("a number")
    }

    /// Its folder.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.home.join("log")).unwrap_or_default()).into_owned()
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database on it.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, database)
    }

    /// The URL of a database on it, for a role.
    pub(crate) fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// A connection of the superuser's, past everything that is tested.
    pub(crate) async fn backdoor(&self, database: &str) -> PgConnection {
        connect(&self.url(database)).await
    }

    /// A new database; answers its name.
    pub(crate) async fn create_database(&self, template: &str) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
        self.backdoor("postgres").await.execute(AssertSqlSafe(sql)).await.expect("a database");
        name
    }

    /// A new database with the broker's tables, by copying one that was migrated once; answers its name.
    pub(crate) async fn migrated_database(&self) -> String {
        let template = self.migrated.get_or_init(async || {
            let name = self.create_database("template1").await;
            open(&settings(&self.url(&name)), RowClock::Database).await.close().await;
            name
        });
        self.create_database(template.await).await
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let mut words = prefix(self.user);
        let program = self.programs.join(name);
        words.push(text(&program));
        words.extend(arguments);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&self.home).env_clear();
        let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", words[0]));
        assert!(
            output.status.success(),
            "{name}: {}\n{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout),
            self.log(),
        );
        output
    }
}

/// The server that all tests of this process share.
pub(crate) fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(Options::default()))
}

/// How a test's store uses a database.
pub(crate) fn settings(url: &str) -> PgSettings {
    PgSettings {
        url: url.parse().expect("a URL"),
        password: None,
        max_connections: 8,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(10),
    }
}

/// A store.
pub(crate) async fn open(settings: &PgSettings, row_clock: RowClock) -> PgStore {
    let clock = Arc::new(DatabaseClock::new(Arc::new(SystemClock)));
    PgStore::open(settings, row_clock, clock).await.expect("the database opens")
}

/// A connection.
pub(crate) async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("a URL");
    options.disable_statement_logging().connect().await.expect("the server is there")
}

/// Debian keeps the server's programs out of the PATH, a folder for each version.
fn programs() -> PathBuf {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    folders.sort();
    folders.reverse();
    let initdb = program("initdb", &folders, "postgresql");
    initdb.parent().expect("it lies in a folder").to_owned()
}

/// The server does not run as root: its files belong to somebody else then.
fn unprivileged(home: &Path) -> Option<&'static str> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if id(&["-u"])? != "0" {
        return None;
    }
    let user = ["postgres", "nobody"].into_iter().find(|user| id(&["-u", user]).is_some()).expect("a user");
    let owner = id(&["-u", user])?.parse().ok();
    std::os::unix::fs::chown(home, owner, None).expect("root may");
    Some(user)
}

fn prefix(user: Option<&'static str>) -> Vec<&'static str> {
    let words = match user {
        Some("postgres") => &["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"][..],
        Some(_) => &["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"],
        None => &[],
    };
    words.to_vec()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}
