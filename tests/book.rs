//! The book says what the code does: argument tables come from the kinds themselves, and every
//! option of `--help` has its line.
//!
//! `CONVERGE_ACCEPT=1 cargo test --test book` writes the tables anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use converge::kind::{SPECS, Spec};
use converge::lang::{CHECK, COMMON, INCLUDE, INCLUDED_FILE, PLAY};
use indexmap::IndexMap;

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("book/src")
}

fn table(spec: &Spec) -> String {
    let escape = |text: &str| text.replace('|', "\\|");
    let mut table = String::from("| argument | value | meaning |\n| --- | --- | --- |\n");
    let key = &spec.key;
    table += &format!("| `{}` | {} | {} |\n", spec.name, key.shape.describe(), escape(key.summary));
    for argument in spec.arguments {
        let (value, summary) = (argument.describe(), escape(argument.summary));
        table += &format!("| `{}` | {} | {summary} |\n", argument.name, escape(&value));
    }
    table
}

#[test]
fn every_kind_has_its_page_with_its_arguments() {
    let summary = fs::read_to_string(book().join("SUMMARY.md")).unwrap();
    for spec in SPECS {
        let path = book().join(format!("kinds/{}.md", spec.name));
        let page =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", spec.name));
        assert!(
            summary.contains(&format!("kinds/{}.md", spec.name)),
            "{} is not listed",
            spec.name
        );
        let (begin, end) = ("<!-- arguments:begin -->\n", "<!-- arguments:end -->");
        let from = page.find(begin).map(|at| at + begin.len());
        let (Some(from), Some(to)) = (from, page.find(end)) else {
            panic!("the page of {} has no place for its arguments", spec.name);
        };
        if page[from..to] != table(spec) && std::env::var_os("CONVERGE_ACCEPT").is_some() {
            let page = format!("{}{}{}", &page[..from], table(spec), &page[to..]);
            fs::write(&path, page).unwrap();
            continue;
        }
        assert_eq!(page[from..to], table(spec), "the page of {}", spec.name);
        assert!(page.contains(spec.summary), "the page of {} has another summary", spec.name);
        assert!(page.contains(spec.example), "the page of {} has another example", spec.name);
        for sentence in spec.exclusions() {
            assert!(page.contains(&sentence), "the page of {} lacks: {sentence}", spec.name);
        }
    }
}

/// A kind that is written in YAML, as far as the book tells of it.
#[derive(serde::Deserialize)]
struct Composite {
    kind: String,
    summary: String,
    arguments: IndexMap<String, Argument>,
}

#[derive(serde::Deserialize)]
struct Argument {
    #[serde(default)]
    key: bool,
    #[serde(default)]
    required: bool,
    r#type: Option<String>,
    #[serde(default)]
    choices: Vec<String>,
    default: Option<serde_yaml::Value>,
    summary: String,
}

impl Composite {
    /// Its summary and arguments as the book shows them.
    fn described(&self) -> String {
        let mut text = format!(
            "{}.\n\n| argument | value | default | meaning |\n| --- | --- | --- | --- |\n",
            self.summary
        );
        for (name, argument) in &self.arguments {
            let name = if argument.key { &self.kind } else { name };
            let value = match argument.choices.as_slice() {
                [] => argument.r#type.as_deref().unwrap_or("string").to_owned(),
                words => {
                    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                    words.join(", ")
                }
            };
            let required = if argument.required { ", required" } else { "" };
            let default = match &argument.default {
                None => String::new(),
                Some(default) => match serde_yaml::to_string(default).unwrap().trim() {
                    "''" | "[]" | "{}" => String::new(),
                    text => format!("`{}`", text.trim_matches(['\'', '"'])),
                },
            };
            let default = default.replace('|', "\\|");
            text +=
                &format!("| `{name}` | {value}{required} | {default} | {} |\n", argument.summary);
        }
        text
    }
}

#[test]
fn the_library_of_composite_kinds_is_described() {
    let path = book().join("composite-kinds.md");
    let mut page = fs::read_to_string(&path).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("states/kinds");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        count += 1;
        let kind: Composite = serde_yaml::from_str(&fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let begin = format!("<!-- library:{}:begin -->\n", kind.kind);
        let end = format!("<!-- library:{}:end -->", kind.kind);
        let from = page.find(&begin).map(|at| at + begin.len());
        let (Some(from), Some(to)) = (from, page.find(&end)) else {
            panic!("the page has no place for {}", kind.kind);
        };
        if std::env::var_os("CONVERGE_ACCEPT").is_some() {
            page.replace_range(from..to, &kind.described());
        } else {
            assert_eq!(page[from..to], kind.described(), "{}", kind.kind);
        }
    }
    assert_eq!(page.matches("<!-- library:").count(), 2 * count);
    if std::env::var_os("CONVERGE_ACCEPT").is_some() {
        fs::write(&path, page).unwrap();
    }
}

#[test]
fn every_key_of_the_language_is_on_its_page() {
    let page = fs::read_to_string(book().join("state-files.md")).unwrap();
    for key in [PLAY, COMMON, INCLUDE, INCLUDED_FILE, CHECK].into_iter().flatten() {
        assert!(page.contains(&format!("`{}`", key.name)), "{} is not on the page", key.name);
    }
}

