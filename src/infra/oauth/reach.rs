//! Who named a URL: the operator, or a document of the provider's.

use url::Url;

use crate::domain::provider::{EndpointSource, Provider, Revocation};
use crate::infra::outbound::Reach;

/// Of the operator's own are the URLs of the provider's definition and registration. A flow that recorded others when it began
/// had them from a document.
pub(super) fn reach(provider: &Provider, url: &Url) -> Reach {
    Reach::by_origin(&operators_own(provider), url)
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
