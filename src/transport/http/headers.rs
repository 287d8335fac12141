//! What goes with every page: nothing is loaded from anywhere, nothing is kept, nothing is framed, nothing is told to
//! the next site. The address of a callback page holds a spent code, which is why the referrer and the cache matter.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::page::STYLE;

const COOP: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

/// The hash by which pages name their one style sheet.
static STYLE_HASH: LazyLock<String> = LazyLock::new(|| STANDARD.encode(Sha256::digest(STYLE.as_bytes())));

/// One style sheet, named by its hash; no script, image, font, frame or base at all.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| policy("'none'"));

/// The same with forms that go to `targets`.
fn policy(targets: &str) -> HeaderValue {
    let hash = &*STYLE_HASH;
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action {targets}; frame-ancestors 'none'"
    );
    // Base64, origins and the fixed text are visible ASCII; without a policy of its own a page would get the strictest.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// A page whose form goes to the broker itself, which then sends the browser to a page elsewhere. Chromium applies the policy
/// to every redirect behind a form, and providers redirect between hosts of their own: so to any host by https, and to the
/// named one if it is on this machine.
fn policy_with_form(next: &Url) -> HeaderValue {
    match next.scheme() {
        "https" => policy("'self' https:"),
        _ => policy(&format!("'self' https: {}", next.origin().ascii_serialization())),
    }
}

/// Adds them. `https`: browsers reach the listener by https, and shall never come by http again. `next`: where the page's form
/// leads to in the end, if it has one.
pub(super) fn add_to(headers: &mut HeaderMap, https: bool, next: Option<&Url>) {
    let fixed = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (COOP, "same-origin"),
        (CORP, "same-origin"),
        (
            PERMISSIONS_POLICY,
            "accelerometer=(), camera=(), geolocation=(), gyroscope=(), microphone=(), payment=(), usb=()",
        ),
        (ROBOTS, "noindex, nofollow"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_SECURITY_POLICY, next.map_or_else(|| POLICY.clone(), policy_with_form));
    if https {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}
