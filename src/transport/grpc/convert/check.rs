//! Collects what is wrong with a request, so that its developer sees all of it at once. Descriptions never repeat a value:
//! it may be a token in the wrong field.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;

use crate::application::error::{BrokerError, Violation};
use crate::domain::key::{Account, FlowId, TenantId};
use crate::domain::scope::{Scope, ScopeSet};
use crate::domain::secret::SecretString;
use crate::domain::token_set::MAX_EXTRA_VALUE_BYTES;

/// The longest page.
const MAX_PAGE_SIZE: i32 = 1_000;
/// The most scopes of one list.
pub(super) const MAX_SCOPES: usize = 64;
/// The longest token, in bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The most extra values, and the longest name of them. How long a value may be is the same wherever it comes from.
const MAX_EXTRA: usize = 32;
const MAX_EXTRA_NAME_BYTES: usize = 64;

/// The violations so far. A parser answers `None` after adding one; what may be left out is `None` as well, since
/// [`Check::finish`] tells the two apart.
#[derive(Debug, Default)]
pub(super) struct Check {
    violations: Vec<Violation>,
}

impl Check {
    /// Adds a violation.
    pub(super) fn fail<T>(&mut self, field: impl Into<String>, description: impl Into<String>) -> Option<T> {
        self.violations.push(Violation::new(field, description));
        None
    }

    /// What a validating constructor answered.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        field: impl Into<String>,
        result: Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => self.fail(field, error.to_string()),
        }
    }

    /// A message that must be there.
    pub(super) fn required<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        match value {
            Some(value) => Some(value),
            None => self.fail(field, "must be set"),
        }
    }

    /// Free text of at most so many bytes; empty is `None`.
    pub(super) fn text(&mut self, field: &str, value: String, max_bytes: usize) -> Option<String> {
        if value.is_empty() {
            return None;
        }
        if value.len() > max_bytes {
            return self.fail(field, format!("must be at most {max_bytes} bytes long"));
        }
        if value.chars().any(char::is_control) {
            return self.fail(field, "must not contain control characters");
        }
        Some(value)
    }

    /// Text of at most so many bytes that must be there.
    pub(super) fn needed_text(&mut self, field: &str, value: String, max_bytes: usize) -> Option<String> {
        if value.is_empty() {
            return self.fail(field, "must not be empty");
        }
        self.text(field, value, max_bytes)
    }

    /// An account; empty is the default one.
    pub(super) fn account(&mut self, field: &str, value: String) -> Option<Account> {
        if value.is_empty() { Some(Account::default()) } else { self.parsed(field, Account::new(value)) }
    }

    /// A list of scopes.
    pub(super) fn scopes(&mut self, field: &str, values: Vec<String>) -> Option<ScopeSet> {
        if values.len() > MAX_SCOPES {
            return self.fail(field, format!("must be at most {MAX_SCOPES} scopes"));
        }
        let before = self.violations.len();
        let scopes = values
            .into_iter()
            .enumerate()
            .filter_map(|(index, value)| self.parsed(format!("{field}[{index}]"), Scope::new(value)))
            .collect();
        (self.violations.len() == before).then_some(scopes)
    }

    /// A token; empty is `None`.
    pub(super) fn token(&mut self, field: &str, value: String) -> Option<SecretString> {
        let value = SecretString::new(value);
        if value.is_empty() {
            return None;
        }
        let text = value.expose_secret();
        if text.len() > MAX_TOKEN_BYTES {
            return self.fail(field, format!("must be at most {MAX_TOKEN_BYTES} bytes long"));
        }
        // It goes into a header or a form: line breaks there would be a request of their own.
        if !text.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
            return self.fail(field, "must consist of printable ASCII (RFC 6749 appendix A.12)");
        }
        Some(value)
    }

    /// A provider's further values.
    pub(super) fn extra(
        &mut self,
        field: &str,
        values: HashMap<String, String>,
    ) -> Option<BTreeMap<String, String>> {
        if values.len() > MAX_EXTRA {
            return self.fail(field, format!("must be at most {MAX_EXTRA} values"));
        }
        let name_ok = |name: &String| {
            (1..=MAX_EXTRA_NAME_BYTES).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if !values.keys().all(name_ok) {
            return self.fail(
                field,
                format!("each name must be 1 to {MAX_EXTRA_NAME_BYTES} of a-z, A-Z, 0-9, '_', '-' and '.'"),
            );
        }
        if values.values().any(|value| value.len() > MAX_EXTRA_VALUE_BYTES) {
            return self
                .fail(field, format!("each value must be at most {MAX_EXTRA_VALUE_BYTES} bytes long"));
        }
        if values.values().any(|value| value.chars().any(char::is_control)) {
            return self.fail(field, "values must not contain control characters");
        }
        Some(values.into_iter().collect())
    }

    /// A part that may be left out.
    pub(super) fn optional<T, E: Display>(
        &mut self,
        field: &str,
        value: String,
        new: impl FnOnce(String) -> Result<T, E>,
    ) -> Option<T> {
        if value.is_empty() { None } else { self.parsed(field, new(value)) }
    }

    /// The tenant that an operator's call is about; empty: the caller's own.
    pub(super) fn tenant(&mut self, value: String) -> Option<TenantId> {
        self.optional("tenant", value, TenantId::new)
    }

    /// The revision of what is to be changed.
    pub(super) fn revision(&mut self, value: i64, of: &str) -> Option<u64> {
        match u64::try_from(value) {
            Ok(revision) if revision > 0 => Some(revision),
            _ => self.fail("revision", format!("must be the {of}'s `revision` as read")),
        }
    }

    /// How long a page may be; 0: so long.
    pub(super) fn page_size(&mut self, size: i32, default: u32) -> Option<u32> {
        match size {
            0 => Some(default),
            size if (1..=MAX_PAGE_SIZE).contains(&size) => u32::try_from(size).ok(),
            _ => self.fail("page_size", format!("must be 0 to {MAX_PAGE_SIZE}")),
        }
    }

    /// A flow's id.
    pub(super) fn flow_id(&mut self, field: &str, value: &str) -> Option<FlowId> {
        match FlowId::parse(value) {
            Some(id) => Some(id),
            None => self.fail(field, "must be a flow id as BeginOAuth or GetCredential gave it"),
        }
    }

    /// The request if nothing was wrong, else all that was.
    pub(super) fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, BrokerError> {
        if self.violations.is_empty()
            && let Some(value) = build()
        {
            return Ok(value);
        }
        Err(BrokerError::InvalidArgument(self.violations))
    }
}
