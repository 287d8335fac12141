//! `[revocation]`

use super::super::definition::{EndpointTemplates, RevocationTemplate};
use super::super::reader::{Report, Section};
use super::variables::Variables;
use crate::domain::provider::{BodyFormat, RevocationAuth, RevocationCall, RevocationMethod, RevokedToken};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rfc7009,
    Call,
    None,
}

/// `[revocation]`
pub(super) fn revocation(
    report: &mut Report<'_>,
    root: &mut Section<'_, '_>,
    endpoints: Option<&EndpointTemplates>,
    variables: &mut Variables,
) -> Option<RevocationTemplate> {
    let mut section = root.section(report, "revocation");
    let kinds = [("rfc7009", Kind::Rfc7009), ("call", Kind::Call), ("none", Kind::None)];
    let has_kind = section.has("kind");
    let kind = section.word(report, "kind", &kinds).map(|kind| kind.value);
    let tokens = [("refresh_else_access", RevokedToken::RefreshElseAccess), ("access", RevokedToken::Access)];
    let token = section.word(report, "token", &tokens);
    let token = token.map_or(RevokedToken::RefreshElseAccess, |token| token.value);
    let written = matches!(endpoints, Some(EndpointTemplates::Literal { revocation: Some(_), .. }));
    let discovered = matches!(endpoints, Some(EndpointTemplates::Discovered { .. }));

    let kind = match kind {
        None if !has_kind && (written || discovered) => Some(Kind::Rfc7009),
        // Whether there is an endpoint is unknown if [endpoints] has mistakes: no follow-up mistakes then.
        None if !has_kind && endpoints.is_some() => {
            let hint = "\"none\" if the provider has no revocation, \"call\" for a call of its own, or endpoints.revocation";
            section.missing(report, "kind", hint);
            None
        }
        kind => kind,
    };
    match kind {
        Some(Kind::Rfc7009) if endpoints.is_some() && !written && !discovered => {
            section.report(report, "kind \"rfc7009\" needs endpoints.revocation");
        }
        Some(Kind::Call | Kind::None) if written => {
            section.report(report, "endpoints.revocation is for kind \"rfc7009\"; drop one of the two");
        }
        _ => {}
    }
    let revocation = match kind? {
        Kind::Rfc7009 => Some(RevocationTemplate::Rfc7009 { token }),
        Kind::None => Some(RevocationTemplate::NotSupported),
        Kind::Call => call(report, &mut section, token, variables),
    };
    section.finish(report);
    revocation
}

fn call(
    report: &mut Report<'_>,
    section: &mut Section<'_, '_>,
    token: RevokedToken,
    variables: &mut Variables,
) -> Option<RevocationTemplate> {
    let url = section.required_text(report, "url", "where the call goes");
    let url = url.and_then(|text| variables.url_with_client(report, &text));
    let methods = [
        ("POST", RevocationMethod::Post),
        ("DELETE", RevocationMethod::Delete),
        ("GET", RevocationMethod::Get),
    ];
    let method = section.word(report, "method", &methods);
    let method = method.map_or(RevocationMethod::Post, |method| method.value);
    let auths = [
        ("client_basic", RevocationAuth::ClientBasic),
        ("bearer", RevocationAuth::Bearer),
        ("client_body", RevocationAuth::ClientBody),
    ];
    if !section.has("auth") {
        section.missing(report, "auth", "one of \"client_basic\", \"bearer\", \"client_body\"");
    }
    let auth = section.word(report, "auth", &auths).map(|auth| auth.value);
    let has_param = section.has("token_param");
    let token_param = section.text(report, "token_param").map(|param| param.value);
    let bodies = [("form", BodyFormat::Form), ("json", BodyFormat::Json)];
    let body = section.word(report, "body", &bodies).map_or(BodyFormat::Form, |body| body.value);
    let (url, auth) = (url?, auth?);
    if auth != RevocationAuth::Bearer && !has_param {
        section.missing(
            report,
            "token_param",
            "the body parameter with the token (only a bearer call needs none)",
        );
    }
    // The token would have to go into the URL, and from there into logs.
    if method == RevocationMethod::Get && (has_param || auth != RevocationAuth::Bearer) {
        section.report(
            report,
            "a GET has no body: use auth = \"bearer\" without token_param, or another method",
        );
    }
    let call = RevocationCall { method, url: String::new(), auth, token, token_param, body };
    Some(RevocationTemplate::Call { call, url })
}
