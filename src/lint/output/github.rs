//! Workflow commands, as GitHub documents them under "Workflow commands for GitHub Actions"; what
//! has to be escaped is what its own toolkit escapes.

use super::{Finding, details};
use crate::diagnostic::Severity;

/// A command a finding.
pub(super) fn print(findings: &[Finding]) -> String {
    findings.iter().map(command).collect()
}

fn command(finding: &Finding) -> String {
    let word = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut properties = Vec::new();
    if let Some(place) = finding.places.first() {
        properties.push(format!("file={}", property(&place.file)));
        properties.push(format!("line={}", place.line));
        properties.push(format!("endLine={}", place.end_line));
        // Columns are shown only if all of it is on one line.
        if place.line == place.end_line {
            properties.push(format!("col={}", place.column));
            properties.push(format!("endColumn={}", place.end_column));
        }
    }
    properties.push(format!("title={}", property(finding.code)));
    let mut message = vec![finding.message.as_str()];
    message.extend(details(finding));
    format!("::{word} {}::{}\n", properties.join(","), data(&message.join("\n")))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn what_means_something_to_github_is_escaped() {
        let expected = "::warning file=states/my shop%2C1.yml,line=3,endLine=3,col=5,endColumn=9,\
                        title=plain-secret::a `password`: in plain text%0A100%25%0Aone%0Atwo\n";
        assert_eq!(print(&[sample::finding()]), expected);
    }
}
