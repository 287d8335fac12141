//! The user of a call: named by the message, or by the user's own token that came with it.

use crate::application::error::BrokerError;
use crate::domain::access_policy::Principal;
use crate::r#gen::v1::{
    AcquireLeaseRequest, BeginOAuthRequest, CompleteOAuthRequest, CredentialKey, GetCredentialRequest,
    ImportCredentialRequest, ListCredentialsRequest, RefreshRequest, ReleaseLeaseRequest, RenewLeaseRequest,
    RevokeRequest, WatchCredentialsRequest,
};

/// A message that names the user whom it is about.
pub(in crate::transport::grpc) trait NamesUser {
    /// Where it does; `None`: the message lacks the part that would.
    fn user_id(&mut self) -> Option<&mut String>;
}

macro_rules! by_key {
    ($($message:ty),+) => {$(
        impl NamesUser for $message {
            fn user_id(&mut self) -> Option<&mut String> {
                self.key.as_mut().map(|CredentialKey { user_id, .. }| user_id)
            }
        }
    )+};
}

macro_rules! itself {
    ($($message:ty),+) => {$(
        impl NamesUser for $message {
            fn user_id(&mut self) -> Option<&mut String> {
                Some(&mut self.user_id)
            }
        }
    )+};
}

by_key!(
    GetCredentialRequest,
    RefreshRequest,
    RevokeRequest,
    ImportCredentialRequest,
    AcquireLeaseRequest,
    RenewLeaseRequest,
    ReleaseLeaseRequest
);
itself!(BeginOAuthRequest, CompleteOAuthRequest, ListCredentialsRequest, WatchCredentialsRequest);

/// With a user's token the call is for that user: the message may leave the user out, and may name no other.
pub(in crate::transport::grpc) fn bind(
    principal: &Principal,
    message: &mut impl NamesUser,
) -> Result<(), BrokerError> {
    let (Some(user), Some(named)) = (&principal.user, message.user_id()) else { return Ok(()) };
    if named.is_empty() {
        user.as_str().clone_into(named);
    } else if named != user.as_str() {
        return Err(BrokerError::PermissionDenied);
    }
    Ok(())
}
