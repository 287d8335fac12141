//! `[log]`: what is logged, and how.

use tracing_subscriber::filter::Targets;

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
        text.parse::<Targets>().map_err(|_| {
            "must be a level (error, warn, info, debug, trace), or as \"info,token_broker::application=debug\""
        })
    });
    section.finish();
    Some(Log { format: format?, level: level? })
}
