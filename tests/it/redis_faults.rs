//! Redis in trouble: killed, hanging, flushed, failing over, with another's password or certificate, with damaged values. Every
//! call ends in time, and everything works again when Redis does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use token_broker::domain::coordination::{
    CoordinationError, Permit, PermitRequest, Successor, Tombstone, Wake,
};
use token_broker::domain::ports::LineageWrite;
use token_broker::domain::rate_limit::{Bucket, Rate, RateLimit};
use token_broker::domain::secret::SecretString;
use token_broker::infra::coordination::redis::{
    RedisCoordination, RedisLogin, RedisSettings, RedisSetupError, RedisTls, RedisTlsClient,
};
use tokio::time::{Instant, timeout};

use crate::contract::coordination::settings;
use crate::contract::samples::{at, credential_id, fingerprint, grant_id, lease_id, owner, tenant, tokens};
use crate::engines::redis::{AclUser, Cluster, Options, Redis, SentinelSet, TlsFiles, shared};

/// Longer than anything here takes on a busy machine; a call that waits for its time-out takes at least as long.
const LONG: Duration = Duration::from_secs(20);

/// A time-out long enough that an answer in time is no time-out.
fn patient(url: &str) -> RedisSettings {
    RedisSettings { response_timeout: LONG, ..settings(url) }
}

async fn connect(settings: &RedisSettings) -> RedisCoordination {
    RedisCoordination::connect(settings).await.unwrap()
}

fn request(n: u32) -> PermitRequest {
    PermitRequest {
        credential: credential_id(n),
        grant: grant_id(n),
        token: fingerprint(n),
        row_epoch: 0,
        owner: owner(n),
        lifetime: Duration::from_mins(5),
        takeover: None,
    }
}

fn successor(n: u32) -> Successor {
    let write = LineageWrite {
        id: credential_id(n),
        grant_id: grant_id(n),
        epoch: 1,
        parent_fingerprint: fingerprint(n),
        tokens: tokens(n),
        now: at(1),
    };
    Successor { write, mac: [n.to_be_bytes()[3]; 32] }
}

/// Every operation, on credential `n`.
async fn work(redis: &RedisCoordination, n: u32) -> Result<(), CoordinationError> {
    let RedisCoordination { permits, leases, wakeups, buckets } = redis;
    let bucket = Bucket::new(RateLimit::User, Rate::new(10, LONG).unwrap(), &[&n.to_be_bytes()]);
    buckets.take(&tenant("acme"), &[bucket]).await?.expect("one call");
    let (id, token, ttl) = (credential_id(n), fingerprint(n), Duration::from_mins(1));
    permits.ping().await?;
    permits.drop_permit(id, token, owner(n)).await?;
    permits.take(request(n)).await?;
    permits.keep_successor(&successor(n)).await?;
    assert_eq!(permits.successor(id, token).await?, Some(successor(n)));
    assert_eq!(permits.take(request(n)).await?, Permit::Successor(Box::new(successor(n))));
    permits.successor_stored(id, token, 1).await?;
    permits.owner_died(owner(n)).await?;
    assert!(permits.is_dead(owner(n)).await?);
    permits.bury(id, grant_id(n + 1), Tombstone([7; 32])).await?;
    leases.uncap(id).await?;
    leases.end_all(id).await?;
    assert!(leases.acquire(id, lease_id(n), ttl).await?.is_some());
    assert!(leases.renew(id, lease_id(n), ttl).await?.is_some());
    assert_eq!(leases.count(id).await?, 1);
    assert!(leases.cap(id).await? > Duration::ZERO);
    assert!(leases.release(id, lease_id(n)).await?);
    wakeups.publish(Wake::Credential(id)).await;
    Ok(())
}

