//! Every entry of the catalogue against a server that plays the provider it describes: consent, exchange, account,
//! refresh with rotation, failure classes, revocation. An entry without a run fails the suite.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use token_broker::domain::flow::FlowSecrets;
use token_broker::domain::key::{GrantName, ProviderId};
use token_broker::domain::ports::{
    AuthorizationRequest, Clock as _, OAuthClient as _, ProviderFailure, RevocationOutcome,
};
use token_broker::domain::provider::{BodyFormat, ClientAuth, Provider, Revocation, Rotation};
use token_broker::domain::scope::ScopeSet;
use token_broker::domain::secret::SecretString;
use token_broker::domain::token_set::TokenResponse;
use token_broker::infra::oauth::HttpOAuthClient;
use token_broker::infra::outbound::HttpSettings;
use token_broker::infra::providers::{Catalogue, ClientKeys, Definition, Registration, SecretRule};
use token_broker::infra::system::SystemEntropy;
use url::Url;

use crate::support::clock::ManualClock;
use crate::support::provider_player::{ACCOUNT, LIFETIME_SECONDS, Mishap, Player, value_at};

/// Longer than any answer takes.
const AMPLE: Duration = Duration::from_secs(30);
/// Ids and secrets hold whatever is printable: encodings have to keep them.
const CLIENT_ID: &str = "client/1+a b.~";
const CLIENT_SECRET: &str = "secret:/+ %&=";
const VERIFIER: &str = "a-verifier-of-the-conformance-kit-0123456789-abcdef";

static CLOCK: LazyLock<Arc<ManualClock>> = LazyLock::new(|| Arc::new(ManualClock::new()));

fn client() -> &'static HttpOAuthClient {
    static CLIENT: LazyLock<HttpOAuthClient> = LazyLock::new(|| {
        let clock: Arc<ManualClock> = Arc::clone(&CLOCK);
        HttpOAuthClient::new(HttpSettings::default(), clock, Arc::new(SystemEntropy)).unwrap()
    });
    &CLIENT
}

fn redirect_uri() -> Url {
    "https://broker.example/oauth/callback/mine".parse().unwrap()
}

fn secrets() -> FlowSecrets {
    FlowSecrets {
        state: SecretString::from("a-state-of-the-conformance-kit-0123456789-abcdefgh"),
        code_verifier: SecretString::from(VERIFIER),
        nonce: SecretString::from("a-nonce-of-the-conformance-kit"),
        link: None,
        flow_secret: None,
    }
}

/// The definition's provider, with a client of this kind.
fn provider(catalogue: &Catalogue, definition: &Definition, confidential: bool) -> Provider {
    let required = definition.variables.iter().filter(|(_, variable)| variable.default.is_none());
    let registration = Registration {
        id: ProviderId::new("mine").unwrap(),
        definition: definition.id.to_string(),
        client_id: CLIENT_ID.to_owned(),
        client_secret: confidential.then(|| SecretString::from(CLIENT_SECRET)),
        keys: ClientKeys::default(),
        variables: required.map(|(name, _)| (name.clone(), "https://id.example.com".to_owned())).collect(),
    };
    let configured = catalogue.configure(vec![registration]).unwrap();
    let found = configured.get(&ProviderId::new("mine").unwrap());
    (*found.unwrap()).clone()
}

/// The kinds of client that an entry allows.
fn kinds(definition: &Definition) -> &'static [bool] {
    match definition.secret {
        SecretRule::Required => &[true],
        SecretRule::Optional => &[true, false],
        SecretRule::Forbidden => &[false],
    }
}

fn scopes_of(provider: &Provider, grant: &GrantName) -> ScopeSet {
    let services = provider.services.values().filter(|service| service.grant == *grant);
    services.fold(ScopeSet::default(), |all, service| all.union(&service.scopes))
}

/// The provider as the client under test believes it to be, and who plays the truth.
struct Run {
    player: Player,
    believed: Provider,
}

impl Run {
    async fn of(provider: &Provider) -> Self {
        let player = Player::start(provider, CLOCK.now().as_second()).await;
        let believed = player.provider();
        Self { player, believed }
    }

