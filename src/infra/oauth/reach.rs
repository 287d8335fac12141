//! Who named a URL: the operator, or a document of the provider's.

use url::{Origin, Url};

use crate::domain::loopback::is_loopback;
use crate::domain::provider::{EndpointSource, Provider, Revocation};
use crate::infra::outbound::Reach;

/// An origin that the operator wrote down is reached as such. Every other comes from a document: of an issuer, now or when a
/// flow was recorded. Those may lead to this machine only if the operator has put the provider there, as in a demo.
pub(super) fn reach(provider: &Provider, url: &Url) -> Reach {
    by_origins(&operators_own(provider), &url.origin())
}

/// The same for a URL in the metadata of an issuer.
pub(super) fn of_issuer(issuer: &Url, url: &Url) -> Reach {
    by_origins(std::slice::from_ref(issuer), &url.origin())
}

fn by_origins(own: &[Url], origin: &Origin) -> Reach {
    if own.iter().any(|url| url.origin() == *origin) {
        Reach::Configured
    } else {
        Reach::Discovered { loopback: own.iter().any(is_loopback) }
    }
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
