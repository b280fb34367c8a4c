use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::time::Instant;

use super::Event;
use super::json::Json;
use super::jsonl::JsonLines;
use super::live::Live;
use super::markdown::Markdown;
use super::text::{Text, TextReporter};

/// Makes something that people or programs read out of the events of a run.
pub trait Reporter {
    /// Takes in what happened; fails if it cannot be written.
    fn event(&mut self, event: &Event) -> io::Result<()>;
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, as the run goes.
    Text,
    /// One JSON document at the end.
    Json,
    /// Events as lines of JSON.
    Jsonl,
    /// A comment for a pull request.
    Markdown,
}

/// A format that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It is part of the command line and comes later.
    #[error("the format `{0}` is not supported yet; there are text, json, jsonl and markdown")]
    NotYet(String),
    /// Nobody knows it.
    #[error("unknown format `{0}`; there are text, json, jsonl and markdown")]
    Unknown(String),
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::Jsonl),
            "markdown" => Ok(Self::Markdown),
            "junit" | "html" => Err(FormatError::NotYet(name.to_owned())),
            _ => Err(FormatError::Unknown(name.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Markdown => "markdown",
        })
    }
}

/// How a report is wanted; only text heeds it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether the output shows colours.
    pub colour: bool,
    /// How often `-v` was said: from 1 on what is as declared is listed too, from 2 on every
    /// beginning.
    pub verbose: u8,
    /// Changes, failures and the summary only.
    pub quiet: bool,
    /// Whether differences are shown.
    pub diff: bool,
    /// Whether standard error is a terminal that may show progress.
    pub terminal: bool,
    /// Columns that the summary may take; 80 where there is no terminal.
    pub width: usize,
    /// The clock, for how long hosts take.
    pub now: fn() -> Instant,
}

/// A reporter that writes to `out`.
///
/// Where there is a terminal, text is accompanied by live progress on standard error, which is
/// gone before the last text is written.
pub fn reporter(
    format: Format,
    options: Options,
    out: Box<dyn Write + Send>,
) -> Box<dyn Reporter + Send> {
    match format {
        Format::Text if options.terminal && !options.quiet => Box::new(Live::new(options, out)),
        Format::Text => Box::new(TextReporter::new(Text::new(options), out)),
        Format::Json => Box::new(Json::new(out)),
        Format::Jsonl => Box::new(JsonLines::new(out)),
        Format::Markdown => Box::new(Markdown::new(out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_names() {
        for format in [Format::Text, Format::Json, Format::Jsonl, Format::Markdown] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "junit".parse::<Format>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the format `junit` is not supported yet; there are text, json, jsonl and markdown"
        );
        assert_eq!("xml".parse::<Format>(), Err(FormatError::Unknown(String::from("xml"))));
    }
}
