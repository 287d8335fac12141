//! `[provider_definitions]`: the operator's own definitions.

use std::path::PathBuf;

use super::reader::Section;

pub(super) fn read(section: &Section<'_>, base: &std::path::Path) -> Option<Vec<PathBuf>> {
    let files = section.required("files").list(|text| Ok::<_, &str>(base.join(text)));
    section.finish();
    files
}
