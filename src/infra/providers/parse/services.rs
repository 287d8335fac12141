//! `[services.<id>]`: what users connect to.

use std::collections::BTreeMap;

use super::super::reader::{Report, Section};
use super::values;
use crate::domain::key::{GrantName, ServiceId};
use crate::domain::provider::Service;

/// The grant of a service that names none. One consent and one token for a whole provider is the safe default: many
/// providers end an earlier grant of the same client when the user consents again.
const DEFAULT_GRANT: &str = "default";

/// `[services.<id>]`
pub(super) fn services(
    report: &mut Report<'_>,
    root: &mut Section<'_, '_>,
    scope_separator: &str,
) -> BTreeMap<ServiceId, Service> {
    let mut services = BTreeMap::new();
    let sections = root.sections(report, "services");
    if sections.is_empty() {
        root.missing(report, "services", "at least one [services.<id>]");
    }
    for (name, mut section) in sections {
        let id = report.make(&name, |name| ServiceId::new(name.as_str()));
        let display_name = section.required_text(report, "display_name", "the service's name for people");
        if !section.has("scopes") {
            section.missing(report, "scopes", "what its use needs; [] if the provider has no scopes");
        }
        let texts = section.texts(report, "scopes").unwrap_or_default();
        let (joined, single): (Vec<_>, Vec<_>) =
            texts.into_iter().partition(|text| text.value.contains(scope_separator));
        for text in joined {
            report.at(
                &text,
                format!("contains {scope_separator:?}, which separates scopes; write one scope an item"),
            );
        }
        let scopes = values::scopes(report, &single);
        let grant = match section.text(report, "grant") {
            Some(grant) => report.make(&grant, |grant| GrantName::new(grant.as_str())),
            None => GrantName::new(DEFAULT_GRANT).ok(),
        };
        section.finish(report);
        if let (Some(id), Some(display_name), Some(grant)) = (id, display_name, grant) {
            services.insert(id, Service { display_name: display_name.value, scopes, grant });
        }
    }
    services
}
