//! What the database was asked while the replicas worked, by its own account: how often, at what cost, and by which plans.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};

/// Seldom ones are the upkeep of pools and schedules.
const OFTEN: f64 = 0.005;

/// A statement of the replicas.
pub(crate) struct Statement {
    text: String,
    pub(crate) calls: f64,
    /// Pages looked at in one execution.
    pages: f64,
    millis: f64,
}

/// All since the last reset.
pub(crate) async fn statements(database: &mut PgConnection) -> Vec<Statement> {
    let sql = "SELECT query, calls::float8, (shared_blks_hit + shared_blks_read)::float8 / calls AS pages, mean_exec_time
        FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND query NOT LIKE '%pg_stat_statements%' ORDER BY calls DESC";
    let rows = sqlx::query(sql).fetch_all(database).await.unwrap();
    let statement = |row: &sqlx::postgres::PgRow| Statement {
        text: row.get(0),
        calls: row.get(1),
        pages: row.get(2),
        millis: row.get(3),
    };
    rows.iter().map(statement).collect()
}

fn often(statements: &[Statement], refreshes: usize) -> impl Iterator<Item = &Statement> {
    let least = OFTEN * super::stats::ratio(refreshes, 1);
    statements.iter().filter(move |statement| statement.calls >= least)
}

/// A line for each that is made often.
pub(crate) fn table(statements: &[Statement], refreshes: usize) {
    println!("                           to execute,");
    println!("      a refresh    pages   commit not  statement");
    println!("                           counted, ms");
    for statement in often(statements, refreshes) {
        let words: Vec<_> = statement.text.split_whitespace().collect();
        let text: String = words.join(" ").chars().take(90).collect();
        println!(
            "      {:>9.3}  {:>7.1}  {:>11.3}  {text}",
            statement.calls / super::stats::ratio(refreshes, 1),
            statement.pages,
            statement.millis
        );
    }
}

/// Has the server log the plan of everything that anybody asks from here on, or no more.
pub(crate) async fn explain(database: &mut PgConnection, on: bool) {
    let least = if on { 0 } else { -1 };
    let sql = format!("ALTER SYSTEM SET auto_explain.log_min_duration = {least}");
    database.execute(AssertSqlSafe(sql)).await.unwrap();
    database.execute("SELECT pg_reload_conf()").await.unwrap();
}

/// The plans by which credentials were found and changed, each once, from the server's log.
pub(crate) fn show(log: &str) {
    let mut shown = BTreeSet::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.ends_with("plan:") {
            continue;
        }
        let mut text = String::new();
        while let Some(more) = lines.next_if(|line| line.starts_with('\t') && !line.contains("(cost=")) {
            text.push_str(more);
        }
        let mut plan = Vec::new();
        while let Some(step) = lines.next_if(|line| line.starts_with('\t')) {
            plan.push(step.trim_start_matches('\t'));
        }
        let words = text.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
        if words.contains(" credentials") && plan.len() > 1 && shown.insert(words.clone()) {
            println!("  plan of {words}");
            for step in plan {
                println!("      {step}");
            }
        }
    }
}
