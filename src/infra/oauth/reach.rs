//! Who named a URL: the operator, or a document of the provider's.

use url::Url;

use crate::domain::provider::{EndpointSource, Provider, Revocation};
use crate::infra::outbound::{Guard, Reach};

/// Of the operator's own are the URLs of the provider's definition and registration. A flow that recorded others when it began
/// had them from a document. What a tenant has named is nobody's word: it leads to public addresses only.
pub(super) fn reach(provider: &Provider, url: &Url) -> Reach {
    if is_named_by_tenant(provider, url) {
        return Reach::Discovered { loopback: false };
    }
    let mut own = operators_own(provider);
    own.retain(|own| !is_named_by_tenant(provider, own));
    Reach::by_origin(&own, url)
}

fn named_by_tenant(provider: &Provider) -> impl Iterator<Item = &Url> {
    provider.own.iter().flat_map(|own| &own.named_by_tenant)
}

fn is_named_by_tenant(provider: &Provider, url: &Url) -> bool {
    named_by_tenant(provider).any(|named| named.origin() == url.origin())
}

/// Whether the URLs that a tenant has named may be sent to, as far as they say themselves: https, and no address inside.
/// Whatever they resolve to is looked at with each connection.
#[must_use]
pub fn admits_tenants_own(provider: &Provider, guard: &Guard) -> bool {
    let mut named = named_by_tenant(provider);
    named.all(|url| url.scheme() == "https" && guard.admits_url(url, Reach::Discovered { loopback: false }))
}

fn operators_own(provider: &Provider) -> Vec<Url> {
    let mut own = Vec::new();
    match &provider.endpoints {
        EndpointSource::Literal(written) => {
            own.extend([written.authorization.clone(), written.token.clone()]);
            own.extend(written.revocation.iter().chain(&written.userinfo).cloned());
        }
        EndpointSource::Discovered { issuer } => own.extend(Url::parse(issuer).ok()),
    }
    own.extend(provider.identity.userinfo.iter().filter_map(|userinfo| userinfo.url.clone()));
    if let Revocation::Call(call) = &provider.revocation {
        own.extend(Url::parse(&call.url).ok());
    }
    own
}
