//! Opening a database: migrations, whoever else is there, rights, passwords, TLS, and what is refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use token_broker::domain::ports::{CredentialStore as _, StoreHealth as _};
use token_broker::domain::secret::SecretString;
use token_broker::infra::storage::postgres::{DatabaseClock, OpenError, PgSettings, PgStore, RowClock};
use token_broker::infra::system::SystemClock;

use super::connected;
use crate::contract::samples::{at, claim_request, key};
use crate::engines::postgres::{self, Options, Postgres, WITH_PASSWORD};

async fn open(settings: &PgSettings) -> Result<PgStore, OpenError> {
    let clock = Arc::new(DatabaseClock::new(Arc::new(SystemClock)));
    PgStore::open(settings, RowClock::Caller, clock).await
}

/// An empty database on the shared server.
async fn empty() -> (&'static Postgres, String, PgSettings) {
    let server = postgres::shared();
    let database = server.create_database("template1").await;
    let settings = postgres::settings(&server.url(&database));
    (server, database, settings)
}

async fn run(server: &Postgres, database: &str, sql: &str) {
    server.backdoor(database).await.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

async fn refused(settings: &PgSettings) -> OpenError {
    let error = open(settings).await.expect_err("must not open");
    let text = error.to_string();
    assert!(text.contains(settings.url.path().trim_start_matches('/')), "names the database: {text}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_start_at_one_time_one_migrates_and_all_serve() {
    let (server, database, settings) = empty().await;
    let starts: Vec<_> = (0..6)
        .map(|_| {
            let settings = settings.clone();
            tokio::spawn(async move { open(&settings).await.unwrap() })
        })
        .collect();
    let mut stores = Vec::new();
    for start in starts {
        stores.push(start.await.unwrap());
    }
    let row = connected(&stores[0], "alice", 1).await;
    for store in &stores {
        assert_eq!(store.load(&key("alice")).await.unwrap().as_ref(), Some(&row));
    }
    let sql = "SELECT count(*), count(DISTINCT version) FROM _sqlx_migrations WHERE success";
    let counted = server.backdoor(&database).await.fetch_one(sql).await.unwrap();
    assert_eq!(counted.get::<i64, _>(0), counted.get::<i64, _>(1), "each was applied once");
}

/// Indexes are built while others write, so not in a transaction: after a kill they are there, or half of them, and nobody wrote
/// that down.
#[tokio::test]
async fn a_migration_that_was_broken_off_is_done_by_the_next_attempt() {
    let (server, database, settings) = empty().await;
    open(&settings).await.unwrap().close().await;
    let undone =
        "DELETE FROM _sqlx_migrations WHERE version >= 11; CREATE INDEX credentials_due ON credentials (id);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'credentials_due_operators'::regclass";
    run(server, &database, undone).await;
    let store = open(&settings).await.unwrap();
    connected(&store, "alice", 1).await;
    let applied = PgStore::migrations(&settings).await.unwrap();
    assert!(applied.iter().all(|migration| migration.applied));
    let sql =
        "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text) FROM pg_index
        WHERE indisvalid AND indexrelid::regclass::text LIKE 'credentials_due%'";
    let there = server.backdoor(&database).await.fetch_one(sql).await.unwrap();
    assert_eq!(there.get::<String, _>(0), "credentials_due_operators credentials_due_own");
}

#[tokio::test]
async fn migrations_are_told_without_touching_anything() {
    let (server, database, settings) = empty().await;
    let pending = PgStore::migrations(&settings).await.unwrap();
    assert!(!pending.is_empty() && pending.iter().all(|migration| !migration.applied));
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    let objects = server.backdoor(&database).await.fetch_one(sql).await.unwrap();
    assert_eq!(objects.get::<i64, _>(0), 0, "nothing was created");
    let store = open(&settings).await.unwrap();
    // While others serve, too.
    let applied = PgStore::migrations(&settings).await.unwrap();
    assert!(applied.iter().all(|migration| migration.applied));
    assert_eq!(applied.len(), pending.len());
    store.ping().await.unwrap();
}

/// What a migration of a later version leaves behind.
const LATER: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (9999, 'from the future', true, '\\x00', 0);";

#[tokio::test]
async fn during_a_rolling_update_the_old_version_serves_and_starts_again() {
    let (server, database, settings) = empty().await;
    let serving = open(&settings).await.unwrap();
    run(server, &database, &format!("ALTER TABLE credentials ADD COLUMN novelty text DEFAULT 'x'; {LATER}"))
        .await;
    let row = connected(&serving, "alice", 1).await;
    assert_eq!(serving.claim_for_refresh(claim_request(&row, 1, at(5))).await.unwrap(), Some(2));
    let restarted = open(&settings).await.unwrap();
    assert!(restarted.load(&key("alice")).await.unwrap().is_some());
    let told = PgStore::migrations(&settings).await.unwrap();
    assert!(told.iter().all(|migration| migration.applied && migration.version < 9999));
}

#[tokio::test]
async fn a_schema_that_leaves_this_version_behind_is_refused() {
    let (server, database, settings) = empty().await;
    open(&settings).await.unwrap().close().await;
    run(server, &database, &format!("UPDATE broker_schema SET oldest_version = 9999; {LATER}")).await;
    assert!(matches!(refused(&settings).await, OpenError::NewerSchema { version: 9999, .. }));
    assert!(matches!(PgStore::migrations(&settings).await, Err(OpenError::NewerSchema { .. })));
}

#[tokio::test]
async fn a_migration_of_another_form_is_refused() {
    let (server, database, settings) = empty().await;
    open(&settings).await.unwrap().close().await;
    run(server, &database, "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    assert!(matches!(refused(&settings).await, OpenError::ChangedSchema { version: 1, .. }));
}

#[tokio::test]
async fn another_programs_database_is_left_as_it_is() {
    for theirs in [
        "CREATE TABLE credentials (theirs text)".to_owned(),
        format!(
            "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text, success boolean,
             checksum bytea, execution_time bigint); {LATER}"
        ),
    ] {
        let (server, database, settings) = empty().await;
        run(server, &database, &theirs).await;
        assert!(matches!(refused(&settings).await, OpenError::NotADatabase { .. }), "{theirs}");
        assert!(matches!(PgStore::migrations(&settings).await, Err(OpenError::NotADatabase { .. })));
    }
}

/// The rights that docs/POSTGRES.md gives the broker's role.
fn documented_rights() -> String {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/POSTGRES.md")).unwrap();
    let (_, rest) = page.split_once("<!-- rights -->\n```sql\n").expect("the page lists the rights");
    rest.split_once("```").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_broker_needs_no_more_rights_than_documented() {
    // A server of its own, since roles are the whole server's.
    let server = Postgres::start(Options::default());
    run(&server, "postgres", "CREATE ROLE broker_app LOGIN").await;
    let database = server.create_database("template1").await;
    let owners = postgres::settings(&server.url(&database));
    let brokers = postgres::settings(&server.url_as("broker_app", &database));
    run(&server, &database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let error = refused(&brokers).await;
    assert!(matches!(error, OpenError::NotAllowed { .. }), "{error}");
    // The owner migrates, the broker serves.
    open(&owners).await.unwrap().close().await;
    assert!(matches!(refused(&brokers).await, OpenError::NotAllowed { .. }), "it may not read yet");
    run(&server, &database, &documented_rights()).await;
    let store = open(&brokers).await.unwrap();
    let row = connected(&store, "alice", 1).await;
    assert_eq!(store.claim_for_refresh(claim_request(&row, 1, at(5))).await.unwrap(), Some(2));
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_password_comes_apart_from_the_url_and_is_never_shown() {
    let server = Postgres::start(Options::default());
    let sql = format!("CREATE ROLE {WITH_PASSWORD} LOGIN SUPERUSER PASSWORD 'canary'");
    run(&server, "postgres", &sql).await;
    let database = server.create_database("template1").await;
    let with = |password: Option<&str>| PgSettings {
        password: password.map(|text| SecretString::new(text.to_owned())),
        ..postgres::settings(&server.url_as(WITH_PASSWORD, &database))
    };
    open(&with(Some("canary"))).await.unwrap().ping().await.unwrap();
    for wrong in [None, Some("canary-of-another-mine")] {
        let error = refused(&with(wrong)).await;
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        if wrong.is_some() {
            assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
        }
    }
    assert!(!format!("{:?}", with(Some("canary"))).contains("canary"));
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let server = postgres::shared();
    let error = refused(&postgres::settings(&server.url("no_such_database"))).await;
    assert!(matches!(error, OpenError::NoSuchDatabase { .. }), "{error}");
    let port = crate::engines::free_port();
    let nowhere = postgres::settings(&format!("postgres://broker@127.0.0.1:{port}/nowhere?sslmode=disable"));
    let error = refused(&nowhere).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&format!("broker@127.0.0.1:{port}/nowhere")), "{error}");
}

#[tokio::test]
async fn a_database_that_only_reads_is_refused() {
    let (server, database, settings) = empty().await;
    open(&settings).await.unwrap().close().await;
    let sql = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    run(server, "postgres", &sql).await;
    assert!(matches!(refused(&settings).await, OpenError::ReadOnly { .. }));
}

#[tokio::test]
async fn tls_needs_the_right_authority_and_name() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/tls");
    let server = Postgres::start(Options::default());
    // The server writes its own copies, since it wants to own its key.
    for file in ["server.crt", "server.key"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let target = server.home().join(file);
        let sql = format!(
            "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) TO '{}'",
            text.trim(),
            target.to_str().unwrap()
        );
        run(&server, "postgres", &sql).await;
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600)).unwrap();
        let setting = if file == "server.crt" { "ssl_cert_file" } else { "ssl_key_file" };
        run(&server, "postgres", &format!("ALTER SYSTEM SET {setting} = '{}'", target.to_str().unwrap()))
            .await;
    }
    run(&server, "postgres", "ALTER SYSTEM SET ssl = on").await;
    server.stop(postgres::Stop::Fast);
    server.start_again();
    let database = server.create_database("template1").await;
    let with = |host: &str, options: &str| {
        let port = server.port();
        postgres::settings(&format!("postgres://broker@{host}:{port}/{database}?{options}"))
    };
    let ca = folder.join("ca.crt");
    let ca = ca.to_str().unwrap();
    for options in [
        format!("sslmode=verify-full&sslrootcert={ca}"),
        format!("sslmode=verify-ca&sslrootcert={ca}"),
        "sslmode=require".to_owned(),
    ] {
        let store = open(&with("127.0.0.1", &options)).await.unwrap();
        store.ping().await.unwrap();
        store.close().await;
    }
    let sql = "SELECT count(*) FROM pg_stat_ssl WHERE ssl AND pid <> pg_backend_pid()";
    let store = open(&with("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={ca}"))).await.unwrap();
    let encrypted = server.backdoor("postgres").await.fetch_one(sql).await.unwrap();
    assert!(encrypted.get::<i64, _>(0) >= 1, "the store's connections are encrypted");
    store.close().await;
    for wrong in
        ["sslmode=verify-full".to_owned(), "sslmode=verify-full&sslrootcert=/nowhere/ca.crt".to_owned()]
    {
        refused(&with("127.0.0.1", &wrong)).await;
    }
}
