//! Redis: one private server for a test process, servers of one's own to be paused, killed and started again, a cluster, and
//! a master with its replica and sentinel. Nothing is persisted.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::{Watchdog, free_port, program};

/// A server takes longer than this to start only if something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a server runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// TLS alone is served, with this certificate, key and authority. Clients need no certificate.
    pub(crate) tls: Option<TlsFiles>,
    /// Nobody may do anything but `admin` (password `admin`) and this user.
    pub(crate) acl_user: Option<AclUser>,
    /// Further settings, each as it stands in a configuration file.
    pub(crate) settings: Vec<String>,
}

/// PEM files.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authority: PathBuf,
}

/// Behind `user` in an ACL file: name and rules.
#[derive(Debug, Clone)]
pub(crate) struct AclUser {
    pub(crate) name: String,
    pub(crate) rules: String,
}

/// A server in a folder of its own. Killed and deleted when dropped, or when this process ends.
pub(crate) struct Redis {
    process: Mutex<Option<Process>>,
    options: Options,
    home: PathBuf,
    port: u16,
    /// After the process: it deletes the folder.
    _watchdog: Watchdog,
}

/// A running server, with the shell that kills it as soon as this end of a pipe is closed, for whatever reason.
struct Process {
    shell: Child,
    alive: Option<ChildStdin>,
    pid: u32,
}

impl Process {
    fn start(log: &Path, words: &[String]) -> Self {
        const SCRIPT: &str = r#"trap '' INT TERM HUP
            log=$1; shift
            "$@" >>"$log" 2>&1 </dev/null &
            echo $!
            cat >/dev/null
            kill -9 $! 2>/dev/null
            wait"#;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(SCRIPT).arg("server").arg(log).args(words);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Out of reach of a Ctrl-C that is meant for the tests.
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        let mut shell = shell.spawn().expect("sh runs");
        let alive = shell.stdin.take();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("piped")).read_line(&mut line).expect("the shell says");
        let pid = line.trim().parse().expect("a number");
        Self { shell, alive, pid }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.shell.wait();
    }
}

impl Redis {
    /// Makes and starts one. Answers when it takes connections.
    pub(crate) fn start(options: Options) -> Self {
        let home = tempfile::Builder::new().prefix("token-broker-redis-").tempdir().expect("a folder").keep();
        let watchdog = Watchdog::start("rm -rf \"$1\" || rm -rf \"$1\"", &[&home]);
        let port = free_port();
        let server = Self { process: Mutex::default(), options, home, port, _watchdog: watchdog };
        server.start_again();
        server
    }

    /// Starts it after its end, on the same port. It has forgotten everything.
    pub(crate) fn start_again(&self) {
        let file = self.home.join("redis.conf");
        // A sentinel writes into its file what it has learnt.
        if !file.exists() {
            std::fs::write(&file, self.configuration()).expect("a file");
        }
        let sentinel = self.is_sentinel();
        let mut words = vec![text(&program("redis-server", &[], "redis-server")), text(&file)];
        if sentinel {
            words.push("--sentinel".to_owned());
        }
        let before = self.log().len();
        let mut process = self.process.lock().expect("no test panicked with it");
        assert!(process.is_none(), "it runs");
        *process = Some(Process::start(&self.home.join("log"), &words));
        drop(process);
        let ready = if sentinel { "Sentinel ID is" } else { "Ready to accept connections" };
        until("the server is ready", || {
            let log = self.log();
            assert!(!log[before..].contains("Failed listening"), "{log}");
            log[before..].contains(ready)
        });
    }

    fn is_sentinel(&self) -> bool {
        self.options.settings.iter().any(|line| line.starts_with("sentinel "))
    }

