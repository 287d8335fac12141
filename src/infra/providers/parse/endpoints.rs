//! `[endpoints]` and `[identity]`.

use super::super::definition::EndpointTemplates;
use super::super::reader::{Report, Section};
use super::values;
use super::variables::Variables;
use crate::domain::provider::{AccountPointers, Identity, Userinfo};

/// `[endpoints]`
pub(super) fn endpoints(
    report: &mut Report<'_>,
    root: &mut Section<'_, '_>,
    variables: &mut Variables,
) -> Option<EndpointTemplates> {
    let mut section = root.section(report, "endpoints");
    let discovery = section.flag(report, "discovery").unwrap_or(false);
    let endpoints = if discovery {
        discovered(report, &mut section, variables)
    } else {
        literal(report, &mut section, variables)
    };
    section.finish(report);
    endpoints
}

fn discovered(
    report: &mut Report<'_>,
    section: &mut Section<'_, '_>,
    variables: &mut Variables,
) -> Option<EndpointTemplates> {
    let issuer = section.required_text(report, "issuer", "whose metadata is fetched");
    let issuer = issuer.and_then(|issuer| variables.issuer(report, &issuer));
    for key in ["authorization", "token", "revocation", "userinfo"] {
        if let Some(text) = section.text(report, key) {
            report.at(&text, "comes from the issuer's metadata; drop it, or discovery");
        }
    }
    if section.flag(report, "iss_required").is_some() {
        section.report(report, "iss_required comes from the issuer's metadata; drop it, or discovery");
    }
    Some(EndpointTemplates::Discovered { issuer: issuer? })
}

fn literal(
    report: &mut Report<'_>,
    section: &mut Section<'_, '_>,
    variables: &mut Variables,
) -> Option<EndpointTemplates> {
    let hint = "a URL, or discovery = true with an issuer";
    let authorization = section.required_text(report, "authorization", hint);
    let authorization = authorization.and_then(|text| variables.url(report, &text));
    let token = section.required_text(report, "token", hint);
    let token = token.and_then(|text| variables.url(report, &text));
    let revocation = section.text(report, "revocation").and_then(|text| variables.url(report, &text));
    let userinfo = section.text(report, "userinfo").and_then(|text| variables.url(report, &text));
    let issuer = section.text(report, "issuer").and_then(|text| variables.issuer(report, &text));
    let iss_required = section.flag(report, "iss_required").unwrap_or(false);
    if iss_required && !section.has("issuer") {
        section.missing(report, "issuer", "what the iss parameter is compared with (RFC 9207)");
    }
    Some(EndpointTemplates::Literal {
        issuer,
        iss_required,
        authorization: authorization?,
        token: token?,
        revocation,
        userinfo,
    })
}

/// `[identity]`
pub(super) fn identity(
    report: &mut Report<'_>,
    root: &mut Section<'_, '_>,
    endpoints: Option<&EndpointTemplates>,
    openid: bool,
) -> Identity {
    let mut section = root.section(report, "identity");
    let id_token = section.flag(report, "id_token").unwrap_or(openid);
    if id_token && matches!(endpoints, Some(EndpointTemplates::Literal { issuer: None, .. })) {
        section.report(report, "an ID token is compared with endpoints.issuer, which is missing");
    }
    let token_response = account(report, &mut section, "token_response", None);

    // If the endpoints have mistakes, whether there is one for userinfo is unknown: no follow-up mistakes.
    let endpoint = !matches!(endpoints, Some(EndpointTemplates::Literal { userinfo: None, .. }));
    if section.has("userinfo") && !endpoint {
        section.report(report, "userinfo needs endpoints.userinfo");
    }
    let pointers = account(report, &mut section, "userinfo", Some("/sub"));
    section.finish(report);
    let userinfo = pointers.filter(|_| endpoint).map(|pointers| Userinfo { url: None, pointers });
    Identity { id_token, token_response, userinfo }
}

/// Pointers to subject and label; the defaults are the claims of OpenID Connect Core section 5.1. Without a default
/// subject, an absent table is `None`.
fn account(
    report: &mut Report<'_>,
    identity: &mut Section<'_, '_>,
    key: &'static str,
    default_subject: Option<&str>,
) -> Option<AccountPointers> {
    let mut section = identity.section(report, key);
    if !section.is_present() && default_subject.is_none() {
        return None;
    }
    let subject = match default_subject {
        Some(default) if !section.has("subject") => Some(default.to_owned()),
        _ => section
            .required_text(report, "subject", "the pointer to the account's stable identifier")
            .and_then(|text| values::pointer(report, &text)),
    };
    let default_label: &[&str] =
        if default_subject.is_some() { &["/email", "/preferred_username", "/name"] } else { &[] };
    let label = values::pointers(report, &mut section, "label", default_label);
    section.finish(report);
    Some(AccountPointers { subject: subject?, label })
}
