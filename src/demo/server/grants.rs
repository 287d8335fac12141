//! What the demo's authorization server knows: codes, tokens and the grants behind them. As strict as the strictest real
//! ones: a refresh token works once, and its second presentation ends the grant (RFC 9700 section 4.14.2).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::domain::ports::{Clock, Entropy};

/// How long a code works (RFC 6749 section 4.1.2 allows ten minutes).
const CODE_LIFE: Duration = Duration::from_secs(60);

/// Tokens and codes are kept as hashes only.
type Hash = [u8; 32];

/// A token answer.
pub(super) struct Issued {
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    pub(super) scope: String,
    pub(super) expires_in: u64,
}

/// What the user agreed to.
pub(super) struct Approval {
    pub(super) user: String,
    pub(super) scope: String,
    pub(super) redirect_uri: String,
    /// The S256 code challenge (RFC 7636 section 4.2).
    pub(super) challenge: String,
}

/// Something that happened, as the server's operator would read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEntry {
    /// A code became tokens.
    Exchanged {
        /// Whose.
        user: String,
    },
    /// A refresh token became new tokens, and is spent.
    Refreshed {
        /// Whose.
        user: String,
    },
    /// A spent refresh token came again: the grant is dead.
    Reused {
        /// Whose.
        user: String,
    },
    /// A token request that was refused for another reason.
    Refused,
    /// A grant was revoked.
    Revoked {
        /// Whose.
        user: String,
    },
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchanged { user } => write!(f, "token request: code exchanged for {user}"),
            Self::Refreshed { user } => write!(f, "token request: refresh token of {user} used and replaced"),
            Self::Reused { user } => {
                write!(f, "token request: refresh token of {user} used twice, grant ended")
            }
            Self::Refused => write!(f, "token request: refused"),
            Self::Revoked { user } => write!(f, "revocation: grant of {user} ended"),
        }
    }
}

struct Grant {
    user: String,
    scope: String,
    alive: bool,
}

struct Code {
    approval: Approval,
    expires_at: Duration,
}

struct AccessToken {
    grant: usize,
    expires_at: Duration,
}

struct RefreshToken {
    grant: usize,
    spent: bool,
}

#[derive(Default)]
struct Records {
    codes: HashMap<Hash, Code>,
    grants: Vec<Grant>,
    access: HashMap<Hash, AccessToken>,
    refresh: HashMap<Hash, RefreshToken>,
    log: Vec<LogEntry>,
}

/// The records.
pub(super) struct Grants {
    access_life: Duration,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    records: Mutex<Records>,
}

impl Grants {
    pub(super) fn new(access_life: Duration, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { access_life, clock, entropy, records: Mutex::default() }
    }

    /// Makes the code for an approval.
    pub(super) fn approve(&self, approval: Approval) -> String {
        let code = self.random("demo-code-");
        let expires_at = self.clock.monotonic() + CODE_LIFE;
        self.lock().codes.insert(hash(&code), Code { approval, expires_at });
        code
    }

    /// A code becomes tokens, once, for whoever knows its verifier. `None`: `invalid_grant`.
    pub(super) fn exchange(&self, code: &str, redirect_uri: &str, verifier: &str) -> Option<Issued> {
        let now = self.clock.monotonic();
        let mut records = self.lock();
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(hash(verifier));
        let found = records.codes.remove(&hash(code)).filter(|code| {
            now < code.expires_at
                && code.approval.redirect_uri == redirect_uri
                && code.approval.challenge == challenge
        });
        let Some(Code { approval, .. }) = found else {
            records.log.push(LogEntry::Refused);
            return None;
        };
        records.log.push(LogEntry::Exchanged { user: approval.user.clone() });
        records.grants.push(Grant { user: approval.user, scope: approval.scope, alive: true });
        let grant = records.grants.len() - 1;
        Some(self.issue(&mut records, grant))
    }

    /// A refresh token becomes a new pair. `None`: `invalid_grant`.
    pub(super) fn refresh(&self, token: &str) -> Option<Issued> {
        let mut guard = self.lock();
        let records = &mut *guard;
        let found = records.refresh.get_mut(&hash(token));
        let known = found.filter(|token| records.grants.get(token.grant).is_some_and(|grant| grant.alive));
        let Some(token) = known else {
            records.log.push(LogEntry::Refused);
            return None;
        };
        let number = token.grant;
        let first_time = !std::mem::replace(&mut token.spent, true);
        let grant = records.grants.get_mut(number)?;
        let user = grant.user.clone();
        if !first_time {
            grant.alive = false;
            records.log.push(LogEntry::Reused { user });
            return None;
        }
        records.log.push(LogEntry::Refreshed { user });
        Some(self.issue(records, number))
    }

