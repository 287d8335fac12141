//! An authorization server as the use cases see one: it rotates refresh tokens strictly, ends a grant when a spent one
//! comes back, keeps a log of every presentation, and misbehaves on request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use token_broker::domain::flow::RecordedEndpoints;
use token_broker::domain::key::ProviderId;
use token_broker::domain::ports::{
    AuthorizationRequest, IdentityError, OAuthClient, ProviderFailure, RevocationOutcome,
};
use token_broker::domain::provider::Provider;
use token_broker::domain::scope::{Scope, ScopeSet};
use token_broker::domain::secret::SecretString;
use token_broker::domain::token_set::{ProviderAccount, TokenResponse};
use tokio::sync::watch;

/// What the next token request meets. An empty script rotates.
#[derive(Clone)]
pub(crate) enum Script {
    /// A success without a refresh token: the old one stays good.
    Keep,
    /// A success with these granted scopes.
    Grant(Option<Vec<&'static str>>),
    /// A success whose token lives so long.
    Live(Option<Duration>),
    /// A success with a further value for callers.
    Extra(&'static str, &'static str),
    /// Spent at the provider, but the answer is lost.
    LostAfter,
    /// Lost before the provider saw it.
    LostBefore,
    /// Fails so; nothing is spent.
    Fail(ProviderFailure),
    /// Waits for the gate, then rotates.
    Hold(watch::Receiver<bool>),
}

#[derive(Default)]
struct Grant {
    alive: bool,
    refresh: Option<String>,
    spent: Vec<String>,
    access: String,
    scopes: Vec<String>,
    account: ProviderAccount,
}

#[derive(Default)]
struct State {
    grants: Vec<Grant>,
    counter: u32,
    refresh_script: VecDeque<Script>,
    exchange_script: VecDeque<Script>,
    revoke_script: VecDeque<ProviderFailure>,
    /// Refresh tokens in the order they were presented.
    presented: Vec<String>,
    presenting: BTreeMap<String, u32>,
    overlaps: u32,
    exchanges: u32,
    revocations: u32,
    /// How many presentations were ever under way at a time.
    most_at_a_time: u32,
    undiscoverable: bool,
    /// The token that was spent last is good as long as its successor is.
    has_grace: bool,
    /// Spent tokens are forgotten: revoking one does nothing.
    forgets_spent: bool,
    /// One provider that does not answer before the gate opens.
    hanging: Option<(ProviderId, watch::Receiver<bool>)>,
    account: ProviderAccount,
    /// Granted at consent; `None`: the answer does not say.
    granted: Option<Vec<&'static str>>,
}

pub(crate) struct StrictProvider {
    state: Mutex<State>,
    presentations: watch::Sender<usize>,
    lifetime: Duration,
}

impl StrictProvider {
    /// Access tokens live an hour.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            presentations: watch::Sender::new(0),
            lifetime: Duration::from_secs(3600),
        }
    }

    pub(crate) fn next_refresh(&self, script: Script) {
        self.state.lock().unwrap().refresh_script.push_back(script);
    }

    pub(crate) fn next_exchange(&self, script: Script) {
        self.state.lock().unwrap().exchange_script.push_back(script);
    }

    pub(crate) fn next_revocation_fails(&self, failure: ProviderFailure) {
        self.state.lock().unwrap().revoke_script.push_back(failure);
    }

    /// Whether its metadata can't be read.
    pub(crate) fn undiscoverable(&self, yes: bool) {
        self.state.lock().unwrap().undiscoverable = yes;
    }

    /// From now on the token that was spent last may be presented again.
    pub(crate) fn give_grace(&self) {
        self.state.lock().unwrap().has_grace = true;
    }

    /// From now on a grant is ended by its live tokens alone.
    pub(crate) fn forget_spent_tokens(&self) {
        self.state.lock().unwrap().forgets_spent = true;
    }

    /// From now on this provider's token requests wait for the gate.
    pub(crate) fn hang(&self, provider: &str, gate: watch::Receiver<bool>) {
        self.state.lock().unwrap().hanging = Some((ProviderId::new(provider).unwrap(), gate));
    }

    /// Who consents from now on.
    pub(crate) fn account(&self, subject: &str) {
        self.state.lock().unwrap().account = ProviderAccount {
            subject: Some(subject.to_owned()),
            label: Some(format!("{subject}@example.com")),
        };
    }

    /// What is granted from now on; `None`: the answer does not say.
    pub(crate) fn grant_scopes(&self, scopes: Option<Vec<&'static str>>) {
        self.state.lock().unwrap().granted = scopes;
    }

    /// How many refresh tokens were presented.
    pub(crate) fn presented(&self) -> Vec<String> {
        self.state.lock().unwrap().presented.clone()
    }

    /// Whether two presentations of one token were ever under way at a time.
    pub(crate) fn overlaps(&self) -> u32 {
        self.state.lock().unwrap().overlaps
    }

    /// How many presentations were ever under way at a time.
    pub(crate) fn most_at_a_time(&self) -> u32 {
        self.state.lock().unwrap().most_at_a_time
    }

    /// The refresh token of the youngest grant that is alive.
    pub(crate) fn live_token(&self) -> Option<SecretString> {
        let state = self.state.lock().unwrap();
        let grant = state.grants.iter().rfind(|grant| grant.alive)?;
        grant.refresh.as_deref().map(SecretString::from)
    }

    pub(crate) fn exchanges(&self) -> u32 {
        self.state.lock().unwrap().exchanges
    }

    pub(crate) fn revocations(&self) -> u32 {
        self.state.lock().unwrap().revocations
    }

    /// Grants that are alive at the provider.
    pub(crate) fn live_grants(&self) -> usize {
        self.state.lock().unwrap().grants.iter().filter(|grant| grant.alive).count()
    }

    /// Whether this access token opens the provider's API.
    pub(crate) fn accepts(&self, access: &SecretString) -> bool {
        let state = self.state.lock().unwrap();
        state.grants.iter().any(|grant| grant.alive && grant.access == access.expose_secret())
    }

    /// Ends every grant, as a user does in the provider's settings.
    pub(crate) fn end_all_grants(&self) {
        for grant in &mut self.state.lock().unwrap().grants {
            grant.alive = false;
        }
    }

    /// Waits until so many refresh tokens have been presented.
    pub(crate) async fn wait_for_presentations(&self, count: usize) {
        self.presentations.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }

    /// A grant made elsewhere: access and refresh token.
    pub(crate) fn issue(&self) -> (SecretString, SecretString) {
        let mut state = self.state.lock().unwrap();
        state.counter += 1;
        let number = state.counter;
        let (access, refresh) = (format!("canary-at-{number}"), format!("canary-rt-{number}"));
        state.grants.push(Grant {
            alive: true,
            refresh: Some(refresh.clone()),
            access: access.clone(),
            ..Grant::default()
        });
        (SecretString::new(access), SecretString::new(refresh))
    }

    fn rotate(&self, token: &str, keep: bool) -> Result<TokenResponse, ProviderFailure> {
        let mut state = self.state.lock().unwrap();
        state.counter += 1;
        let (number, has_grace) = (state.counter, state.has_grace);
        let Some(grant) = state
            .grants
            .iter_mut()
            .find(|grant| grant.refresh.as_deref() == Some(token) || grant.spent.iter().any(|t| t == token))
        else {
            return Err(ProviderFailure::InvalidGrant);
        };
        let forgiven = has_grace && grant.spent.last().is_some_and(|spent| spent == token);
        if grant.refresh.as_deref() != Some(token) && !forgiven {
            grant.alive = false; // reuse: taken for theft
        }
        if !grant.alive {
            return Err(ProviderFailure::InvalidGrant);
        }
        let refresh = (!keep).then(|| format!("canary-rt-{number}"));
        if let Some(refresh) = &refresh {
            grant.spent.push(token.to_owned());
            grant.refresh = Some(refresh.clone());
        }
        grant.access = format!("canary-at-{number}");
        Ok(self.response(&grant.access, refresh, None, ProviderAccount::default()))
    }

    fn response(
        &self,
        access: &str,
        refresh: Option<String>,
        scopes: Option<ScopeSet>,
        account: ProviderAccount,
    ) -> TokenResponse {
        TokenResponse {
            access_token: SecretString::from(access),
            refresh_token: refresh.map(SecretString::new),
            token_type: "Bearer".to_owned(),
            expires_in: Some(self.lifetime),
            scopes,
            id_token: None,
            extra: BTreeMap::new(),
            account,
            excess: None,
        }
    }

    async fn play(&self, token: &str, script: Option<Script>) -> Result<TokenResponse, ProviderFailure> {
        match script {
            None => self.rotate(token, false),
            Some(Script::Keep) => self.rotate(token, true),
            Some(Script::Grant(scopes)) => {
                let mut response = self.rotate(token, false)?;
                response.scopes = scopes.map(scope_set);
                Ok(response)
            }
            Some(Script::Live(life)) => {
                let mut response = self.rotate(token, false)?;
                response.expires_in = life;
                Ok(response)
            }
            Some(Script::Extra(name, value)) => {
                let mut response = self.rotate(token, false)?;
                response.extra.insert(name.to_owned(), value.to_owned());
                Ok(response)
            }
            Some(Script::LostAfter) => {
                self.rotate(token, false)?;
                Err(ProviderFailure::Ambiguous)
            }
            Some(Script::LostBefore) => Err(ProviderFailure::Ambiguous),
            Some(Script::Fail(failure)) => Err(failure),
            Some(Script::Hold(mut gate)) => {
                gate.wait_for(|open| *open).await.map_err(|_| ProviderFailure::Ambiguous)?;
                self.rotate(token, false)
            }
        }
    }
}

