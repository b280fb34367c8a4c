//! State files against what converge makes of them: `messages/*.yml` are wrong and give exactly the
//! messages beside them, `declarations/*.yml` are right and give the declarations beside them.
//! `messages/inventories/*` are inventories that are wrong. All messages are on a page of the book.
//!
//! With `CONVERGE_ACCEPT=1` in the environment the expectations and the page are written anew.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use converge::diagnostic::{Diagnostics, Sources, Style, render};
use converge::inventory::{Given, Inventory, Spec};
use converge::kind::SPECS;
use converge::lang::{
    CompileOptions, ContentStore, Declaration, Facts, Layer, LookupEnvironment, Program, Scope,
    Skipped, Templates,
};
use converge::project::{Compilation, Download};
use converge::secret::Keyring;

/// Compiles all plays of a state file for a host without variables.
fn compile(path: &Path, facts: &Facts, options: &CompileOptions) -> (Vec<Declaration>, String) {
    let sources = Arc::new(Sources::default());
    let mut diagnostics = Diagnostics::default();
    let program = Program::load(&sources, path, None, &Keyring::default(), &mut diagnostics);
    let lookup = LookupEnvironment { project: PathBuf::from("tests"), ..Default::default() };
    let templates = Arc::new(Templates::new(sources.clone(), false, lookup));
    let contents = ContentStore::default();
    let mut declarations = Vec::new();
    for play in &program.plays {
        let layers = play.scope_layers(Vec::new(), Arc::new(Layer::default()));
        let scope = Scope::new(templates.clone(), layers, BTreeMap::new(), facts.clone());
        declarations.extend(play.compile(&scope, options, &contents, &mut diagnostics));
    }
    (declarations, rendered(&diagnostics, &sources))
}

fn rendered(diagnostics: &Diagnostics, sources: &Sources) -> String {
    let sorted = diagnostics.sorted().into_iter();
    let messages = sorted.map(|diagnostic| render(diagnostic, sources, Style::Plain));
    messages.collect::<Vec<_>>().join("\n")
}

/// What a run says of its input before any host is touched; without a state file, of the inventory
/// alone.
fn said(state_file: Option<&Path>, inventory: &Path) -> String {
    let sources = Arc::new(Sources::default());
    let mut diagnostics = Diagnostics::default();
    let spec = Spec::new(vec![Given::Path(inventory.to_owned())], PathBuf::new());
    let inventory = Inventory::load(&sources, &spec, &mut diagnostics);
    let program = match state_file {
        Some(path) => Program::load(&sources, path, None, &Keyring::default(), &mut diagnostics),
        None => Program::without_states(&sources),
    };
    let compilation = Compilation::new(
        sources.clone(),
        inventory,
        program,
        Arc::new(Templates::new(sources.clone(), false, LookupEnvironment::default())),
        CompileOptions { fetch: Some(Arc::new(Download)), ..CompileOptions::default() },
        None,
        &mut diagnostics,
    );
    compilation.check(&mut diagnostics);
    for host in compilation.hosts() {
        compilation.connection(host, &mut diagnostics);
    }
    let facts = serde_json::json!({ "os": { "family": "debian" }, "init": "systemd" });
    if !diagnostics.has_errors() {
        for host in compilation.hosts() {
            compilation.learn(host, Facts::Known(facts.clone()));
            compilation.compile(host, &mut diagnostics);
        }
    }
    rendered(&diagnostics, &sources)
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
            Some(Skipped::Locked) => list.push_str(" (locked)"),
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
        .filter(|path| path.extension().is_some_and(|one| one == "yml" || one == "ini"))
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
    let inventory = Path::new("tests/messages/parts/inventory.yml");
    check("tests/messages", |path| said(Some(path), inventory));
    check("tests/messages/inventories", |path| said(None, path));
    // It is made from the expectations, which may just have been written anew.
    all_messages_are_on_their_page();
}

