//! Who it is that has a stream running, asked again while it runs: rights end for streams as soon as they do for calls.

use std::sync::Arc;

use super::error::BrokerError;
use crate::domain::access_policy::{Identity, Principal};
use crate::domain::ports::CallerDirectory;

/// What a stream was begun by. The user's token that came along, and a token or certificate of the caller, only expire:
/// see who began the stream.
#[derive(Clone)]
pub struct Identified {
    callers: Arc<dyn CallerDirectory>,
    identity: Identity,
}

impl Identified {
    /// `identity` is what the caller has proved to be; the directory says, as for a call, whose that is.
    #[must_use]
    pub fn new(callers: Arc<dyn CallerDirectory>, identity: Identity) -> Self {
        Self { callers, identity }
    }

    /// The same caller and user with the rights of now.
    pub(super) async fn renewed(&self, before: &Principal) -> Result<Arc<Principal>, BrokerError> {
        let caller = self.callers.caller(&self.identity).await?;
        // An identity can have become another caller's; the stream has not.
        let same = caller.filter(|now| now.tenant == before.caller.tenant && now.id == before.caller.id);
        let caller = same.ok_or(BrokerError::NotKnownAnyMore)?;
        match caller.suspension {
            Some(suspension) => Err(BrokerError::Suspended(suspension)),
            None => Ok(Arc::new(Principal { caller, user: before.user.clone() })),
        }
    }
}
