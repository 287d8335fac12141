//! Whose browser it is, by address, and how many pages it may have.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;

use crate::application::error::BrokerError;
use crate::application::limits::Limits;
use crate::transport::proxies::Proxies;

/// The other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

/// Answers 429 to clients that ask for too many pages. `too_many` makes the page.
pub(super) fn limited(router: Router, limits: Arc<Limits>, proxies: Proxies, https: bool) -> Router {
    let state = Arc::new((limits, proxies, https));
    router.layer(middleware::from_fn_with_state(state, check))
}

type Checked = Arc<(Arc<Limits>, Proxies, bool)>;

async fn check(State(state): State<Checked>, request: Request, next: Next) -> Response {
    let (limits, proxies, https) = &*state;
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0);
    match limits.page(proxies.client(peer, request.headers())) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            let wait = match error {
                BrokerError::ResourceExhausted { retry_after, .. } => retry_after,
                _ => std::time::Duration::ZERO,
            };
            super::public::too_many(wait, *https)
        }
    }
}
