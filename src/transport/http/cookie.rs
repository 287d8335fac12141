//! The one cookie: a browser's key for a flow whose page it has opened. By it the browser is known again when it comes back
//! from a provider or a sign-in.
//!
//! Where browsers come by https its name begins with `__Host-`, so that no other host can set it and no network can read or
//! replace it; on a loopback address there is no https to rely on. `SameSite=Lax`: it comes along when a provider sends the
//! browser back, and never with a form that another site sends.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::application::types::BrowserKeys;
use crate::domain::key::FlowId;
use crate::domain::secret::SecretString;

const NAME: &str = "tb-";
const HOST_NAME: &str = "__Host-tb-";
/// So many are read at most: a browser with more is no person's.
const MAX_KEYS: usize = 64;

fn name(https: bool) -> &'static str {
    if https { HOST_NAME } else { NAME }
}

/// The keys that a request shows. What is no cookie of ours is skipped.
pub(super) fn read(headers: &HeaderMap, https: bool) -> BrowserKeys {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter_map(|(cookie, value)| {
            let flow = FlowId::parse(cookie.strip_prefix(name(https))?)?;
            Some((flow, SecretString::from(value)))
        })
        .take(MAX_KEYS)
        .collect()
}

/// The header that keeps a key for as long as its link works. `None`: the key is no cookie value, which none of ours is.
pub(super) fn set(flow: FlowId, key: &SecretString, seconds: u64, https: bool) -> Option<HeaderValue> {
    let secure = if https { "; Secure" } else { "" };
    let name = name(https);
    let text = format!(
        "{name}{flow}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}",
        key.expose_secret()
    );
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = "0190f0a8-0000-4000-8000-00000000002a";

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::try_from(*line).unwrap());
        }
        headers
    }

    fn key(lines: &[&str], https: bool) -> Option<String> {
        let keys = read(&headers(lines), https);
        keys.get(FlowId::parse(FLOW).unwrap()).map(|key| key.expose_secret().to_owned())
    }

    #[test]
    fn what_is_set_is_read_again() {
        for https in [true, false] {
            let flow = FlowId::parse(FLOW).unwrap();
            let set = set(flow, &SecretString::from("secret"), 600, https).unwrap();
            let text = set.to_str().unwrap();
            let (pair, rest) = text.split_once("; ").unwrap();
            assert_eq!(key(&["a=b", &format!("x=y; {pair}; z")], https).as_deref(), Some("secret"));
            let secure = if https { "; Secure" } else { "" };
            assert_eq!(rest, format!("Path=/; HttpOnly; SameSite=Lax; Max-Age=600{secure}"));
            assert!(!format!("{set:?}").contains("secret"), "it does not print");
        }
    }

    #[test]
    fn a_cookie_that_another_host_could_set_is_none() {
        let plain = format!("tb-{FLOW}=secret");
        assert_eq!(key(&[&plain], true), None);
        assert_eq!(key(&[&format!("__Host-{plain}")], false), None);
        assert_eq!(key(&["tb-x=1", "=", "tb-=", ""], false), None);
    }
}
