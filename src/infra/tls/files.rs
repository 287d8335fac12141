//! The PEM files, read as one: what is in force is always of one reading.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{TlsError, TlsSettings};
use crate::domain::key::append_length_prefixed;
use crate::domain::spiffe::TrustDomain;

/// Their contents.
pub(super) struct Files {
    certificate: (PathBuf, Vec<u8>),
    key: (PathBuf, Zeroizing<Vec<u8>>),
    bundles: Vec<(TrustDomain, PathBuf, Vec<u8>)>,
}

impl Files {
    pub(super) fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let bundle = |(domain, path): &(TrustDomain, PathBuf)| {
            read(path).map(|bytes| (domain.clone(), path.clone(), bytes))
        };
        Ok(Self {
            certificate: (settings.certificate.clone(), read(&settings.certificate)?),
            key: (settings.key.clone(), Zeroizing::new(read(&settings.key)?)),
            bundles: settings.trust_domains.iter().map(bundle).collect::<Result<_, _>>()?,
        })
    }

    /// Equal if and only if the contents are. Times of files are no measure: a mounted secret changes by a link, and a file
    /// can change twice in one tick of the file system's clock.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut all = Zeroizing::new(Vec::new());
        let bundles = self.bundles.iter().map(|(_, _, bytes)| bytes);
        for content in [&self.certificate.1, &*self.key.1].into_iter().chain(bundles) {
            append_length_prefixed(&mut all, content);
        }
        Sha256::digest(&*all).into()
    }

    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.certificate.0, &self.certificate.1)
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.key.1).map_err(|_| TlsError::NoKey(self.key.0.clone()))
    }

    pub(super) fn bundles(
        &self,
    ) -> impl Iterator<Item = Result<(TrustDomain, Vec<CertificateDer<'static>>), TlsError>> {
        self.bundles.iter().map(|(domain, path, bytes)| Ok((domain.clone(), certificates(path, bytes)?)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

/// At least one, and all of them: half a bundle would refuse half of the workloads without a word.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| TlsError::NoCertificate(path.to_owned()))
}
