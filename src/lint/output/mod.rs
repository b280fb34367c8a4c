//! What people and programs read of findings.

mod github;
mod json;
mod sarif;

use super::Finding;

/// What findings are printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, with the lines of the source.
    Text,
    /// One document of our own.
    Json,
    /// Workflow commands, which GitHub shows beside the lines of a change.
    Github,
    /// SARIF 2.1.0, which code scanning reads.
    Sarif,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "github" => Ok(Self::Github),
            "sarif" => Ok(Self::Sarif),
            _ => Err(format!("the formats are text, json, github and sarif, not `{name}`")),
        }
    }
}

impl Format {
    /// All findings as this format has them.
    pub fn print(self, findings: &[Finding]) -> String {
        match self {
            Self::Text => findings.iter().map(|finding| format!("{}\n", finding.text)).collect(),
            Self::Json => json::print(findings),
            Self::Github => github::print(findings),
            Self::Sarif => sarif::print(findings),
        }
    }
}

/// What there is to say beside the message: at the place, and how to get out.
fn details(finding: &Finding) -> Vec<&str> {
    let label = finding.places.first().map(|place| place.text.as_str());
    let label = label.filter(|text| !text.is_empty());
    let more = finding.notes.iter().chain(&finding.help);
    label.into_iter().chain(more.map(String::as_str)).collect()
}

#[cfg(test)]
pub(super) mod sample {
    use super::super::Located;
    use super::*;
    use crate::diagnostic::Severity;

    /// A finding whose texts have all that formats have to escape.
    pub(in crate::lint) fn finding() -> Finding {
        let place = Located {
            file: "states/my shop,1.yml".into(),
            line: 3,
            column: 5,
            end_line: 3,
            end_column: 9,
            text: "100%".into(),
        };
        Finding {
            severity: Severity::Warning,
            code: "plain-secret",
            message: "a `password`: in plain text".into(),
            places: vec![place.clone(), Located { line: 1, end_line: 2, ..place }],
            notes: vec![],
            help: vec!["one\ntwo".into()],
            text: String::new(),
        }
    }
}
