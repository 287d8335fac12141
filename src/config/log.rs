//! `[log]`: what is logged, and how.

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::reader::Section;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Log {
    /// How it looks.
    pub format: LogFormat,
    /// What is logged.
    pub level: Targets,
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

pub(super) fn read(section: &Section<'_>) -> Option<Log> {
    let format = section.required("format").parsed(|text| match text {
        "json" => Ok(LogFormat::Json),
        "pretty" => Ok(LogFormat::Pretty),
        _ => Err("must be \"json\" or \"pretty\""),
    });
    let level = section.required("level").parsed(|text| {
        // A bare word that is no level would be taken for a module, and all others be silent.
        let levels = text.split(',').filter(|part| !part.contains('='));
        let known = levels.map(str::trim).all(|part| part.parse::<LevelFilter>().is_ok());
        text.parse::<Targets>().ok().filter(|_| known).ok_or(
            "must be a level (error, warn, info, debug, trace), or as \"info,token_broker::application=debug\"",
        )
    });
    section.finish();
    Some(Log { format: format?, level: level? })
}
