//! Whether a client's certificate is what it says: signed under the bundle of the trust domain that its own id names, and of
//! no other. One pool of all authorities would let each of them speak for every trust domain.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::TlsError;
use super::svid;
use crate::domain::spiffe::TrustDomain;

/// Accepts the workloads of some trust domains.
#[derive(Debug)]
pub(super) struct SvidVerifier {
    domains: HashMap<TrustDomain, Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl SvidVerifier {
    /// Over these bundles. `mandatory`: nobody comes in without a certificate.
    pub(super) fn new(
        bundles: Vec<(TrustDomain, Vec<CertificateDer<'static>>)>,
        mandatory: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut domains = HashMap::new();
        let mut hints = Vec::new();
        for (domain, authorities) in bundles {
            let bad = || TlsError::BadBundle(domain.clone());
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority).map_err(|_| bad())?;
            }
            hints.extend(roots.subjects());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|_| bad())?;
            domains.insert(domain, verifier);
        }
        Ok(Self { domains, hints, mandatory, provider: Arc::clone(provider) })
    }
}

impl ClientCertVerifier for SvidVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let svid = svid::read(end_entity).map_err(|problem| {
            tracing::info!(%problem, "a client's certificate was refused");
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        })?;
        let domain = self.domains.get(svid.id.trust_domain()).ok_or_else(|| {
            tracing::info!(id = %svid.id, "a client's certificate was refused: its trust domain is not configured");
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
        })?;
        domain.verify_client_cert(end_entity, intermediates, now).inspect_err(|error| {
            tracing::info!(id = %svid.id, %error, "a client's certificate was refused");
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
