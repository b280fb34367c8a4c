//! Inventory programs: whatever answers `--list` (and `--host NAME`) with JSON.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use indexmap::IndexSet;

use super::json_nodes;
use super::read::Reader;
use super::tree::Tree;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceId, Span};
use crate::lang::yaml::{Kind, Node};

/// Most that a program may print, in bytes.
const OUTPUT_LIMIT: u64 = 64 << 20;
/// How often a program that has closed its output is looked after.
const POLL: Duration = Duration::from_millis(5);

/// Runs the program and reads its answer into the tree.
pub(super) fn read(
    reader: &Reader<'_>,
    path: &Path,
    name: &str,
    tree: &mut Tree,
    diagnostics: &mut Diagnostics,
) {
    let script = Script { reader, path, name };
    let Some((source, text)) = script.run(&["--list"], diagnostics) else { return };
    let Some(root) = script.json(source, &text, diagnostics) else { return };
    let mut hosts: IndexSet<Arc<str>> = IndexSet::new();
    let mut hostvars = None;
    for (key, body) in root.entries().unwrap_or_default() {
        if key.as_text() == Some("_meta") {
            hostvars = body.get("hostvars");
            if hostvars.is_none_or(|hostvars| hostvars.entries().is_none()) {
                let message = format!("`_meta` in the answer of `{name}` has no `hostvars`");
                diagnostics.push(Diagnostic::error("inventory-script", message).at(body.span, ""));
            }
        } else {
            script.group(key, body, &mut hosts, tree, diagnostics);
        }
    }
    for host in &hosts {
        let asked;
        let variables = match hostvars {
            Some(hostvars) => hostvars.get(host),
            None => {
                asked = script.host(host, diagnostics);
                asked.as_ref()
            }
        };
        let Some(variables) = variables else { continue };
        let Some(entries) = variables.entries() else {
            let message = format!("the variables of `{host}` have to be a mapping");
            diagnostics.push(
                Diagnostic::error("inventory-script", message)
                    .at(variables.span, format!("this is {}", variables.describe())),
            );
            continue;
        };
        for (key, value) in entries {
            tree.set_on_host(host, key, value, diagnostics);
        }
    }
}

struct Script<'a> {
    reader: &'a Reader<'a>,
    path: &'a Path,
    name: &'a str,
}

