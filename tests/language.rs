//! State files against what converge makes of them: `messages/*.yml` are wrong and give exactly the
//! messages beside them, `declarations/*.yml` are right and give the declarations beside them.
//!
//! With `CONVERGE_ACCEPT=1` in the environment the expectations are written anew.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use converge::diagnostic::{Diagnostics, Sources, Style, render};
use converge::kind::SPECS;
use converge::lang::{
    CompileOptions, ContentStore, Declaration, Facts, Layer, LookupEnvironment, Program, Scope,
    Skipped, Templates,
};

/// Compiles all plays of a state file for a host without variables.
fn compile(path: &Path, facts: &Facts, options: &CompileOptions) -> (Vec<Declaration>, String) {
    let sources = Arc::new(Sources::default());
    let mut diagnostics = Diagnostics::default();
    let program = Program::load(&sources, path, None, &mut diagnostics);
    let lookup = LookupEnvironment { project: PathBuf::from("tests"), ..Default::default() };
    let templates = Arc::new(Templates::new(sources.clone(), false, lookup));
    let contents = ContentStore::default();
    let mut declarations = Vec::new();
    for play in &program.plays {
        let layers = play.scope_layers(Vec::new(), Arc::new(Layer::default()));
        let scope = Scope::new(templates.clone(), layers, BTreeMap::new(), facts.clone());
        declarations.extend(play.compile(&scope, options, &contents, &mut diagnostics));
    }
    let messages: Vec<_> = diagnostics
        .sorted()
        .into_iter()
        .map(|diagnostic| render(diagnostic, &sources, Style::Plain))
        .collect();
    (declarations, messages.join("\n"))
}

fn listed(declarations: &[Declaration]) -> String {
    let mut list = String::new();
    for declaration in declarations {
        let common = &declaration.common;
        write!(list, "{}", declaration.id).unwrap();
        if let Some(user) = &common.become_user {
            write!(list, " as {user}").unwrap();
        }
        for (word, references) in [("requires", &common.require), ("watches", &common.watch)] {
            for reference in references {
                write!(list, " {word} {}", reference.text).unwrap();
            }
        }
        if !common.tags.is_empty() {
            write!(list, " tagged {}", common.tags.join(",")).unwrap();
        }
        match &declaration.skipped {
            Some(Skipped::When(condition)) => write!(list, " unless {condition}").unwrap(),
            Some(Skipped::Tags) => list.push_str(" (other tags)"),
            Some(Skipped::Undecided) => list.push_str(" (undecided)"),
            None if declaration.declared.is_none() => list.push_str(" (unknown)"),
            None => {}
        }
        list.push('\n');
    }
    list
}

fn check(folder: &str, made: impl Fn(&Path) -> String) {
    let accept = std::env::var_os("CONVERGE_ACCEPT").is_some();
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder} has no cases");
    let mut wrong = String::new();
    for path in paths {
        let made = made(&path);
        let expected_path = path.with_extension("txt");
        if accept {
            fs::write(&expected_path, made).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if made != expected {
            writeln!(wrong, "==== {}\n---- expected\n{expected}---- made\n{made}", path.display())
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn facts() -> Facts {
    Facts::Known(serde_json::json!({ "os": { "family": "debian" } }))
}

#[test]
fn wrong_input_gives_exactly_these_messages() {
    check("tests/messages", |path| compile(path, &facts(), &CompileOptions::default()).1);
}

#[test]
fn right_input_gives_exactly_these_declarations() {
    check("tests/declarations", |path| {
        let (declarations, messages) = compile(path, &facts(), &CompileOptions::default());
        assert_eq!(messages, "", "{}", path.display());
        listed(&declarations)
    });
}

#[test]
fn defaults_are_what_leaving_out_means() {
    // A service that is masked is stopped.
    let no_values = [("service", "state")];
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("htdocs")).unwrap();
    fs::write(folder.path().join("nginx-signing.asc"), "-----BEGIN PGP PUBLIC KEY BLOCK-----")
        .unwrap();
    let path = folder.path().join("states.yml");
    let declared = |state: &str| {
        fs::write(&path, format!("hosts: all\nstates:\n{state}\n")).unwrap();
        let (declarations, messages) = compile(&path, &facts(), &CompileOptions::default());
        declarations[0].declared.clone().unwrap_or_else(|| panic!("{state}\n{messages}"))
    };
    let mut count = 0;
    for spec in SPECS {
        // The first state of the example.
        let example = spec.example.split("\n- ").next().unwrap().trim_end();
        for argument in spec.arguments {
            let Some(default) = argument.default() else { continue };
            if no_values.contains(&(spec.name, argument.name)) {
                continue;
            }
            count += 1;
            let given = format!("  {}:", argument.name);
            let lines: Vec<&str> =
                example.lines().filter(|line| !line.starts_with(&given)).collect();
            let without = lines.join("\n");
            let with = format!("{without}\n{given} '{default}'");
            assert_eq!(declared(&without), declared(&with), "{} {}", spec.name, argument.name);
        }
    }
    assert!(count >= 25, "only {count} arguments have a default");
}

#[test]
fn without_facts_both_sides_of_a_condition_are_checked() {
    let path = Path::new("tests/declarations/conditions.yml");
    let (declarations, messages) = compile(path, &Facts::Unknown, &CompileOptions::default());
    assert_eq!(messages, "");
    let undecided = |id: &str| {
        declarations.iter().any(|declaration| {
            declaration.id.as_str() == id && declaration.skipped == Some(Skipped::Undecided)
        })
    };
    assert!(undecided("package:nginx"), "{}", listed(&declarations));
    assert!(undecided("package:httpd"), "{}", listed(&declarations));
}

#[test]
fn tags_and_only_select() {
    let path = Path::new("tests/declarations/tags.yml");
    let selected = |options: &CompileOptions| {
        let (declarations, messages) = compile(path, &facts(), options);
        assert_eq!(messages, "");
        let selected = declarations.iter().filter(|declaration| declaration.skipped.is_none());
        selected.map(|declaration| declaration.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    type Case =
        (&'static [&'static str], &'static [&'static str], &'static [&'static str], &'static str);
    let cases: [Case; 8] = [
        (&[], &[], &[], "file:/a file:/b file:/always"),
        (&["one"], &[], &[], "file:/a file:/always"),
        (&[], &["one"], &[], "file:/b file:/always"),
        (&["never"], &[], &[], "file:/always file:/never"),
        (&["rare"], &[], &[], "file:/always file:/never"),
        (&["untagged"], &["always"], &[], "file:/b"),
        (&[], &[], &["file:/[ab]"], "file:/a file:/b"),
        (&[], &[], &["second"], "file:/b"),
    ];
    for (tags, skip_tags, only, expected) in cases {
        let options = CompileOptions {
            tags: words(tags),
            skip_tags: words(skip_tags),
            only: words(only),
            ..CompileOptions::default()
        };
        assert_eq!(selected(&options), expected, "{tags:?} {skip_tags:?} {only:?}");
    }
}