/// The sections of the page of messages: titles, what is said first, and the cases.
const SECTIONS: [(&str, &str, &[&str]); 10] = [
    (
        "YAML",
        "What is not YAML is said where it stops to make sense. Most of these come from values that need quotes.",
        &[
            "yaml-template.yml",
            "yaml-percent.yml",
            "yaml-colon.yml",
            "yaml-quote.yml",
            "yaml-trailing.yml",
            "yaml-escape.yml",
            "yaml-at.yml",
            "yaml-star.yml",
            "yaml-alias.yml",
            "yaml-tab.yml",
            "yaml-indentation.yml",
            "yaml-dash.yml",
            "yaml-bracket.yml",
            "yaml-duplicate.yml",
            "yaml-merge.yml",
            "yaml-tag.yml",
            "yaml-documents.yml",
            "yaml-empty.yml",
        ],
    ),
    (
        "Kinds and arguments",
        "A state is checked against what its kind says of itself; `converge doc KIND` shows that.",
        &[
            "kinds.yml",
            "arguments.yml",
            "common.yml",
            "commands.yml",
            "numbers.yml",
            "waits.yml",
            "loops.yml",
            "ansible.yml",
        ],
    ),
    (
        "Plays and includes",
        "`converge doc play` shows the keys of plays.",
        &["words.yml", "plays.yml", "rollback.yml", "includes.yml"],
    ),
    (
        "Variables",
        "An undefined variable is an error, never an empty string.",
        &[
            "variables.yml",
            "variables-cycle.yml",
            "facts.yml",
            "own_facts.yml",
            "omit.yml",
            "reserved.yml",
        ],
    ),
    (
        "Composite kinds",
        "What is wrong inside of a kind is shown with the place where it is used.",
        &["composites.yml"],
    ),
    (
        "Templates",
        "In template files too, the place is the one in the template.",
        &["syntax.yml", "filters.yml", "templates.yml"],
    ),
    (
        "Files",
        "Files are read, and their contents checked, on the machine that converge runs on.",
        &["files.yml", "sources.yml", "contents.yml"],
    ),
    (
        "One thing, declared twice",
        "Equal declarations are one; differing ones are shown with both places.",
        &["twice.yml", "names.yml", "paths.yml"],
    ),
    (
        "References and order",
        "A circle is shown with the place of each of its requisites.",
        &["references.yml", "loops-empty.yml", "cycles.yml"],
    ),
    (
        "Hosts and inventories",
        "An inventory is read as a whole: what Ansible skips with a warning is an error, since a host that silently \
         drops out is worse.",
        &[
            "hosts.yml",
            "connections.yml",
            "inventories/yaml.yml",
            "inventories/duplicate.yml",
            "inventories/list.yml",
            "inventories/cycle.yml",
            "inventories/template.yml",
            "inventories/connections.yml",
            "inventories/sections.ini",
            "inventories/groups.ini",
        ],
    ),
];

const INTRODUCTION: &str = "\
# Messages

Whatever is wrong in the input is said before any host is touched, all of it at once. Each message has the place (file,
line and column), shows the line, and says what was probably meant where that can be told. A run that is refused ends
with the exit code 1. Warnings stop nothing.

These are wrong inputs and exactly what is said of them. The page is made from the cases that the tests check.
";

fn all_messages_are_on_their_page() {
    let folder = Path::new("tests/messages");
    let mut page = INTRODUCTION.to_owned();
    let mut shown = Vec::new();
    for (title, introduction, cases) in SECTIONS {
        write!(page, "\n## {title}\n\n{introduction}\n").unwrap();
        for case in cases {
            let path = folder.join(case);
            let input = fs::read_to_string(&path).unwrap();
            let messages = fs::read_to_string(path.with_extension("txt")).unwrap();
            let language = if case.ends_with(".ini") { "ini" } else { "yaml" };
            // `wrong` tells whoever tries the book's examples.
            write!(page, "\n```{language},wrong\n{input}```\n\n```text\n{messages}```\n").unwrap();
            shown.push(path);
        }
    }
    for folder in [folder.to_owned(), folder.join("inventories")] {
        let mut paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let lacking = paths.find(|path| {
            path.is_file()
                && path.extension().is_none_or(|one| one != "txt")
                && !shown.contains(path)
        });
        assert_eq!(lacking, None, "it is in no section");
    }
    let is_message = |line: &&str| line.starts_with("error: ") || line.starts_with("warning: ");
    let count = page.lines().filter(is_message).count();
    assert!(count >= 40, "only {count} messages");
    let path = Path::new("book/src/messages.md");
    if std::env::var_os("CONVERGE_ACCEPT").is_some() {
        fs::write(path, &page).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap();
    assert!(page == expected, "book/src/messages.md is not what the cases give");
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
