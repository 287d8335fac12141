//! A new token pair as bytes, for its copies outside the row: the journal's records and the permit store's successors, with their
//! MAC.
//!
//! One version byte, then the fields of [`LineageWrite`] in the order of [`encode`]. Numbers are big-endian, texts and byte
//! strings have their length in front, an optional value has 0 or 1 in front. What is secret in it is sealed already.
//! Another field means another version; a version is read for as long as a copy of it may exist, which is a day in the
//! permit store and until the next start in a journal.

use jiff::Timestamp;

use crate::domain::credential::{Fingerprint, Sealed, StoredRefreshToken, StoredTokens};
use crate::domain::key::{CredentialId, GrantId};
use crate::domain::ports::LineageWrite;
use crate::domain::scope::{Scope, ScopeSet};
use crate::domain::token_set::AccessLife;

/// The version that is written.
const VERSION: u8 = 1;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A later broker wrote it, or it is no record at all.
    #[error("version {0} of a record is not known")]
    UnknownVersion(u8),
    /// Ends in the middle of a field.
    #[error("a record is cut short")]
    Truncated,
    /// Something follows the last field.
    #[error("a record has more bytes than fields")]
    TooLong,
    /// A field's value can't be.
    #[error("a field of a record is damaged: {0}")]
    BadField(&'static str),
}

/// As bytes.
#[must_use]
pub fn encode(write: &LineageWrite) -> Vec<u8> {
    let tokens = &write.tokens;
    let mut out = Writer(Vec::with_capacity(512));
    out.byte(VERSION);
    out.fixed(write.id.as_bytes());
    out.fixed(write.grant_id.as_bytes());
    out.number(write.epoch);
    out.fixed(&write.parent_fingerprint.0);
    out.time(write.now);
    out.bytes(&tokens.access_sealed.0);
    out.time(tokens.access_life.obtained_at);
    out.optional(tokens.access_life.expires_at, Writer::time);
    out.bytes(tokens.token_type.as_bytes());
    out.optional(tokens.refresh.as_ref(), |out, refresh| {
        out.bytes(&refresh.sealed.0);
        out.fixed(&refresh.fingerprint.0);
        out.optional(refresh.parent_fingerprint, |out, parent| out.fixed(&parent.0));
        out.number(refresh.epoch);
    });
    out.bytes(&tokens.profile_sealed.0);
    out.length(tokens.scopes.iter().count());
    for scope in tokens.scopes.iter() {
        out.bytes(scope.as_str().as_bytes());
    }
    out.byte(u8::from(tokens.scopes_assumed));
    out.optional(tokens.next_refresh_at, Writer::time);
    out.0
}

