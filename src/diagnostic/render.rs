use std::collections::BTreeMap;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Severity, Sources};

/// Whether messages carry terminal colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For files, pipes and tests.
    Plain,
    /// For a terminal.
    Coloured,
}

/// A diagnostic as rustc would show it; ends with a newline.
pub fn render(diagnostic: &Diagnostic, sources: &Sources, style: Style) -> String {
    shown(diagnostic, sources, style, None)
}

/// The same with its code in brackets, for readers who can look it up.
pub fn render_coded(diagnostic: &Diagnostic, sources: &Sources, style: Style) -> String {
    shown(diagnostic, sources, style, Some(diagnostic.code))
}

fn shown(diagnostic: &Diagnostic, sources: &Sources, style: Style, code: Option<&str>) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    // A source may show up in several labels: one snippet each, the main one first.
    let mut order = Vec::new();
    let mut by_source: BTreeMap<_, Vec<(usize, usize, AnnotationKind, &str)>> = BTreeMap::new();
    for (index, label) in diagnostic.labels.iter().enumerate() {
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        if !order.contains(&label.span.source) {
            order.push(label.span.source);
        }
        by_source.entry(label.span.source).or_default().push((
            label.span.start as usize,
            label.span.end as usize,
            kind,
            &label.text,
        ));
    }
    let texts: Vec<(String, Arc<str>)> =
        order.iter().map(|id| (sources.name(*id), sources.text(*id))).collect();
    let title = level.primary_title(diagnostic.message.as_str());
    let title = match code {
        Some(code) => title.id(code),
        None => title,
    };
    let mut group = title.elements(std::iter::empty::<Origin<'_>>());
    for (id, (name, text)) in order.iter().zip(&texts) {
        if diagnostic.hidden || sources.is_hidden(*id) {
            let spans = diagnostic.labels.iter().map(|label| label.span);
            let shown = if diagnostic.hidden { 1 } else { usize::MAX };
            for span in spans.filter(|span| span.source == *id).take(shown) {
                let place = sources.place(span);
                let origin = Origin::path(name.as_str()).line(place.line);
                group = group.element(origin.char_column(place.column));
            }
            continue;
        }
        group = group.element({
            let annotations = by_source.get(id).into_iter().flatten();
            Snippet::source(text.as_ref()).path(name.as_str()).annotations(annotations.map(
                |(start, end, kind, label)| {
                    let span = visible(text, *start, *end);
                    let annotation = kind.span(span);
                    if label.is_empty() { annotation } else { annotation.label(*label) }
                },
            ))
        });
    }
    if diagnostic.hidden {
        let labels = diagnostic.labels.iter().filter(|label| !label.text.is_empty());
        for label in labels {
            group = group.element(Level::NOTE.message(label.text.as_str()));
        }
        group =
            group.element(Level::NOTE.message("a secret stands there, so the line is not shown"));
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    for help in &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    let mut text = renderer.decor_style(DecorStyle::Ascii).render(&[group]);
    text.push('\n');
    text
}

/// Keeps a span inside its text, on character boundaries, and on one line where it covers many.
fn visible(text: &str, start: usize, end: usize) -> std::ops::Range<usize> {
    let mut start = start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = end.clamp(start, text.len());
    if let Some(line_end) = text[start..].find('\n').map(|at| start + at)
        && end > line_end
        && line_end > start
    {
        end = line_end;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;

    #[test]
    fn an_error_looks_like_rustc() {
        let sources = Sources::default();
        let text = "- file: /etc/motd\n  ownr: root\n";
        let id = sources.add("states/web.yml", text);
        let diagnostic =
            Diagnostic::error("unknown-argument", "unknown argument `ownr` for kind `file`")
                .at(Span::new(id, 20, 24), "did you mean `owner`?");
        let expected = "\
error: unknown argument `ownr` for kind `file`
 --> states/web.yml:2:3
  |
2 |   ownr: root
  |   ^^^^ did you mean `owner`?
";
        assert_eq!(render(&diagnostic, &sources, Style::Plain), expected);
    }

    #[test]
    fn a_hidden_one_shows_its_place_and_not_its_line() {
        let sources = Sources::default();
        let id = sources.add("states/web.yml", "password: s3cret\n");
        let diagnostic = Diagnostic::warning("plain-secret", "a password in plain text")
            .at(Span::new(id, 10, 16), "here")
            .help("encrypt it")
            .hidden();
        let text = render_coded(&diagnostic, &sources, Style::Plain);
        assert!(text.starts_with("warning[plain-secret]: a password in plain text\n"), "{text}");
        assert!(text.contains("--> states/web.yml:1:11"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
