use serde_json::{Value, json};

use super::Finding;
use crate::diagnostic::Severity;
use crate::lint::Located;

/// One document: what was found, and how much of it.
pub(super) fn print(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let document = json!({
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn finding(finding: &Finding) -> Value {
    json!({
        "severity": match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "code": finding.code,
        "message": finding.message,
        "places": finding.places.iter().map(place).collect::<Vec<_>>(),
        "notes": finding.notes,
        "help": finding.help,
    })
}

fn place(place: &Located) -> Value {
    json!({
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "end_line": place.end_line,
        "end_column": place.end_column,
        "text": place.text,
    })
}
