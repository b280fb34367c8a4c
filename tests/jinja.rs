//! Expressions and templates against what ansible-core 2.19.14 makes of them.
//!
//! `tests/jinja/expected.py` says how the cases are written, and asks Ansible again. What differs
//! on purpose is in `tests/jinja/intended.yml`: a reason, and the cases that it is the reason for.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use converge::change::Mask;
use converge::diagnostic::{Diagnostics, Sources};
use converge::lang::yaml::{self, Node};
use converge::lang::{Evaluated, Facts, Layer, LookupEnvironment, Rendered, Scope, Templates};
use serde_json::Value as Json;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jinja")
}

/// Files of a folder with an ending, in order.
fn files(within: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(within)).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    files.sort();
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

fn read(sources: &Sources, path: &Path) -> Node {
    let mut diagnostics = Diagnostics::default();
    let source = sources.add(stem(path), fs::read_to_string(path).unwrap());
    let node = yaml::parse_one(sources, source, &mut diagnostics);
    assert!(!diagnostics.has_errors(), "{}: {diagnostics:?}", path.display());
    node.unwrap()
}

fn entries(node: Option<&Node>) -> impl Iterator<Item = (String, &Node)> {
    let entries = node.and_then(Node::entries).unwrap_or_default().iter();
    entries.map(|(key, value)| (key.as_text().unwrap_or_default().to_owned(), value))
}

fn scope(sources: &Arc<Sources>, variables: Option<&Node>, environment: Option<&Node>) -> Scope {
    let environment = entries(environment)
        .map(|(name, node)| (name, node.as_text().unwrap_or_default().to_owned()))
        .chain([(String::from("PATH"), String::from("/usr/bin:/bin"))]);
    let lookup = LookupEnvironment { variables: environment.collect(), project: folder() };
    let templates = Arc::new(Templates::new(sources.clone(), false, lookup));
    let variables =
        entries(variables).map(|(name, node)| (Arc::from(name), node.clone())).collect();
    let layer = Arc::new(Layer { label: String::new(), variables, locked: false });
    Scope::new(templates, vec![layer], BTreeMap::new(), Facts::Unknown)
}

/// What a case gives: a value, or that it fails.
type Answer = Option<Json>;

/// Cases by name, with Ansible's answer and ours.
fn answers() -> BTreeMap<String, (Answer, Answer)> {
    let mut answers = BTreeMap::new();
    for path in files("expressions", "yml") {
        let topic = stem(&path);
        let sources = Arc::new(Sources::default());
        let content = read(&sources, &path);
        let scope = scope(&sources, content.get("variables"), content.get("environment"));
        let recorded = fs::read_to_string(path.with_extension("json")).unwrap();
        let recorded: BTreeMap<String, Json> = serde_json::from_str(&recorded).unwrap();
        let expressions = entries(content.get("expressions")).map(|(name, node)| {
            let text = format!("{{{{ {} }}}}", node.as_text().unwrap());
            (name, Node::text(node.span, text))
        });
        let texts = entries(content.get("texts")).map(|(name, node)| (name, node.clone()));
        for (name, node) in expressions.chain(texts) {
            let ours = match scope.evaluate(&node) {
                Ok(Evaluated::Known(json)) => Some(json),
                Ok(Evaluated::Unknown) => panic!("{topic}.{name} asks for facts"),
                Err(_) => None,
            };
            let expected = recorded[&name].get("value").cloned();
            answers.insert(format!("{topic}.{name}"), (expected, ours));
        }
    }
    for path in files("templates", "j2") {
        let sources = Arc::new(Sources::default());
        let variables = read(&sources, &folder().join("templates/variables.yml"));
        let scope = scope(&sources, Some(&variables), None);
        let ours = match scope.render_file(&path, variables.span) {
            Ok(Rendered::Known(text, _)) => Some(Json::String(text)),
            Ok(Rendered::Unknown) => panic!("{} asks for facts", path.display()),
            Err(_) => None,
        };
        let expected = fs::read_to_string(path.with_extension("txt")).ok().map(Json::String);
        assert!(expected.is_some() || path.with_extension("error").is_file());
        answers.insert(format!("templates.{}", stem(&path)), (expected, ours));
    }
    answers
}

#[test]
fn templates_give_what_ansible_gives() {
    let reasons = fs::read_to_string(folder().join("intended.yml")).unwrap();
    let reasons: BTreeMap<String, Vec<String>> = serde_yaml::from_str(&reasons).unwrap();
    let intended: BTreeSet<String> = reasons.into_values().flatten().collect();
    let answers = answers();
    assert!(answers.len() >= 1700, "{}", answers.len());
    let unknown: Vec<_> = intended.iter().filter(|name| !answers.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "intended.yml names cases that are not there: {unknown:?}");
    // As text: the order of keys counts, and 1 is not 1.0.
    let shown = |answer: &Answer| answer.as_ref().map_or("an error".into(), Json::to_string);
    let different: BTreeMap<&String, String> = answers
        .iter()
        .map(|(name, (expected, ours))| (name, shown(expected), shown(ours)))
        .filter(|(_, expected, ours)| expected != ours)
        .map(|(name, expected, ours)| (name, format!("Ansible: {expected}\n  ours: {ours}")))
        .collect();
    let gone = intended.iter().filter(|name| !different.contains_key(name));
    let gone = gone.map(|name| format!("{name} is listed and does not differ"));
    let unlisted = different
        .iter()
        .filter(|(name, _)| !intended.contains(**name))
        .map(|(name, answers)| format!("{name}\n  {answers}"));
    let wrong: Vec<String> = gone.chain(unlisted).collect();
    assert!(wrong.is_empty(), "{}\n{} cases", wrong.join("\n"), wrong.len());
    // Not captured, so that every run says it.
    let (all, intended) = (answers.len(), intended.len());
    let line = format!("templates: {all} cases, {intended} intended differences, 0 wrong\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

#[test]
fn templates_below_the_working_directory_find_what_they_include() {
    // The state file's folder is relative then, and the project's is not.
    let path = Path::new("tests/jinja/templates/include_nested.j2");
    let sources = Arc::new(Sources::default());
    let variables = read(&sources, &folder().join("templates/variables.yml"));
    let rendered = scope(&sources, Some(&variables), None).render_file(path, variables.span);
    assert_eq!(
        rendered.unwrap(),
        Rendered::Known(String::from("outer(\nsimple shop)\n"), Mask::default())
    );
}
