//! A provider that rotates strictly and ends a grant when a spent refresh token comes back. Its work goes on when the
//! broker that asked has died.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use token_broker::domain::key::ClaimOwner;
use token_broker::domain::ports::ProviderFailure;
use token_broker::domain::secret::SecretString;
use token_broker::domain::token_set::{ProviderAccount, TokenResponse};
use tokio::time::{Instant, sleep};

use super::faults::Fault;
use super::world::{HTTP_DEADLINE, World};

/// How long an access token lives.
pub(crate) const ACCESS_LIFE: Duration = Duration::from_secs(40);

/// One consent, at the provider.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grant {
    pub(crate) alive: bool,
    /// The refresh token that works.
    pub(crate) refresh: String,
    /// Those that do not work any more.
    pub(crate) spent: Vec<String>,
    pub(crate) access: String,
    /// All that were given out.
    pub(crate) all_access: Vec<String>,
    /// A spent token came back.
    pub(crate) reused: Option<String>,
}

/// A refresh token at the provider's door.
#[derive(Debug, Clone)]
pub(crate) struct Presentation {
    pub(crate) token: String,
    pub(crate) by: ClaimOwner,
    pub(crate) sent: Instant,
    /// When it could not have any effect any more.
    pub(crate) over: Option<Instant>,
    /// Whether the broker was told for sure that the token was not spent, or that it was.
    pub(crate) answered: bool,
}

#[derive(Default)]
struct State {
    grants: Vec<Grant>,
    counter: u32,
    log: Vec<Presentation>,
}

#[derive(Default)]
pub(crate) struct SimProvider(Mutex<State>);

impl SimProvider {
    /// A consent: the number of the grant, its access and its refresh token.
    pub(crate) fn consent(&self) -> (usize, String, String) {
        let mut state = self.0.lock().unwrap();
        state.counter += 1;
        let (access, refresh) = (format!("at-{}", state.counter), format!("rt-{}", state.counter));
        state.grants.push(Grant {
            alive: true,
            refresh: refresh.clone(),
            access: access.clone(),
            all_access: vec![access.clone()],
            ..Grant::default()
        });
        (state.grants.len() - 1, access, refresh)
    }

    pub(crate) fn grants(&self) -> Vec<Grant> {
        self.0.lock().unwrap().grants.clone()
    }

    pub(crate) fn log(&self) -> Vec<Presentation> {
        self.0.lock().unwrap().log.clone()
    }

    /// Whether this is a refresh token that works.
    pub(crate) fn accepts(&self, refresh: &str) -> bool {
        self.0.lock().unwrap().grants.iter().any(|grant| grant.alive && grant.refresh == refresh)
    }

    fn rotate(&self, token: &str) -> Result<TokenResponse, ProviderFailure> {
        let mut state = self.0.lock().unwrap();
        state.counter += 1;
        let number = state.counter;
        let found = state
            .grants
            .iter_mut()
            .find(|grant| grant.refresh == token || grant.spent.iter().any(|spent| spent == token));
        let Some(grant) = found else { return Err(ProviderFailure::InvalidGrant) };
        if grant.refresh != token && grant.alive {
            grant.alive = false;
            grant.reused = Some(token.to_owned());
        }
        if !grant.alive {
            return Err(ProviderFailure::InvalidGrant);
        }
        let old = std::mem::replace(&mut grant.refresh, format!("rt-{number}"));
        grant.spent.push(old);
        grant.access = format!("at-{number}");
        grant.all_access.push(grant.access.clone());
        Ok(TokenResponse {
            access_token: SecretString::from(grant.access.as_str()),
            refresh_token: Some(SecretString::from(grant.refresh.as_str())),
            token_type: "Bearer".to_owned(),
            expires_in: Some(ACCESS_LIFE),
            scopes: None,
            id_token: None,
            extra: BTreeMap::new(),
            account: ProviderAccount::default(),
            excess: None,
        })
    }

    /// Knows only tokens that work.
    fn revoke(&self, access: &str, refresh: Option<&str>) {
        for grant in &mut self.0.lock().unwrap().grants {
            if grant.access == access || refresh == Some(grant.refresh.as_str()) {
                grant.alive = false;
            }
        }
    }