    /// The consent link, and what the user's yes to it gives: the code.
    async fn consent(&self, scopes: &ScopeSet) -> Option<SecretString> {
        let endpoints = client().endpoints(&self.believed).await.unwrap();
        let (redirect_uri, secrets) = (redirect_uri(), secrets());
        let request = AuthorizationRequest {
            endpoints: &endpoints,
            redirect_uri: &redirect_uri,
            secrets: &secrets,
            scopes,
            login_hint: None,
        };
        let link = client().authorization_url(&self.believed, request).unwrap();
        let link = link.expose_secret().parse().unwrap();
        self.player.consent(&link).map(SecretString::new)
    }

    async fn exchange(&self, code: &SecretString, verifier: &str) -> Result<TokenResponse, ProviderFailure> {
        let endpoints = client().endpoints(&self.believed).await.unwrap();
        let verifier = SecretString::from(verifier);
        client().exchange_code(&self.believed, &endpoints, &redirect_uri(), code, &verifier).await
    }

    async fn connect(&self, scopes: &ScopeSet) -> TokenResponse {
        let code = self.consent(scopes).await;
        assert_eq!(self.player.complaints(), Vec::<String>::new());
        let tokens = self.exchange(&code.unwrap(), VERIFIER).await;
        assert_eq!(self.player.complaints(), Vec::<String>::new());
        tokens.unwrap()
    }

    async fn refresh(
        &self,
        token: &SecretString,
        scopes: &ScopeSet,
    ) -> Result<TokenResponse, ProviderFailure> {
        client().refresh(&self.believed, token, scopes, AMPLE).await
    }
}

/// What a good answer says, besides tokens.
fn check_answer(provider: &Provider, answer: &TokenResponse, requested: &ScopeSet) {
    let rules = &provider.response;
    let lifetime = match rules.expires_in[..] {
        [] => rules.default_lifetime,
        _ => Some(Duration::from_secs(LIFETIME_SECONDS)),
    };
    assert_eq!(answer.expires_in, lifetime);
    assert_eq!(answer.token_type, "Bearer");
    let extra: BTreeMap<String, String> =
        rules.extra.iter().map(|(name, pointer)| (name.clone(), value_at(provider, pointer))).collect();
    assert_eq!(answer.extra, extra);
    match &answer.scopes {
        // What is granted covers what was asked for, in the terms of requests.
        Some(granted) => {
            let granted = provider.normalise_granted(granted, requested);
            assert_eq!(requested.minus(&granted).to_strings(), Vec::<String>::new());
        }
        None => assert!(rules.scope.is_empty(), "the granted scopes were not found"),
    }
}

/// Consent, exchange, account.
async fn connects(provider: &Provider, scopes: &ScopeSet) {
    let run = Run::of(provider).await;
    let answer = run.connect(scopes).await;
    check_answer(provider, &answer, scopes);
    assert_eq!(answer.refresh_token.is_some(), !provider.response.refresh_token.is_empty());

    let endpoints = client().endpoints(&run.believed).await.unwrap();
    let account = client().identify(&run.believed, &endpoints, &answer, &secrets().nonce).await.unwrap();
    assert_eq!(run.player.complaints(), Vec::<String>::new());
    let identity = &provider.identity;
    let by_id_token = identity.id_token && scopes.iter().any(|scope| scope.as_str() == "openid");
    let told = by_id_token || identity.token_response.is_some() || identity.userinfo.is_some();
    assert_eq!(account.subject.as_deref(), told.then_some(ACCOUNT));

    // A code has one use, and none for who lacks the verifier.
    let code = run.consent(scopes).await.unwrap();
    run.exchange(&code, VERIFIER).await.unwrap();
    assert_eq!(run.exchange(&code, VERIFIER).await.unwrap_err(), ProviderFailure::InvalidGrant);
    if provider.authorization.pkce {
        let code = run.consent(scopes).await.unwrap();
        let another = VERIFIER.replace('a', "b");
        assert_eq!(run.exchange(&code, &another).await.unwrap_err(), ProviderFailure::InvalidGrant);
    }
    assert_eq!(run.player.complaints(), Vec::<String>::new());
}

