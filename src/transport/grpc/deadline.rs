//! How long a caller waits, and what the broker makes of it.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

/// The header (gRPC over HTTP/2, "Request-Headers").
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// An answer that leaves at the caller's deadline arrives behind it. So the broker gives up this much earlier, but at
/// most a tenth of the time given.
const HEAD_START: Duration = Duration::from_millis(20);

/// When a call has to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline(Instant);

/// The header is there, but not a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MalformedTimeout;

impl Deadline {
    /// From the caller's header, at most `max` from now. Without a header: `max`.
    pub(super) fn from_headers(
        headers: &HeaderMap,
        now: Instant,
        max: Duration,
    ) -> Result<Self, MalformedTimeout> {
        let mut entries = headers.get_all(GRPC_TIMEOUT).iter();
        let timeout = match (entries.next(), entries.next()) {
            (None, _) => max,
            (Some(entry), None) => {
                let given = entry.to_str().ok().and_then(parse).ok_or(MalformedTimeout)?;
                given.saturating_sub(HEAD_START.min(given / 10)).min(max)
            }
            (Some(_), Some(_)) => return Err(MalformedTimeout),
        };
        Ok(Self(now + timeout))
    }

    /// The moment.
    pub(super) fn instant(self) -> Instant {
        self.0
    }

    /// What is left of it.
    pub(super) fn time_left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// One to eight digits and a unit: `H M S m u n`.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const MAX: Duration = Duration::from_secs(30);

    fn timeout(entries: &[&str]) -> Result<Duration, MalformedTimeout> {
        let mut headers = HeaderMap::new();
        for entry in entries {
            headers.append(GRPC_TIMEOUT, HeaderValue::from_bytes(entry.as_bytes()).unwrap());
        }
        let now = Instant::now();
        Deadline::from_headers(&headers, now, MAX).map(|d| d.0.duration_since(now))
    }

    #[test]
    fn the_callers_timeout_is_capped_and_given_a_head_start() {
        assert_eq!(timeout(&[]), Ok(MAX));
        assert_eq!(timeout(&["99999999H"]), Ok(MAX));
        assert_eq!(timeout(&["1M"]), Ok(MAX));
        assert_eq!(timeout(&["10S"]), Ok(Duration::from_millis(9_980)));
        assert_eq!(timeout(&["100m"]), Ok(Duration::from_millis(90)));
        assert_eq!(timeout(&["100000u"]), Ok(Duration::from_millis(90)));
        assert_eq!(timeout(&["1000n"]), Ok(Duration::from_nanos(900)));
        assert_eq!(timeout(&["0S"]), Ok(Duration::ZERO));
    }

    #[test]
    fn anything_else_is_malformed() {
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "1S ", "1é", "0x1S"] {
            assert_eq!(timeout(&[bad]), Err(MalformedTimeout), "{bad:?}");
        }
        assert_eq!(timeout(&["1S", "1S"]), Err(MalformedTimeout));
    }
}
