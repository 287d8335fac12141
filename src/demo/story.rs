//! The demo's story: each step makes real gRPC calls, says what it expects, and fails the demo if that does not hold.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;

use super::agent::{Agent, reason};
use super::browser::{Answer, Browser, Page};
use super::error::DemoError;
use super::report::{Report, masked, shortened, without_query};
use super::server::LogEntry;
use super::stage::{ACCESS_LIFE, PROVIDER, SERVICE, Stage};
use crate::domain::ports::Clock as _;
use crate::r#gen::v1::{Credential, ProviderRevocation, StartedFlow};
use crate::infra::system::SystemClock;

/// How many agents ask at the same moment.
const CROWD: usize = 40;

/// Plays it.
pub(super) async fn play(stage: &Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    let mut agent = stage.agent().await?;
    let flow = ask_for_alice(&mut agent, report).await?;
    alice_consents(&mut agent, &flow, report).await?;
    let first = the_agent_has_a_token(stage, &mut agent, report).await?;
    let second = it_expires(stage, &mut agent, first, report).await?;
    a_crowd_asks(stage, second, report).await?;
    bob_is_somebody_else(stage, &mut agent, report).await?;
    alice_disconnects(stage, &mut agent, report).await?;
    sum_up(stage, report)
}

async fn ask_for_alice(agent: &mut Agent, report: &mut Report<'_>) -> Result<StartedFlow, DemoError> {
    report.step("An agent asks for Alice's token; she has never connected")?;
    report.call("GetCredential", &format!("{}, begin_if_missing", key("alice")))?;
    let required = agent.get("alice", true).await?.consent()?;
    report.answer(&format!("authorization_required, reason {}", reason(&required)))?;
    let flow = required.flow.clone().unwrap_or_default();
    report.act("link", &format!("{}  for Alice to open", without_query(&flow.authorization_url)))?;
    report.check(reason(&required) == "NOT_CONNECTED", "no token is an answer with a link, not an error")?;
    Ok(flow)
}

async fn alice_consents(
    agent: &mut Agent,
    flow: &StartedFlow,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    report.step("Alice opens the link, signs in at the provider and allows it")?;
    let page = Browser::new()?.consent(&flow.authorization_url, "alice", Answer::Allow).await?;
    show_page(&page, report)?;
    report.check(page.status.is_success(), "the provider sent her browser back to the broker's page")?;
    report.call("GetFlow", &format!("flow_id {}", flow.flow_id))?;
    let status = agent.flow_status(&flow.flow_id).await?;
    report.answer(&status)?;
    report.check(status == "COMPLETED", "the broker has exchanged the code and stored the tokens, encrypted")
}

async fn the_agent_has_a_token(
    stage: &Stage,
    agent: &mut Agent,
    report: &mut Report<'_>,
) -> Result<Credential, DemoError> {
    report.step("The agent asks again and uses the token")?;
    let token = get(agent, "alice", report).await?;
    let owner = owner_of_notes(stage, &token, report).await?;
    report.check(owner.as_deref() == Some("alice"), "the provider's API takes the token for Alice's")?;
    Ok(token)
}

async fn it_expires(
    stage: &Stage,
    agent: &mut Agent,
    old: Credential,
    report: &mut Report<'_>,
) -> Result<Credential, DemoError> {
    report.step("The token expires; the broker refreshes it")?;
    wait_for_end(&old, report).await?;
    let owner = owner_of_notes(stage, &old, report).await?;
    report.check(owner.is_none(), "the API refuses the old token")?;
    let before = stage.server.log().len();
    let new = get(agent, "alice", report).await?;
    let log = show_log(stage, before, report)?;
    report.check(
        new.access_token != old.access_token && new.generation == old.generation + 1,
        &format!("a new token, generation {} after {}", new.generation, old.generation),
    )?;
    report.check(log == [refreshed("alice")], "one token request; Alice was not asked again")?;
    Ok(new)
}

async fn a_crowd_asks(stage: &Stage, old: Credential, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.step(&format!("It expires again, and {CROWD} agents ask for it at the same moment"))?;
    let crowd = try_join_all((0..CROWD).map(|_| stage.agent())).await?;
    wait_for_end(&old, report).await?;
    let before = stage.server.log().len();
    report.call("GetCredential", &format!("{}  × {CROWD}, each over its own connection", key("alice")))?;
    let answers = try_join_all(
        crowd.into_iter().map(|mut agent| async move { agent.get("alice", false).await?.token() }),
    )
    .await?;
    let tokens: BTreeSet<&str> = answers.iter().map(|token| token.access_token.as_str()).collect();
    report.answer(&format!("{} tokens, {} different", answers.len(), tokens.len()))?;
    let log = show_log(stage, before, report)?;
    report.check(tokens.len() == 1, "all have the same new token")?;
    report.check(log == [refreshed("alice")], &format!("one token request for {CROWD} callers"))
}

async fn bob_is_somebody_else(
    stage: &Stage,
    agent: &mut Agent,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    report.step("Bob is kept apart from Alice, and other tenants from both")?;
    report.call("GetCredential", &format!("{}, begin_if_missing", key("bob")))?;
    let required = agent.get("bob", true).await?.consent()?;
    report.answer(&format!("authorization_required, reason {}", reason(&required)))?;
    report.check(reason(&required) == "NOT_CONNECTED", "Alice's consent is no consent of Bob's")?;
    let link = required.flow.unwrap_or_default().authorization_url;
    let page = Browser::new()?.consent(&link, "bob", Answer::Allow).await?;
    show_page(&page, report)?;
    let bob = get(agent, "bob", report).await?;
    let owner = owner_of_notes(stage, &bob, report).await?;
    report.check(owner.as_deref() == Some("bob"), "Bob's token opens Bob's notes")?;
    let alice = get(agent, "alice", report).await?;
    let owner = owner_of_notes(stage, &alice, report).await?;
    report.check(owner.as_deref() == Some("alice"), "Alice's token opens Alice's")?;

    report.note("with the API key of another tenant:")?;
    let mut stranger = stage.stranger().await?;
    report.call("ListCredentials", "")?;
    let users = stranger.connected_users().await?;
    report.answer(&format!("{} credentials", users.len()))?;
    report.call("GetCredential", &key("alice"))?;
    let required = stranger.get("alice", false).await?.consent()?;
    report.answer(&format!("authorization_required, reason {}", reason(&required)))?;
    let nothing = users.is_empty() && reason(&required) == "NOT_CONNECTED";
    report.check(nothing, "for another tenant, neither of them exists")
}

