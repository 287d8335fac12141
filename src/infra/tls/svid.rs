//! What a client's certificate says: an X509-SVID (the SPIFFE X509-SVID standard, sections 2, 4 and 5.2) names one workload.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::domain::spiffe::SpiffeId;

/// The content of a certificate whose signatures somebody else has verified, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// Whose it is.
    pub id: SpiffeId,
    /// Until when it is valid, to the second.
    pub not_after: Timestamp,
}

/// Why a certificate is no SVID. Fixed words: nothing of the certificate is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SvidProblem {
    /// It can't be read.
    #[error("it is not a certificate, or has an extension that cannot be read or comes twice")]
    Unreadable,
    /// Section 2: an SVID has exactly one URI in its subject alternative name.
    #[error("it does not have exactly one URI in its subject alternative name")]
    NotOneUri,
    /// Section 2: and that is a SPIFFE id.
    #[error("its URI is not the SPIFFE id of a workload")]
    NotAnId,
    /// Section 4.1: a leaf is no authority.
    #[error("it is an authority's")]
    Authority,
    /// Section 4.3: a leaf signs messages, and neither certificates nor revocation lists.
    #[error("its key usage is missing, lacks digitalSignature, or allows to sign certificates")]
    KeyUsage,
}

/// Reads the certificate of a client.
pub fn read(der: &[u8]) -> Result<Svid, SvidProblem> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| SvidProblem::Unreadable)?;
    if !rest.is_empty() {
        return Err(SvidProblem::Unreadable);
    }
    // Each fails if the extension comes twice.
    let constraints = certificate.basic_constraints().map_err(|_| SvidProblem::Unreadable)?;
    let usage = certificate.key_usage().map_err(|_| SvidProblem::Unreadable)?;
    let names = certificate.subject_alternative_name().map_err(|_| SvidProblem::Unreadable)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(SvidProblem::Authority);
    }
    let usage = usage.ok_or(SvidProblem::KeyUsage)?.value;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidProblem::KeyUsage);
    }
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Ok(*uri)),
        GeneralName::Invalid(..) => Some(Err(SvidProblem::Unreadable)),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(SvidProblem::NotOneUri) };
    let id = SpiffeId::parse(uri?).map_err(|_| SvidProblem::NotAnId)?;
    let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp());
    Ok(Svid { id, not_after: not_after.map_err(|_| SvidProblem::Unreadable)? })
}
