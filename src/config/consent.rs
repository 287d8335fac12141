//! `[consent]`: how browsers are proved to be their users'.

use super::login::Login;
use super::reader::Section;
use crate::domain::flow::ConsentBinding;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Consent {
    /// Those that consents may use, without repetition; the first is what a caller gets that does not choose. Never empty.
    pub bindings: Vec<ConsentBinding>,
}

pub(super) fn read(section: &Section<'_>, login: Option<&Login>) -> Option<Consent> {
    let key = section.required("bindings");
    let bindings = key.list(|text| {
        ConsentBinding::parse(text).ok_or_else(|| {
            let names = ConsentBinding::ALL.map(ConsentBinding::as_str);
            format!("must be one of {}", names.join(", "))
        })
    });
    if let Some(bindings) = &bindings {
        if bindings.is_empty() {
            key.problem("needs at least one binding: without one nobody can consent");
        }
        if (1..bindings.len()).any(|at| bindings[..at].contains(&bindings[at])) {
            key.problem("names a binding twice");
        }
        if bindings.contains(&ConsentBinding::Login) && login.is_none() {
            key.problem("has \"login\", which needs the section [login]");
        }
    }
    section.finish();
    Some(Consent { bindings: bindings? })
}
