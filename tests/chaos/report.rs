//! The verdict with its figures: a table for people, JSON for machines, one line at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use token_broker::domain::step::Step;

use crate::history::{
    Answer, Call, Check, Deed, Disturbance, End, History, Micros, Outcome, ProviderFault, Question, Rules,
    Violation, known_valid, losses, per_token,
};
use crate::record::Record;
use crate::run::Plan;

/// Violations that are shown of each check.
const SHOWN: usize = 10;

type Counts = BTreeMap<String, usize>;

/// What a run has found.
pub(crate) struct Report {
    plan: Plan,
    violations: BTreeMap<Check, Vec<Violation>>,
    incidents: Vec<String>,
    /// Faults that never happened.
    missing: Vec<String>,
    /// In the order of the table.
    sections: Vec<(&'static str, Counts)>,
    facts: Vec<(&'static str, String)>,
}

fn count<T: ToString>(items: impl Iterator<Item = T>) -> Counts {
    let mut counts = Counts::new();
    for item in items {
        *counts.entry(item.to_string()).or_default() += 1;
    }
    counts
}

const fn disturbance(what: Disturbance) -> &'static str {
    match what {
        Disturbance::Killed(_) => "kill -9",
        Disturbance::Paused(_) => "SIGSTOP of a replica",
        Disturbance::RedisFlushed => "Redis FLUSHALL",
        Disturbance::RedisRestarted => "Redis stopped and started",
        Disturbance::RedisPaused => "SIGSTOP of Redis",
        Disturbance::PostgresRestarted => "Postgres stopped at once and started",
        Disturbance::ProviderHung => "the provider hung",
    }
}

/// Those of the servers.
const SERVER_FAULTS: [&str; 4] = [
    disturbance(Disturbance::RedisFlushed),
    disturbance(Disturbance::RedisRestarted),
    disturbance(Disturbance::RedisPaused),
    disturbance(Disturbance::PostgresRestarted),
];

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Issued(_) => "a new pair",
        Outcome::Reuse => "reuse: the grant was ended",
        Outcome::Dead => "the grant was dead",
        Outcome::Untouched => "not looked at",
    }
}

fn answer(call: &Call) -> String {
    let question = match call.question {
        Question::Read => "GetCredential",
        Question::Refresh(_) => "Refresh",
    };
    let answer = match call.answer {
        Answer::Token { .. } => "a token",
        Answer::Reauthorize => "consent needed",
        Answer::Failed(status) => status,
    };
    format!("{question}: {answer}")
}

