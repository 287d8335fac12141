//! What can be wrong with a key, for every RPC that takes one.

use token_broker::r#gen::v1::{
    AcquireLeaseRequest, BeginOAuthRequest, CredentialKey, GetCredentialRequest, ImportCredentialRequest,
    ListCredentialsRequest, RefreshRequest, ReleaseLeaseRequest, RenewLeaseRequest, RevokeRequest,
};

use super::{FORBIDDEN, NO_PROVIDER, NO_SERVICE, Refusal, Row, invalid};
use crate::support::doors::{BOBS, POWERLESS};

/// A request with a key.
pub(super) trait Keyed {
    fn key(&mut self) -> &mut Option<CredentialKey>;
}

macro_rules! keyed {
    ($($request:ty),+) => {
        $(impl Keyed for $request {
            fn key(&mut self) -> &mut Option<CredentialKey> {
                &mut self.key
            }
        })+
    };
}
keyed!(
    GetCredentialRequest,
    RefreshRequest,
    RevokeRequest,
    ImportCredentialRequest,
    AcquireLeaseRequest,
    RenewLeaseRequest,
    ReleaseLeaseRequest
);

fn key<M: Keyed>(request: &mut M) -> &mut CredentialKey {
    request.key().as_mut().unwrap()
}

/// The rows that every request with a key has.
pub(super) fn rows<M: Keyed>() -> Vec<Row<M>> {
    vec![
        ("no key", |m| *m.key() = None, invalid(&["key"])),
        (
            "an empty key",
            |m| *m.key() = Some(CredentialKey::default()),
            invalid(&["key.provider", "key.user_id", "key.service"]),
        ),
        ("an empty provider", |m| key(m).provider.clear(), invalid(&["key.provider"])),
        ("a long provider", |m| key(m).provider = "x".repeat(65), invalid(&["key.provider"])),
        ("NUL in the provider", |m| key(m).provider = "canary\0".into(), invalid(&["key.provider"])),
        ("a path as provider", |m| key(m).provider = "../canary".into(), invalid(&["key.provider"])),
        ("capitals in the provider", |m| key(m).provider = "Hostile".into(), invalid(&["key.provider"])),
        ("an empty user", |m| key(m).user_id.clear(), invalid(&["key.user_id"])),
        ("a long user", |m| key(m).user_id = "x".repeat(257), invalid(&["key.user_id"])),
        ("NUL in the user", |m| key(m).user_id = "alice\0canary".into(), invalid(&["key.user_id"])),
        ("a line break in the user", |m| key(m).user_id = "canary\nb".into(), invalid(&["key.user_id"])),
        ("a space after the user", |m| key(m).user_id = "alice ".into(), invalid(&["key.user_id"])),
        ("an empty service", |m| key(m).service.clear(), invalid(&["key.service"])),
        ("a long service", |m| key(m).service = "x".repeat(65), invalid(&["key.service"])),
        ("NUL in the service", |m| key(m).service = "files\0".into(), invalid(&["key.service"])),
        ("a long account", |m| key(m).account = "x".repeat(257), invalid(&["key.account"])),
        ("NUL in the account", |m| key(m).account = "canary\0".into(), invalid(&["key.account"])),
        ("an unknown provider", |m| key(m).provider = "canary".into(), NO_PROVIDER),
        ("an unknown service", |m| key(m).service = "canary".into(), NO_SERVICE),
    ]
}

/// What strangers try: nothing at all in the request, or another user, or another provider.
pub(super) enum Change {
    None,
    Bob,
    BobElsewhere,
}

/// A request that can be pointed elsewhere.
pub(super) trait Aim {
    fn aim(&mut self, provider: &str, user: &str);
}

macro_rules! aim_by_key {
    ($($request:ty),+) => {
        $(impl Aim for $request {
            fn aim(&mut self, provider: &str, user: &str) {
                provider.clone_into(&mut key(self).provider);
                user.clone_into(&mut key(self).user_id);
            }
        })+
    };
}
aim_by_key!(
    GetCredentialRequest,
    RefreshRequest,
    RevokeRequest,
    ImportCredentialRequest,
    AcquireLeaseRequest,
    RenewLeaseRequest,
    ReleaseLeaseRequest
);

macro_rules! aim_by_fields {
    ($($request:ty),+) => {
        $(impl Aim for $request {
            fn aim(&mut self, provider: &str, user: &str) {
                provider.clone_into(&mut self.provider);
                user.clone_into(&mut self.user_id);
            }
        })+
    };
}
aim_by_fields!(BeginOAuthRequest, ListCredentialsRequest);

impl Change {
    pub(super) fn apply<M: Aim>(&self, request: &mut M) {
        match self {
            Self::None => {}
            Self::Bob => request.aim("hostile", "bob"),
            Self::BobElsewhere => request.aim("other", "bob"),
        }
    }
}

/// Callers that may not do it: without the action, for another user, at another provider.
pub(super) fn strangers() -> [(&'static str, Change, Refusal); 4] {
    [
        (POWERLESS, Change::None, FORBIDDEN),
        (POWERLESS, Change::Bob, FORBIDDEN),
        (BOBS, Change::None, FORBIDDEN),
        (BOBS, Change::BobElsewhere, FORBIDDEN),
    ]
}
