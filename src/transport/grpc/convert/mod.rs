//! Messages to what use cases take (`requests.rs`, by the rules of `check.rs`), and what they answer to messages
//! (`answers.rs`, `enums.rs`). `user.rs` says whom a message is about; `audit.rs`, `callers.rs`, `keys.rs`,
//! `provider_configs.rs` and `rules.rs` are for AdminService.

pub(super) mod answers;
pub(super) mod audit;
pub(super) mod callers;
mod check;
mod enums;
pub(super) mod keys;
pub(super) mod provider_configs;
pub(super) mod requests;
pub(super) mod rules;
mod time;
pub(super) mod user;

use prost::Message;

use crate::application::types::MAX_PAGE_BYTES;

pub(super) use enums::consent_reason_name;

/// The rows of a page that go into one answer (see [`MAX_PAGE_BYTES`]), and whether there are more behind them.
pub(super) fn fitting<M: Message>(rows: impl Iterator<Item = M>, more: bool) -> (Vec<M>, bool) {
    let (mut fitting, mut bytes) = (Vec::new(), 0);
    for row in rows {
        bytes += row.encoded_len();
        if bytes > MAX_PAGE_BYTES && !fitting.is_empty() {
            return (fitting, true);
        }
        fitting.push(row);
    }
    (fitting, more)
}

/// A number for a message, whose type is smaller.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count for a message, whose type is smaller.
pub(super) fn count(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_row_and_no_more_than_fit() {
        let row = |bytes| "x".repeat(bytes);
        let half = MAX_PAGE_BYTES / 2;
        for (sizes, more, expected) in [
            (vec![], false, (0, false)),
            (vec![1, 1], false, (2, false)),
            (vec![1, 1], true, (2, true)),
            (vec![2 * MAX_PAGE_BYTES], false, (1, false)),
            (vec![2 * MAX_PAGE_BYTES, 1], false, (1, true)),
            (vec![half - 100, half - 100, 1_000, 1], false, (2, true)),
        ] {
            let (fit, behind) = fitting(sizes.iter().copied().map(row), more);
            assert_eq!((fit.len(), behind), expected, "{sizes:?}");
        }
    }
}
