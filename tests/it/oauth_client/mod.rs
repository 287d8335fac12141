//! The OAuth client through its port, against a server that does what it is told.

mod answers;
mod assertions;
mod certificates;
mod discovery;
mod failures;
mod identity;
mod leaks;
mod limits;
mod real_server;
mod requests;
mod revocation;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use token_broker::domain::ports::{Clock, OAuthClient as _, ProviderFailure};
use token_broker::domain::provider::Provider;
use token_broker::domain::secret::SecretString;
use token_broker::domain::token_set::TokenResponse;
use token_broker::infra::oauth::HttpOAuthClient;
use token_broker::infra::outbound::HttpSettings;
use token_broker::infra::system::SystemEntropy;

use crate::support::hostile::{HostileServer, Reply};
use crate::support::provider::{provider_at, scopes};

/// When all of these tests take place: 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600;

/// A clock that the test moves.
#[derive(Default)]
struct TestClock(Mutex<Duration>);

impl TestClock {
    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(NOW).unwrap() + *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

/// A client with limits that a test can reach.
fn client_with(settings: HttpSettings) -> HttpOAuthClient {
    HttpOAuthClient::new(settings, Arc::new(TestClock::default()), Arc::new(SystemEntropy)).unwrap()
}

/// A client with the limits of everyday. One for all tests: setting one up reads the system's root certificates.
fn client() -> &'static HttpOAuthClient {
    static CLIENT: LazyLock<HttpOAuthClient> = LazyLock::new(|| client_with(HttpSettings::default()));
    &CLIENT
}

/// Longer than any answer takes.
const AMPLE: Duration = Duration::from_secs(30);

/// One refresh at a server that gives this one reply; the answer, after it is sure that there was one request.
async fn refresh_against(
    reply: Reply,
    change: impl FnOnce(&mut Provider),
) -> Result<TokenResponse, ProviderFailure> {
    let server = HostileServer::start().await;
    server.push(reply);
    let mut provider = provider_at(&server.base());
    change(&mut provider);
    let answer = client().refresh(&provider, &secret("rt-0"), &scopes("read"), AMPLE).await;
    let request = server.only_request();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/token"));
    answer
}
