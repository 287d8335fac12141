//! What is done to credentials from outside while they are in use: imports, consents, revocations. One at a time for each
//! credential, so that the history has an order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost_types::Timestamp;
use reqwest::redirect::Policy;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use url::Url;

use token_broker::r#gen::v1::{BeginOAuthRequest, ConsentOptions, ImportCredentialRequest, RevokeRequest};

use crate::clients::{Client, Load, clients, key_of, provider_of};
use crate::clock;
use crate::dice::Dice;
use crate::history::{Change, CredentialNo, Deed, Replica};
use crate::provider::Book;

/// A call that takes longer has failed, as far as its caller knows.
const DEADLINE: Duration = Duration::from_secs(8);
/// Between attempts to have a Revoke acknowledged.
const AGAIN: Duration = Duration::from_millis(200);

/// Who works on what.
#[derive(Default)]
pub(crate) struct Desk {
    /// Their users have to consent again.
    wanted: Mutex<BTreeSet<CredentialNo>>,
    busy: Mutex<BTreeSet<CredentialNo>>,
}

impl Desk {
    /// A client was told that the user has to consent.
    pub(crate) fn want(&self, credential: CredentialNo) {
        self.wanted.lock().unwrap().insert(credential);
    }

    fn next_wanted(&self, dice: &mut Dice) -> Option<CredentialNo> {
        let wanted: Vec<_> = self.wanted.lock().unwrap().iter().copied().collect();
        (!wanted.is_empty()).then(|| dice.pick(&wanted))
    }

    fn take(&self, credential: CredentialNo) -> bool {
        self.busy.lock().unwrap().insert(credential)
    }

    fn put_back(&self, credential: CredentialNo) {
        self.wanted.lock().unwrap().remove(&credential);
        self.busy.lock().unwrap().remove(&credential);
    }
}

/// How a credential is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// ImportCredential; `true`: over whatever is there.
    Import(bool),
    /// BeginOAuth, the provider's page, the callback at any replica.
    Consent,
}

/// One clerk.
pub(crate) struct Clerk {
    load: Arc<Load>,
    book: Arc<Book>,
    clients: Vec<Client>,
    browser: reqwest::Client,
    dice: Dice,
}

impl Clerk {
    pub(crate) fn new(load: &Arc<Load>, book: &Arc<Book>, number: u32) -> Self {
        Self {
            load: Arc::clone(load),
            book: Arc::clone(book),
            clients: clients(&load.site),
            browser: reqwest::Client::builder()
                .redirect(Policy::none())
                .no_proxy()
                .timeout(DEADLINE)
                .build()
                .unwrap(),
            dice: Dice::new(load.seed, &format!("clerk {number}")),
        }
    }

    /// Works until it is told to stop.
    pub(crate) async fn work(mut self, pace: Duration) {
        let mut next = Instant::now();
        let stop = self.load.stop.clone();
        while stop.run_until_cancelled(sleep_until(next)).await.is_some() {
            next = Instant::now().max(next + pace);
            let any = CredentialNo::try_from(self.dice.roll(u64::from(self.load.credentials))).unwrap();
            let wanted = self.load.desk.next_wanted(&mut self.dice);
            let (credential, way) = match (wanted, self.dice.roll(100)) {
                (Some(wanted), 0..40) => (wanted, Some(Way::Consent)),
                (Some(wanted), 40..80) => (wanted, Some(Way::Import(false))),
                (None, 0..80) => continue,
                (_, 80..92) => (any, None),
                (_, 92..96) => (any, Some(Way::Consent)),
                _ => (any, Some(Way::Import(true))),
            };
            if !self.load.desk.take(credential) {
                continue;
            }
            match way {
                Some(way) => drop(self.connect(credential, way).await),
                None => drop(self.revoke(credential).await),
            }
            self.load.desk.put_back(credential);
        }
    }