pub(crate) fn scope_set(scopes: Vec<&str>) -> ScopeSet {
    scopes.into_iter().map(|s| Scope::new(s).unwrap()).collect()
}

#[async_trait]
impl OAuthClient for StrictProvider {
    async fn endpoints(&self, _: &Provider) -> Result<RecordedEndpoints, ProviderFailure> {
        if self.state.lock().unwrap().undiscoverable {
            return Err(ProviderFailure::NotSent);
        }
        Ok(RecordedEndpoints {
            issuer: Some("https://as.example".to_owned()),
            iss_required: false,
            authorization: "https://as.example/authorize".parse().unwrap(),
            token: "https://as.example/token".parse().unwrap(),
            revocation: Some("https://as.example/revoke".parse().unwrap()),
            userinfo: None,
        })
    }

    fn authorization_url(
        &self,
        _: &Provider,
        request: AuthorizationRequest<'_>,
    ) -> Result<SecretString, ProviderFailure> {
        let mut url = request.endpoints.authorization.clone();
        url.query_pairs_mut()
            .append_pair("state", request.secrets.state.expose_secret())
            .append_pair("scope", &request.scopes.join(" "));
        Ok(SecretString::new(url.to_string()))
    }

    async fn exchange_code(
        &self,
        _: &Provider,
        _: &RecordedEndpoints,
        _: &url::Url,
        _: &SecretString,
        _: &SecretString,
    ) -> Result<TokenResponse, ProviderFailure> {
        let script = {
            let mut state = self.state.lock().unwrap();
            state.exchanges += 1;
            state.exchange_script.pop_front()
        };
        match script {
            Some(Script::Fail(failure)) => return Err(failure),
            Some(Script::Hold(mut gate)) => {
                gate.wait_for(|open| *open).await.map_err(|_| ProviderFailure::Ambiguous)?;
            }
            _ => {}
        }
        let (access, refresh) = self.issue();
        let mut state = self.state.lock().unwrap();
        let account = state.account.clone();
        let scopes = state.granted.clone().map(scope_set);
        let grant = state.grants.last_mut().unwrap();
        grant.account = account.clone();
        grant.scopes = scopes.as_ref().map(ScopeSet::to_strings).unwrap_or_default();
        Ok(self.response(access.expose_secret(), Some(refresh.expose_secret().to_owned()), scopes, account))
    }

