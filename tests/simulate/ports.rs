//! The other ports of one broker: permits, journal, words between replicas, the provider, and a vault without secrets.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use token_broker::domain::cipher::{Binding, Cipher, CipherError, Sealer};
use token_broker::domain::coordination::{
    CoordinationError, FormerRun, Journal, JournalError, Permit, PermitRequest, PermitStore, Successor,
    Tombstone, Wake, Wakeups,
};
use token_broker::domain::credential::{Epoch, Fingerprint, Sealed};
use token_broker::domain::flow::RecordedEndpoints;
use token_broker::domain::key::{ClaimOwner, CredentialId, CredentialKey, GrantId, TenantId};
use token_broker::domain::ports::{
    AuthorizationRequest, IdentityError, LineageWrite, OAuthClient, ProviderFailure, RevocationOutcome,
};
use token_broker::domain::provider::{EndpointSource, Provider};
use token_broker::domain::scope::ScopeSet;
use token_broker::domain::secret::{SecretBytes, SecretString};
use token_broker::domain::token_set::{ProviderAccount, TokenResponse};
use token_broker::domain::user_key::UserKeyId;
use token_broker::infra::coordination::local::LocalPermits;
use tokio::time::Instant;

use super::faults::Fault;
use super::link::Link;
use super::provider;
use super::world::Protocol;

// ---- permits --------------------------------------------------------------------------------------------------------

pub(crate) struct PermitsPort(pub(crate) Arc<Link>);

/// How long the naive variant's lock lasts.
const LOCK: Duration = Duration::from_secs(5);

impl PermitsPort {
    async fn call<T>(
        &self,
        act: impl AsyncFnOnce(&LocalPermits) -> Result<T, CoordinationError>,
    ) -> Result<T, CoordinationError> {
        self.0.hop().await;
        if self.0.world.permits_are_away() {
            return Err(CoordinationError::Unreachable("away".into()));
        }
        let store = self.0.world.permits();
        let answer = act(&store).await;
        self.0.hop().await;
        answer
    }

    fn is_naive(&self) -> bool {
        self.0.world.protocol == Protocol::LockOnly
    }
}

#[async_trait]
impl PermitStore for PermitsPort {
    async fn take(&self, mut request: PermitRequest) -> Result<Permit, CoordinationError> {
        if self.is_naive() {
            request.lifetime = LOCK;
        }
        self.call(async |store| store.take(request).await).await
    }

    async fn keep_successor(&self, successor: &Successor) -> Result<(), CoordinationError> {
        if self.is_naive() {
            return Ok(());
        }
        self.call(async |store| {
            store.keep_successor(successor).await?;
            self.0.world.copies.in_permits(&successor.write);
            Ok(())
        })
        .await
    }

    async fn successor(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
    ) -> Result<Option<Successor>, CoordinationError> {
        self.call(async |store| store.successor(credential, parent).await).await
    }

    async fn successor_stored(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
        epoch: Epoch,
    ) -> Result<(), CoordinationError> {
        if self.is_naive() {
            // It unlocks.
            return self.drop_permit(credential, parent, self.0.owner).await;
        }
        self.call(async |store| store.successor_stored(credential, parent, epoch).await).await
    }

    async fn drop_permit(
        &self,
        credential: CredentialId,
        token: Fingerprint,
        owner: ClaimOwner,
    ) -> Result<(), CoordinationError> {
        self.call(async |store| store.drop_permit(credential, token, owner).await).await
    }

    async fn bury(
        &self,
        credential: CredentialId,
        grant: GrantId,
        tombstone: Tombstone,
    ) -> Result<(), CoordinationError> {
        self.call(async |store| store.bury(credential, grant, tombstone).await).await
    }

    async fn owner_died(&self, owner: ClaimOwner) -> Result<(), CoordinationError> {
        self.call(async |store| store.owner_died(owner).await).await
    }

    async fn is_dead(&self, owner: ClaimOwner) -> Result<bool, CoordinationError> {
        self.call(async |store| store.is_dead(owner).await).await
    }

    async fn ping(&self) -> Result<(), CoordinationError> {
        self.call(async |store| store.ping().await).await
    }
}

// ---- the journal ----------------------------------------------------------------------------------------------------

/// A journal on a disk that outlives its broker.
pub(crate) struct JournalPort {
    pub(crate) link: Arc<Link>,
    records: Mutex<Vec<LineageWrite>>,
}

