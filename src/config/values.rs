//! Texts that mean something: durations, URLs, keys.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use url::Url;

use crate::domain::loopback::is_loopback;
use crate::domain::secret::SecretBytes;

/// Unit and milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A whole number with a unit: ms, s, m, h or d.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*milliseconds).map(Duration::from_millis)
}

/// The shortest way to write it.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let fits = |unit: u64| milliseconds != 0 && milliseconds.is_multiple_of(u128::from(unit));
    let found = UNITS.iter().find(|(_, unit)| fits(*unit));
    found
        .map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", milliseconds / u128::from(*unit)))
}

/// A URL that browsers come to: https, or http on a loopback host; nothing but scheme, host, port and path.
pub(super) fn web_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "must be a URL, as \"https://broker.example.com\"")?;
    let secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    if !secure {
        return Err("must begin with https:// (http:// is allowed on a loopback host only)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or fragment");
    }
    Ok(url)
}

/// 32 bytes as base64 (either alphabet, with or without padding) or hex.
pub(super) fn key_bytes(text: &str) -> Result<SecretBytes, &'static str> {
    let decoded = if text.len() == 64 {
        hex::decode(text).ok()
    } else {
        [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|e| e.decode(text).ok())
    };
    // Wiped even if it is of the wrong length.
    match decoded.map(SecretBytes::new) {
        Some(bytes) if bytes.expose_secret().len() == 32 => Ok(bytes),
        _ => Err("is not a key: 32 random bytes as base64 or hex are needed (`openssl rand -base64 32`)"),
    }
}

/// A SHA-256 hash as 64 lower-case hex digits.
pub(super) fn sha256_hex(text: &str) -> Result<[u8; 32], &'static str> {
    let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let decoded = hex::decode(text).ok().filter(|_| lower);
    decoded
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or("must be a SHA-256 hash as 64 lower-case hex digits (not the key itself)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("7d"), Some(Duration::from_hours(168)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for bad in
            ["", "5", "s", "-5s", "5 s", "1.5s", "5S", "99999999999999999999d", "18446744073709551615d"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
        for text in ["500ms", "90s", "10m", "2h", "7d", "0s"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn web_urls_are_https_or_loopback() {
        for good in [
            "https://b.example.com",
            "https://b.example.com/base/",
            "http://127.0.0.1:8080",
            "http://localhost",
            "http://[::1]:1",
        ] {
            assert!(web_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://b.example.com",
            "http://localhost.evil.com",
            "ftp://localhost",
            "b.example.com",
            "https://u@b.example.com",
            "https://b.example.com?x",
            "https://b.example.com#x",
            "data:text/html,x",
        ] {
            assert!(web_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_32_bytes() {
        let hex = "00".repeat(32);
        let base64 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for good in [hex.as_str(), base64, &format!("{base64}=")] {
            assert!(key_bytes(good).is_ok(), "{good}");
        }
        for bad in ["", "AAAA", &"0".repeat(63), &"g".repeat(64), &"00".repeat(31)] {
            assert!(key_bytes(bad).is_err(), "{bad}");
        }
        assert!(sha256_hex(&"0a".repeat(32)).is_ok());
        assert!(sha256_hex(&"0A".repeat(32)).is_err() && sha256_hex("0a").is_err());
    }
}
