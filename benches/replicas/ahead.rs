//! Refresh ahead of expiry, on three replicas: how many a second, at what cost in statements and memory, how late, and
//! whether it costs more with more rows.

use std::time::Duration;

use reqwest::Client as Browser;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::plans;
use super::stage::{Scene, Stage};
use super::stats::{percentile, ratio};
use crate::clock::{self, micros};
use crate::history::CredentialNo;

const REPLICAS: usize = 3;
/// A day's usual token: an hour. It is due 6 minutes before its end: 5 ahead, 1 for the margin.
const LIFE: Duration = Duration::from_hours(1);
const DUE_BEFORE_END: Duration = Duration::from_mins(6);
/// How many are refreshed to compare few rows with many.
const SAMPLE: u32 = 10_000;
/// How many are refreshed to see the plans of that.
const EXPLAINED: u32 = 60;
/// What is due at an even pace is due in this time, or sooner at so many a second.
const PACED: Duration = Duration::from_secs(240);
const PACE: u32 = 400;
/// Commits for each refresh: the claim and the new pair.
const COMMITS: f64 = 2.0;
/// As many as the replicas' pools have.
const FLOOR_CONNECTIONS: usize = 48;
const FLOOR_LASTS: Duration = Duration::from_secs(5);
/// A run that takes longer has failed.
const PATIENCE: Duration = Duration::from_mins(15);

/// What a run of due credentials came to.
struct Drained {
    done: usize,
    took: Duration,
    lags: Vec<Duration>,
    share: Vec<u64>,
    statements: Vec<plans::Statement>,
}

/// Whether all were refreshed, each once.
pub(crate) async fn run(credentials: u32, rows: u32) -> bool {
    let stage = Stage::set(Scene {
        replicas: REPLICAS,
        life: (LIFE, LIFE),
        latency: Duration::ZERO,
        refresh_ahead: Duration::from_mins(5),
        credentials,
        pace: Duration::ZERO,
    })
    .await;
    let rows = rows.max(credentials);
    let mut database = stage.backing.backdoor().await;
    database.execute("CREATE EXTENSION pg_stat_statements").await.unwrap();
    println!("ahead: {REPLICAS} replicas, an instant provider");
    memory(&stage, "at rest, no credentials").await;

    let sample = SAMPLE.min(credentials);
    let began = Instant::now();
    stage.import(0..sample).await;
    println!("  {sample} imported, {:.0} a second", f64::from(sample) / began.elapsed().as_secs_f64());
    let floor = floor(&stage, sample).await;
    println!("  floor: {floor:.0} bare one-row commits a second, over {FLOOR_CONNECTIONS} connections");
    // The first refreshes open connections and prepare statements.
    drain(&stage, &mut database, 0..sample, Duration::ZERO).await;
    let mut good = true;
    let few = drain(&stage, &mut database, 0..sample, Duration::ZERO).await;
    good &= report(&format!("{sample} due at once, of {sample} rows"), &few, sample, Some(floor));
    plans::table(&few.statements, few.done);

    stage.import(sample..credentials).await;
    let all = drain(&stage, &mut database, 0..credentials, Duration::ZERO).await;
    good &=
        report(&format!("{credentials} due at once, of {credentials} rows"), &all, credentials, Some(floor));
    memory(&stage, "after that").await;
    let window = PACED.min(Duration::from_secs(u64::from(credentials.div_ceil(PACE))));
    let paced = drain(&stage, &mut database, 0..credentials, window).await;
    let name = format!("{credentials} due within {} s, evenly", window.as_secs());
    good &= report(&name, &paced, credentials, None);
    memory(&stage, "after that").await;

    fill(&mut database, rows - credentials).await;
    let many = drain(&stage, &mut database, 0..sample, Duration::ZERO).await;
    good &= report(&format!("{sample} due at once, of {rows} rows"), &many, sample, Some(floor));
    plans::table(&many.statements, many.done);
    memory(&stage, "after that").await;
    println!("  rows {sample} → {rows}: {:.2} times the refreshes a second", rate(&many) / rate(&few));
    plans::explain(&mut database, true).await;
    drain(&stage, &mut database, 0..EXPLAINED.min(sample), Duration::ZERO).await;
    plans::explain(&mut database, false).await;
    plans::show(&stage.backing.postgres_log());

    let (doubles, ended) = stage.doubles();
    good &= doubles == 0 && ended == 0;
    drop(database);
    good &= stage.strike().await;
    println!("ahead: {}", if good { "each refreshed, once" } else { "FAILED" });
    good
}

