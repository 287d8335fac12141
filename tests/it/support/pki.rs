//! Certificate authorities for tests, and what they sign.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// An authority of its own.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

/// A certificate with its key, both PEM. The chain is complete but for the root.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    /// For whoever trusts it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A workload's certificate, changed as told.
    pub(crate) fn issue(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = svid(id);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        Leaf { chain: certificate.pem(), key: key.serialize_pem() }
    }

    /// A workload's certificate as it should be.
    pub(crate) fn svid(&self, id: &str) -> Leaf {
        self.issue(id, |_| {})
    }

    /// The same below an intermediate authority.
    pub(crate) fn svid_below(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut below = Self::new("intermediate");
        change(&mut below.params);
        let intermediate =
            below.params.signed_by(&below.key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let leaf = below.svid(id);
        Leaf { chain: format!("{}{}", leaf.chain, intermediate.pem()), key: leaf.key }
    }

    /// A server's certificate, for `localhost`.
    pub(crate) fn server(&self) -> Leaf {
        self.issue("spiffe://broker.test/broker", |params| {
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }
}

/// A certificate that nobody has signed but its owner.
pub(crate) fn self_signed(id: &str) -> Leaf {
    let key = KeyPair::generate().unwrap();
    Leaf { chain: svid(id).self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn svid(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "workload");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(id)];
    params
}

/// A URI among the subject's alternative names.
pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}