/// From bytes. Accepts nothing but what [`encode`] makes.
pub fn decode(bytes: &[u8]) -> Result<LineageWrite, RecordError> {
    let mut input = Reader(bytes);
    match input.byte()? {
        VERSION => {}
        version => return Err(RecordError::UnknownVersion(version)),
    }
    let write = LineageWrite {
        id: CredentialId::from_bytes(input.fixed()?),
        grant_id: GrantId::from_bytes(input.fixed()?),
        epoch: input.number()?,
        parent_fingerprint: Fingerprint(input.fixed()?),
        now: input.time()?,
        tokens: StoredTokens {
            access_sealed: input.sealed()?,
            access_life: AccessLife { obtained_at: input.time()?, expires_at: input.optional(Reader::time)? },
            token_type: input.text()?,
            refresh: input.optional(|input| {
                Ok(StoredRefreshToken {
                    sealed: input.sealed()?,
                    fingerprint: Fingerprint(input.fixed()?),
                    parent_fingerprint: input.optional(|input| input.fixed().map(Fingerprint))?,
                    epoch: input.number()?,
                })
            })?,
            profile_sealed: input.sealed()?,
            scopes: input.scopes()?,
            scopes_assumed: input.boolean()?,
            next_refresh_at: input.optional(Reader::time)?,
        },
    };
    if input.0.is_empty() { Ok(write) } else { Err(RecordError::TooLong) }
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    fn fixed(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    fn number(&mut self, value: i64) {
        self.fixed(&value.to_be_bytes());
    }

    fn length(&mut self, value: usize) {
        self.fixed(&(value as u64).to_be_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.fixed(value);
    }

    /// To the nanosecond, so that a copy equals what was copied.
    fn time(&mut self, value: Timestamp) {
        self.number(value.as_second());
        self.fixed(&value.subsec_nanosecond().to_be_bytes());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.take(N)?.try_into().map_err(|_| RecordError::Truncated)
    }

    fn byte(&mut self) -> Result<u8, RecordError> {
        self.fixed().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<i64, RecordError> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// A length never makes the reader allocate: what it counts must be there.
    fn length(&mut self) -> Result<usize, RecordError> {
        usize::try_from(u64::from_be_bytes(self.fixed()?)).map_err(|_| RecordError::Truncated)
    }

    fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.length()?;
        self.take(length)
    }

    fn sealed(&mut self) -> Result<Sealed, RecordError> {
        self.bytes().map(|bytes| Sealed(bytes.to_vec()))
    }

    fn text(&mut self) -> Result<String, RecordError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| RecordError::BadField("a text"))
    }

    fn time(&mut self) -> Result<Timestamp, RecordError> {
        let (second, fraction) = (self.number()?, i32::from_be_bytes(self.fixed()?));
        let time = Timestamp::new(second, fraction).map_err(|_| RecordError::BadField("a time"))?;
        // Seconds and fraction of different signs are another way to write the same time.
        let canonical = (time.as_second(), time.subsec_nanosecond()) == (second, fraction);
        if canonical { Ok(time) } else { Err(RecordError::BadField("a time")) }
    }

    fn boolean(&mut self) -> Result<bool, RecordError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::BadField("a yes or no")),
        }
    }

    fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, RecordError>,
    ) -> Result<Option<T>, RecordError> {
        if self.boolean()? { read(self).map(Some) } else { Ok(None) }
    }

    fn scopes(&mut self) -> Result<ScopeSet, RecordError> {
        let count = self.length()?;
        let mut scopes: Vec<Scope> = Vec::new();
        while scopes.len() < count {
            let scope = Scope::new(self.text()?).map_err(|_| RecordError::BadField("a scope"))?;
            if scopes.last().is_some_and(|last| *last >= scope) {
                return Err(RecordError::BadField("the order of the scopes"));
            }
            scopes.push(scope);
        }
        Ok(scopes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn time()(second in -377_705_023_201_i64..=253_402_207_200, nano in 0..=999_999_999_i32) -> Timestamp {
            let nano = if second < 0 { -nano } else { nano };
            Timestamp::new(second, nano).unwrap_or(Timestamp::MAX)
        }
    }

    prop_compose! {
        fn sealed()(bytes in vec(any::<u8>(), 0..200)) -> Sealed {
            Sealed(bytes)
        }
    }

    prop_compose! {
        fn refresh()(
            sealed in sealed(),
            fingerprint: [u8; 32],
            parent in option::of(any::<[u8; 32]>()),
            epoch: i64,
        ) -> StoredRefreshToken {
            let parent_fingerprint = parent.map(Fingerprint);
            StoredRefreshToken { sealed, fingerprint: Fingerprint(fingerprint), parent_fingerprint, epoch }
        }
    }

    prop_compose! {
        fn tokens()(
            access_sealed in sealed(),
            (obtained_at, expires_at, next_refresh_at) in (time(), option::of(time()), option::of(time())),
            token_type in any::<String>(),
            refresh in option::of(refresh()),
            profile_sealed in sealed(),
            scopes in btree_set("[!#-\\[\\]-~]{1,20}", 0..5),
            scopes_assumed: bool,
        ) -> StoredTokens {
            StoredTokens {
                access_sealed,
                access_life: AccessLife { obtained_at, expires_at },
                token_type,
                refresh,
                profile_sealed,
                scopes: scopes.into_iter().map(|scope| Scope::new(scope).unwrap()).collect(),
                scopes_assumed,
                next_refresh_at,
            }
        }
    }

    prop_compose! {
        fn write()(
            id: [u8; 16],
            grant_id: [u8; 16],
            epoch: i64,
            parent: [u8; 32],
            tokens in tokens(),
            now in time(),
        ) -> LineageWrite {
            LineageWrite {
                id: CredentialId::from_bytes(id),
                grant_id: GrantId::from_bytes(grant_id),
                epoch,
                parent_fingerprint: Fingerprint(parent),
                tokens,
                now,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(write in write()) {
            prop_assert_eq!(decode(&encode(&write)).unwrap(), write);
        }

        #[test]
        fn a_record_with_bytes_missing_or_added_is_none(write in write(), extra: u8) {
            let mut bytes = encode(&write);
            for end in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..end]).unwrap_err(), RecordError::Truncated);
            }
            bytes.push(extra);
            prop_assert_eq!(decode(&bytes).unwrap_err(), RecordError::TooLong);
        }

        #[test]
        fn damage_never_panics_and_never_reads_as_the_same(
            write in write(), at: prop::sample::Index, bit in 0..8_u8,
        ) {
            let mut bytes = encode(&write);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // What reads at all says exactly what stands there.
            if let Ok(read) = decode(&bytes) {
                prop_assert_ne!(&read, &write);
                prop_assert_eq!(encode(&read), bytes);
            }
        }

        #[test]
        fn garbage_never_panics(mut bytes in vec(any::<u8>(), 0..600), known: bool) {
            if let (true, Some(first)) = (known, bytes.first_mut()) {
                *first = VERSION;
            }
            if let Ok(read) = decode(&bytes) {
                prop_assert_eq!(encode(&read), bytes);
            }
        }
    }

    #[test]
    fn a_version_of_the_future_is_not_guessed_at() {
        assert_eq!(decode(&[2, 0, 0]).unwrap_err(), RecordError::UnknownVersion(2));
        assert_eq!(decode(&[]).unwrap_err(), RecordError::Truncated);
    }
}
