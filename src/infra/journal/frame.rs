//! How records lie in a segment: marker, length, checksum, content, one behind the other, zeros behind the last.
//!
//! A write that a crash cut short leaves a part of a record at the end. A bit that flipped leaves a record whose checksum
//! is wrong, perhaps with a wrong length; the next whole record is then found by its marker.

use sha2::{Digest as _, Sha256};

/// Begins each record. In a record's content it does no harm: a checksum would have to match as well.
const MARKER: [u8; 8] = *b"\xf5TBjrn1\n";
const LENGTH: usize = 4;
const CHECKSUM: usize = 16;
const HEADER: usize = MARKER.len() + LENGTH + CHECKSUM;

/// What is in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents<'a> {
    /// The contents of the whole records, in order.
    pub(crate) records: Vec<&'a [u8]>,
    /// How many stretches before the last whole record are none.
    pub(crate) damaged: usize,
    /// Whether there is something behind the last whole record.
    pub(crate) torn: bool,
}

/// A record as it is written. `None`: longer than a length can say.
pub(crate) fn frame(content: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(content.len()).ok()?.to_le_bytes();
    let mut framed = Vec::with_capacity(HEADER + content.len());
    framed.extend_from_slice(&MARKER);
    framed.extend_from_slice(&length);
    framed.extend_from_slice(&checksum(length, content));
    framed.extend_from_slice(content);
    Some(framed)
}

/// Reads a segment, however it ends.
pub(crate) fn read(segment: &[u8]) -> Contents<'_> {
    let mut found = Contents { records: Vec::new(), damaged: 0, torn: false };
    let mut rest = segment;
    loop {
        while let Some((content, behind)) = first(rest) {
            found.records.push(content);
            rest = behind;
        }
        let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return found };
        let next = (1..last).filter_map(|at| rest.get(at..)).find(|tail| first(tail).is_some());
        let Some(tail) = next else {
            found.torn = true;
            return found;
        };
        found.damaged += 1;
        rest = tail;
    }
}

/// The record that these bytes begin with, and what is behind it.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&MARKER)?;
    let (length, rest) = rest.split_first_chunk::<LENGTH>()?;
    let (sum, rest) = rest.split_first_chunk::<CHECKSUM>()?;
    let (content, behind) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (checksum(*length, content) == *sum).then_some((content, behind))
}

/// SHA-256 over length and content, cut to 16 bytes.
fn checksum(length: [u8; LENGTH], content: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(length).chain_update(content).finalize();
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest[..CHECKSUM]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Vec<u8>, [usize; 3]) {
        let mut segment = Vec::new();
        let ends = [b"one".as_slice(), b"", b"three"].map(|content| {
            segment.extend(frame(content).unwrap());
            segment.len()
        });
        (segment, ends)
    }

    #[test]
    fn a_segment_that_ends_anywhere_gives_its_whole_records() {
        let (segment, ends) = three();
        for length in 0..=segment.len() {
            for zeros in [0, 1, 100] {
                let mut cut = segment[..length].to_vec();
                cut.resize(length + zeros, 0);
                let found = read(&cut);
                let whole = ends.iter().filter(|end| **end <= length).count();
                assert_eq!(found.records, [b"one".as_slice(), b"", b"three"][..whole], "{length}");
                assert_eq!(found.damaged, 0, "{length}");
                let torn = length != 0 && !ends.contains(&length);
                assert_eq!(found.torn, torn, "{length}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_record() {
        let (segment, ends) = three();
        for bit in 0..segment.len() * 8 {
            let mut flipped = segment.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = read(&flipped);
            let hit = ends.iter().position(|end| bit / 8 < *end).unwrap();
            let mut expected = vec![b"one".as_slice(), b"", b"three"];
            expected.remove(hit);
            assert_eq!(found.records, expected, "bit {bit}");
            assert_eq!(
                (found.damaged, found.torn),
                if hit == 2 { (0, true) } else { (1, false) },
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_marker_in_a_record_is_content() {
        let inner = frame(b"inner").unwrap();
        let segment = frame(&inner).unwrap();
        assert_eq!(read(&segment).records, [inner.as_slice()]);
        // Only if the outer record is damaged could the inner one be taken for a record; it is whole, so it is one.
        assert_eq!(read(&segment[1..]).records, [b"inner".as_slice()]);
    }
}
