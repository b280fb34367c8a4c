use std::collections::BTreeMap;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

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
    let mut group = level.primary_title(diagnostic.message.as_str()).elements(
        order.iter().zip(&texts).map(|(id, (name, text))| {
            let annotations = by_source.get(id).into_iter().flatten();
            Snippet::source(text.as_ref()).path(name.as_str()).annotations(annotations.map(
                |(start, end, kind, label)| {
                    let span = visible(text, *start, *end);
                    let annotation = kind.span(span);
                    if label.is_empty() { annotation } else { annotation.label(*label) }
                },
            ))
        }),
    );
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
}
