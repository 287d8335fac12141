//! From names to addresses, once for each connection: what was checked is what is connected to, so a name that resolves to
//! something else a moment later (DNS rebinding) gains nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::{Guard, Reach};

/// Asks for the addresses of a name.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// All addresses, best first.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// The name resolves to an address that may not be reached.
#[derive(Debug, thiserror::Error)]
#[error("the host resolves to an address in this network, and is not among outbound.allow_private")]
pub(super) struct RefusedAddress;

/// Looks up and checks. It is a client's only way from a name to an address.
pub(super) struct GuardedResolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) guard: Arc<Guard>,
    pub(super) reach: Reach,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, guard, reach) = (Arc::clone(&self.lookup), Arc::clone(&self.guard), self.reach);
        Box::pin(async move {
            let addresses = lookup.lookup(name.as_str()).await?;
            // One is enough: a public address beside a private one is how rebinding is set up.
            if addresses.iter().any(|address| !guard.admits(name.as_str(), *address, reach)) {
                tracing::warn!(
                    host = name.as_str(),
                    "not called: the host was named by somebody else's document and resolves to an address in this network; outbound.allow_private allows it"
                );
                return Err(RefusedAddress.into());
            }
            // Port 0 stands for the URL's.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}