impl JournalPort {
    pub(crate) fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self { link, records: Mutex::default() })
    }

    /// What the next process finds.
    pub(crate) fn left_behind(&self) -> FormerRun {
        FormerRun { owner: self.link.owner, records: self.records.lock().unwrap().clone() }
    }

    fn room(&self) -> Result<(), JournalError> {
        let full = *self.link.disk_full_until.lock().unwrap() > Instant::now();
        if full { Err(JournalError("the disk is full".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Journal for JournalPort {
    async fn ready(&self) -> Result<(), JournalError> {
        self.room()
    }

    async fn append(&self, write: &LineageWrite) -> Result<(), JournalError> {
        self.link.hop().await;
        self.room()?;
        self.records.lock().unwrap().push(write.clone());
        self.link.world.copies.in_journal(write);
        self.link.hop().await;
        Ok(())
    }

    async fn stored(&self, _: CredentialId, _: Epoch) {}

    async fn successor(&self, credential: CredentialId, parent: Fingerprint) -> Option<LineageWrite> {
        let records = self.records.lock().unwrap();
        let found = records.iter().filter(|w| w.id == credential && w.parent_fingerprint == parent);
        found.max_by_key(|write| write.epoch).cloned()
    }
}

// ---- words between replicas -----------------------------------------------------------------------------------------

pub(crate) struct WakeupsPort(pub(crate) Arc<Link>);

#[async_trait]
impl Wakeups for WakeupsPort {
    async fn publish(&self, wake: Wake) {
        self.0.hop().await;
        let world = &self.0.world;
        if !world.faults.strikes(&world.dice, Fault::WakeupLost, world.faults.plan.wakeup_lost) {
            world.wakeups.publish(wake).await;
        }
    }

    fn listen(&self, wake: &Wake) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.world.wakeups.listen(wake)
    }
}

// ---- the provider ---------------------------------------------------------------------------------------------------

pub(crate) struct OAuthPort(pub(crate) Arc<Link>);

#[async_trait]
impl OAuthClient for OAuthPort {
    async fn endpoints(&self, provider: &Provider) -> Result<RecordedEndpoints, ProviderFailure> {
        match &provider.endpoints {
            EndpointSource::Literal(endpoints) => Ok(endpoints.clone()),
            EndpointSource::Discovered { .. } => Err(ProviderFailure::NotSent),
        }
    }

    fn authorization_url(
        &self,
        _: &Provider,
        _: AuthorizationRequest<'_>,
    ) -> Result<SecretString, ProviderFailure> {
        Err(ProviderFailure::NotSent)
    }

    async fn exchange_code(
        &self,
        _: &Provider,
        _: &RecordedEndpoints,
        _: &url::Url,
        _: &SecretString,
        _: &SecretString,
    ) -> Result<TokenResponse, ProviderFailure> {
        Err(ProviderFailure::NotSent)
    }

    async fn refresh(
        &self,
        _: &Provider,
        refresh_token: &SecretString,
        _: &ScopeSet,
        _: Duration,
    ) -> Result<TokenResponse, ProviderFailure> {
        self.0.hop().await;
        let answer = provider::refresh(&self.0.world, refresh_token.expose_secret(), self.0.owner).await;
        self.0.hop().await;
        answer
    }

    async fn revoke(
        &self,
        _: &Provider,
        access_token: &SecretString,
        refresh_token: Option<&SecretString>,
    ) -> Result<RevocationOutcome, ProviderFailure> {
        self.0.hop().await;
        let refresh = refresh_token.map(SecretString::expose_secret);
        let told = provider::revoke(&self.0.world, access_token.expose_secret(), refresh).await;
        self.0.hop().await;
        told.map(|()| RevocationOutcome::Revoked)
    }

    async fn identify(
        &self,
        _: &Provider,
        _: &RecordedEndpoints,
        _: &TokenResponse,
        _: &SecretString,
    ) -> Result<ProviderAccount, IdentityError> {
        Ok(ProviderAccount::default())
    }
}

// ---- the vault ------------------------------------------------------------------------------------------------------

/// Seals by writing down what a text is bound to.
pub(crate) struct PlainCipher;

/// The keyed hash of a refresh token; there is no key.
pub(crate) fn fingerprint_of(token: &str) -> Fingerprint {
    Fingerprint(Sha256::digest(token).into())
}

fn prefix(binding: &Binding<'_>) -> Vec<u8> {
    let mut prefix = binding.grant.as_bytes().to_vec();
    prefix.push(binding.field as u8);
    prefix
}

impl Sealer for PlainCipher {
    fn user_key(&self) -> UserKeyId {
        [0; 16]
    }

    fn seal(&self, binding: Binding<'_>, plaintext: &SecretBytes) -> Result<Sealed, CipherError> {
        Ok(Sealed([prefix(&binding).as_slice(), plaintext.expose_secret()].concat()))
    }
}

#[async_trait]
impl Cipher for PlainCipher {
    async fn sealer(&self, _: &CredentialKey, _: Option<&Sealed>) -> Result<Arc<dyn Sealer>, CipherError> {
        Ok(Arc::new(Self))
    }

    async fn existing_sealer(&self, _: &CredentialKey) -> Result<Option<Arc<dyn Sealer>>, CipherError> {
        Ok(Some(Arc::new(Self)))
    }

    fn forget_user_key(&self, _: UserKeyId) {}

    async fn open(&self, binding: Binding<'_>, sealed: &Sealed) -> Result<SecretBytes, CipherError> {
        let plain = sealed.0.strip_prefix(prefix(&binding).as_slice()).ok_or(CipherError::DoesNotOpen)?;
        Ok(SecretBytes::new(plain.to_vec()))
    }

    async fn fingerprint(&self, _: &TenantId, token: &SecretString) -> Result<Fingerprint, CipherError> {
        Ok(fingerprint_of(token.expose_secret()))
    }

    async fn tombstone(
        &self,
        _: &TenantId,
        credential: CredentialId,
        grant: GrantId,
    ) -> Result<Tombstone, CipherError> {
        let text = [credential.as_bytes().as_slice(), grant.as_bytes().as_slice()].concat();
        Ok(Tombstone(Sha256::digest(text).into()))
    }

    async fn successor_mac(&self, _: &TenantId, write: &LineageWrite) -> Result<[u8; 32], CipherError> {
        let text = [write.id.as_bytes().as_slice(), &write.epoch.to_be_bytes(), &write.parent_fingerprint.0];
        Ok(Sha256::digest(text.concat()).into())
    }
}