    fn configuration(&self) -> String {
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            "protected-mode no".to_owned(),
            format!("dir {}", self.home.display()),
        ];
        if !self.is_sentinel() {
            lines.extend(["save \"\"", "appendonly no", "repl-diskless-sync-delay 0"].map(str::to_owned));
        }
        match &self.options.tls {
            Some(TlsFiles { certificate, key, authority }) => lines.extend([
                "port 0".to_owned(),
                format!("tls-port {}", self.port),
                format!("tls-cert-file {}", certificate.display()),
                format!("tls-key-file {}", key.display()),
                format!("tls-ca-cert-file {}", authority.display()),
                "tls-auth-clients optional".to_owned(),
                format!("unixsocket {}", self.socket().display()),
            ]),
            None => lines.push(format!("port {}", self.port)),
        }
        if let Some(AclUser { name, rules }) = &self.options.acl_user {
            lines.push("user default off".to_owned());
            lines.push("user admin on >admin ~* &* +@all".to_owned());
            lines.push(format!("user {name} {rules}"));
        }
        lines.extend(self.options.settings.iter().cloned());
        lines.join("\n") + "\n"
    }

    /// Kills it. Answers when it is gone.
    pub(crate) fn kill(&self) {
        self.process.lock().expect("no test panicked with it").take().expect("it runs");
    }

    /// Stops it for a while: connections stand, nobody answers.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Ends [`Redis::pause`].
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs").success());
    }

    /// Its process, for signals.
    pub(crate) fn pid(&self) -> u32 {
        self.process.lock().expect("no test panicked with it").as_ref().expect("it runs").pid
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

    /// Its URL as the broker takes it.
    pub(crate) fn url(&self) -> String {
        // The certificate of the tests is for this name.
        if self.options.tls.is_some() {
            format!("rediss://localhost:{}", self.port)
        } else {
            format!("redis://127.0.0.1:{}", self.port)
        }
    }

    fn socket(&self) -> PathBuf {
        self.home.join("socket")
    }

    /// A connection past everything that is tested, with all rights.
    pub(crate) fn backdoor(&self) -> redis::Connection {
        let admin = self.options.acl_user.is_some();
        let url = match (self.options.tls.is_some(), admin) {
            (true, true) => format!("redis+unix://{}?user=admin&pass=admin", self.socket().display()),
            (true, false) => format!("redis+unix://{}", self.socket().display()),
            (false, true) => format!("redis://admin:admin@127.0.0.1:{}", self.port),
            (false, false) => format!("redis://127.0.0.1:{}", self.port),
        };
        let client = redis::Client::open(url).expect("a URL");
        client.get_connection_with_timeout(Duration::from_secs(5)).expect("the server is there")
    }

    /// A command through the back door.
    pub(crate) fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.backdoor()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Makes it forget all keys and scripts.
    pub(crate) fn flush(&self) {
        self.command::<()>(&["FLUSHALL"]);
        self.command::<()>(&["SCRIPT", "FLUSH"]);
    }
}

/// Three masters that share the slots, without replicas. One that is down takes its slots with it and no other's.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let nodes: Vec<Redis> = std::iter::repeat_with(|| {
            let settings = [
                "cluster-enabled yes".to_owned(),
                format!("cluster-port {}", free_port()),
                "cluster-node-timeout 1000".to_owned(),
                "cluster-require-full-coverage no".to_owned(),
            ];
            Redis::start(Options { settings: settings.into(), ..Options::default() })
        })
        .take(3)
        .collect();
        for (node, [first, last]) in nodes.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]])
        {
            node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
            let port = nodes[0].port().to_string();
            let bus =
                nodes[0].options.settings[1].strip_prefix("cluster-port ").expect("see above").to_owned();
            node.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let cluster = Self { nodes };
        cluster.until_whole();
        cluster
    }

    /// Ends when every node knows that all slots are served.
    pub(crate) fn until_whole(&self) {
        until("the cluster is whole", || {
            self.nodes.iter().all(|node| {
                let info: String = node.command(&["CLUSTER", "INFO"]);
                ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3"]
                    .iter()
                    .all(|line| info.contains(line))
            })
        });
    }

    /// Its URL as the broker takes it.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis-cluster://{}", nodes.join(","))
    }
}

/// A master and its replica, watched by one sentinel that needs no second opinion.
pub(crate) struct SentinelSet {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    pub(crate) sentinel: Redis,
}

impl SentinelSet {
    pub(crate) fn start() -> Self {
        let with = |settings: Vec<String>| Redis::start(Options { settings, ..Options::default() });
        let master = with(Vec::new());
        let replica = with(vec![format!("replicaof 127.0.0.1 {}", master.port())]);
        until("the replica follows", || {
            let info: String = replica.command(&["INFO", "replication"]);
            info.contains("master_link_status:up")
        });
        let sentinel = with(vec![
            format!("sentinel monitor main 127.0.0.1 {} 1", master.port()),
            "sentinel down-after-milliseconds main 500".to_owned(),
            "sentinel failover-timeout main 2000".to_owned(),
        ]);
        until("the sentinel knows the replica", || {
            let replicas: Vec<redis::Value> = sentinel.command(&["SENTINEL", "REPLICAS", "main"]);
            !replicas.is_empty()
        });
        Self { master, replica, sentinel }
    }

    /// Its URL as the broker takes it.
    pub(crate) fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}/main", self.sentinel.port())
    }
}

/// The server that all tests of this process share.
pub(crate) fn shared() -> &'static Redis {
    static SHARED: OnceLock<Redis> = OnceLock::new();
    SHARED.get_or_init(|| Redis::start(Options::default()))
}

/// Asks a server that tells nobody when it is so far.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of letters").to_owned()
}
