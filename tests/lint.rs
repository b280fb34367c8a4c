//! The linter: each rule finds what its examples say, state files of the repository and the book have
//! nothing to find, and `lint/*.yml` give exactly the findings beside them.
//!
//! With `CONVERGE_ACCEPT=1` in the environment the expectations are written anew, and the book's page too.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use converge::diagnostic::{Diagnostics, Severity, Sources, Style};
use converge::lang::{CompileOptions, LookupEnvironment, Program, Templates};
use converge::lint::{Finding, Level, Levels, Linter, RULES, Rule, Subject};
use converge::project::{Compilation, Nothing};
use converge::secret::Keyring;
use serde_json::{Value, json};

/// What is said of a state file for hosts that nobody knows.
fn findings(path: &Path, levels: &Levels) -> Vec<Finding> {
    let sources = Arc::new(Sources::default());
    let mut diagnostics = Diagnostics::default();
    let program = Program::load(&sources, path, None, &Keyring::default(), &mut diagnostics);
    let project = path.parent().unwrap().to_owned();
    let lookup = LookupEnvironment { project, ..LookupEnvironment::default() };
    let templates = Arc::new(Templates::new(sources.clone(), false, lookup));
    let options = CompileOptions { fetch: Some(Arc::new(Nothing)), ..CompileOptions::default() };
    let compilation =
        Compilation::without_inventory(sources.clone(), program, templates.clone(), options);
    let mut linter = Linter::new(&sources);
    compilation.check_each(&mut diagnostics, |plays| linter.host(plays));
    let subject = Subject {
        program: &compilation.program,
        templates: &templates,
        beside: Vec::new(),
        inventory: false,
    };
    let said = linter.finish(&subject, levels, diagnostics);
    Finding::all(&said, &sources, Style::Plain)
}

/// An example as a state file: states alone get a play around them, which says `play`.
fn state_file(example: &str, play: &str) -> String {
    if example.lines().any(|line| line.starts_with("hosts:") || line.starts_with("- hosts:")) {
        return example.to_owned();
    }
    let states = example.lines().map(|line| format!("  {line}\n"));
    format!("hosts: all\n{play}states:\n{}", states.collect::<String>())
}

/// What is said of an example in a play that says `play`, apart from files and states that it names and
/// does not show.
fn of_example(example: &str, play: &str, levels: &Levels) -> Vec<Finding> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.yml");
    fs::write(&path, state_file(example, play)).unwrap();
    // What the library and the book define.
    fs::create_dir_all(folder.path().join("kinds")).unwrap();
    for entry in fs::read_dir("states/kinds").unwrap() {
        let kind = entry.unwrap().path();
        if kind.is_file() {
            fs::copy(&kind, folder.path().join("kinds").join(kind.file_name().unwrap())).unwrap();
        }
    }
    let page = fs::read_to_string("book/src/composite-kinds.md").unwrap();
    for kind in examples(&page).into_iter().filter(|text| name_of_kind(text).is_some()) {
        let name = format!("kinds/{}.yml", name_of_kind(&kind).unwrap());
        fs::write(folder.path().join(name), kind).unwrap();
    }
    let all = findings(&path, levels).into_iter();
    all.filter(|one| {
        let elsewhere = ["missing-file", "unknown-reference"].contains(&one.code);
        !elsewhere && !one.message.starts_with("cannot read ")
    })
    .collect()
}

fn shown(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{}\n", finding.text)).collect()
}

#[test]
fn each_rule_finds_something_in_one_of_its_examples_and_none_does_in_the_other() {
    for rule in RULES {
        let mut levels = Levels::default();
        levels.set(rule.name, Level::Warn).unwrap();
        let wrong = of_example(rule.wrong, "", &levels);
        assert!(!wrong.is_empty(), "{}: nothing is found", rule.name);
        let only = wrong.iter().all(|finding| finding.code == rule.name);
        assert!(only, "{}:\n{}", rule.name, shown(&wrong));
        let right = of_example(rule.right, "", &levels);
        assert!(right.is_empty(), "{}:\n{}", rule.name, shown(&right));
    }
}

