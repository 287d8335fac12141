//! `[callers.<id>]`: who may call, and what they may do.

use std::collections::HashMap;

use super::reader::{AnyOr, Key, Section};
use super::rules;
use super::values::sha256_hex;
use crate::domain::access_policy::{Caller, Identity};
use crate::domain::admin_policy::AdminRights;
use crate::domain::caller_store::MAX_RULES;
use crate::domain::key::{CallerId, TenantId};
use crate::domain::spiffe::SpiffeId;

/// A caller and what it authenticates with.
#[derive(Debug, Clone)]
pub struct CallerEntry {
    /// Id, tenant and rights.
    pub caller: Caller,
    /// SHA-256 of its API keys; no two callers share one.
    pub key_hashes: Vec<[u8; 32]>,
    /// What it is beside them: SPIFFE ids, and subjects of issuers. No two callers share one.
    pub identities: Vec<Identity>,
}

/// The tenant of a caller that names none.
const DEFAULT_TENANT: &str = "default";

pub(super) fn read(section: &Section<'_>) -> Option<Vec<CallerEntry>> {
    let mut owners = HashMap::new();
    section.entries(|id, section| read_entry(id, section, &mut owners))
}

fn read_entry(
    name: &str,
    section: &Section<'_>,
    owners: &mut HashMap<Identity, String>,
) -> Option<CallerEntry> {
    let id = CallerId::new(name).map_err(|e| section.problem(format!("the name of a caller {e}"))).ok();
    let tenant = section.optional("tenant");
    let tenant = if tenant.is_set() {
        tenant.parsed(|text| TenantId::new(text))
    } else {
        TenantId::new(DEFAULT_TENANT).ok()
    };
    let (ids, subjects) = (section.optional("spiffe_ids"), section.optional("subjects"));
    let others = ids.is_set() || subjects.is_set();
    let keys = if others { section.optional("key_sha256") } else { section.required("key_sha256") };
    let key_hashes = if keys.is_set() { keys.list(sha256_hex) } else { Some(Vec::new()).filter(|_| others) };
    if key_hashes.as_ref().is_some_and(Vec::is_empty) && !others {
        keys.problem("needs at least one hash (`token-broker callers new` makes one)");
    }
    for (index, hash) in key_hashes.iter().flatten().enumerate() {
        if let Some(owner) = owners.insert(Identity::ApiKey(*hash), name.to_owned()) {
            keys.problem(format!(
                "hash {index} is also a key of callers.{owner}: a key belongs to one caller"
            ));
        }
    }
    let spiffe_ids =
        rights(&ids, |key| key.parsed(SpiffeId::parse).map(|id| Identity::SpiffeId(id.as_str().to_owned())));
    let named = rights(&subjects, |key| {
        let [issuer, subject] = key.fields(["issuer", "subject"])?;
        let (issuer, subject) = (issuer.text(), subject.text());
        Some(Identity::Subject { issuer: issuer?, subject: subject? })
    });
    let mut identities = Vec::new();
    for (key, read) in [(&ids, spiffe_ids), (&subjects, named)] {
        let AnyOr::These(read) = read? else {
            key.problem("must be a list: a caller is who it is, and not anybody");
            return None;
        };
        for identity in read {
            if let Some(owner) = owners.insert(identity.clone(), name.to_owned()) {
                key.problem(format!(
                    "one is also that of callers.{owner}: an identity belongs to one caller"
                ));
            }
            identities.push(identity);
        }
    }
    // What is not written is not allowed.
    let rules: Vec<_> = section.sections("allow").iter().map(rules::read).collect();
    if rules.len() > MAX_RULES {
        section.problem(format!("must have at most {MAX_RULES} rules"));
    }
    let admin = rules::read_admin(&section.optional("admin"));
    let all_tenants = section.optional("all_tenants");
    let all_tenants = if all_tenants.is_set() { all_tenants.boolean() } else { Some(false) };
    section.finish();
    Some(CallerEntry {
        caller: Caller {
            id: id?,
            tenant: tenant?,
            rules: rules.into_iter().collect::<Option<_>>()?,
            admin: AdminRights { actions: admin?, all_tenants: all_tenants? },
            suspension: None,
        },
        key_hashes: key_hashes?,
        identities,
    })
}

fn rights<T>(key: &Key<'_>, item: impl Fn(&Key<'_>) -> Option<T>) -> Option<AnyOr<Vec<T>>> {
    if key.is_set() { key.any_or(item) } else { Some(AnyOr::These(Vec::new())) }
}
