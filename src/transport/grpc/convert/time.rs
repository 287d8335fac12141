//! Points in time and durations of the proto.

use std::time::Duration;

use jiff::Timestamp;

/// A point in time for a message.
pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    // Before 1970 jiff counts both parts down, the proto wants the nanoseconds to count up.
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    prost_types::Timestamp { seconds, nanos }
}

/// A point in time from a message; `None` if it is none (before year 1, after year 9999, odd nanoseconds).
pub(super) fn parse_timestamp(time: prost_types::Timestamp) -> Option<Timestamp> {
    const YEAR_1: i64 = -62_135_596_800;
    if !(0..1_000_000_000).contains(&time.nanos) || time.seconds < YEAR_1 {
        return None;
    }
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// A duration that is not negative; `None` if it is, or is none.
pub(super) fn parse_duration(duration: prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(duration.seconds).ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        for (second, nano) in [(0, 0), (1_700_000_000, 123_456_789), (-1, 0), (-62_135_596_800, 0)] {
            let time = Timestamp::new(second, nano).unwrap();
            assert_eq!(parse_timestamp(timestamp(time)), Some(time));
        }
        let half_a_second_before = Timestamp::new(0, -500_000_000).unwrap();
        let sent = timestamp(half_a_second_before);
        assert_eq!((sent.seconds, sent.nanos), (-1, 500_000_000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for (seconds, nanos) in [
            (0, -1),
            (0, 1_000_000_000),
            (i64::MIN, 0),
            (i64::MAX, 0),
            (-62_135_596_801, 0),
            (253_402_300_800, 0),
        ] {
            assert_eq!(parse_timestamp(prost_types::Timestamp { seconds, nanos }), None, "{seconds} {nanos}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let parse = |seconds, nanos| parse_duration(prost_types::Duration { seconds, nanos });
        assert_eq!(parse(3, 500_000_000), Some(Duration::from_millis(3_500)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, -1), (-1, 1), (0, 1_000_000_000), (i64::MIN, i32::MIN)]
        {
            assert_eq!(parse(seconds, nanos), None, "{seconds} {nanos}");
        }
    }
}
