//! Floods of strangers, by a clock that stands still: what they reach.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use http::Response;
use tower::ServiceExt as _;

use super::super::incoming::Peer;
use super::tests::{Zeros, agent};
use super::*;
use crate::application::limits::Limits;
use crate::domain::access_policy::{Caller, Identity};
use crate::domain::audit::NoAudit;
use crate::domain::ports::{CallerDirectory, Clock, StoreError, TokenError, TokenVerifier, Verified};
use crate::domain::rate_limit::{Rate, RateLimits};
use crate::domain::secret::SecretString;
use crate::domain::spiffe::SpiffeId;

/// So many strangers a second, and so many at once.
const BURST: u32 = 3;

/// Everything behind the door that costs something: the database of callers, and the verifier of tokens.
#[derive(Default)]
struct Behind {
    looked: AtomicU32,
    verified: AtomicU32,
    now: Mutex<Duration>,
}

impl Behind {
    /// How often the database and the verifier were reached since the last time.
    fn reached(&self) -> (u32, u32) {
        (self.looked.swap(0, Ordering::SeqCst), self.verified.swap(0, Ordering::SeqCst))
    }
}

/// Whose identity ends in "known" is a caller; whose ends in "remembered, known" is remembered.
fn name(identity: &Identity) -> String {
    match identity {
        Identity::ApiKey(_) => "key".to_owned(),
        Identity::SpiffeId(id) => id.clone(),
        Identity::Subject { subject, .. } => subject.clone(),
    }
}

#[tonic::async_trait]
impl CallerDirectory for Behind {
    async fn caller(&self, identity: &Identity) -> Result<Option<Arc<Caller>>, StoreError> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        Ok(name(identity).ends_with("known").then(agent))
    }

    fn remembers(&self, identity: &Identity) -> bool {
        name(identity).ends_with("remembered-known")
    }
}

#[tonic::async_trait]
impl TokenVerifier for Behind {
    async fn caller(&self, token: &SecretString) -> Result<Verified<Identity>, TokenError> {
        self.verified.fetch_add(1, Ordering::SeqCst);
        let subject = token.expose_secret().to_owned();
        if !subject.ends_with("known") {
            return Err(TokenError::Refused);
        }
        let who = Identity::Subject { issuer: "https://a.example".to_owned(), subject };
        Ok(Verified { who, valid_for: Duration::from_secs(60) })
    }

    async fn user(&self, _: &SecretString) -> Result<Verified<UserId>, TokenError> {
        self.verified.fetch_add(1, Ordering::SeqCst);
        Err(TokenError::Refused)
    }

    fn remembers(&self, token: &SecretString) -> bool {
        token.expose_secret().ends_with("remembered-known")
    }
}

