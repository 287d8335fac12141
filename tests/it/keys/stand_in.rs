//! A key service on this machine: it checks what it is asked, and misbehaves when told to.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use token_broker::domain::data_key::DataKeyPurpose;
use token_broker::domain::key::TenantId;
use token_broker::infra::crypto::{KekError, Key, KeyBinding, KeyEncryption};
use token_broker::infra::system::SystemEntropy;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// What to do instead of answering.
#[derive(Clone)]
pub(super) enum Mischief {
    Answer(u16, String),
    Silence,
}

type Handler = Box<dyn Fn(&Seen) -> (u16, String) + Send + Sync>;

#[derive(Clone)]
pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    handler: Handler,
    mischief: Mutex<VecDeque<Mischief>>,
    seen: Mutex<Vec<Seen>>,
}

impl StandIn {
    pub(super) async fn start(handler: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            mischief: Mutex::default(),
            seen: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared }
    }

    pub(super) fn url(&self) -> url::Url {
        url::Url::parse(&format!("http://{}/", self.address)).unwrap()
    }

    /// The next request is answered like this.
    pub(super) fn misbehave(&self, mischief: Mischief) {
        self.shared.mischief.lock().unwrap().push_back(mischief);
    }

    /// The next three are: one call with all its repetitions.
    pub(super) fn fail_a_call(&self, mischief: &Mischief) {
        for _ in 0..3 {
            self.misbehave(mischief.clone());
        }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Whether all that was planned has happened.
    pub(super) fn is_done(&self) -> bool {
        self.shared.mischief.lock().unwrap().is_empty()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let seen = Seen { method: method.to_string(), path, headers, body: body.to_vec() };
    shared.seen.lock().unwrap().push(seen.clone());
    let mischief = shared.mischief.lock().unwrap().pop_front();
    let (status, text) = match mischief {
        Some(Mischief::Silence) => {
            return std::future::pending().await;
        }
        Some(Mischief::Answer(status, text)) => (status, text),
        None => (shared.handler)(&seen),
    };
    (StatusCode::from_u16(status).unwrap(), text).into_response()
}

/// What a data key is bound to.
#[derive(Clone)]
pub(super) struct Bound {
    pub(super) id: u8,
    pub(super) tenant: TenantId,
    pub(super) purpose: DataKeyPurpose,
    pub(super) kek: String,
}

impl Bound {
    pub(super) fn usual() -> Self {
        Self {
            id: 7,
            tenant: TenantId::new("acme").unwrap(),
            purpose: DataKeyPurpose::Encryption,
            kek: "cloud".to_owned(),
        }
    }

    pub(super) fn binding(&self) -> KeyBinding<'_> {
        KeyBinding { id: [self.id; 16], tenant: &self.tenant, purpose: self.purpose, kek_id: &self.kek }
    }

    /// Every other place that a wrapped key could be moved to.
    pub(super) fn others() -> Vec<Self> {
        let usual = Self::usual;
        vec![
            Self { id: 8, ..usual() },
            Self { tenant: TenantId::new("acm").unwrap(), ..usual() },
            Self { purpose: DataKeyPurpose::Fingerprint, ..usual() },
            Self { kek: "cloud2".to_owned(), ..usual() },
        ]
    }
}

pub(super) fn plain() -> Key {
    let mut key = Key::default();
    for (n, byte) in key.iter_mut().enumerate() {
        *byte = u8::try_from(n).unwrap() + 100;
    }
    key
}

pub(super) async fn wrap(kek: &dyn KeyEncryption, bound: &Bound) -> Result<Vec<u8>, KekError> {
    kek.wrap(bound.binding(), &plain(), &SystemEntropy).await
}

pub(super) async fn unwrap(
    kek: &dyn KeyEncryption,
    bound: &Bound,
    wrapped: &[u8],
) -> Result<Vec<u8>, KekError> {
    kek.unwrap(bound.binding(), wrapped).await.map(|key| key.to_vec())
}

/// What every service has in common: a round trip, every other place, damage, and failures that are tried again or are
/// told by their kind.
pub(super) async fn common(kek: &dyn KeyEncryption, service: &StandIn) {
    let bound = Bound::usual();
    let wrapped = wrap(kek, &bound).await.unwrap();
    assert_ne!(wrapped[1..], plain()[..]);
    assert_eq!(unwrap(kek, &bound, &wrapped).await.unwrap(), plain().to_vec());
    for other in Bound::others() {
        assert_eq!(unwrap(kek, &other, &wrapped).await, Err(KekError::DoesNotOpen));
    }
    let mut tampered = wrapped.clone();
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    assert_eq!(unwrap(kek, &bound, &tampered).await, Err(KekError::DoesNotOpen));
    // What a key in a file has wrapped is never sent to a service.
    let before = service.seen().len();
    for local in [&[1, 2, 3][..], &[], &[3]] {
        assert_eq!(unwrap(kek, &bound, local).await, Err(KekError::DoesNotOpen));
    }
    assert_eq!(service.seen().len(), before);
    // One failure is not one of the call; three are.
    let broken = Mischief::Answer(503, "busy".to_owned());
    service.misbehave(broken.clone());
    assert!(unwrap(kek, &bound, &wrapped).await.is_ok());
    service.fail_a_call(&broken);
    assert!(matches!(unwrap(kek, &bound, &wrapped).await, Err(KekError::Unavailable(_))));
    service.fail_a_call(&Mischief::Answer(429, "{}".to_owned()));
    assert_eq!(unwrap(kek, &bound, &wrapped).await, Err(KekError::Throttled));
    service.fail_a_call(&Mischief::Answer(200, "not json".to_owned()));
    assert!(wrap(kek, &bound).await.is_err());
    while !service.is_done() {
        let _ = wrap(kek, &bound).await;
    }
    // A text of the service's is not repeated, since it may say anything.
    service.misbehave(Mischief::Answer(
        418,
        r#"{"error":"canary","__type":"canary! <b>","errors":["canary"]}"#.to_owned(),
    ));
    let error = wrap(kek, &bound).await.unwrap_err().to_string();
    assert!(error.contains("418") && !error.contains('<') && !error.contains('!'), "{error}");
    assert!(service.is_done());
    assert_eq!(unwrap(kek, &bound, &wrapped).await.unwrap(), plain().to_vec());
}
