//! `[callers.<id>]`: who may call, and what they may do.

use std::collections::BTreeMap;

use super::reader::Section;
use super::rules;
use super::values::sha256_hex;
use crate::domain::access_policy::Caller;
use crate::domain::admin_policy::AdminRights;
use crate::domain::caller_store::MAX_RULES;
use crate::domain::key::{CallerId, TenantId};

/// A caller and what it authenticates with.
#[derive(Debug, Clone)]
pub struct CallerEntry {
    /// Id, tenant and rights.
    pub caller: Caller,
    /// SHA-256 of its API keys; never empty, and no two callers share one.
    pub key_hashes: Vec<[u8; 32]>,
}

/// The tenant of a caller that names none.
const DEFAULT_TENANT: &str = "default";

pub(super) fn read(section: &Section<'_>) -> Option<Vec<CallerEntry>> {
    let mut owners = BTreeMap::new();
    let entries: Vec<_> = section
        .named_sections()
        .into_iter()
        .map(|(id, section)| read_entry(&id, &section, &mut owners))
        .collect();
    section.finish();
    entries.into_iter().collect()
}

fn read_entry(
    name: &str,
    section: &Section<'_>,
    owners: &mut BTreeMap<[u8; 32], String>,
) -> Option<CallerEntry> {
    let id = CallerId::new(name).map_err(|e| section.problem(format!("the name of a caller {e}"))).ok();
    let tenant = section.optional("tenant");
    let tenant = if tenant.is_set() {
        tenant.parsed(|text| TenantId::new(text))
    } else {
        TenantId::new(DEFAULT_TENANT).ok()
    };
    let keys = section.required("key_sha256");
    let key_hashes = keys.list(sha256_hex);
    if key_hashes.as_ref().is_some_and(Vec::is_empty) {
        keys.problem("needs at least one hash (`token-broker callers new` makes one)");
    }
    for (index, hash) in key_hashes.iter().flatten().enumerate() {
        if let Some(owner) = owners.insert(*hash, name.to_owned()) {
            keys.problem(format!(
                "hash {index} is also a key of callers.{owner}: a key belongs to one caller"
            ));
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
    })
}