#[test]
fn doc_says_what_the_pages_say() {
    // Somewhere that is no project.
    let folder = tempfile::tempdir().unwrap();
    let doc = |topic: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_converge"));
        let output = command.arg("doc").args(topic).current_dir(folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, list, _) = doc(&[]);
    assert_eq!(code, Some(0));
    for spec in SPECS {
        let line = |line: &str| line.contains(spec.name) && line.ends_with(spec.summary);
        assert!(list.lines().any(line), "{} is not listed", spec.name);
        let (code, page, _) = doc(&[spec.name]);
        assert_eq!(code, Some(0), "{}", spec.name);
        for argument in spec.arguments {
            let entry = format!(
                "  {}: {}\n      {}\n",
                argument.name,
                argument.describe(),
                argument.summary
            );
            assert!(page.contains(&entry), "{entry} is not in\n{page}");
        }
        let example = spec.example.lines().map(|line| format!("  {line}\n")).collect::<String>();
        assert!(page.ends_with(&format!("\nExample:\n\n{example}")), "{page}");
        assert!(spec.exclusions().iter().all(|sentence| page.contains(sentence)), "{page}");
    }
    for (topic, keys) in [("play", PLAY), ("play", CHECK), ("common", COMMON)] {
        let (_, page, _) = doc(&[topic]);
        for key in keys {
            assert!(page.contains(key.summary), "{} is not in\n{page}", key.name);
        }
    }
    let message = "error: there is no kind `fiel`; did you mean `file`?\n";
    assert_eq!(doc(&["fiel"]), (Some(1), String::new(), message.to_owned()));
}

#[test]
fn doc_and_schema_know_the_kinds_of_the_project() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("states/kinds");
    fs::create_dir_all(&below).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_converge"));
        let output = command.args(arguments).current_dir(&below).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let kind = "kind: app\nsummary: A program\narguments: { name: { key: true } }\nstates: []\n";
    fs::write(below.join("app.yml"), kind).unwrap();
    let (code, text) = run(&["doc", "app"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("app: A program.\n"), "{text}");
    let (code, text) = run(&["schema"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\"state-app\": {"), "{text}");
    fs::write(below.join("wrong.yml"), "kind: wrong\nsates: []\n").unwrap();
    let (code, text) = run(&["schema"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("unknown key `sates` for a kind"), "{text}");
    assert_eq!(run(&["doc", "file"]).0, Some(0));
    assert_eq!(run(&["doc", "wrong"]).0, Some(1));
}

#[test]
fn all_filters_and_tests_are_listed() {
    let path = book().join("state-files.md");
    let page = fs::read_to_string(&path).unwrap();
    let listed = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names.dedup();
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
    };
    let expected = format!(
        "Filters: {}\n\nTests: {}\n",
        listed(converge::lang::filter_names()),
        listed(converge::lang::test_names())
    );
    let (begin, end) = ("<!-- filters:begin -->\n", "<!-- filters:end -->");
    let from = page.find(begin).unwrap() + begin.len();
    let to = page.find(end).unwrap();
    if std::env::var_os("CONVERGE_ACCEPT").is_some() {
        fs::write(&path, format!("{}{expected}{}", &page[..from], &page[to..])).unwrap();
    } else {
        assert_eq!(page[from..to], expected);
    }
}

#[test]
fn a_refused_run_is_a_document_for_programs_too() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("one.yml"), "hosts: all\nstates:\n  - pakage: nginx\n").unwrap();
    let run = |state: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_converge"))
            .args(["-i", "web1,", state, "--dry-run", "--format", "json"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let document = run("one.yml");
    assert_eq!(document["exit_code"], 1);
    assert_eq!(document["hosts"], serde_json::json!({}));
    assert_eq!(document["errors"], serde_json::json!(["one.yml:3:5: unknown kind `pakage`"]));
    let document = run("two.yml");
    let error = document["errors"][0].as_str().unwrap();
    assert!(error.contains("`two.yml` was not found"), "{error}");
}

#[test]
fn every_option_has_its_line() {
    let page = fs::read_to_string(book().join("command-line.md")).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_converge")).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout);
    let long = help.lines().filter_map(|line| {
        let option = line.trim_start().split("--").nth(1)?;
        line.trim_start().starts_with('-').then(|| option.split([' ', '=', ',', '.']).next())?
    });
    let mut count = 0;
    for option in long.filter(|option| !["help", "version"].contains(option)) {
        count += 1;
        assert!(page.contains(&format!("--{option}")), "--{option} is not on the page");
    }
    assert!(count > 15, "the help was not understood:\n{help}");
    let commands = ["plan", "apply", "undo", "status", "history", "test", "inventory", "sandbox"];
    let more = ["doc", "schema", "vars", "graph", "lint", "secrets"];
    for command in commands.into_iter().chain(more) {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in --help");
        assert!(page.contains(&format!("converge {command}")), "{command} is not on the page");
    }
}
