//! Between tokens and their sealed form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Broker;
use super::error::BrokerError;
use crate::domain::cipher::{Binding, CipherError, Field, Sealer};
use crate::domain::credential::{Credential, Fingerprint, Sealed, StoredRefreshToken, StoredTokens};
use crate::domain::flow::{Flow, FlowSecrets};
use crate::domain::key::{CredentialKey, GrantId};
use crate::domain::provider::Provider;
use crate::domain::refresh_policy::next_refresh;
use crate::domain::scope::ScopeSet;
use crate::domain::secret::{SecretBytes, SecretString};
use crate::domain::token_set::{AccessLife, ProviderAccount};

/// Who consented and what else the provider's API needs, sealed as one JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) subject: Option<String>,
    pub(super) label: Option<String>,
    pub(super) extra: BTreeMap<String, String>,
}

impl Profile {
    pub(super) fn new(account: ProviderAccount, extra: BTreeMap<String, String>) -> Self {
        Self { subject: account.subject, label: account.label, extra }
    }

    pub(super) fn account(self) -> (ProviderAccount, BTreeMap<String, String>) {
        (ProviderAccount { subject: self.subject, label: self.label }, self.extra)
    }
}

/// Tokens of a new grant, in the clear.
pub(super) struct PlainTokens<'a> {
    pub(super) access_token: &'a SecretString,
    pub(super) refresh_token: Option<&'a SecretString>,
    pub(super) token_type: String,
    pub(super) life: AccessLife,
    pub(super) scopes: ScopeSet,
    pub(super) scopes_assumed: bool,
    pub(super) profile: Profile,
}

/// The sealed JSON of a flow. The texts are wiped on drop.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowSecretsJson {
    state: Zeroizing<String>,
    code_verifier: Zeroizing<String>,
    nonce: Zeroizing<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<Zeroizing<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flow_secret: Option<Zeroizing<String>>,
}

/// Seals one field of a record.
pub(super) fn seal_text(
    sealer: &dyn Sealer,
    binding: Binding<'_>,
    text: &SecretString,
) -> Result<Sealed, CipherError> {
    let plaintext = SecretBytes::new(text.expose_secret().as_bytes().to_vec());
    sealer.seal(binding, &plaintext)
}

pub(super) fn seal_profile(
    sealer: &dyn Sealer,
    (key, grant): (&CredentialKey, GrantId),
    profile: &Profile,
) -> Result<Sealed, CipherError> {
    // A map of texts always has a JSON form.
    let json = SecretBytes::new(serde_json::to_vec(profile).unwrap_or_default());
    sealer.seal(Binding { key, grant, field: Field::Profile }, &json)
}

impl Broker {
    /// Opens one field of a record.
    pub(super) async fn open_text(
        &self,
        key: &CredentialKey,
        grant: GrantId,
        field: Field,
        sealed: &Sealed,
    ) -> Result<SecretString, CipherError> {
        let plaintext = self.ports.cipher.open(Binding { key, grant, field }, sealed).await?;
        // Sealed as text; anything else is not what was sealed.
        std::str::from_utf8(plaintext.expose_secret())
            .map(SecretString::from)
            .map_err(|_| CipherError::DoesNotOpen)
    }

    pub(super) async fn fingerprint(
        &self,
        key: &CredentialKey,
        token: &SecretString,
    ) -> Result<Fingerprint, CipherError> {
        self.ports.cipher.fingerprint(&key.tenant, token).await
    }

    /// The first tokens of a grant.
    pub(super) async fn seal_grant(
        &self,
        sealer: &dyn Sealer,
        provider: &Provider,
        (key, grant): (&CredentialKey, GrantId),
        plain: PlainTokens<'_>,
    ) -> Result<StoredTokens, CipherError> {
        let seal = |field, text| seal_text(sealer, Binding { key, grant, field }, text);
        let access_sealed = seal(Field::AccessToken, plain.access_token)?;
        let refresh = match plain.refresh_token {
            None => None,
            Some(token) => Some(StoredRefreshToken {
                sealed: seal(Field::RefreshToken, token)?,
                fingerprint: self.fingerprint(key, token).await?,
                parent_fingerprint: None,
                epoch: 0,
            }),
        };
        let [random] = self.random::<1>();
        let next_refresh_at = next_refresh(plain.life, self.refresh_policy(provider), random);
        Ok(StoredTokens {
            access_sealed,
            access_life: plain.life,
            token_type: plain.token_type,
            refresh,
            profile_sealed: seal_profile(sealer, (key, grant), &plain.profile)?,
            scopes: plain.scopes,
            scopes_assumed: plain.scopes_assumed,
            next_refresh_at: next_refresh_at.filter(|_| plain.refresh_token.is_some()),
        })
    }

    pub(super) async fn open_profile(
        &self,
        credential: &Credential,
        tokens: &StoredTokens,
    ) -> Result<Profile, CipherError> {
        let binding = Binding { key: &credential.key, grant: credential.grant_id, field: Field::Profile };
        let json = self.ports.cipher.open(binding, &tokens.profile_sealed).await?;
        serde_json::from_slice(json.expose_secret()).map_err(|_| CipherError::DoesNotOpen)
    }

    pub(super) async fn seal_flow_secrets(
        &self,
        key: &CredentialKey,
        grant: GrantId,
        secrets: &FlowSecrets,
    ) -> Result<Sealed, BrokerError> {
        let text = |s: &SecretString| Zeroizing::new(s.expose_secret().to_owned());
        let json = FlowSecretsJson {
            state: text(&secrets.state),
            code_verifier: text(&secrets.code_verifier),
            nonce: text(&secrets.nonce),
            link: secrets.link.as_ref().map(text),
            flow_secret: secrets.flow_secret.as_ref().map(text),
        };
        let json = SecretBytes::new(serde_json::to_vec(&json).map_err(|_| BrokerError::Internal)?);
        let binding = Binding { key, grant, field: Field::FlowSecrets };
        Ok(self.ports.cipher.seal(binding, &json).await?)
    }

    pub(super) async fn open_flow_secrets(&self, flow: &Flow) -> Result<FlowSecrets, CipherError> {
        let binding = Binding { key: &flow.key, grant: flow.grant_id, field: Field::FlowSecrets };
        let json = self.ports.cipher.open(binding, &flow.secrets_sealed).await?;
        let json: FlowSecretsJson =
            serde_json::from_slice(json.expose_secret()).map_err(|_| CipherError::DoesNotOpen)?;
        Ok(FlowSecrets {
            state: SecretString::from(json.state.as_str()),
            code_verifier: SecretString::from(json.code_verifier.as_str()),
            nonce: SecretString::from(json.nonce.as_str()),
            link: json.link.as_ref().map(|text| SecretString::from(text.as_str())),
            flow_secret: json.flow_secret.as_ref().map(|text| SecretString::from(text.as_str())),
        })
    }
}