    /// Connects a credential. False: the broker did not say that it was done.
    pub(crate) async fn connect(&mut self, credential: CredentialNo, way: Way) -> bool {
        let replica = self.dice.index(self.clients.len());
        let invoked = clock::now();
        let (grant, done) = match way {
            Way::Import(overwrite) => {
                let (grant, pair) = self.book.make(provider_of(credential), credential);
                let expires = clock::today().as_second() + i64::try_from(pair.expires_in.as_secs()).unwrap();
                let request = ImportCredentialRequest {
                    key: Some(key_of(credential)),
                    access_token: pair.access,
                    refresh_token: pair.refresh.unwrap_or_default(),
                    expire_time: Some(Timestamp { seconds: expires, nanos: 0 }),
                    overwrite,
                    ..ImportCredentialRequest::default()
                };
                let answer = timeout(DEADLINE, self.clients[replica].import_credential(request)).await;
                (Some(grant), matches!(answer, Ok(Ok(_))))
            }
            Way::Consent => {
                let before = self.book.consents(credential);
                let done = self.consent(credential, replica).await.is_some();
                (self.book.consents(credential).into_iter().find(|grant| !before.contains(grant)), done)
            }
        };
        // No grant: the consent did not get as far as the provider.
        if let Some(grant) = grant {
            let deed = Deed::Stored(grant);
            let returned = clock::now();
            self.load.record.change(Change { credential, deed, replica, invoked, returned, done });
        }
        done
    }

    /// A user's whole way. The callback goes to the replica; the rest to any.
    async fn consent(&mut self, credential: CredentialNo, callback: Replica) -> Option<()> {
        let key = key_of(credential);
        let request = BeginOAuthRequest {
            provider: key.provider,
            user_id: key.user_id,
            services: vec![key.service],
            account: key.account,
            options: Some(ConsentOptions { login_hint: credential.to_string(), ..ConsentOptions::default() }),
            ..BeginOAuthRequest::default()
        };
        let anywhere = self.dice.index(self.clients.len());
        let begun = timeout(DEADLINE, self.clients[anywhere].begin_o_auth(request)).await.ok()?.ok()?;
        // Confirmed at any replica, which may be another than it was begun at.
        let mut link: Url = begun.into_inner().flow?.authorization_url.parse().ok()?;
        let confirmed_at = self.dice.index(self.clients.len());
        link.set_port(Some(self.load.site.replicas[confirmed_at].public)).ok()?;
        let page = self.browser.get(link.clone()).send().await.ok()?;
        let cookie = page.headers().get("set-cookie")?.to_str().ok()?.split(';').next()?.to_owned();
        let text = page.text().await.ok()?;
        let token = text.split_once("name=\"token\" value=\"")?.1.split_once('"')?.0.to_owned();
        let form = self.browser.post(link).header("content-type", "application/x-www-form-urlencoded");
        let page = form.header("cookie", &cookie).body(format!("token={token}")).send().await.ok()?;
        let page = self.browser.get(page.headers().get("location")?.to_str().ok()?).send().await.ok()?;
        let mut back: Url = page.headers().get("location")?.to_str().ok()?.parse().ok()?;
        back.set_port(Some(self.load.site.replicas[callback].public)).ok()?;
        let page = self.browser.get(back).header("cookie", cookie).send().await.ok()?;
        page.status().is_success().then_some(())
    }

    /// Revokes a credential, at one replica after the other until one acknowledges it.
    pub(crate) async fn revoke(&mut self, credential: CredentialNo) -> bool {
        let invoked = clock::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let replica = self.dice.index(self.clients.len());
            let request = RevokeRequest { key: Some(key_of(credential)), ..RevokeRequest::default() };
            let answer = timeout(DEADLINE, self.clients[replica].revoke(request)).await;
            let done = matches!(answer, Ok(Ok(_)));
            if done || attempts == 60 {
                let returned = clock::now();
                let deed = Deed::Revoked;
                self.load.record.change(Change { credential, deed, replica, invoked, returned, done });
                return done;
            }
            sleep(AGAIN).await;
        }
    }
}
