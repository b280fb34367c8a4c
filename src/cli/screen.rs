use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use super::arguments::OutputArguments;
use super::{CliError, Surroundings};
use crate::diagnostic::{self, Diagnostics, Severity, Sources, Style};
use crate::report::{Event, Format, Options, Reporter, reporter};

/// All that reads the events of a run.
pub(super) struct Screen {
    reporters: Vec<Box<dyn Reporter + Send>>,
}

impl Screen {
    /// Opens what was asked for: one format on standard output, and files.
    pub(super) fn open(
        surroundings: &Surroundings,
        arguments: &OutputArguments,
        dry_run: bool,
    ) -> Result<Self, CliError> {
        let format =
            |name: &str| name.parse::<Format>().map_err(|error| CliError::Usage(error.to_string()));
        let options = |file: bool| Options {
            colour: !file
                && !arguments.no_color
                && surroundings.colours(surroundings.output_terminal),
            verbose: arguments.verbose,
            quiet: arguments.quiet,
            diff: dry_run || arguments.diff,
            terminal: !file && surroundings.error_terminal && surroundings.output_terminal,
            width: surroundings.width,
            now: Instant::now,
        };
        let mut files = Vec::new();
        for report in &arguments.report {
            let Some((name, path)) = report.split_once('=') else {
                let message = format!("--report takes FORMAT=FILE, and `{report}` has no `=`");
                return Err(CliError::Usage(message));
            };
            files.push((format(name)?, PathBuf::from(path)));
        }
        let mut reporters =
            vec![reporter(format(&arguments.format)?, options(false), Box::new(io::stdout()))];
        for (format, path) in files {
            let file = File::create(&path).map_err(|error| {
                CliError::Machine(format!("{} cannot be written: {error}", path.display()))
            })?;
            let file = Box::new(io::BufWriter::new(file));
            reporters.push(reporter(format, options(true), file));
        }
        Ok(Self { reporters })
    }

    /// Hands an event to all reporters.
    pub(super) fn event(&mut self, event: &Event) -> Result<(), CliError> {
        for reporter in &mut self.reporters {
            match reporter.event(event) {
                // Who reads the output has had enough; the run goes on.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => {
                    return Err(CliError::Machine(format!("a report cannot be written: {error}")));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Shows all diagnostics; an error if one of them is.
pub(super) fn show(
    surroundings: &Surroundings,
    sources: &Sources,
    diagnostics: &Diagnostics,
) -> Result<(), CliError> {
    let style = if surroundings.colours(surroundings.error_terminal) {
        Style::Coloured
    } else {
        Style::Plain
    };
    let mut text = String::new();
    for diagnostic in diagnostics.sorted() {
        text.push_str(&diagnostic::render(diagnostic, sources, style));
        text.push('\n');
    }
    let _ = io::stderr().write_all(text.as_bytes());
    let sorted = diagnostics.sorted().into_iter();
    let errors: Vec<String> = sorted
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .map(|diagnostic| match diagnostic.labels.first() {
            Some(label) => format!("{}: {}", sources.place(label.span), diagnostic.message),
            None => diagnostic.message.clone(),
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(CliError::Refused(errors)) }
}