#[test]
fn rules_have_names_that_sort_well_and_sentences_without_a_full_stop() {
    for (index, rule) in RULES.iter().enumerate() {
        let plain = |one: char| one.is_ascii_lowercase() || one == '-';
        assert!(rule.name.chars().all(plain), "{}", rule.name);
        assert!(RULES[..index].iter().all(|other| other.name != rule.name), "{}", rule.name);
        assert!(!rule.summary.ends_with('.'), "{}", rule.name);
        assert!(rule.why.ends_with('.') && rule.instead.ends_with('.'), "{}", rule.name);
    }
}

#[test]
fn state_files_have_exactly_these_findings() {
    let accept = std::env::var_os("CONVERGE_ACCEPT").is_some();
    let mut wrong = String::new();
    let mut paths: Vec<PathBuf> = fs::read_dir("tests/lint")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    paths.sort();
    assert!(paths.len() > 5, "the cases were not found");
    for path in paths {
        let made = shown(&findings(&path, &Levels::default()));
        let expected_path = path.with_extension("txt");
        if accept {
            fs::write(&expected_path, made).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if made != expected {
            wrong +=
                &format!("==== {}\n---- expected\n{expected}---- made\n{made}", path.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The state files among the examples of a page.
fn examples(page: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match &mut open {
            None if line == "```yaml" => open = Some(String::new()),
            Some(text) if line == "```" => {
                examples.push(std::mem::take(text));
                open = None;
            }
            Some(text) => *text += &format!("{line}\n"),
            None => {}
        }
    }
    // Inventories, settings and variables have neither.
    examples.retain(|text| {
        let first = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
        first.starts_with("- ") || text.lines().any(|line| line.starts_with("states:"))
    });
    let without_hosts = |text: &String| {
        let lines = || text.lines();
        let is = |word: &str| lines().any(|line| line.starts_with(word));
        is("states:") && !is("hosts:") && !is("kind:")
    };
    for text in &mut examples {
        if without_hosts(text) {
            text.insert_str(0, "hosts: all\n");
        }
    }
    examples
}

/// The composite kind that an example defines.
fn name_of_kind(example: &str) -> Option<&str> {
    example.lines().find_map(|line| line.strip_prefix("kind: "))
}

#[test]
fn there_is_nothing_to_find_in_the_book() {
    let mut pages = vec![PathBuf::from("README.md")];
    let mut folders = vec![PathBuf::from("book/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md")
                && !path.ends_with("lint.md")
            {
                pages.push(path);
            }
        }
    }
    pages.sort();
    let mut count = 0;
    let mut said = String::new();
    for page in pages {
        for example in examples(&fs::read_to_string(&page).unwrap()) {
            if name_of_kind(&example).is_some() {
                continue;
            }
            count += 1;
            let found = of_example(&example, "become: true\n", &Levels::default());
            if !found.is_empty() {
                said += &format!("==== {}\n{}", page.display(), shown(&found));
            }
        }
    }
    assert!(count > 30, "only {count} examples were found");
    assert!(said.is_empty(), "{said}");
}

#[test]
fn the_page_of_the_book_has_all_rules() {
    let path = Path::new("book/src/lint.md");
    let page = fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- rules:begin -->\n", "<!-- rules:end -->");
    let from = page.find(begin).unwrap() + begin.len();
    let to = page.find(end).unwrap();
    let rows = RULES.iter().map(|rule| format!("| [{0}](#{0}) | {1} |\n", rule.name, rule.summary));
    let table = format!("| rule | what it finds |\n| --- | --- |\n{}", rows.collect::<String>());
    let rules: Vec<String> = RULES.iter().map(|rule| Rule::page(rule)).collect();
    let expected = format!("{table}\n{}", rules.join("\n"));
    if std::env::var_os("CONVERGE_ACCEPT").is_some() {
        fs::write(path, format!("{}{expected}{}", &page[..from], &page[to..])).unwrap();
    } else {
        assert_eq!(page[from..to], expected);
    }
}

fn converge(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_converge"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn there_is_nothing_to_find_in_the_states_of_the_repository() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut states: Vec<String> = fs::read_dir(here.join("states"))
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .filter(|path| path.ends_with(".yml"))
        .collect();
    states.sort();
    for inventory in [&[][..], &["-i", "production"], &["-i", "sandbox"]] {
        let mut arguments = vec!["lint", "--deny", "warnings"];
        arguments.extend(inventory);
        arguments.extend(states.iter().map(String::as_str));
        let output = converge(here, &arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}:\n{said}");
    }
}

/// A project with a state file, `site.yml`, and whatever else is given.
fn project(state_file: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("site.yml", state_file)].iter().chain(files) {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

const LATEST: &str = "hosts: web\nstates:\n  - package: nginx\n    state: latest\n";

#[test]
fn warnings_pass_and_what_is_denied_does_not() {
    let cases: [(&str, &[&str], i32, &str); 6] = [
        ("", &[], 0, "warning[latest-package]"),
        ("", &["--deny", "warnings"], 1, "error[latest-package]"),
        ("", &["--deny", "latest-package"], 1, "error[latest-package]"),
        ("lint: { deny: [latest-package] }", &[], 1, "error[latest-package]"),
        ("lint: { allow: latest-package }", &["--deny", "warnings"], 0, ""),
        (
            "lint: { allow: [latest-packge, latest-package] }",
            &[],
            0,
            "did you mean `latest-package`",
        ),
    ];
    for (settings, arguments, code, said) in cases {
        let folder = project(LATEST, &[("converge.yml", settings)]);
        let output = converge(folder.path(), &[&["lint", "site.yml"], arguments].concat());
        let stdout = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{settings} {arguments:?}: {stdout}");
        assert!(stdout.contains(said) && stdout.is_empty() == said.is_empty(), "{stdout}");
    }
    let folder = project(LATEST, &[]);
    let output = converge(folder.path(), &["lint", "site.yml", "--deny", "latest-packge"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("did you mean `latest-package`?"), "{said}");
}

#[test]
fn with_an_inventory_what_is_undefined_is_an_error_on_the_hosts_of_the_play() {
    let state_file =
        "hosts: web\nstates:\n  - file: /etc/motd\n    content: \"{{ site }} {{ mood }}\"\n";
    let inventory = "web: { hosts: { web1: { site: a, mood: b }, web2: { site: a } } }\n";
    let folder = project(state_file, &[("inventory/hosts.yml", inventory)]);
    let output = converge(folder.path(), &["lint", "site.yml"]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let output = converge(folder.path(), &["lint", "site.yml", "-i", "hosts"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: undefined variable `mood`\n --> site.yml:4:29"), "{said}");
    assert!(!said.contains("`site`"), "{said}");
    assert_eq!(text(&output.stderr), "1 error, 0 warnings\n");
    let output = converge(folder.path(), &["lint", "site.yml", "-i", "hosts", "-e", "mood=c"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_included_file_is_looked_at_where_it_is_included() {
    let included = "defaults: { state: latest }\nstates:\n  - package: nginx\n    state: \"{{ state }}\"\n  - pakage: x\n";
    let folder = project("hosts: web\ninclude: base.yml\n", &[("base.yml", included)]);
    let output = converge(folder.path(), &["lint", "base.yml", "site.yml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("error").count(), 1, "{said}");
    assert!(said.contains("base.yml:5:5"), "{said}");
    let output = converge(folder.path(), &["lint", "base.yml"]);
    let said = text(&output.stdout);
    assert!(said.contains("a play without `hosts`"), "{said}");
}

#[test]
fn nothing_that_a_stranger_says_is_run() {
    let state_file = "hosts: web\nvars: { a: \"{{ lookup('pipe', 'touch ran') }}\" }\n\
                      states:\n  - file: /etc/motd\n    content: \"{{ a }}\"\n";
    let folder = project(state_file, &[]);
    let output = converge(folder.path(), &["lint", "site.yml", "--untrusted"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--untrusted"), "{said}");
    assert!(!folder.path().join("ran").exists());
}

#[test]
fn what_stands_at_an_address_is_not_fetched() {
    let state_file = "hosts: web\nstates:\n  - file: /etc/issue\n    source: http://127.0.0.1:1/issue\n    \
                      checksum: sha256:00\n";
    let folder = project(state_file, &[]);
    let output = converge(folder.path(), &["lint", "site.yml"]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn programs_get_findings_with_columns_in_characters() {
    let state_file = "hosts: web\nstates:\n  - { name: größer, package: nginx, state: latest }\n";
    let folder = project(state_file, &[]);
    let run = |format: &str| {
        let output = converge(folder.path(), &["lint", "site.yml", "--format", format]);
        assert_eq!(output.status.code(), Some(0));
        text(&output.stdout)
    };
    let document: Value = serde_json::from_str(&run("json")).unwrap();
    assert_eq!((&document["errors"], &document["warnings"]), (&json!(0), &json!(1)));
    let finding = &document["findings"][0];
    assert_eq!(finding["code"], "latest-package");
    let place = json!({
        "file": "site.yml", "line": 3, "column": 44, "end_line": 3, "end_column": 50, "text": ""
    });
    assert_eq!(finding["places"], json!([place]));
    let log: Value = serde_json::from_str(&run("sarif")).unwrap();
    let result = &log["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "latest-package");
    let region = &result["locations"][0]["physicalLocation"]["region"];
    assert_eq!((&region["startColumn"], &region["endColumn"]), (&json!(44), &json!(50)));
    let command = run("github");
    let begin =
        "::warning file=site.yml,line=3,endLine=3,col=44,endColumn=50,title=latest-package::";
    assert!(command.starts_with(begin), "{command}");
    let output = converge(folder.path(), &["lint", "site.yml", "--format", "xml"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn rules_are_listed_and_explained() {
    let here = Path::new(".");
    let listed = text(&converge(here, &["lint", "--rules"]).stdout);
    assert_eq!(listed.lines().count(), RULES.len());
    let explained = text(&converge(here, &["lint", "--explain", "plain-secret"]).stdout);
    assert!(explained.starts_with("## plain-secret\n"), "{explained}");
    let unknown = converge(here, &["lint", "--explain", "plain-secrets"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("did you mean `plain-secret`?"));
}

#[test]
fn every_option_is_on_the_page() {
    let page = fs::read_to_string("book/src/lint.md").unwrap();
    let help = text(&converge(Path::new("."), &["lint", "--help"]).stdout);
    let options: Vec<&str> = help
        .lines()
        .filter_map(|line| {
            line.trim_start().strip_prefix('-')?.split_once("--")?.1.split(' ').next()
        })
        .chain(
            help.lines().filter_map(|line| line.trim_start().strip_prefix("--")?.split(' ').next()),
        )
        .filter(|option| *option != "help")
        .collect();
    assert!(options.len() > 7, "{help}");
    for option in options {
        assert!(
            page.contains(&format!("--{option}`")) || page.contains(&format!("--{option} ")),
            "{option}"
        );
    }
}

#[test]
fn a_secret_is_not_shown_again() {
    let state_file = "hosts: web\nvars: { db_password: ooPh1eex, other: 1 }\nstates:\n  - file: /etc/a\n    \
                      content: \"{{ db_password }}\"\n    mode: 0600\n";
    let folder = project(state_file, &[]);
    for format in ["text", "json", "github", "sarif"] {
        let output = converge(folder.path(), &["lint", "site.yml", "--format", format]);
        let said = text(&output.stdout);
        assert!(said.contains("plain-secret") && said.contains("unused-variable"), "{said}");
        assert!(!said.contains("ooPh1eex"), "{said}");
    }
}

#[test]
fn every_finding_of_a_rule_is_a_warning_unless_it_is_denied() {
    for rule in RULES.iter().filter(|rule| rule.level == Level::Warn) {
        let found = of_example(rule.wrong, "", &Levels::default());
        assert!(found.iter().all(|one| one.severity == Severity::Warning), "{}", rule.name);
    }
}