async fn alice_disconnects(
    stage: &Stage,
    agent: &mut Agent,
    report: &mut Report<'_>,
) -> Result<(), DemoError> {
    report.step("Alice disconnects; the provider is told")?;
    let token = get(agent, "alice", report).await?;
    let before = stage.server.log().len();
    report.call("Revoke", &key("alice"))?;
    let revoked = agent.revoke("alice").await?;
    let outcome = revoked.provider_revocation().as_str_name();
    report.answer(&format!("deleted {}, provider_revocation {outcome}", revoked.deleted))?;
    let log = show_log(stage, before, report)?;
    report.check(
        revoked.deleted && revoked.provider_revocation() == ProviderRevocation::Revoked,
        "the tokens are deleted here, and the provider has confirmed",
    )?;
    report.check(
        log == [LogEntry::Revoked { user: "alice".to_owned() }],
        "the provider has ended her consent, and nobody else's",
    )?;
    let owner = owner_of_notes(stage, &token, report).await?;
    report.check(owner.is_none(), "the API refuses the token that worked a moment ago")?;
    report.call("GetCredential", &key("alice"))?;
    let required = agent.get("alice", false).await?.consent()?;
    report.answer(&format!("authorization_required, reason {}", reason(&required)))?;
    report.check(reason(&required) == "REVOKED", "agents are told so")?;
    let bob = get(agent, "bob", report).await?;
    let owner = owner_of_notes(stage, &bob, report).await?;
    report.check(owner.as_deref() == Some("bob"), "Bob notices nothing")
}

fn sum_up(stage: &Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.step("What the provider saw")?;
    let log = stage.server.log();
    let count = |wanted: fn(&LogEntry) -> bool| log.iter().filter(|entry| wanted(entry)).count();
    let exchanges = count(|entry| matches!(entry, LogEntry::Exchanged { .. }));
    let refreshes = count(|entry| matches!(entry, LogEntry::Refreshed { .. }));
    let revocations = count(|entry| matches!(entry, LogEntry::Revoked { .. }));
    let bad = count(|entry| matches!(entry, LogEntry::Reused { .. } | LogEntry::Refused));
    report
        .act("provider", &format!("{exchanges} consents, {refreshes} refreshes, {revocations} revocation"))?;
    report.check(bad == 0, "no refresh token came twice, no request had to be refused")?;
    let checks = report.checks();
    report.line(&format!("\nAll {checks} expectations held."))
}

fn key(user: &str) -> String {
    format!("{{provider {PROVIDER:?}, user_id {user:?}, service {SERVICE:?}}}")
}

fn refreshed(user: &str) -> LogEntry {
    LogEntry::Refreshed { user: user.to_owned() }
}

/// A `GetCredential` that has to answer a token.
async fn get(agent: &mut Agent, user: &str, report: &mut Report<'_>) -> Result<Credential, DemoError> {
    report.call("GetCredential", &key(user))?;
    let token = agent.get(user, false).await?.token()?;
    let left = time_left(&token).as_secs_f64();
    report.answer(&format!(
        "credential {}, generation {}, scopes {:?}, {left:.1} s left",
        masked(&token.access_token),
        token.generation,
        token.scopes
    ))?;
    Ok(token)
}

fn show_page(page: &Page, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.act("page", &format!("{} {:?}", page.status.as_u16(), shortened(&page.text())))
}

/// What the provider's log has gained, shown and answered.
fn show_log(stage: &Stage, before: usize, report: &mut Report<'_>) -> Result<Vec<LogEntry>, DemoError> {
    let new: Vec<LogEntry> = stage.server.log().into_iter().skip(before).collect();
    for entry in &new {
        report.act("provider", &format!("log: {entry}"))?;
    }
    Ok(new)
}

/// Calls the provider's API as the agent would: whose notes the token opens, `None` if it is refused.
async fn owner_of_notes(
    stage: &Stage,
    token: &Credential,
    report: &mut Report<'_>,
) -> Result<Option<String>, DemoError> {
    let page =
        Browser::new()?.call_api(&format!("{}/notes", stage.server.url()), &token.access_token).await?;
    report.act("API", &format!("GET /notes with {} → {}", masked(&token.access_token), page.status))?;
    let body: serde_json::Value = serde_json::from_str(&page.body).unwrap_or_default();
    Ok(body.get("owner").and_then(|owner| owner.as_str()).map(str::to_owned))
}

fn time_left(token: &Credential) -> Duration {
    let end = token.expire_time.and_then(|t| Timestamp::new(t.seconds, t.nanos).ok()).unwrap_or_default();
    end.duration_since(SystemClock.now()).try_into().unwrap_or_default()
}

async fn wait_for_end(token: &Credential, report: &mut Report<'_>) -> Result<(), DemoError> {
    let left = time_left(token).min(ACCESS_LIFE);
    report.note(&format!("waiting {:.1} s for the token to expire", left.as_secs_f64()))?;
    tokio::time::sleep(left).await;
    Ok(())
}