fn rate(drained: &Drained) -> f64 {
    ratio(drained.done, 1) / drained.took.as_secs_f64()
}

fn report(name: &str, drained: &Drained, due: u32, floor: Option<f64>) -> bool {
    let mut lags = drained.lags.clone();
    let total: u64 = drained.share.iter().sum();
    let share: Vec<_> = drained.share.iter().map(|n| format!("{} %", n * 100 / total.max(1))).collect();
    let calls: f64 = drained.statements.iter().map(|statement| statement.calls).sum();
    println!("  {name}; by replica {}", share.join(", "));
    if let Some(floor) = floor {
        let part = rate(drained) * COMMITS / floor;
        println!(
            "    {:.0} refreshes a second, {part:.2} of what {COMMITS} bare commits each allow",
            rate(drained)
        );
    }
    println!(
        "    lag p50 {:.2} s, p99 {:.2} s, max {:.2} s; {:.2} statements a refresh in all",
        percentile(&mut lags, 50).as_secs_f64(),
        percentile(&mut lags, 99).as_secs_f64(),
        percentile(&mut lags, 100).as_secs_f64(),
        calls / ratio(drained.done, 1),
    );
    drained.done == due as usize
}

/// Makes these due, evenly over the window, and waits until all are refreshed.
async fn drain(
    stage: &Stage,
    database: &mut PgConnection,
    due: std::ops::Range<CredentialNo>,
    window: Duration,
) -> Drained {
    let count = due.end - due.start;
    let lead = Duration::from_secs(10 + u64::from(count) / 2500);
    let at = Instant::now() + lead;
    let (first, wall) = (clock::now() + micros(lead), clock::today().as_microsecond() + signed(lead));
    let step = micros(window) / u64::from(count);
    let sql = format!(
        "UPDATE credentials SET next_refresh_at = {wall} + account::bigint * {step},
            access_expires_at = {wall} + account::bigint * {step} + {before},
            access_obtained_at = {wall} + account::bigint * {step} + {before} - {life}
         WHERE user_id LIKE 'user-%' AND account::bigint < {end}",
        before = signed(DUE_BEFORE_END),
        life = signed(LIFE),
        end = due.end,
    );
    database.execute(AssertSqlSafe(sql)).await.unwrap();
    database.execute("VACUUM (ANALYZE) credentials").await.unwrap();
    let before = stage.provider.book.presented();
    let shares_before = shares(stage).await;
    database.execute("SELECT pg_stat_statements_reset()").await.unwrap();
    assert!(Instant::now() < at, "the preparations took longer than {lead:?}");
    sleep_until(at).await;
    while stage.provider.book.presented() < before + count as usize && at.elapsed() < PATIENCE {
        sleep(Duration::from_millis(100)).await;
    }
    let statements = plans::statements(database).await;
    let shares_after = shares(stage).await;
    let grants = stage.provider.book.grants();
    let mut done = Vec::new();
    for presentation in &stage.provider.book.presentations()[before..] {
        let due = first + u64::from(grants[&presentation.grant].credential) * step;
        done.push((presentation.ended, presentation.began.saturating_sub(due)));
    }
    let last = done.iter().map(|(ended, _)| *ended).max().unwrap_or(first);
    Drained {
        done: done.len(),
        took: Duration::from_micros(last - first),
        lags: done.into_iter().map(|(_, lag)| Duration::from_micros(lag)).collect(),
        share: shares_before.iter().zip(shares_after).map(|(before, after)| after - before).collect(),
        statements,
    }
}

