//! Who calls, and for which user: from what a call presents (`auth.rs`) to a principal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use tonic::Status;

use super::auth::{self, Authorization, UserEntry};
use super::incoming::Peer;
use super::status;
use crate::application::error::BrokerError;
use crate::application::limits::Limits;
use crate::domain::access_policy::{Caller, Identity};
use crate::domain::key::UserId;
use crate::domain::ports::{CallerDirectory, TokenError, TokenVerifier, Verified};
use crate::domain::secret::SecretString;

/// Knows everybody.
pub(super) struct Identifier {
    pub(super) callers: Arc<dyn CallerDirectory>,
    /// `None`: no issuer is configured, so no token is anybody's.
    pub(super) tokens: Option<Arc<dyn TokenVerifier>>,
    /// Bounds what strangers cost.
    pub(super) limits: Arc<Limits>,
}

/// What is known of a connection's other end before anybody is identified.
#[derive(Clone, Copy, Default)]
pub(super) struct OtherEnd<'a> {
    /// Whom its certificate names.
    pub(super) peer: Option<&'a Peer>,
    /// Where it is.
    pub(super) address: Option<IpAddr>,
}

/// Who calls. It may be suspended: also what such a caller does is limited and recorded.
pub(super) struct Known {
    pub(super) caller: Arc<Caller>,
    /// Until when what it presented is good; `None`: for good.
    pub(super) until: Option<Instant>,
    /// By what.
    pub(super) identity: Identity,
}

/// The user whose own token came along.
pub(super) struct KnownUser {
    pub(super) id: UserId,
    /// Until when the token is good; `None`: for good.
    pub(super) until: Option<Instant>,
}

impl Identifier {
    /// Who calls, or the answer to somebody who is not known. That caller can't be told is an outage, never "you are nobody".
    /// Somebody at whose address too many have not been known is not looked up: no signature is verified, and the database is
    /// not asked.
    pub(super) async fn caller(
        &self,
        headers: &HeaderMap,
        OtherEnd { peer, address }: OtherEnd<'_>,
    ) -> Result<Known, Status> {
        let now = Instant::now();
        let presented = match auth::authorization(headers) {
            Authorization::Absent => None,
            Authorization::Key(identity) => Some((identity, None)),
            Authorization::Token(token) => {
                let Verified { who, valid_for } = self.caller_token(&token, address).await?;
                Some((who, Some(valid_for)))
            }
            Authorization::Useless => return Err(status::unauthenticated()),
        };
        // A connection can outlive the certificate that it began with.
        let peer = peer.filter(|peer| peer.valid_until > now);
        let certified = match peer {
            Some(peer) => {
                let identity = Identity::SpiffeId(peer.id.as_str().to_owned());
                self.find(&identity, address).await?.map(|caller| (caller, identity))
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
            (None, Some((caller, identity))) => {
                Ok(Known { caller, until: peer.map(|peer| peer.valid_until), identity })
            }
            (Some((identity, valid_for)), certified) => {
                let Some(caller) = self.find(&identity, address).await? else {
                    tracing::info!(kind = identity.kind(), "an identity is no caller's");
                    return Err(status::unauthenticated());
                };
                let same = |other: &Arc<Caller>| other.id == caller.id && other.tenant == caller.tenant;
                if certified.as_ref().is_some_and(|(other, _)| !same(other)) {
                    tracing::warn!(caller = %caller.id, "the certificate beside the authorization entry is another caller's");
                    return Err(status::unauthenticated());
                }
                let until = valid_for.and_then(|valid_for: Duration| now.checked_add(valid_for));
                Ok(Known { caller, until, identity })
            }
        }
    }

    async fn find(
        &self,
        identity: &Identity,
        address: Option<IpAddr>,
    ) -> Result<Option<Arc<Caller>>, Status> {
        self.limits.may_try(address, || self.callers.remembers(identity))?;
        self.callers.caller(identity).await.map_err(|error| BrokerError::from(error).into())
    }

    async fn caller_token(
        &self,
        token: &SecretString,
        address: Option<IpAddr>,
    ) -> Result<Verified<Identity>, Status> {
        let Some(tokens) = &self.tokens else { return Err(status::unauthenticated()) };
        self.limits.may_try(address, || tokens.remembers(token))?;
        tokens.caller(token).await.map_err(|error| match error {
            TokenError::Refused => status::unauthenticated(),
            TokenError::KeysUnavailable => status::identity_unavailable(),
        })
    }

    /// The user whose own token came along, if one did. That costs a signature, and strangers pay for none: so this is for
    /// calls of a known caller, within its limits.
    pub(super) async fn user(&self, headers: &HeaderMap) -> Result<Option<KnownUser>, Status> {
        let now = Instant::now();
        let token = match auth::user_token(headers) {
            UserEntry::Absent => return Ok(None),
            UserEntry::Token(token) => token,
            UserEntry::Useless => return Err(status::user_token()),
        };
        let Some(tokens) = &self.tokens else { return Err(status::user_token()) };
        match tokens.user(&token).await {
            Ok(Verified { who: id, valid_for }) => {
                Ok(Some(KnownUser { id, until: now.checked_add(valid_for) }))
            }
            Err(TokenError::Refused) => Err(status::user_token()),
            Err(TokenError::KeysUnavailable) => Err(status::identity_unavailable()),
        }
    }
}