    /// Ends the grant that a token belongs to (RFC 7009). An unknown token is no error there.
    pub(super) fn revoke(&self, token: &str) {
        let mut guard = self.lock();
        let records = &mut *guard;
        let hash = hash(token);
        let access = records.access.get(&hash).map(|token| token.grant);
        let number = access.or_else(|| records.refresh.get(&hash).map(|token| token.grant));
        if let Some(grant) = number.and_then(|number| records.grants.get_mut(number)).filter(|g| g.alive) {
            grant.alive = false;
            records.log.push(LogEntry::Revoked { user: grant.user.clone() });
        }
    }

    /// Whose access token this is, as long as it works.
    pub(super) fn user_of(&self, access_token: &str) -> Option<String> {
        let now = self.clock.monotonic();
        let records = self.lock();
        let token = records.access.get(&hash(access_token)).filter(|token| now < token.expires_at)?;
        records.grants.get(token.grant).filter(|grant| grant.alive).map(|grant| grant.user.clone())
    }

    /// Everything that has happened.
    pub(super) fn log(&self) -> Vec<LogEntry> {
        self.lock().log.clone()
    }

    fn issue(&self, records: &mut Records, grant: usize) -> Issued {
        let (access_token, refresh_token) = (self.random("demo-at-"), self.random("demo-rt-"));
        let expires_at = self.clock.monotonic() + self.access_life;
        records.access.insert(hash(&access_token), AccessToken { grant, expires_at });
        records.refresh.insert(hash(&refresh_token), RefreshToken { grant, spent: false });
        let scope = records.grants.get(grant).map_or_else(String::new, |grant| grant.scope.clone());
        Issued { access_token, refresh_token, scope, expires_in: self.access_life.as_secs() }
    }

    fn random(&self, prefix: &str) -> String {
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::system::{SystemClock, SystemEntropy};

    const VERIFIER: &str = "verifier";
    const REDIRECT: &str = "http://127.0.0.1:1/oauth/callback/demo";

    fn grants() -> Grants {
        Grants::new(Duration::from_mins(5), Arc::new(SystemClock), Arc::new(SystemEntropy))
    }

    fn approve(grants: &Grants) -> String {
        grants.approve(Approval {
            user: "alice".to_owned(),
            scope: "notes.read".to_owned(),
            redirect_uri: REDIRECT.to_owned(),
            challenge: BASE64_URL_SAFE_NO_PAD.encode(hash(VERIFIER)),
        })
    }

    #[test]
    fn a_code_works_once_with_its_verifier_and_redirect_uri() {
        let grants = grants();
        assert!(grants.exchange(&approve(&grants), REDIRECT, "another").is_none());
        assert!(grants.exchange(&approve(&grants), "http://127.0.0.1:2/", VERIFIER).is_none());
        let code = approve(&grants);
        assert!(grants.exchange(&code, REDIRECT, VERIFIER).is_some());
        assert!(grants.exchange(&code, REDIRECT, VERIFIER).is_none());
    }

    #[test]
    fn a_second_presentation_of_a_refresh_token_ends_the_grant() {
        let grants = grants();
        let first = grants.exchange(&approve(&grants), REDIRECT, VERIFIER).unwrap();
        let second = grants.refresh(&first.refresh_token).unwrap();
        assert_eq!(grants.user_of(&second.access_token).as_deref(), Some("alice"));
        assert!(grants.refresh(&first.refresh_token).is_none());
        assert_eq!(grants.user_of(&second.access_token), None);
        assert!(grants.refresh(&second.refresh_token).is_none());
        let user = || "alice".to_owned();
        assert_eq!(
            grants.log(),
            [
                LogEntry::Exchanged { user: user() },
                LogEntry::Refreshed { user: user() },
                LogEntry::Reused { user: user() },
                LogEntry::Refused
            ]
        );
    }

    #[test]
    fn revoking_either_token_ends_the_grant() {
        for pick in
            [|issued: &Issued| issued.access_token.clone(), |issued: &Issued| issued.refresh_token.clone()]
        {
            let grants = grants();
            let issued = grants.exchange(&approve(&grants), REDIRECT, VERIFIER).unwrap();
            grants.revoke("unknown");
            grants.revoke(&pick(&issued));
            grants.revoke(&pick(&issued));
            assert_eq!(grants.user_of(&issued.access_token), None);
            assert!(grants.refresh(&issued.refresh_token).is_none());
            let revoked = LogEntry::Revoked { user: "alice".to_owned() };
            assert_eq!(grants.log().iter().filter(|entry| **entry == revoked).count(), 1);
        }
    }
}
