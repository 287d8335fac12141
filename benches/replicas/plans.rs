//! What the database was asked while the replicas worked, by its own account: how often, at what cost, and by which plans.

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

/// The plans, as they are for any values.
pub(crate) async fn show(database: &mut PgConnection, statements: &[Statement]) {
    database.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    let refreshes = statements.iter().map(|statement| statement.calls).fold(0.0, f64::max);
    for statement in statements.iter().filter(|statement| statement.calls >= OFTEN * refreshes) {
        let first = statement.text.split_whitespace().next().unwrap_or_default().to_uppercase();
        if !["SELECT", "UPDATE", "INSERT", "WITH", "DELETE"].contains(&first.as_str()) {
            continue;
        }
        let (prepare, values) = prepared(&statement.text);
        let words: Vec<_> = statement.text.split_whitespace().collect();
        println!("  plan of {}", words.join(" "));
        match database.execute(AssertSqlSafe(prepare)).await {
            Ok(_) => {
                let explain = format!("EXPLAIN EXECUTE shown {values}");
                for line in sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *database).await.unwrap() {
                    println!("      {}", line.get::<String, _>(0));
                }
                database.execute("DEALLOCATE shown").await.unwrap();
            }
            Err(error) => println!("      not shown: {error}"),
        }
    }
}

/// A statement to prepare, and the values to give it: the server has put numbers in place of constants, a word that is no
/// value among them.
fn prepared(text: &str) -> (String, String) {
    let (mut text, mut types, mut values) = (text.to_owned(), Vec::new(), Vec::new());
    for n in (1..).take_while(|n| text.contains(&format!("${n}"))).collect::<Vec<_>>() {
        let word = format!("extract(${n} FROM");
        types.push(if text.contains(&word) { "text" } else { "unknown" });
        values.push("NULL");
        text = text.replace(&word, "extract(epoch FROM");
    }
    if values.is_empty() {
        return (format!("PREPARE shown AS {text}"), String::new());
    }
    (format!("PREPARE shown ({}) AS {text}", types.join(", ")), format!("({})", values.join(", ")))
}
