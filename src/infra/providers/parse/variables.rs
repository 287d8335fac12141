//! `[variables.<name>]`, and the URLs that use them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::super::definition::{Variable, VariableKind};
use super::super::reader::{At, Report, Section};
use super::super::template::{self, UrlTemplate};

/// In a revocation call's URL this stands for the client's id.
const CLIENT_ID: &str = "client_id";

/// The declared variables, and which of them occur in a URL.
pub(super) struct Variables {
    declared: BTreeMap<String, Variable>,
    places: BTreeMap<String, (Range<usize>, String)>,
    used: BTreeSet<String>,
    samples: BTreeMap<String, String>,
}

/// `[variables.<name>]`
pub(super) fn variables(report: &mut Report<'_>, root: &mut Section<'_, '_>) -> Variables {
    let mut declared = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (name, mut section) in root.sections(report, "variables") {
        let description =
            section.required_text(report, "description", "say what a registration has to fill in");
        let kinds =
            [("label", VariableKind::Label), ("host", VariableKind::Host), ("url", VariableKind::Url)];
        let kind = section.word(report, "kind", &kinds).map_or(VariableKind::Label, |kind| kind.value);
        let default = section.text(report, "default");
        if let Some(default) = &default {
            report.make(default, |value| template::check_value(kind, value));
        }
        section.finish(report);
        if !template::is_variable_name(&name.value) || name.value == CLIENT_ID {
            report.at(
                &name,
                "a variable's name is of a-z, 0-9 and '_' with a letter in front, and not client_id",
            );
        }
        places.insert(name.value.clone(), (name.span, name.path));
        let description = description.map(|d| d.value).unwrap_or_default();
        declared.insert(name.value, Variable { description, kind, default: default.map(|d| d.value) });
    }
    let samples = template::sample_values(&declared);
    Variables { declared, places, used: BTreeSet::new(), samples }
}

impl Variables {
    /// Reads a URL with variables.
    pub(super) fn url(&mut self, report: &mut Report<'_>, text: &At<String>) -> Option<UrlTemplate> {
        self.checked(report, text, false, template::check_url)
    }

    /// Reads an issuer with variables.
    pub(super) fn issuer(&mut self, report: &mut Report<'_>, text: &At<String>) -> Option<UrlTemplate> {
        self.checked(report, text, false, template::check_issuer)
    }

    /// Reads a URL with variables in which `{client_id}` stands for the client's id.
    pub(super) fn url_with_client(
        &mut self,
        report: &mut Report<'_>,
        text: &At<String>,
    ) -> Option<UrlTemplate> {
        self.checked(report, text, true, template::check_url)
    }

    fn checked(
        &mut self,
        report: &mut Report<'_>,
        text: &At<String>,
        with_client: bool,
        check: impl Fn(&str) -> Result<url::Url, &'static str>,
    ) -> Option<UrlTemplate> {
        let template = report.make(text, |text| UrlTemplate::new(text))?;
        let mut samples = self.samples.clone();
        if with_client {
            samples.insert(CLIENT_ID.to_owned(), "client".to_owned());
        }
        for name in template.variables() {
            if with_client && name == CLIENT_ID {
                continue;
            }
            let Some(variable) = self.declared.get(name) else {
                report.at(text, format!("{{{name}}} is not declared; add [variables.{name}]"));
                return None;
            };
            self.used.insert(name.to_owned());
            if variable.kind == VariableKind::Url && !template.begins_with(name) {
                report.at(text, format!("{{{name}}} is a whole URL and must stand at the beginning"));
                return None;
            }
        }
        report.make(text, |_| check(&template.fill(&samples)))?;
        Some(template)
    }

    /// Reports those that no URL uses.
    pub(super) fn finish(self, report: &mut Report<'_>) -> BTreeMap<String, Variable> {
        for (name, (span, path)) in &self.places {
            if !self.used.contains(name) {
                report.add(span, path, "no URL uses this variable");
            }
        }
        self.declared
    }
}