    fn begin(&self, token: &str, by: ClaimOwner) -> usize {
        let mut state = self.0.lock().unwrap();
        let token = token.to_owned();
        state.log.push(Presentation { token, by, sent: Instant::now(), over: None, answered: false });
        state.log.len() - 1
    }

    fn with_log(&self, entry: usize, change: impl FnOnce(&mut Presentation)) {
        change(&mut self.0.lock().unwrap().log[entry]);
    }
}

/// What a request meets.
fn trouble(world: &World) -> Option<Fault> {
    use Fault::{AnswerLost, ErrorAfter, ErrorBefore, NotSent, RateLimited, RequestLost, Slow};
    let every = world.faults.plan.provider_trouble;
    if every == 0 || world.faults.are_over() || !world.dice.one_in(every) {
        return None;
    }
    let fault = world.dice.pick(&[
        RequestLost,
        AnswerLost,
        ErrorAfter,
        ErrorBefore,
        RateLimited,
        NotSent,
        Slow,
        Slow,
    ]);
    world.happened(fault);
    Some(fault)
}

/// One request, with all that may become of it.
pub(crate) async fn refresh(
    world: &Arc<World>,
    token: &str,
    by: ClaimOwner,
) -> Result<TokenResponse, ProviderFailure> {
    let entry = world.provider.begin(token, by);
    let trouble = trouble(world);
    let (world, token) = (Arc::clone(world), token.to_owned());
    // Not of the broker's making: it goes on if the broker dies.
    let work = tokio::spawn(async move { serve(&world, entry, &token, trouble).await });
    match tokio::time::timeout(HTTP_DEADLINE, work).await {
        Ok(Ok(answer)) => answer,
        _ => Err(ProviderFailure::Ambiguous),
    }
}

async fn serve(
    world: &World,
    entry: usize,
    token: &str,
    trouble: Option<Fault>,
) -> Result<TokenResponse, ProviderFailure> {
    let (dice, provider) = (&world.dice, &world.provider);
    let slow = trouble == Some(Fault::Slow);
    let way = |most: u64| Duration::from_millis(most);
    let longest = HTTP_DEADLINE / 2;
    sleep(if slow { dice.up_to(longest) } else { dice.up_to(way(400)) }).await;
    let over = |answered| {
        world.note(format_args!("the provider is done with {token}: {trouble:?}"));
        provider.with_log(entry, |log| (log.over, log.answered) = (Some(Instant::now()), answered));
    };
    match trouble {
        Some(Fault::RequestLost) => {
            over(false);
            // The broker hears nothing.
            std::future::pending().await
        }
        Some(Fault::ErrorBefore) => {
            over(false);
            Err(ProviderFailure::Ambiguous)
        }
        Some(Fault::RateLimited) => {
            over(true);
            Err(ProviderFailure::RateLimited { retry_after: Some(Duration::from_secs(3)) })
        }
        Some(Fault::NotSent) => {
            over(true);
            Err(ProviderFailure::NotSent)
        }
        _ => {
            let answer = provider.rotate(token);
            let lost = matches!(trouble, Some(Fault::AnswerLost | Fault::ErrorAfter));
            over(!lost);
            if trouble == Some(Fault::AnswerLost) {
                std::future::pending::<()>().await;
            }
            sleep(if slow { dice.up_to(longest) } else { dice.up_to(way(400)) }).await;
            if trouble == Some(Fault::ErrorAfter) { Err(ProviderFailure::Ambiguous) } else { answer }
        }
    }
}

/// A revocation, which may not get through.
pub(crate) async fn revoke(
    world: &World,
    access: &str,
    refresh: Option<&str>,
) -> Result<(), ProviderFailure> {
    sleep(world.dice.up_to(Duration::from_millis(300))).await;
    if world.faults.strikes(&world.dice, Fault::RevocationLost, world.faults.plan.provider_trouble) {
        return Err(ProviderFailure::NotSent);
    }
    world.provider.revoke(access, refresh);
    Ok(())
}