impl Report {
    pub(crate) fn of(plan: &Plan, lasted: Duration, history: &History, record: &Record) -> Self {
        let violations = Check::ALL.into_iter().map(|check| (check, check.run(history))).collect();
        let tokens = per_token(history);
        let rotating = |grant: &u32| history.grants.get(grant).is_some_and(|g| g.rules != Rules::Steady);
        let counts = tokens.iter().filter(|((grant, _), _)| rotating(grant)).map(|(_, p)| p.len());
        let per_token: Vec<usize> = counts.collect();
        let again = tokens
            .iter()
            .filter(|((grant, _), _)| rotating(grant))
            .flat_map(|(_, presentations)| presentations.iter().skip(1));
        let losses = losses(history);
        let inside: Vec<_> = losses.iter().filter_map(|loss| loss.cause).collect();
        let kills = record.kills();
        let faults = count(history.presentations.iter().filter_map(|p| p.fault).map(ProviderFault::name));
        let disturbances = count(history.windows.iter().map(|window| disturbance(window.what)));
        let steps = count(history.reached.iter().map(|reached| &reached.step));
        let revoked = history.grants.values().filter(|g| matches!(g.end, Some((_, End::Revoked)))).count();
        let step = |step: Step| steps.get(step.name()).copied().unwrap_or_default().to_string();
        let facts = vec![
            ("faults were dealt for", format!("{:.1} s", lasted.as_secs_f64())),
            ("calls of clients", history.calls.len().to_string()),
            ("grants at the providers", history.grants.len().to_string()),
            ("refresh tokens presented", history.presentations.len().to_string()),
            (
                "presentations of one rotating refresh token, at most",
                per_token.iter().max().copied().unwrap_or_default().to_string(),
            ),
            ("grants ended by revocation", revoked.to_string()),
            ("grants killed outside a window", (losses.len() - inside.len()).to_string()),
            ("grants lost inside a window", inside.len().to_string()),
            ("settle claims", step(Step::SettleClaimed)),
            ("adoptions", step(Step::Adopted)),
            ("journal records replayed", step(Step::Replayed)),
            ("processes killed", kills.values().sum::<u32>().to_string()),
        ];
        let required = required(plan);
        let happened = |name: &String| {
            kills.contains_key(name.trim_start_matches("kill -9 at "))
                || kills.contains_key(name.trim_start_matches("kill -9 "))
                || faults.contains_key(name)
                || disturbances.contains_key(name)
        };
        let missing = required.into_iter().filter(|name| !happened(name)).collect();
        let valid = known_valid(history);
        let hung = |call: &&&Call| {
            history.windows.iter().any(|w| {
                w.what == Disturbance::ProviderHung && w.from <= call.invoked && call.returned <= w.to
            })
        };
        let all_reads = history.calls.iter().filter(|call| call.question == Question::Read);
        let sections = vec![
            ("presentations of each rotating refresh token", count(per_token.iter())),
            ("outcomes of presentations", count(history.presentations.iter().map(|p| outcome(p.outcome)))),
            ("outcomes of second presentations", count(again.map(|p| outcome(p.outcome)))),
            ("losses inside a window, by their fault", count(inside.iter().map(|cause| cause.name()))),
            ("provider faults", faults),
            ("disturbances", disturbances),
            ("kills", kills.iter().map(|(at, n)| (at.clone(), *n as usize)).collect()),
            ("steps reached", steps),
            ("deeds acknowledged", count(history.changes.iter().filter(|c| c.done).map(|c| deed(c.deed)))),
            (
                "deeds not acknowledged",
                count(history.changes.iter().filter(|c| !c.done).map(|c| deed(c.deed))),
            ),
            ("answers to clients", count(history.calls.iter().map(answer))),
            ("rows at rest", count(history.rows.iter().map(|row| format!("{:?}", row.state)))),
            ("latency of all reads in microseconds", quantiles(all_reads.map(took))),
            ("latency of reads of valid tokens", quantiles(valid.iter().copied().map(took))),
            (
                "latency of reads of valid tokens while the provider hung",
                quantiles(valid.iter().filter(hung).map(|call| took(call))),
            ),
        ];
        Self { plan: *plan, violations, incidents: record.incidents(), missing, sections, facts }
    }

    fn broken(&self) -> Vec<String> {
        let broken = self.violations.iter().filter(|(_, found)| !found.is_empty());
        broken.map(|(check, found)| format!("{check:?}:{}", found.len())).collect()
    }

    /// The product holds everywhere, and every fault has happened. The naive build must be found out: by one refresh token
    /// presented twice at a time, or by grants that were ended without a fault.
    pub(crate) fn good(&self) -> bool {
        let breaks = |check| self.violations.get(&check).is_some_and(|found| !found.is_empty());
        if self.plan.naive {
            return breaks(Check::H1) || breaks(Check::H5);
        }
        self.broken().is_empty() && self.incidents.is_empty() && self.missing.is_empty()
    }

    fn summary(&self) -> String {
        let fact = |name: &str| {
            self.facts.iter().find(|(known, _)| *known == name).map_or("?", |(_, value)| value.as_str())
        };
        let verdict = match (self.good(), self.plan.naive) {
            (true, false) => "ok".to_owned(),
            (true, true) => format!("ok, the naive build was found out ({})", self.broken().join(" ")),
            (false, true) => "FAILED, the naive build was not found out".to_owned(),
            (false, false) => format!(
                "FAILED broken=[{}] incidents={} faults_missing=[{}]",
                self.broken().join(" "),
                self.incidents.len(),
                self.missing.join(", ")
            ),
        };
        format!(
            "chaos: {verdict} seed={} presented={} max_per_token={} killed_outside={} lost_inside={} adopted={} \
             replayed={} kills={} calls={}",
            self.plan.seed,
            fact("refresh tokens presented"),
            fact("presentations of one rotating refresh token, at most"),
            fact("grants killed outside a window"),
            fact("grants lost inside a window"),
            fact("adoptions"),
            fact("journal records replayed"),
            fact("processes killed"),
            fact("calls of clients"),
        )
    }