/// Asks until it works: there is no other sign of a recovery.
async fn until_it_works(redis: &RedisCoordination, n: u32) {
    let began = Instant::now();
    while let Err(error) = work(redis, n).await {
        assert!(matches!(error, CoordinationError::Unreachable(_)), "{error:?}");
        assert!(began.elapsed() < LONG, "{error:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes a permit, which has to be written, and fails; answers why.
async fn unreachable(redis: &RedisCoordination) -> String {
    let began = Instant::now();
    let error = redis.permits.take(request(1_000)).await.unwrap_err();
    assert!(began.elapsed() < LONG / 2, "took {:?}", began.elapsed());
    match error {
        CoordinationError::Unreachable(cause) => cause.to_string(),
        other @ CoordinationError::Corrupt(_) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_killed_server_is_unreachable_at_once_and_works_again_without_a_restart_of_the_broker() {
    let server = Redis::start(Options::default());
    let redis = connect(&patient(&server.url())).await;
    for n in [1, 2] {
        until_it_works(&redis, n).await;
        server.kill();
        for _ in 0..100 {
            unreachable(&redis).await;
        }
        let waiter = redis.wakeups.listen(&Wake::Credential(credential_id(1)));
        timeout(LONG / 2, redis.wakeups.publish(Wake::Credential(credential_id(1)))).await.unwrap();
        waiter.await;
        server.start_again();
    }
    until_it_works(&redis, 1).await;
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_used_when_it_comes() {
    let server = Redis::start(Options::default());
    server.kill();
    let redis = connect(&patient(&server.url())).await;
    let why = unreachable(&redis).await;
    assert!(why.contains("not connected"), "{why}");
    server.start_again();
    until_it_works(&redis, 1).await;
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_time_out() {
    let server = Redis::start(Options::default());
    let quick = Duration::from_secs(1);
    let redis = connect(&RedisSettings {
        response_timeout: quick,
        connect_timeout: quick,
        ..settings(&server.url())
    })
    .await;
    until_it_works(&redis, 1).await;
    server.pause();
    let began = Instant::now();
    unreachable(&redis).await;
    assert!(began.elapsed() >= quick / 2, "a heartbeat may have been under way, but not an answer");
    // The next ones may wait for one more attempt to connect, and then no more.
    for _ in 0..1_000 {
        unreachable(&redis).await;
    }
    assert!(began.elapsed() < quick * 10, "took {:?}", began.elapsed());
    server.resume();
    until_it_works(&redis, 1).await;
}

#[tokio::test]
async fn a_server_that_has_forgotten_keys_and_scripts_learns_them_again() {
    let server = Redis::start(Options::default());
    let redis = connect(&patient(&server.url())).await;
    work(&redis, 1).await.unwrap();
    server.flush();
    // Not one call is lost.
    work(&redis, 1).await.unwrap();
    let none = redis.permits.successor(credential_id(2), fingerprint(2)).await.unwrap();
    assert_eq!(none, None);
}

#[tokio::test]
async fn a_server_that_became_a_replica_takes_no_permits() {
    let (server, master) = (Redis::start(Options::default()), Redis::start(Options::default()));
    let redis = connect(&patient(&server.url())).await;
    work(&redis, 1).await.unwrap();
    server.command::<()>(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    unreachable(&redis).await;
    server.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    until_it_works(&redis, 1).await;
}

#[tokio::test]
async fn a_full_server_is_unreachable_for_writes() {
    let server = Redis::start(Options::default());
    let redis = connect(&patient(&server.url())).await;
    work(&redis, 1).await.unwrap();
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    unreachable(&redis).await;
    assert!(redis.permits.is_dead(owner(1)).await.unwrap(), "reads go on");
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    work(&redis, 1).await.unwrap();
}

#[tokio::test]
async fn a_permit_ends_by_the_clock_of_redis() {
    let redis = connect(&RedisSettings { key_prefix: "short".to_owned(), ..settings(&shared().url()) }).await;
    let short = PermitRequest { lifetime: Duration::from_millis(50), ..request(1) };
    assert_eq!(redis.permits.take(short).await.unwrap(), Permit::Taken);
    let began = Instant::now();
    while redis.permits.take(PermitRequest { owner: owner(2), ..short }).await.unwrap() != Permit::Taken {
        assert!(began.elapsed() < LONG);
    }
    assert_eq!(
        redis
            .leases
            .acquire(credential_id(1), lease_id(1), Duration::from_millis(50))
            .await
            .unwrap()
            .map(|term| term.capped),
        Some(false)
    );
    while redis.leases.count(credential_id(1)).await.unwrap() != 0 {
        assert!(began.elapsed() < LONG);
    }
}

#[tokio::test]
async fn nobody_takes_a_permit_over_a_damaged_value() {
    let server = shared();
    let redis = connect(&RedisSettings { key_prefix: "damage".to_owned(), ..settings(&server.url()) }).await;
    redis.permits.keep_successor(&successor(1)).await.unwrap();
    let keys: Vec<String> = server.command(&["KEYS", "damage:*:rt:*"]);
    let key = keys[0].as_str();
    let header = format!("S|9|{}|", hex::encode(grant_id(1).as_bytes()));
    for value in [
        "",
        "P",
        "P|",
        "P|xyz|1",
        "P|ab|",
        "P|ab|1",
        "S|1",
        "S|x|ab|",
        "nonsense",
        &header,
        &(header.clone() + "\u{1}"),
        // As earlier versions wrote it, without a MAC.
        &(header.clone() + "\u{1}" + &"x".repeat(200)),
        &(header.clone() + &"07".repeat(32)),
        &(header.clone() + &"xy".repeat(32) + "\u{1}"),
    ] {
        server.command::<()>(&["SET", key, value]);
        for takeover in [None, Some(owner(1))] {
            let error = redis.permits.take(PermitRequest { takeover, ..request(1) }).await.unwrap_err();
            assert!(matches!(error, CoordinationError::Corrupt(_)), "{value}: {error:?}");
        }
        redis.permits.drop_permit(credential_id(1), fingerprint(1), owner(1)).await.unwrap();
        redis.permits.successor_stored(credential_id(1), fingerprint(1), 1).await.unwrap();
        assert_eq!(server.command::<String>(&["GET", key]), value, "nothing was overwritten");
    }
    server.command::<()>(&["DEL", key]);
    server.command::<()>(&["RPUSH", key, "a list"]);
    let error = redis.permits.take(request(1)).await.unwrap_err();
    assert!(matches!(error, CoordinationError::Corrupt(_)), "{error:?}");
    // But a successor is never lost for it.
    redis.permits.keep_successor(&successor(1)).await.unwrap();
    assert!(matches!(redis.permits.take(request(1)).await.unwrap(), Permit::Successor(_)));
}

#[tokio::test]
async fn what_is_no_tombstone_is_damage() {
    let server = shared();
    let redis = connect(&RedisSettings { key_prefix: "tomb".to_owned(), ..settings(&server.url()) }).await;
    redis.permits.bury(credential_id(1), grant_id(1), Tombstone([7; 32])).await.unwrap();
    assert_eq!(redis.permits.take(request(1)).await.unwrap(), Permit::Buried(Tombstone([7; 32])));
    let keys: Vec<String> = server.command(&["KEYS", "tomb:*:tomb:*"]);
    // The second is what earlier versions wrote.
    for value in ["", "1", "nonsense", &"07".repeat(31), &"07".repeat(33)] {
        server.command::<()>(&["SET", &keys[0], value]);
        let error = redis.permits.take(request(1)).await.unwrap_err();
        assert!(matches!(error, CoordinationError::Corrupt(_)), "{value}: {error:?}");
    }
}

#[tokio::test]
async fn replicas_wake_each_others_waiters_also_after_a_restart_of_redis() {
    let server = Redis::start(Options::default());
    let (here, there) = (connect(&patient(&server.url())).await, connect(&patient(&server.url())).await);
    for wake in [Wake::Credential(credential_id(1)), Wake::Events(tenant("acme"))] {
        let waiter = here.wakeups.listen(&wake);
        there.wakeups.publish(wake).await;
        timeout(LONG, waiter).await.unwrap();
    }
    // What was told meanwhile is not known: everybody looks.
    let waiter = here.wakeups.listen(&Wake::Credential(credential_id(7)));
    server.kill();
    server.start_again();
    timeout(LONG, waiter).await.unwrap();
    until_it_works(&there, 2).await;
    let waiter = here.wakeups.listen(&Wake::Credential(credential_id(1)));
    there.wakeups.publish(Wake::Credential(credential_id(1))).await;
    timeout(LONG, waiter).await.unwrap();
}

// ---- logins and certificates ------------------------------------------------------------------------------------------

fn login(username: &str, password: &str) -> RedisLogin {
    RedisLogin { username: Some(username.to_owned()), password: SecretString::from(password) }
}

/// The rights that the documentation names.
fn documented_rights() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/REDIS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with("on >password ")).expect("the rights");
    line.to_owned()
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_another_password_is_not() {
    let acl_user = Some(AclUser { name: "broker".to_owned(), rules: documented_rights() });
    let server = Redis::start(Options { acl_user, ..Options::default() });
    let with = |login| RedisSettings { login, ..patient(&server.url()) };
    let (redis, other) = (
        connect(&with(Some(login("broker", "password")))).await,
        connect(&with(Some(login("broker", "password")))).await,
    );
    let waiter = other.wakeups.listen(&Wake::Credential(credential_id(1)));
    work(&redis, 1).await.unwrap();
    timeout(LONG, waiter).await.unwrap();
    // Nothing was refused on the way, not even where it would not show.
    assert_eq!(server.command::<Vec<redis::Value>>(&["ACL", "LOG"]), []);
    for login in [Some(login("broker", "secret-canary")), Some(login("nobody", "password")), None] {
        let why = unreachable(&connect(&with(login)).await).await;
        assert!(!why.contains("secret-canary"), "{why}");
        assert!(why.contains("AUTH") || why.contains("uthentication") || why.contains("WRONGPASS"), "{why}");
    }
    // The password is put right at the server: no restart of the broker.
    let wrong = connect(&with(Some(login("broker", "later")))).await;
    unreachable(&wrong).await;
    server.command::<()>(&["ACL", "SETUSER", "broker", ">later"]);
    until_it_works(&wrong, 2).await;
}

fn test_certificates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/tls")
}

fn test_tls() -> TlsFiles {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = test_certificates();
    TlsFiles {
        certificate: folder.join("server.crt"),
        key: folder.join("server.key"),
        authority: folder.join("ca.crt"),
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_it() {
    let files = test_tls();
    let settings = vec!["tls-auth-clients yes".to_owned()];
    let server = Redis::start(Options { tls: Some(files.clone()), settings, ..Options::default() });
    let with = |client| RedisSettings {
        tls: RedisTls { ca_file: Some(files.authority.clone()), client },
        ..patient(&server.url())
    };
    unreachable(&connect(&with(None)).await).await;
    let client = RedisTlsClient { certificate_file: files.certificate.clone(), key_file: files.key.clone() };
    work(&connect(&with(Some(client))).await, 1).await.unwrap();
}

#[tokio::test]
async fn tls_needs_the_right_authority() {
    let (files, folder) = (test_tls(), test_certificates());
    let acl_user = Some(AclUser { name: "broker".to_owned(), rules: documented_rights() });
    let settings = vec!["bind 127.0.0.1 127.0.0.2".to_owned()];
    let server = Redis::start(Options { tls: Some(files), acl_user, settings });
    let with = |url: &str, ca_file: Option<PathBuf>| RedisSettings {
        login: Some(login("broker", "password")),
        tls: RedisTls { ca_file, client: None },
        ..patient(url)
    };
    let url = server.url();
    work(&connect(&with(&url, Some(folder.join("ca.crt")))).await, 1).await.unwrap();
    // The system's authorities do not know it; the name is another; it speaks no plain text.
    unreachable(&connect(&with(&url, None)).await).await;
    let other_name = format!("rediss://127.0.0.2:{}", server.port());
    unreachable(&connect(&with(&other_name, Some(folder.join("ca.crt")))).await).await;
    let plain = format!("redis://localhost:{}", server.port());
    unreachable(&connect(&with(&plain, None)).await).await;
    // Mistakes in the settings are told at the start.
    let missing = RedisCoordination::connect(&with(&url, Some(folder.join("missing.crt")))).await;
    assert!(matches!(missing.err(), Some(RedisSetupError::File { .. })));
    let no_certificate = RedisCoordination::connect(&with(&url, Some(folder.join("README.md")))).await;
    assert!(matches!(no_certificate.err(), Some(RedisSetupError::NoCertificate { .. })));
    let swapped =
        RedisTlsClient { certificate_file: folder.join("server.crt"), key_file: folder.join("ca.crt") };
    let swapped =
        RedisSettings { tls: RedisTls { ca_file: None, client: Some(swapped) }, ..with(&url, None) };
    assert!(matches!(RedisCoordination::connect(&swapped).await.err(), Some(RedisSetupError::Client(_))));
    let bad_url = RedisCoordination::connect(&with("redis://a,b", None)).await;
    assert!(matches!(bad_url.err(), Some(RedisSetupError::Url(_))));
}

#[tokio::test]
async fn a_socket_and_a_database_are_used() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("redis.sock");
    let server = Redis::start(Options {
        settings: vec![format!("unixsocket {}", socket.display())],
        ..Options::default()
    });
    let redis = connect(&patient(&format!("redis+unix://{}?db=3", socket.display()))).await;
    work(&redis, 1).await.unwrap();
    work(&connect(&patient(&format!("{}/4", server.url()))).await, 1).await.unwrap();
    let keyspace: String = server.command(&["INFO", "keyspace"]);
    assert!(
        keyspace.contains("db3:") && keyspace.contains("db4:") && !keyspace.contains("db0:"),
        "{keyspace}"
    );
}

// ---- more than one server ---------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_node_that_is_down_takes_its_credentials_with_it_and_no_others() {
    let cluster = Cluster::start();
    let quick = RedisSettings { response_timeout: Duration::from_secs(2), ..settings(&cluster.url()) };
    let (here, there) = (connect(&quick).await, connect(&quick).await);
    for n in 0..30 {
        work(&here, n).await.unwrap();
    }
    for node in &cluster.nodes {
        assert!(node.command::<u64>(&["DBSIZE"]) > 0, "all nodes have a part");
    }
    let waiter = there.wakeups.listen(&Wake::Credential(credential_id(1)));
    here.wakeups.publish(Wake::Credential(credential_id(1))).await;
    timeout(LONG, waiter).await.unwrap();

    cluster.nodes[1].kill();
    let mut reached = 0;
    for n in 0..30 {
        let began = Instant::now();
        let permit = PermitRequest { token: fingerprint(n + 100), ..request(n) };
        match here.permits.take(permit).await {
            Ok(permit) => {
                assert_eq!(permit, Permit::Taken);
                reached += 1;
            }
            Err(CoordinationError::Unreachable(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
        assert!(began.elapsed() < LONG / 2, "took {:?}", began.elapsed());
    }
    assert!((10..30).contains(&reached), "reached {reached} of 30");
    cluster.nodes[1].start_again();
    for n in 0..30 {
        until_it_works(&here, n).await;
    }
    for node in &cluster.nodes {
        node.kill();
    }
    unreachable(&here).await;
    for node in &cluster.nodes {
        node.start_again();
    }
    for n in 0..30 {
        until_it_works(&here, n).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_the_new_master_is_used() {
    let set = SentinelSet::start();
    let quick = RedisSettings { response_timeout: Duration::from_secs(2), ..settings(&set.url()) };
    let redis = connect(&quick).await;
    work(&redis, 1).await.unwrap();
    // It hangs, another one takes its place, and it comes back as a replica.
    set.master.pause();
    until_it_works(&redis, 2).await;
    let on_the_new: Vec<String> = set.replica.command(&["KEYS", "*:rt:*"]);
    let key = hex::encode(credential_id(2).as_bytes());
    assert!(on_the_new.iter().any(|name| name.contains(&key)), "{on_the_new:?}");
    set.master.resume();
    until_it_works(&redis, 3).await;
}

#[tokio::test]
async fn behind_sentinels_that_know_no_such_master_nothing_is_reachable() {
    let set = SentinelSet::start();
    let other = set.url().replace("/main", "/other");
    unreachable(&connect(&patient(&other)).await).await;
    let _nobody = &set.sentinel;
}