fn signed(duration: Duration) -> i64 {
    i64::try_from(micros(duration)).unwrap()
}

/// The refreshes of each replica so far, by its own metrics.
async fn shares(stage: &Stage) -> Vec<u64> {
    let browser = Browser::builder().no_proxy().build().unwrap();
    let mut shares = Vec::new();
    for replica in &stage.site.replicas {
        let url = format!("http://127.0.0.1:{}/metrics", replica.operations);
        let text = browser.get(&url).send().await.unwrap().text().await.unwrap();
        let counts = text.lines().filter(|line| line.starts_with("token_broker_refreshes_total{"));
        shares.push(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum());
    }
    shares
}

/// What each replica's process has in memory.
async fn memory(stage: &Stage, when: &str) {
    let mut sizes = Vec::new();
    for replica in 0..REPLICAS {
        let pid = stage.fleet.pid(replica).await.unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let of = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_matches([':', '\t', ' ', 'k', 'B']).parse::<u64>().unwrap() / 1024
        };
        sizes.push(format!("{} MiB (at most {})", of("VmRSS"), of("VmHWM")));
    }
    println!("  memory {when}, by replica: {}", sizes.join(", "));
}

/// One-row updates that change no index, each a transaction: the least that a write can cost.
async fn floor(stage: &Stage, rows: u32) -> f64 {
    let mut tasks = JoinSet::new();
    let end = Instant::now() + FLOOR_LASTS;
    for number in 0..FLOOR_CONNECTIONS {
        let mut connection = stage.backing.backdoor().await;
        tasks.spawn(async move {
            let sql = "SELECT id FROM credentials ORDER BY id LIMIT 100 OFFSET $1";
            let offset = i64::try_from(number * 100).unwrap() % i64::from(rows);
            let ids = sqlx::query(sql).bind(offset).fetch_all(&mut connection).await.unwrap();
            let mut commits = 0_usize;
            while Instant::now() < end {
                let id: Vec<u8> = ids[commits % ids.len()].get(0);
                let update = sqlx::query("UPDATE credentials SET used_at = used_at WHERE id = $1").bind(id);
                update.execute(&mut connection).await.unwrap();
                commits += 1;
            }
            connection.close().await.unwrap();
            commits
        });
    }
    let commits: usize = tasks.join_all().await.into_iter().sum();
    ratio(commits, 1) / FLOOR_LASTS.as_secs_f64()
}

/// Adds rows that are never due, of the same size.
async fn fill(database: &mut PgConnection, rows: u32) {
    let columns = "tenant, provider, grant_name, created_at, updated_at, used_at, generation, epoch, status, access_sealed,
        access_obtained_at, access_expires_at, token_type, profile_sealed, scopes, scopes_assumed, rt_sealed, rt_epoch";
    let sql = format!(
        "INSERT INTO credentials (id, grant_id, user_id, account, rt_fingerprint, next_refresh_at, {columns})
         SELECT decode(md5('id' || n), 'hex'), decode(md5('grant' || n), 'hex'), 'filler-' || n / 3, n::text,
            decode(repeat(md5('token' || n), 2), 'hex'), 4000000000000000 + n, {columns}
         FROM generate_series(1, {rows}) AS n, (SELECT * FROM credentials WHERE user_id = 'user-0' LIMIT 1) AS pattern"
    );
    let began = Instant::now();
    database.execute(AssertSqlSafe(sql)).await.unwrap();
    database.execute("VACUUM (ANALYZE) credentials").await.unwrap();
    println!("  {rows} rows added in {:.0} s", began.elapsed().as_secs_f64());
}
