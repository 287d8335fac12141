//! How long a caller waits, and what the broker makes of it.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

/// The header (gRPC over HTTP/2, "Request-Headers").
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// An answer that leaves at the caller's deadline arrives behind it. So use cases end this much earlier, but at most a
/// tenth of the time given: they know what is the matter, and their answer says more than `DEADLINE_EXCEEDED`. What has
/// not ended by half of it is cut off.
const HEAD_START: Duration = Duration::from_millis(100);

/// When a call has to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline {
    answer_by: Instant,
    cut_off_at: Instant,
    asked: Option<Instant>,
}

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
        let asked = match (entries.next(), entries.next()) {
            (None, _) => None,
            (Some(entry), None) => Some(entry.to_str().ok().and_then(parse).ok_or(MalformedTimeout)?),
            (Some(_), Some(_)) => return Err(MalformedTimeout),
        };
        let timeout = asked.map_or(max, |asked| asked.min(max));
        let reserve = HEAD_START.min(timeout / 10);
        Ok(Self {
            answer_by: now + timeout.saturating_sub(reserve),
            cut_off_at: now + timeout.saturating_sub(reserve / 2),
            asked: asked.and_then(|asked| now.checked_add(asked)),
        })
    }

    /// When the call is given up.
    pub(super) fn cut_off_at(self) -> Instant {
        self.cut_off_at
    }

    /// When the caller itself gives up, however late: what ends a stream, whose head alone is answered by the limits above.
    pub(super) fn of_caller(self) -> Option<Instant> {
        self.asked
    }

    /// How long a use case may take from now on.
    pub(super) fn time_left(self) -> Duration {
        self.answer_by.saturating_duration_since(Instant::now())
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

    /// How long until the use case has to end, and until the call is cut off, in nanoseconds.
    fn timeout(entries: &[&str]) -> Result<(u128, u128), MalformedTimeout> {
        let mut headers = HeaderMap::new();
        for entry in entries {
            headers.append(GRPC_TIMEOUT, HeaderValue::from_bytes(entry.as_bytes()).unwrap());
        }
        let now = Instant::now();
        let nanos = |at: Instant| at.duration_since(now).as_nanos();
        Deadline::from_headers(&headers, now, MAX).map(|d| (nanos(d.answer_by), nanos(d.cut_off_at)))
    }

    #[test]
    fn the_callers_timeout_is_capped_and_given_a_head_start() {
        const MS: u128 = 1_000_000;
        for none_or_long in [&[][..], &["99999999H"], &["1M"], &["30S"]] {
            assert_eq!(timeout(none_or_long), Ok((29_900 * MS, 29_950 * MS)));
        }
        assert_eq!(timeout(&["10S"]), Ok((9_900 * MS, 9_950 * MS)));
        assert_eq!(timeout(&["100m"]), Ok((90 * MS, 95 * MS)));
        assert_eq!(timeout(&["100000u"]), Ok((90 * MS, 95 * MS)));
        assert_eq!(timeout(&["1000n"]), Ok((900, 950)));
        assert_eq!(timeout(&["0S"]), Ok((0, 0)));
    }

    #[test]
    fn a_stream_has_all_the_time_that_its_caller_gives_it() {
        let now = Instant::now();
        let mut headers = HeaderMap::new();
        assert_eq!(Deadline::from_headers(&headers, now, MAX).unwrap().of_caller(), None);
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("2H"));
        let two_hours = now + Duration::from_secs(7_200);
        assert_eq!(Deadline::from_headers(&headers, now, MAX).unwrap().of_caller(), Some(two_hours));
    }

    #[test]
    fn anything_else_is_malformed() {
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "1S ", "1é", "0x1S"] {
            assert_eq!(timeout(&[bad]), Err(MalformedTimeout), "{bad:?}");
        }
        assert_eq!(timeout(&["1S", "1S"]), Err(MalformedTimeout));
    }
}