/// Refresh and rotation. An entry without refresh tokens has none to present.
async fn refreshes(provider: &Provider, scopes: &ScopeSet) {
    let run = Run::of(provider).await;
    let first = run.connect(scopes).await;
    let Some(first_refresh) = first.refresh_token.clone() else {
        let invented = SecretString::from("invented");
        assert_eq!(run.refresh(&invented, scopes).await.unwrap_err(), ProviderFailure::InvalidGrant);
        return;
    };
    let mut current = first_refresh.clone();
    let mut seen = BTreeSet::from([first.access_token.expose_secret().to_owned()]);
    for _ in 0..3 {
        let answer = run.refresh(&current, scopes).await.unwrap();
        check_answer(provider, &answer, scopes);
        assert!(seen.insert(answer.access_token.expose_secret().to_owned()), "the access token is new");
        match (provider.refresh.rotation, answer.refresh_token) {
            (Rotation::None, None) => {}
            (Rotation::Strict | Rotation::Grace(_), Some(next)) => {
                assert_ne!(next.expose_secret(), current.expose_secret());
                if matches!(provider.refresh.rotation, Rotation::Grace(_)) {
                    // A second presentation in time: the last answer counts.
                    let again = run.refresh(&current, scopes).await.unwrap().refresh_token.unwrap();
                    assert_ne!(again.expose_secret(), next.expose_secret());
                    current = again;
                } else {
                    current = next;
                }
            }
            (rotation, refresh) => panic!("{rotation:?} {:?}", refresh.is_some()),
        }
    }
    assert_eq!(run.player.complaints(), Vec::<String>::new());
    match provider.refresh.rotation {
        Rotation::None => {
            assert!(run.refresh(&first_refresh, scopes).await.is_ok());
        }
        Rotation::Strict | Rotation::Grace(_) => {
            // Reuse ends the grant, the newest token included.
            let reuse = run.refresh(&first_refresh, scopes).await;
            assert_eq!(reuse.unwrap_err(), ProviderFailure::InvalidGrant);
            assert_eq!(run.refresh(&current, scopes).await.unwrap_err(), ProviderFailure::InvalidGrant);
            assert_eq!(run.player.alive(), 0);
        }
    }
    assert_eq!(run.player.complaints(), Vec::<String>::new());
}

/// What each failure means for the token that was presented; none of them spends it.
async fn fails_by_class(provider: &Provider, scopes: &ScopeSet) {
    let run = Run::of(provider).await;
    let answer = run.connect(scopes).await;
    let token = answer.refresh_token.unwrap_or_else(|| SecretString::from("invented"));
    let classes = [
        ("invalid_grant", ProviderFailure::InvalidGrant),
        ("invalid_client", ProviderFailure::ClientRejected),
        ("unauthorized_client", ProviderFailure::ClientRejected),
        ("invalid_request", ProviderFailure::Refused),
        ("invalid_scope", ProviderFailure::Refused),
        ("server_error", ProviderFailure::Ambiguous),
        ("temporarily_unavailable", ProviderFailure::Ambiguous),
        ("slow_down", ProviderFailure::RateLimited { retry_after: None }),
    ];
    for (code, failure) in classes {
        let aliases = provider.response.error_aliases.iter().filter(|(_, standard)| *standard == code);
        let own = aliases.map(|(word, _)| word.as_str());
        for word in own.chain([code]) {
            for status in [200, 400, 401] {
                run.player.next(Mishap::Error { word: word.to_owned(), status });
                let found = run.refresh(&token, scopes).await.unwrap_err();
                assert_eq!(found, failure, "{word} with {status}");
            }
        }
    }
    let limited = ProviderFailure::RateLimited { retry_after: Some(Duration::from_secs(7)) };
    for (mishap, failure) in [
        (Mishap::Status(429, Some(7)), limited),
        (Mishap::Status(500, None), ProviderFailure::Ambiguous),
        (Mishap::Status(503, Some(7)), ProviderFailure::Ambiguous),
        (Mishap::Status(200, None), ProviderFailure::Ambiguous),
        (Mishap::Status(302, None), ProviderFailure::Ambiguous),
        (Mishap::Status(403, None), ProviderFailure::Refused),
    ] {
        run.player.next(mishap.clone());
        assert_eq!(run.refresh(&token, scopes).await.unwrap_err(), failure, "{mishap:?}");
    }
    // A client with another secret or, if it has none, another id.
    let mut stranger = run.believed.clone();
    match &mut stranger.client.secret {
        Some(secret) => *secret = SecretString::from("another"),
        None => "another".clone_into(&mut stranger.client.id),
    }
    let refused = client().refresh(&stranger, &token, scopes, AMPLE).await;
    assert_eq!(refused.unwrap_err(), ProviderFailure::ClientRejected);
    assert_eq!(run.player.complaints(), Vec::<String>::new());
    assert_eq!(run.player.alive(), 1);
}

