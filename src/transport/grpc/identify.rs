//! Who calls, and for which user: from what a call presents (`auth.rs`) to a principal.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use tonic::Status;

use super::auth::{self, Authorization, UserEntry};
use super::incoming::Peer;
use super::status;
use crate::application::error::BrokerError;
use crate::domain::access_policy::{Caller, Identity, Principal};
use crate::domain::key::UserId;
use crate::domain::ports::{CallerDirectory, TokenError, TokenVerifier, Verified};
use crate::domain::secret::SecretString;

/// Knows everybody.
pub(super) struct Identifier {
    pub(super) callers: Arc<dyn CallerDirectory>,
    /// `None`: no issuer is configured, so no token is anybody's.
    pub(super) tokens: Option<Arc<dyn TokenVerifier>>,
}

/// Who calls.
pub(super) struct Known {
    pub(super) principal: Arc<Principal>,
    /// Until when what was presented is good; `None`: for good.
    pub(super) until: Option<Instant>,
    /// By what.
    pub(super) identity: Identity,
}

impl Identifier {
    /// Who calls, or the answer to somebody who is not known. That caller can't be told is an outage, never "you are nobody".
    pub(super) async fn identify(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Known, Status> {
        let now = Instant::now();
        let (caller, caller_until, identity) = self.caller(headers, peer, now).await?;
        if let Some(suspension) = caller.suspension {
            return Err(BrokerError::Suspended(suspension).into());
        }
        // Only whoever is known may try users' tokens.
        let user = self.user(headers).await?;
        let user_until = user.as_ref().and_then(|user| now.checked_add(user.valid_for));
        Ok(Known {
            principal: Arc::new(Principal { caller, user: user.map(|user| user.who) }),
            until: [caller_until, user_until].into_iter().flatten().min(),
            identity,
        })
    }

    async fn caller(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        now: Instant,
    ) -> Result<(Arc<Caller>, Option<Instant>, Identity), Status> {
        let presented = match auth::authorization(headers) {
            Authorization::Absent => None,
            Authorization::Key(identity) => Some((identity, None)),
            Authorization::Token(token) => {
                let Verified { who, valid_for } = self.caller_token(&token).await?;
                Some((who, Some(valid_for)))
            }
            Authorization::Useless => return Err(status::unauthenticated()),
        };
        // A connection can outlive the certificate that it began with.
        let peer = peer.filter(|peer| peer.valid_until > now);
        let certified = match peer {
            Some(peer) => {
                let identity = Identity::SpiffeId(peer.id.as_str().to_owned());
                self.find(&identity).await?.map(|caller| (caller, identity))
            }
            None => None,
        };
        match (presented, certified) {
            (None, None) => {
                if let Some(peer) = peer {
                    tracing::info!(id = %peer.id, "a certificate is no caller's");
                }
                Err(status::unauthenticated())
            }
            (None, Some((caller, identity))) => Ok((caller, peer.map(|peer| peer.valid_until), identity)),
            (Some((identity, valid_for)), certified) => {
                let Some(caller) = self.find(&identity).await? else {
                    tracing::info!(kind = identity.kind(), "an identity is no caller's");
                    return Err(status::unauthenticated());
                };
                let same = |other: &Arc<Caller>| other.id == caller.id && other.tenant == caller.tenant;
                if certified.as_ref().is_some_and(|(other, _)| !same(other)) {
                    tracing::warn!(caller = %caller.id, "the certificate beside the authorization entry is another caller's");
                    return Err(status::unauthenticated());
                }
                let until = valid_for.and_then(|valid_for: Duration| now.checked_add(valid_for));
                Ok((caller, until, identity))
            }
        }
    }

    async fn find(&self, identity: &Identity) -> Result<Option<Arc<Caller>>, Status> {
        self.callers.caller(identity).await.map_err(|error| BrokerError::from(error).into())
    }

    async fn caller_token(&self, token: &SecretString) -> Result<Verified<Identity>, Status> {
        let Some(tokens) = &self.tokens else { return Err(status::unauthenticated()) };
        tokens.caller(token).await.map_err(|error| match error {
            TokenError::Refused => status::unauthenticated(),
            TokenError::KeysUnavailable => status::identity_unavailable(),
        })
    }

    async fn user(&self, headers: &HeaderMap) -> Result<Option<Verified<UserId>>, Status> {
        let token = match auth::user_token(headers) {
            UserEntry::Absent => return Ok(None),
            UserEntry::Token(token) => token,
            UserEntry::Useless => return Err(status::user_token()),
        };
        let Some(tokens) = &self.tokens else { return Err(status::user_token()) };
        tokens.user(&token).await.map(Some).map_err(|error| match error {
            TokenError::Refused => status::user_token(),
            TokenError::KeysUnavailable => status::identity_unavailable(),
        })
    }
}
