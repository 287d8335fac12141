//! `[spiffe.trust_domains."<domain>"]`: whose workloads may show X509-SVIDs and JWT-SVIDs.

use std::path::PathBuf;

use super::grpc::Grpc;
use super::issuers::{KeyPlace, key_url, plain};
use super::reader::Section;
use crate::domain::spiffe::TrustDomain;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct TrustDomainEntry {
    /// Its name.
    pub domain: TrustDomain,
    /// PEM file with the authorities of its certificates; `None`: its workloads show none.
    pub bundle_file: Option<PathBuf>,
    /// For its JWT-SVIDs; `None`: its workloads show none.
    pub jwt: Option<JwtBundle>,
}

/// What it takes to verify JWT-SVIDs.
#[derive(Debug, Clone)]
pub struct JwtBundle {
    /// Where the keys are; never discovered.
    pub keys: KeyPlace,
    /// PEM file with the authorities that the server of the keys is verified with, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The token has to name one of these; never empty.
    pub audiences: Vec<String>,
}

pub(super) fn read(section: &Section<'_>, grpc: Option<&Grpc>) -> Option<Vec<TrustDomainEntry>> {
    let domains = section.section("trust_domains");
    let entries: Vec<_> = domains
        .named_sections()
        .into_iter()
        .map(|(name, section)| read_entry(&name, &section, grpc))
        .collect();
    domains.finish();
    section.finish();
    entries.into_iter().collect()
}

fn read_entry(name: &str, section: &Section<'_>, grpc: Option<&Grpc>) -> Option<TrustDomainEntry> {
    let domain =
        TrustDomain::new(name).map_err(|e| section.problem(format!("the name of a trust domain {e}"))).ok();
    let bundle = section.optional("bundle_file");
    let bundle_file = bundle.path();
    if bundle.is_set() && grpc.is_some_and(|grpc| grpc.tls.is_none()) {
        bundle.problem(
            "is of no use without grpc.tls_certificate_file: clients show certificates by TLS alone",
        );
    }
    let jwt = read_jwt(section);
    if !bundle.is_set() && matches!(jwt, Some(None)) {
        section.problem("needs bundle_file, jwt_bundle_file or jwt_bundle_url");
    }
    section.finish();
    Some(TrustDomainEntry { domain: domain?, bundle_file, jwt: jwt? })
}

/// `None`: a mistake. `Some(None)`: there is none.
#[expect(clippy::option_option, reason = "the outer one is that of every section")]
fn read_jwt(section: &Section<'_>) -> Option<Option<JwtBundle>> {
    let (file_key, url_key) = (section.optional("jwt_bundle_file"), section.optional("jwt_bundle_url"));
    let (file, url) = (file_key.path(), url_key.parsed(key_url));
    let ca_file = section.optional("jwt_ca_file").path();
    let audiences_key = section.optional("jwt_audiences");
    let audiences = audiences_key.list(|text| plain(text).map(str::to_owned));
    let keys = match (file_key.is_set(), url_key.is_set()) {
        (false, false) => {
            if audiences_key.is_set() {
                audiences_key.problem("is of no use without jwt_bundle_file or jwt_bundle_url");
                return None;
            }
            return Some(None);
        }
        (true, false) => KeyPlace::File(file?),
        (false, true) => KeyPlace::Url(url?),
        (true, true) => {
            section.problem("has more than one of jwt_bundle_file and jwt_bundle_url");
            return None;
        }
    };
    if !audiences_key.is_set() || audiences.as_ref().is_some_and(Vec::is_empty) {
        audiences_key.problem("needs at least one: a token for somebody else would be good here");
        return None;
    }
    Some(Some(JwtBundle { keys, ca_file, audiences: audiences? }))
}