/// Ending a grant.
async fn revokes(provider: &Provider, scopes: &ScopeSet) {
    let run = Run::of(provider).await;
    let answer = run.connect(scopes).await;
    let refresh = answer.refresh_token.as_ref();
    let revoked = client().revoke(&run.believed, &answer.access_token, refresh).await;
    assert_eq!(run.player.complaints(), Vec::<String>::new());
    if matches!(provider.revocation, Revocation::NotSupported) {
        assert_eq!(revoked, Ok(RevocationOutcome::NotSupported));
        assert_eq!((run.player.alive(), run.player.revocations()), (1, 0));
        return;
    }
    assert_eq!(revoked, Ok(RevocationOutcome::Revoked));
    assert_eq!((run.player.alive(), run.player.revocations()), (0, 1));
    if let Some(refresh) = refresh {
        assert_eq!(run.refresh(refresh, scopes).await.unwrap_err(), ProviderFailure::InvalidGrant);
    }

    // After a refresh, the newest tokens end it.
    let first = run.connect(scopes).await;
    if let Some(refresh) = &first.refresh_token {
        let second = run.refresh(refresh, scopes).await.unwrap();
        let newest = second.refresh_token.as_ref().or(Some(refresh));
        let revoked = client().revoke(&run.believed, &second.access_token, newest).await;
        assert_eq!(revoked, Ok(RevocationOutcome::Revoked));
        assert_eq!((run.player.alive(), run.player.revocations()), (0, 2));
    }
    // The provider is down: to be tried again.
    for status in [500, 503] {
        run.player.next(Mishap::Status(status, None));
        let lost = client().revoke(&run.believed, &first.access_token, first.refresh_token.as_ref()).await;
        assert_eq!(lost, Err(ProviderFailure::Ambiguous));
    }
    assert_eq!(run.player.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn every_entry_of_the_catalogue_conforms_to_its_definition() {
    let catalogue = Catalogue::load(&[]).unwrap();
    let mut runs = Vec::new();
    for definition in catalogue.definitions() {
        for &confidential in kinds(definition) {
            let provider = provider(&catalogue, definition, confidential);
            let name =
                format!("{} ({})", definition.id, if confidential { "confidential" } else { "public" });
            let run = tokio::spawn(async move {
                let grants: BTreeSet<GrantName> =
                    provider.services.values().map(|s| s.grant.clone()).collect();
                for grant in &grants {
                    let scopes = scopes_of(&provider, grant);
                    connects(&provider, &scopes).await;
                    refreshes(&provider, &scopes).await;
                    fails_by_class(&provider, &scopes).await;
                    revokes(&provider, &scopes).await;
                }
                // Each service by itself.
                for service in provider.services.values() {
                    connects(&provider, &service.scopes).await;
                }
            });
            runs.push((definition.id.clone(), name, run));
        }
    }
    let mut failed = Vec::new();
    let mut ran = BTreeSet::new();
    for (id, name, run) in runs {
        match run.await {
            Ok(()) => {
                ran.insert(id);
            }
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    assert_eq!(failed, Vec::<String>::new(), "the panics above say why");
    let all: BTreeSet<ProviderId> = catalogue.definitions().map(|definition| definition.id.clone()).collect();
    assert_eq!(ran, all);
}

/// A belief that is not the provider's truth.
type Mistake = (&'static str, fn(&mut Provider) -> bool);

/// The player notices every way to treat a provider otherwise than its definition says; without that, the run above
/// would show nothing. Each mistake says whether it is one at this provider.
const MISTAKES: &[Mistake] = &[
    ("client authentication", |p| {
        p.client.auth = match p.client.auth {
            ClientAuth::Basic => ClientAuth::Post,
            ClientAuth::Post => ClientAuth::Basic,
            ClientAuth::PrivateKeyJwt | ClientAuth::TlsCertificate | ClientAuth::None => return false,
        };
        true
    }),
    ("a public client", |p| {
        p.client.secret = None;
        std::mem::replace(&mut p.client.auth, ClientAuth::None) != ClientAuth::None
    }),
    ("body format", |p| {
        p.token.body = match p.token.body {
            BodyFormat::Form => BodyFormat::Json,
            BodyFormat::Json => BodyFormat::Form,
        };
        true
    }),
    ("PKCE", |p| {
        p.authorization.pkce = !p.authorization.pkce;
        true
    }),
    ("nonce", |p| {
        p.authorization.nonce = !p.authorization.nonce;
        true
    }),
    ("fixed parameters", |p| !std::mem::take(&mut p.authorization.params).is_empty()),
    ("a parameter too many", |p| {
        p.authorization.params.insert("surplus".to_owned(), "1".to_owned());
        true
    }),
    ("a token parameter too many", |p| {
        p.token.exchange_params.insert("surplus".to_owned(), "1".to_owned());
        true
    }),
    ("headers", |p| !std::mem::take(&mut p.token.headers).is_empty()),
    ("the scope parameter", |p| {
        "scopes".clone_into(&mut p.authorization.scope_param);
        true
    }),
    ("the scope separator", |p| {
        "|".clone_into(&mut p.authorization.scope_separator);
        true
    }),
];

#[tokio::test]
async fn the_player_notices_every_mistake() {
    let catalogue = Catalogue::load(&[]).unwrap();
    let mut unnoticed = Vec::new();
    for definition in catalogue.definitions() {
        let truth = provider(&catalogue, definition, kinds(definition)[0]);
        let grant = truth.services.values().next().unwrap().grant.clone();
        let scopes = scopes_of(&truth, &grant);
        for (name, make) in MISTAKES {
            let mut run = Run::of(&truth).await;
            if !make(&mut run.believed) {
                continue;
            }
            let about_scopes = name.starts_with("the scope");
            if about_scopes && scopes.iter().count() < 2 {
                continue;
            }
            let answer = match run.consent(&scopes).await {
                Some(code) => run.exchange(&code, VERIFIER).await.err(),
                None => Some(ProviderFailure::Refused),
            };
            if answer.is_none() || run.player.complaints().is_empty() {
                unnoticed.push(format!("{}: {name}", definition.id));
            }
        }
        // Presenting the other token than the one that ends the grant; scopes at refresh.
        let mut run = Run::of(&truth).await;
        let tokens = run.connect(&scopes).await;
        if let Some(refresh) = &tokens.refresh_token {
            run.believed.token.scopes_at_refresh = !truth.token.scopes_at_refresh;
            if !scopes.is_empty() {
                assert!(run.refresh(refresh, &scopes).await.is_err(), "{}", definition.id);
                assert_eq!(run.player.complaints().len(), 1, "{}: scopes at refresh", definition.id);
            }
            if !matches!(truth.revocation, Revocation::NotSupported) {
                let swapped = client().revoke(&run.believed, refresh, Some(&tokens.access_token)).await;
                assert!(swapped.is_err(), "{}: the other token", definition.id);
                assert_eq!(run.player.alive(), 1);
            }
        }
    }
    assert_eq!(unnoticed, Vec::<String>::new());
}