    async fn refresh(
        &self,
        provider: &Provider,
        refresh_token: &SecretString,
        _: &ScopeSet,
        _: Duration,
    ) -> Result<TokenResponse, ProviderFailure> {
        let token = refresh_token.expose_secret().to_owned();
        let (script, count, hanging) = {
            let mut state = self.state.lock().unwrap();
            state.presented.push(token.clone());
            let under_way = state.presenting.entry(token.clone()).or_default();
            *under_way += 1;
            if *under_way > 1 {
                state.overlaps += 1;
            }
            let at_a_time: u32 = state.presenting.values().sum();
            state.most_at_a_time = state.most_at_a_time.max(at_a_time);
            let hanging = state.hanging.clone().filter(|(id, _)| *id == provider.id);
            (state.refresh_script.pop_front(), state.presented.len(), hanging)
        };
        self.presentations.send_replace(count);
        if let Some((_, mut gate)) = hanging {
            gate.wait_for(|open| *open).await.map_err(|_| ProviderFailure::Ambiguous)?;
        }
        let answer = self.play(&token, script).await;
        *self.state.lock().unwrap().presenting.get_mut(&token).unwrap() -= 1;
        answer
    }

    async fn revoke(
        &self,
        _: &Provider,
        access_token: &SecretString,
        refresh_token: Option<&SecretString>,
    ) -> Result<RevocationOutcome, ProviderFailure> {
        let mut state = self.state.lock().unwrap();
        state.revocations += 1;
        if let Some(failure) = state.revoke_script.pop_front() {
            return Err(failure);
        }
        let refresh = refresh_token.map(SecretString::expose_secret);
        let forgets = state.forgets_spent;
        for grant in &mut state.grants {
            let spent = |t: &str| !forgets && grant.spent.iter().any(|s| s == t);
            let known = |t: &str| grant.refresh.as_deref() == Some(t) || spent(t);
            if grant.access == access_token.expose_secret() || refresh.is_some_and(known) {
                grant.alive = false;
            }
        }
        Ok(RevocationOutcome::Revoked)
    }

    async fn identify(
        &self,
        _: &Provider,
        _: &RecordedEndpoints,
        response: &TokenResponse,
        _: &SecretString,
    ) -> Result<ProviderAccount, IdentityError> {
        Ok(response.account.clone())
    }
}