impl Clock for Behind {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Door {
    behind: Arc<Behind>,
    router: Router,
}

/// What a call presents.
#[derive(Clone, Copy, Debug)]
enum Presents<'a> {
    Key,
    Token(&'a str),
    Certificate(&'a str),
    /// With a user's token, which is nobody's.
    CertificateAndUser(&'a str),
}

impl Door {
    fn open(trusted: &[&str]) -> Self {
        Self::limited(trusted, None)
    }

    fn limited(trusted: &[&str], caller: Option<Rate>) -> Self {
        let behind = Arc::new(Behind::default());
        let rates = RateLimits {
            strangers: Rate::new(1, Duration::from_secs(BURST.into())),
            caller,
            ..RateLimits::default()
        };
        let limits = Arc::new(Limits::new(rates, behind.clone(), None));
        let identifier = Identifier { callers: behind.clone(), tokens: Some(behind.clone()), limits };
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let guard = Arc::new(Guard::new(
            identifier,
            Auditor::new(Arc::new(NoAudit), behind.clone()),
            Proxies { trusted, ..Proxies::none() },
            &Zeros,
            Duration::from_secs(600),
            TaskTracker::new(),
        ));
        let method = || async { Response::new(Body::empty()) };
        let router = Router::new().fallback(method).layer(axum::middleware::from_fn_with_state(guard, run));
        Self { behind, router }
    }

    async fn call(&self, address: &str, presents: Presents<'_>) -> Code {
        self.forwarded(address, None, presents).await.map_or(Code::Ok, |status| status.code())
    }

    async fn forwarded(&self, address: &str, by: Option<&str>, presents: Presents<'_>) -> Option<Status> {
        let mut peer = None;
        let mut request = Request::builder().uri("/tokenbroker.v1.TokenBrokerService/ListProviders");
        match presents {
            Presents::Key => {
                let key = "Bearer tb_0123456789012345678901234567890123456789012";
                request = request.header("authorization", key);
            }
            Presents::Token(token) => request = request.header("authorization", format!("Bearer {token}")),
            Presents::Certificate(path) | Presents::CertificateAndUser(path) => {
                if matches!(presents, Presents::CertificateAndUser(_)) {
                    request = request.header("tokenbroker-user-token", "canary-no-token");
                }
                let id = SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap();
                peer = Some(Peer { id, valid_until: Instant::now() + Duration::from_secs(600) });
            }
        }
        if let Some(by) = by {
            request = request.header("x-forwarded-for", by);
        }
        let address = Some(address.parse().unwrap());
        request = request.extension(ConnectionInfo { opened_at: Instant::now(), address, peer });
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        status_of(&response)
    }

    /// Until there is no room left at this address.
    async fn flood(&self, address: &str) {
        for _ in 0..BURST {
            assert_eq!(self.call(address, Presents::Token("a.stranger")).await, Code::Unauthenticated);
        }
        self.behind.reached();
    }
}

#[tokio::test]
async fn a_flood_of_strangers_reaches_neither_verifier_nor_database() {
    for presents in [Presents::Key, Presents::Token("a.stranger"), Presents::Certificate("stranger")] {
        let door = Door::open(&[]);
        let mut refused = 0;
        for _ in 0..50 {
            let status = door.forwarded("192.0.2.1", None, presents).await.unwrap();
            if status.code() == Code::ResourceExhausted {
                let info = status.get_details_error_info().unwrap();
                assert_eq!(
                    (info.reason.as_str(), info.metadata["limit"].as_str()),
                    ("RATE_LIMITED", "strangers")
                );
                let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
                assert_eq!(retry, Some(Duration::from_secs(1)));
                refused += 1;
            } else {
                assert_eq!(status.code(), Code::Unauthenticated);
            }
        }
        assert_eq!(refused, 50 - BURST, "{presents:?}");
        let (looked, verified) = door.behind.reached();
        assert_eq!(looked + verified, BURST, "{presents:?}");
        // With time there is room for one more.
        *door.behind.now.lock().unwrap() += Duration::from_secs(1);
        for expected in [Code::Unauthenticated, Code::ResourceExhausted] {
            assert_eq!(door.call("192.0.2.1", presents).await, expected);
        }
        // Another address has room of its own.
        assert_eq!(door.call("192.0.2.2", presents).await, Code::Unauthenticated);
    }
}

#[tokio::test]
async fn good_calls_do_not_count() {
    let door = Door::open(&[]);
    for _ in 0..20 {
        assert_eq!(door.call("192.0.2.1", Presents::Token("a.known")).await, Code::Ok);
        assert_eq!(door.call("192.0.2.1", Presents::Certificate("known")).await, Code::Ok);
    }
    assert_eq!(door.behind.reached(), (40, 20));
}

#[tokio::test]
async fn whoever_is_remembered_goes_on_and_whoever_is_not_waits() {
    let door = Door::open(&[]);
    door.flood("192.0.2.1").await;
    let remembered = [Presents::Token("a.remembered-known"), Presents::Certificate("remembered-known")];
    for presents in remembered {
        assert_eq!(door.call("192.0.2.1", presents).await, Code::Ok, "{presents:?}");
    }
    door.behind.reached();
    for presents in [Presents::Token("a.known"), Presents::Certificate("known"), Presents::Key] {
        assert_eq!(door.call("192.0.2.1", presents).await, Code::ResourceExhausted, "{presents:?}");
        assert_eq!(door.call("192.0.2.2", Presents::Token("a.known")).await, Code::Ok);
    }
    assert_eq!(door.behind.reached(), (3, 3), "only from the other address");
}

#[tokio::test]
async fn forged_tokens_of_users_count_against_the_caller_and_not_against_its_address() {
    let door = Door::limited(&[], Rate::new(1, Duration::from_secs(2)));
    let forged = Presents::CertificateAndUser("remembered-known");
    for n in 0..40 {
        let status = door.forwarded("192.0.2.1", None, forged).await.unwrap();
        let info = status.get_details_error_info().unwrap();
        if n < 2 {
            assert_eq!(info.reason, "USER_TOKEN_INVALID");
        } else {
            assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("RATE_LIMITED", "caller"));
        }
    }
    assert_eq!(door.behind.reached().1, 2, "beyond the limit nothing is verified");
    for _ in 0..BURST {
        assert_eq!(door.call("192.0.2.1", Presents::Token("a.stranger")).await, Code::Unauthenticated);
    }
    assert_eq!(door.call("192.0.2.1", Presents::Token("a.stranger")).await, Code::ResourceExhausted);
    // Of somebody who is not known, nobody looks at it.
    door.behind.reached();
    assert_eq!(door.call("192.0.2.2", Presents::CertificateAndUser("stranger")).await, Code::Unauthenticated);
    assert_eq!(door.behind.reached(), (1, 0));
}

#[tokio::test]
async fn strangers_behind_a_proxy_are_told_apart_if_it_is_trusted() {
    let stranger = Presents::Token("a.stranger");
    let trusting = Door::open(&["10.0.0.0/8"]);
    for n in 0..20 {
        let status = trusting.forwarded("10.0.0.1", Some(&format!("198.51.100.{n}")), stranger).await;
        assert_eq!(status.unwrap().code(), Code::Unauthenticated);
    }
    // From elsewhere the header is not looked at: nobody gets room by making up addresses.
    let mut codes = Vec::new();
    for n in 0..=BURST {
        let status = trusting.forwarded("192.0.2.1", Some(&format!("198.51.100.{n}")), stranger).await;
        codes.push(status.unwrap().code());
    }
    assert_eq!(codes.pop(), Some(Code::ResourceExhausted));
    assert!(codes.iter().all(|code| *code == Code::Unauthenticated));
}
