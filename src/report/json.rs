use std::io::{self, Write};

use indexmap::IndexMap;
use serde::Serialize;

use super::record::RunRecord;
use super::{Event, Reporter, Resource, Status, Summary};

/// Writes one JSON document when the run is done.
pub(super) struct Json {
    record: RunRecord,
    out: Box<dyn Write + Send>,
}

impl Json {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { record: RunRecord::default(), out }
    }
}

impl Reporter for Json {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.record.event(event);
        let Event::RunDone { exit_code, .. } = event else { return Ok(()) };
        serde_json::to_writer(&mut self.out, &Document::of(&self.record, *exit_code))?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

/// The document; its names are part of the contract with programs.
#[derive(Serialize)]
struct Document<'a> {
    run: &'a str,
    inventory: &'a str,
    state_file: &'a str,
    dry_run: bool,
    exit_code: i32,
    hosts: IndexMap<&'a str, HostDocument<'a>>,
    /// Only where the input was refused before any host took part.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    errors: &'a [String],
}

/// The document of a run that did not begin, with a newline.
pub fn refused(
    inventory: &str,
    state_file: &str,
    dry_run: bool,
    exit_code: i32,
    errors: &[String],
) -> String {
    let hosts = IndexMap::new();
    let document = Document { run: "", inventory, state_file, dry_run, exit_code, hosts, errors };
    // Names and texts always have a form in JSON.
    serde_json::to_string(&document).map(|text| text + "\n").unwrap_or_default()
}

#[derive(Serialize)]
struct HostDocument<'a> {
    status: Status,
    error: Option<&'a str>,
    summary: Summary,
    /// The host was planned again after it was changed, and nothing differed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    verified: bool,
    resources: &'a [Resource],
}

impl<'a> Document<'a> {
    fn of(record: &'a RunRecord, exit_code: i32) -> Self {
        let hosts = record
            .hosts
            .iter()
            .map(|(name, host)| {
                let document = HostDocument {
                    // A run that was refused ends before its hosts do.
                    status: host.status.unwrap_or(Status::Skipped),
                    error: host.error.as_deref(),
                    summary: host.summary,
                    verified: host.verified,
                    resources: &host.resources,
                };
                (name.as_str(), document)
            })
            .collect();
        Self {
            run: &record.run,
            inventory: &record.inventory,
            state_file: &record.state_file,
            dry_run: record.dry_run,
            exit_code,
            hosts,
            errors: &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::report::Format;
    use crate::report::samples::{self, report};

    #[test]
    fn a_run_that_was_refused_has_a_document_too() {
        let errors = [String::from("web.yml:3:5: unknown kind `pakage`")];
        assert_eq!(
            super::refused("production", "web.yml", true, 1, &errors),
            "{\"run\":\"\",\"inventory\":\"production\",\"state_file\":\"web.yml\",\"dry_run\":true,\
             \"exit_code\":1,\"hosts\":{},\"errors\":[\"web.yml:3:5: unknown kind `pakage`\"]}\n"
        );
    }

    #[test]
    fn a_dry_run_is_one_document() {
        let text = report(Format::Json, &samples::dry_run());
        assert_eq!(text.matches('\n').count(), 1);
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["run", "inventory", "state_file", "dry_run", "exit_code", "hosts"]);
        let hosts: Vec<&String> = document["hosts"].as_object().unwrap().keys().collect();
        assert_eq!(hosts, ["web1", "web2", "db1"]);
        assert_eq!(
            document["hosts"]["db1"].to_string(),
            r#"{"status":"unreachable","error":"connection refused\n  help: is sshd running?","summary":{"ok":0,"change":0,"depends":0,"failed":0,"skipped":0},"resources":[]}"#
        );
        let motd = &document["hosts"]["web1"]["resources"][0];
        let expected = concat!(
            r#"{"id":"file:/etc/motd","label":"the greeting","play":"web","verdict":"change","#,
            r#""because":"","depends_on":[],"assuming":[],"owed":false,"changes":[{"#,
            r#""action":"content","target":"/etc/motd","#,
            r#""diff":"--- /dev/null\n+++ /etc/motd\n@@ -0,0 +1 @@\n+hello\n"}],"#,
            r#""at":"states/web.yml:12:5","ms":3}"#
        );
        assert_eq!(motd.to_string(), expected);
    }

    #[test]
    fn what_was_done_replaces_what_was_planned() {
        let text = report(Format::Json, &samples::live_run());
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let verdicts: Vec<String> = document["hosts"]["web1"]["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|resource| format!("{} {}", resource["id"], resource["verdict"]))
            .collect();
        assert_eq!(
            verdicts,
            [
                r#""file:/etc/motd" "change""#,
                r#""service:nginx" "failed""#,
                r#""package:curl" "ok""#,
                r#""file:/etc/issue" "skipped""#,
            ]
        );
    }

    #[test]
    fn a_refused_run_skips_its_hosts() {
        let text = report(Format::Json, &samples::refused());
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["exit_code"], 1);
        assert_eq!(document["hosts"]["web1"]["status"], "skipped");
    }
}
