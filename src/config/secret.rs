//! A secret from a file or an environment variable.

use super::reader::Key;
use crate::domain::secret::SecretString;

/// `None`: a mistake. `Some(None)`: there is none.
#[expect(
    clippy::option_option,
    reason = "outer: whether it could be read, as everywhere here; inner: whether it is set"
)]
pub(super) fn secret(file: &Key<'_>, variable: &Key<'_>) -> Option<Option<SecretString>> {
    let text = match (file.is_set(), variable.is_set()) {
        (false, false) => return Some(None),
        (true, true) => {
            variable.problem("is given twice: from a file and from an environment variable");
            return None;
        }
        (true, false) => file.file_content(),
        (false, true) => variable.variable(),
    };
    Some(Some(SecretString::new(text?)))
}
