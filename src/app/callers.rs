//! The callers of the configuration: beside those of the database, and never the same.

use std::sync::Arc;

use super::StartError;
use crate::application::Ports;
use crate::application::admin::ConfiguredCaller;
use crate::config::{CallerEntry, Config};
use crate::domain::access_policy::Identity;
use crate::domain::caller_store::{CallerStore, Claim, IdentityList};
use crate::domain::ports::CallerDirectory;
use crate::infra::callers::{ConfiguredCallers, Directory};

/// How much is asked of the database at a time.
const BATCH: usize = 1_000;

/// Who calls, from the configuration and from the database.
pub(super) fn directory(config: &Config, ports: &Ports) -> Arc<dyn CallerDirectory> {
    let configured = config.callers.iter().map(|entry| {
        let keys = entry.key_hashes.iter().copied().map(Identity::ApiKey);
        (entry.caller.clone(), keys.chain(entry.identities.iter().cloned()).collect())
    });
    Arc::new(Directory::new(
        ConfiguredCallers::new(configured),
        Arc::clone(&ports.callers),
        Arc::clone(&ports.tenants),
        Arc::clone(&ports.clock),
        config.authentication.cache_ttl,
    ))
}

/// As operators see them.
pub(super) fn for_operators(callers: &[CallerEntry]) -> Vec<ConfiguredCaller> {
    let view = |entry: &CallerEntry| ConfiguredCaller {
        caller: Arc::new(entry.caller.clone()),
        identities: entry.identities.iter().cloned().collect(),
    };
    callers.iter().map(view).collect()
}

/// An id and an identity are one caller's: of two, an operator would change one and the other would come in.
pub(super) async fn refuse_shared(
    callers: &[CallerEntry],
    stored: &dyn CallerStore,
) -> Result<(), StartError> {
    let claims: Vec<_> = callers.iter().flat_map(claims_of).collect();
    for batch in claims.chunks(BATCH) {
        let Some(taken) = stored.taken(batch).await?.into_iter().next() else { continue };
        let owner = callers.iter().find(|entry| claims_of(entry).any(|claim| claim == taken));
        let id = owner.map(|entry| entry.caller.id.to_string()).unwrap_or_default();
        return Err(match taken {
            Claim::Identity(identity) => {
                let list = IdentityList::of(&identity).map_or("key_sha256", IdentityList::name);
                StartError::IdentityTwice { id, list }
            }
            Claim::Id(..) => StartError::CallerTwice { id },
        });
    }
    Ok(())
}

fn claims_of(entry: &CallerEntry) -> impl Iterator<Item = Claim> {
    let id = Claim::Id(entry.caller.tenant.clone(), entry.caller.id.clone());
    std::iter::once(id).chain(entry.identities.iter().cloned().map(Claim::Identity))
}