impl Script<'_> {
    fn group(
        &self,
        key: &Node,
        body: &Node,
        hosts: &mut IndexSet<Arc<str>>,
        tree: &mut Tree,
        diagnostics: &mut Diagnostics,
    ) {
        let group_name = key.as_text().unwrap_or_default();
        let group = tree.add_group(group_name, Some(key.span));
        let wrong = |what: &str, wanted: &str, value: &Node| {
            let message = format!(
                "{what} of the group `{group_name}` from `{}` has to be {wanted}",
                self.name
            );
            Diagnostic::error("inventory-script", message)
                .at(value.span, format!("this is {}", value.describe()))
        };
        let (members, variables, children) = match &body.kind {
            Kind::Mapping(entries)
                if ["hosts", "vars", "children"].iter().all(|key| body.get(key).is_none()) =>
            {
                // The oldest form, which Ansible still reads: the variables of one host that is
                // named as its group is. They are never templates.
                let host = tree.add_host(group_name, Some(group), Some(key.span));
                hosts.insert(tree.name_of_host(host));
                for (key, value) in entries.iter() {
                    tree.set_on_group(group, key, &without_templates(value), diagnostics);
                }
                let message = format!(
                    "the group `{group_name}` from `{}` has no `hosts`, `vars` or `children`",
                    self.name
                );
                diagnostics.push(
                    Diagnostic::warning("inventory-script", message)
                        .at(body.span, "read as the variables of one host of that name"),
                );
                return;
            }
            Kind::Mapping(_) => (body.get("hosts"), body.get("vars"), body.get("children")),
            _ => (Some(body), None, None),
        };
        if let Some(members) = members {
            let Some(items) = members.items() else {
                diagnostics.push(wrong("`hosts`", "a list", members));
                return;
            };
            for item in items {
                match item.as_text() {
                    Some(name) if !name.is_empty() => {
                        let host = tree.add_host(name, Some(group), Some(item.span));
                        hosts.insert(tree.name_of_host(host));
                    }
                    _ => diagnostics.push(wrong("a host", "a string", item)),
                }
            }
        }
        if let Some(variables) = variables {
            let Some(entries) = variables.entries() else {
                diagnostics.push(wrong("`vars`", "a mapping", variables));
                return;
            };
            for (key, value) in entries {
                tree.set_on_group(group, key, value, diagnostics);
            }
        }
        if let Some(children) = children {
            let Some(items) = children.items() else {
                diagnostics.push(wrong("`children`", "a list", children));
                return;
            };
            for item in items {
                let name = item.as_text().unwrap_or_default();
                let child = tree.add_group(name, Some(item.span));
                tree.add_child(group, child, Some(item.span), diagnostics);
            }
        }
    }

    /// What the program says of one host; programs without `_meta` are asked for each.
    fn host(&self, host: &str, diagnostics: &mut Diagnostics) -> Option<Node> {
        let (source, text) = self.run(&["--host", host], diagnostics)?;
        if text.trim().is_empty() {
            return None;
        }
        self.json(source, &text, diagnostics)
    }

    fn json(&self, source: SourceId, text: &str, diagnostics: &mut Diagnostics) -> Option<Node> {
        if text.trim_start().starts_with('{') && json_nodes::is_json(text) {
            return json_nodes::read(text, source, diagnostics);
        }
        let message = format!("`{}` has to answer with a JSON object", self.name);
        let end = text.lines().next().map_or(0, str::len);
        let mut diagnostic = Diagnostic::error("inventory-script", message)
            .at(Span::new(source, 0, end), "the answer begins with this");
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
            diagnostic = diagnostic.note(error.to_string());
        }
        diagnostics.push(diagnostic);
        None
    }

    /// Runs the program with some arguments; its output becomes a source.
    fn run(
        &self,
        arguments: &[&str],
        diagnostics: &mut Diagnostics,
    ) -> Option<(SourceId, Arc<str>)> {
        let shown = format!("{} {}", self.name, arguments.join(" "));
        match self.output(arguments) {
            Ok(text) => {
                let text: Arc<str> = Arc::from(text);
                let source = self.reader.sources.add(format!("output of {shown}"), text.clone());
                Some((source, text))
            }
            Err((reason, error_output)) => {
                let message = format!("the inventory `{shown}` {reason}");
                let mut diagnostic = Diagnostic::error("inventory-script", message);
                for line in error_output.lines().rev().take(10).collect::<Vec<_>>().iter().rev() {
                    diagnostic = diagnostic.note(*line);
                }
                diagnostics.push(diagnostic);
                None
            }
        }
    }

    /// What the program printed, or why it failed and what it said about that.
    fn output(&self, arguments: &[&str]) -> Result<String, (String, String)> {
        let failed = |reason: String| (reason, String::new());
        // A bare file name would be looked for in PATH.
        let program = std::fs::canonicalize(self.path)
            .map_err(|error| failed(format!("cannot be run: {error}")))?;
        let limit = self.reader.spec.script_timeout;
        let end = Instant::now() + limit;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("cannot be run: {error}")))?;
        let output = child.stdout.take().map(collect);
        let errors = child.stderr.take().map(collect);
        let left = || end.saturating_duration_since(Instant::now());
        let printed = output.and_then(|output| output.recv_timeout(left()).ok());
        let status = printed.as_ref().and_then(|_| wait(&mut child, end));
        let (Some(printed), Some(status)) = (printed, status) else {
            // Nothing is to be done about a process that is gone already.
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(format!("did not finish within {} s", limit.as_secs())));
        };
        let said = errors.and_then(|errors| errors.recv_timeout(left()).ok()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        if !status.success() {
            return Err((format!("failed ({status})"), said));
        }
        if printed.len() as u64 > OUTPUT_LIMIT {
            return Err((format!("printed more than {} MiB", OUTPUT_LIMIT >> 20), said));
        }
        String::from_utf8(printed).map_err(|_| ("printed what is not UTF-8".to_owned(), said))
    }
}

/// Reads a pipe in a thread of its own, so that neither of two fills up and blocks the program.
fn collect(pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is kept; the exit status tells the rest.
        let _ = pipe.take(OUTPUT_LIMIT + 1).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

fn wait(child: &mut Child, end: Instant) -> Option<ExitStatus> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// The same value with all its strings marked as never being templates.
fn without_templates(node: &Node) -> Node {
    let mut node = node.clone();
    match &mut node.kind {
        Kind::Scalar(scalar) => {
            if scalar.style != crate::lang::yaml::Style::Plain {
                scalar.tag = Some(Arc::from("unsafe"));
            }
        }
        Kind::Sequence(items) => *items = Arc::new(items.iter().map(without_templates).collect()),
        Kind::Mapping(entries) => {
            let marked = entries.iter().map(|(key, value)| (key.clone(), without_templates(value)));
            *entries = Arc::new(marked.collect());
        }
    }
    node
}
