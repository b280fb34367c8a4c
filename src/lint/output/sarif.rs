//! SARIF 2.1.0 (OASIS, Static Analysis Results Interchange Format).

use serde_json::{Value, json};

use super::{Finding, details};
use crate::diagnostic::Severity;
use crate::lint::{Level, Located, RULES, Rule};

/// Where the schema of the format is, by its own name.
const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// One log with one run.
pub(super) fn print(findings: &[Finding]) -> String {
    let mut rules: Vec<(&str, Value)> =
        RULES.iter().map(|rule| (rule.name, descriptor(rule))).collect();
    // What is wrong with the input has a name too, and readers look it up.
    for finding in findings {
        if !rules.iter().any(|(name, _)| *name == finding.code) {
            let text = format!("What is wrong with the input: {}", finding.code);
            let value = json!({ "id": finding.code, "shortDescription": { "text": text } });
            rules.push((finding.code, value));
        }
    }
    let names: Vec<&str> = rules.iter().map(|(name, _)| *name).collect();
    let results: Vec<Value> = findings.iter().map(|finding| result(finding, &names)).collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "converge",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.into_iter().map(|(_, value)| value).collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{log:#}\n")
}

fn descriptor(rule: &Rule) -> Value {
    let help = format!("{}\n\n{}", rule.why, rule.instead);
    let level = match rule.level {
        Level::Allow | Level::Warn => "warning",
        Level::Deny => "error",
    };
    json!({
        "id": rule.name,
        "shortDescription": { "text": rule.summary },
        "fullDescription": { "text": rule.why },
        "help": { "text": help, "markdown": rule.page() },
        "defaultConfiguration": { "enabled": rule.level != Level::Allow, "level": level },
    })
}

fn result(finding: &Finding, names: &[&str]) -> Value {
    let mut text = vec![finding.message.as_str()];
    text.extend(details(finding));
    let mut result = json!({
        "ruleId": finding.code,
        "level": match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "message": { "text": text.join("\n") },
    });
    if let Some(index) = names.iter().position(|name| *name == finding.code) {
        result["ruleIndex"] = json!(index);
    }
    if let Some((place, others)) = finding.places.split_first() {
        result["locations"] = json!([{ "physicalLocation": physical(place) }]);
        let related = others.iter().map(|other| {
            let text = if other.text.is_empty() { "this" } else { &other.text };
            json!({ "physicalLocation": physical(other), "message": { "text": text } })
        });
        let related: Vec<Value> = related.collect();
        if !related.is_empty() {
            result["relatedLocations"] = json!(related);
        }
    }
    result
}

fn physical(place: &Located) -> Value {
    json!({
        "artifactLocation": { "uri": uri(&place.file) },
        "region": {
            "startLine": place.line,
            "startColumn": place.column,
            "endLine": place.end_line,
            "endColumn": place.end_column,
        },
    })
}

/// A path as a URI reference (RFC 3986, section 4.2): relative ones stay relative.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    // A first part with a colon in it would be taken for a scheme.
    let first = path.split('/').next().unwrap_or_default();
    if first.contains(':') {
        uri.push_str("./");
    } else if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_log_has_what_the_schema_asks_for() {
        let mut error = sample::finding();
        error.severity = Severity::Error;
        error.code = "unknown-argument";
        error.places.clear();
        let log: Value = serde_json::from_str(&print(&[sample::finding(), error])).unwrap();
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        assert_eq!(run["columnKind"], "unicodeCodePoints");
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), RULES.len() + 1);
        for (index, rule) in rules.iter().enumerate() {
            let id = rule["id"].as_str().unwrap();
            assert!(rules[..index].iter().all(|other| other["id"] != id), "{id} is there twice");
            assert!(rule["shortDescription"]["text"].is_string(), "{rule}");
        }
        let [first, second] = &run["results"].as_array().unwrap()[..] else { panic!("{run}") };
        for result in [first, second] {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            assert!(result["message"]["text"].is_string(), "{result}");
        }
        assert_eq!((&first["level"], &second["level"]), (&json!("warning"), &json!("error")));
        let place = &first["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "states/my%20shop,1.yml");
        let region = json!({ "startLine": 3, "startColumn": 5, "endLine": 3, "endColumn": 9 });
        assert_eq!(place["region"], region);
        assert_eq!(first["relatedLocations"][0]["physicalLocation"]["region"]["endLine"], 2);
        assert!(second.get("locations").is_none(), "{second}");
    }

    #[test]
    fn paths_are_uris() {
        let cases = [
            ("states/web.yml", "states/web.yml"),
            ("/srv/a b.yml", "file:///srv/a%20b.yml"),
            ("a:b/ü%.yml", "./a:b/%C3%BC%25.yml"),
        ];
        for (path, expected) in cases {
            assert_eq!(uri(path), expected);
        }
    }
}