    fn json(&self) -> Value {
        let facts: serde_json::Map<String, Value> =
            self.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let sections: serde_json::Map<String, Value> =
            self.sections.iter().map(|(name, counts)| ((*name).to_owned(), json!(counts))).collect();
        let violations: serde_json::Map<String, Value> = self
            .violations
            .iter()
            .map(|(check, found)| {
                (check.title().to_owned(), found.iter().map(|v| v.text.clone()).collect::<Vec<_>>().into())
            })
            .collect();
        json!({
            "ok": self.good(),
            "seed": self.plan.seed,
            "duration_seconds": self.plan.duration.as_secs(),
            "credentials": self.plan.credentials,
            "replicas": self.plan.replicas,
            "naive": self.plan.naive,
            "facts": facts,
            "counts": sections,
            "violations": violations,
            "incidents": self.incidents,
            "faults_missing": self.missing,
            "summary": self.summary(),
        })
    }
}

fn deed(deed: Deed) -> &'static str {
    match deed {
        Deed::Stored(_) => "imports and consents",
        Deed::Revoked => "revocations",
    }
}

fn took(call: &Call) -> Micros {
    call.returned - call.invoked
}

fn quantiles(times: impl Iterator<Item = Micros>) -> Counts {
    let mut times: Vec<Micros> = times.collect();
    times.sort_unstable();
    let Some(last) = times.last() else { return Counts::new() };
    let at = |permille: usize| usize::try_from(times[(times.len() - 1) * permille / 1000]).unwrap();
    let rest = [("p50", at(500)), ("p95", at(950)), ("p99", at(990)), ("p99.9", at(999))];
    let ends = [("count", times.len()), ("max", usize::try_from(*last).unwrap())];
    rest.into_iter().chain(ends).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What has to happen in a run that proves anything.
fn required(plan: &Plan) -> Vec<String> {
    if plan.naive || plan.sqlite {
        return Vec::new();
    }
    let steps = Step::ALL.into_iter().map(|step| format!("kill -9 at {}", step.name()));
    let provider = ProviderFault::ALL.into_iter().map(|fault| fault.name().to_owned());
    let others = ["kill -9 at random", "SIGSTOP of a replica", "the provider hung"];
    let servers = SERVER_FAULTS.into_iter().map(str::to_owned);
    steps.chain(provider).chain(others.map(str::to_owned)).chain(servers).collect()
}

/// Prints it and writes the JSON.
pub(crate) fn publish(report: &Report) {
    println!();
    for (name, value) in &report.facts {
        println!("{name:<56} {value}");
    }
    for (name, counts) in &report.sections {
        println!("\n{name}");
        for (item, count) in counts {
            println!("  {count:>8}  {item}");
        }
    }
    println!("\nchecks");
    for (check, found) in &report.violations {
        println!("  {}  {}", if found.is_empty() { "    ok" } else { "BROKEN" }, check.title());
        for violation in found.iter().take(SHOWN) {
            println!("          {}", violation.text);
        }
        if found.len() > SHOWN {
            println!("          and {} more: see the JSON", found.len() - SHOWN);
        }
    }
    for incident in &report.incidents {
        println!("incident: {incident}");
    }
    for fault in &report.missing {
        println!("never happened: {fault}");
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/chaos");
    let kind = if report.plan.naive { "naive" } else { "report" };
    let file = folder.join(format!("{kind}-{}.json", report.plan.seed));
    let text = format!("{:#}\n", report.json());
    match std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, text)) {
        Ok(()) => println!("\nreport: {}", file.display()),
        Err(error) => println!("\nthe report could not be written: {error}"),
    }
    println!("{}", report.summary());
}
