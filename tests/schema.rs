//! The schema of state files: it is the one in the book, takes whatever is right, and refuses what
//! is wrong.
//!
//! `CONVERGE_ACCEPT=1 cargo test --test schema` writes the one in the book anew.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use converge::diagnostic::{Diagnostics, Sources};
use converge::lang::OwnKinds;
use converge::lang::yaml::{self, Kind, Node, Resolved};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A YAML text as the language reads it.
fn read(name: &str, text: &str) -> Value {
    let sources = Sources::default();
    let mut diagnostics = Diagnostics::default();
    let source = sources.add(name, text);
    let node = yaml::parse_one(&sources, source, &mut diagnostics);
    assert!(diagnostics.is_empty(), "{name}: {diagnostics:?}\n{text}");
    json_of(&node.unwrap())
}

fn json_of(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(scalar) => match scalar.resolve() {
            Resolved::Null => Value::Null,
            Resolved::Boolean(value) => Value::Bool(value),
            Resolved::Integer(value) => Value::from(value),
            Resolved::Float(value) => Value::from(value),
            Resolved::Text(text) => Value::from(text.as_ref()),
        },
        Kind::Sequence(items) => items.iter().map(json_of).collect(),
        Kind::Mapping(entries) => {
            let entries = entries.iter();
            let entries =
                entries.map(|(key, value)| (key.as_text().unwrap().to_owned(), json_of(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn validator() -> Validator {
    validator_with(&OwnKinds::default())
}

/// That of this repository: with the kinds of its library, and those that the book defines.
fn validator_of_the_repository() -> Validator {
    let folder = tempfile::tempdir().unwrap();
    for path in files_below(&root().join("states/kinds"), "yml") {
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let page = fs::read_to_string(root().join("book/src/composite-kinds.md")).unwrap();
    for example in examples(&page) {
        if let Some(name) = example.lines().find_map(|line| line.strip_prefix("kind: ")) {
            fs::write(folder.path().join(format!("{name}.yml")), &example).unwrap();
        }
    }
    let mut diagnostics = Diagnostics::default();
    let own = OwnKinds::load(&Sources::default(), folder.path(), &mut diagnostics);
    assert!(!diagnostics.has_errors(), "{diagnostics:?}");
    validator_with(&own)
}

/// That of a project with kinds of its own.
fn validator_with(own: &OwnKinds) -> Validator {
    let schema: Value = serde_json::from_str(&converge::lang::schema(own)).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

/// What the schema has against a file.
fn problems(validator: &Validator, name: &str, file: &Value) -> Vec<String> {
    let errors = validator.iter_errors(file);
    errors.map(|error| format!("{name}: {}: {error}", error.instance_path())).collect()
}

/// States as a file that has them.
fn file_with(states: Value) -> Value {
    json!({ "hosts": "all", "states": states })
}

/// A text as the state file that it is, or that its states belong into; none if it is something
/// else.
fn state_file(value: Value) -> Option<Value> {
    let is_play = |value: &Value| {
        value.get("hosts").is_some_and(|hosts| !hosts.is_object()) || value.get("states").is_some()
    };
    match &value {
        Value::Object(_) if is_play(&value) => Some(value),
        Value::Array(items) if items.iter().all(is_play) => Some(value),
        Value::Array(items) if items.iter().all(Value::is_object) => Some(file_with(value)),
        _ => None,
    }
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|ending| ending == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The examples in YAML of a page.
fn examples(page: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line == "```yaml" {
            let example: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            examples.push(example.join("\n"));
        }
    }
    examples
}

#[test]
fn the_schema_is_the_one_in_the_book() {
    // Somewhere that is no project.
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_converge"))
        .arg("schema")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let schema = String::from_utf8(output.stdout).unwrap();
    let path = root().join("book/src/schema.json");
    if std::env::var_os("CONVERGE_ACCEPT").is_some() {
        fs::write(&path, &schema).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(schema == expected, "book/src/schema.json is not what `converge schema` prints");
}

#[test]
fn the_examples_of_the_book_are_right() {
    let validator = validator_of_the_repository();
    let mut pages = files_below(&root().join("book/src"), "md");
    pages.push(root().join("README.md"));
    let mut wrong = Vec::new();
    let (mut right, mut other) = (0, Vec::new());
    for page in pages {
        let name = page.strip_prefix(root()).unwrap().display().to_string();
        for example in examples(&fs::read_to_string(&page).unwrap()) {
            match state_file(read(&name, &example)) {
                Some(file) => {
                    right += 1;
                    wrong.extend(problems(&validator, &name, &file));
                }
                None => other.push(name.clone()),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(right >= 30, "only {right} examples are state files");
    // Inventories, variables, settings, jobs of other programs.
    let no_state_files = [
        "command-line",
        "editors",
        "getting-started",
        "inventory",
        "plans",
        "runs",
        "sandbox",
        "secrets",
    ];
    for name in other {
        let known = no_state_files.iter().any(|page| name == format!("book/src/{page}.md"));
        assert!(known, "{name} has an example that is no state file");
    }
}

#[test]
fn right_files_are_taken() {
    let validator = validator_of_the_repository();
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut check = |name: &str, file: &Value| {
        count += 1;
        wrong.extend(problems(&validator, name, file));
    };
    let mut paths = files_below(&root().join("tests/declarations"), "yml");
    // It uses kinds of its own, which this schema does not know.
    paths.retain(|path| !path.ends_with("composites.yml") && !path.ends_with("kinds/app.yml"));
    paths.extend(fs::read_dir(root().join("states")).unwrap().map(|entry| entry.unwrap().path()));
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "yml")) {
        check(&path.display().to_string(), &read("file", &fs::read_to_string(path).unwrap()));
    }
    for path in files_below(&root().join("tests/hosts/kinds"), "yml") {
        let cases = read("cases", &fs::read_to_string(&path).unwrap());
        for step in cases["steps"].as_array().unwrap() {
            let name = format!("{} {}", path.display(), step["name"]);
            check(&name, &file_with(step.get("states").cloned().unwrap_or_else(|| json!([]))));
        }
    }
    let forms = "
- include: [other.yml, more.yml]
- hosts: [web, '!web3']
  connection: ssh
  remote_user: deploy
  become: yes
  vars:
  vars_files: ['vars/{{ inventory_hostname }}.yml']
  environment: { HTTP_PROXY: 'http://proxy:3128', LEVEL: 3 }
  any_errors_fatal: false
  prune: on
  include:
    - base.yml
    - { file: site.yml, vars: { site: a }, when: [a, not b], loop: sites, loop_var: site, tags: x }
  health: [{ http: 'http://127.0.0.1/', status: [200, 204], header: { server: nginx } }, { tcp: 80 }]
  on_failure: rollback
  states:
    - include: { file: part.yml, when: true }
    - include: part.yml
      loop: [1, 2]
    - command: [ls, -l]
      ok_codes: 1
      timeout: 90
      retry: { times: 3, delay: 1h30m }
      confirm_connection: false
    - command: ls
      environment_file: /etc/environment
    - environment_file: /etc/shop.env
      variables: { A: 1, B: true }
      mode: 0600
    - user: shop
      group: www-data
      uid: '{{ uid }}'
      groups: '{{ groups_of_shop }}'
    - unit: shop.service
      user: shop
      content: '{{ text | default(omit) }}'
      template: shop.service.j2
    - package: ['nginx', 'curl=7.88', '*']
      debconf: { tzdata/Areas: [select, Europe], a: [b, c] }
      prune: force
    - file: '{{ path }}'
      mode: '{{ mode }}'
      replace: 'No'
      state: '{{ state }}'
      owner: 0
    - directory: /srv
      mode: 0o755
      recurse: '{{ all }}'
    - service: nginx
      watch: file:/etc/nginx/*
      restart_on: [unit:nginx.service]
      stop_timeout: 1.5
      sensitive: false
      prune: false
      become: off
      confirm_connection: 30s
";
    check("forms", &read("forms", forms));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 80, "only {count} files");
}

#[test]
fn kinds_of_a_project_are_known() {
    let mut diagnostics = Diagnostics::default();
    let folder = root().join("tests/declarations");
    let own = OwnKinds::load(&Sources::default(), &folder.join("kinds"), &mut diagnostics);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let validator = validator_with(&own);
    for name in ["composites.yml", "kinds/app.yml", "kinds/front.yml"] {
        let file = read(name, &fs::read_to_string(folder.join(name)).unwrap());
        assert_eq!(problems(&validator, name, &file), Vec::<String>::new());
    }
    let wrong = [
        "- { app: a, prt: 80 }",
        "- { app: a, port: eighty }",
        "- { app: a, level: debg }",
        "- { app: a, root: srv }",
        "- { app: { name: a } }",
        "- { app: a, name: { b: c } }",
        "- { front: a }",
        "- { frnt: a, port: 80 }",
    ];
    for text in wrong {
        let file = file_with(read("states", text));
        assert!(!validator.is_valid(&file), "{text} is taken");
    }
    let wrong = [
        "{ kind: app }",
        "{ kind: app, arguments: [a] }",
        "{ kind: app, arguments: { a: { tpye: path } } }",
        "{ kind: app, arguments: { a: { type: number } } }",
        "{ kind: app, arguments: { a-b: {} } }",
        "{ kind: app, arguments: { a: {} }, sates: [] }",
    ];
    for text in wrong {
        assert!(!validator.is_valid(&read("kind", text)), "{text} is taken");
    }
}

#[test]
fn wrong_files_are_refused() {
    let validator = validator();
    let states = [
        ("an unknown argument", "- { file: /a, ownr: root }"),
        ("an argument of another kind", "- { directory: /a, content: x }"),
        ("an unknown kind", "- pakage: nginx"),
        ("a kind of later versions", "- release: shop"),
        ("no kind", "- when: true"),
        ("an empty state", "- {}"),
        ("a string", "- nginx"),
        ("a list", "- [package, nginx]"),
        ("two kinds", "- { package: nginx, service: nginx }"),
        ("a missing argument", "- environment_file: /etc/shop.env"),
        ("arguments that exclude each other", "- { file: /a, content: x, template: y.j2 }"),
        ("a relative path", "- file: etc/motd"),
        ("a path in a home", "- file: ~/x"),
        ("a mapping as key", "- file: { path: /a }"),
        ("nothing as key", "- file:"),
        ("a wrong key in a list", "- file: [/a, b]"),
        ("a wrong path in a list", "- { command: x, touches: [/a, b] }"),
        ("a mode in words", "- { file: /a, mode: u=rw }"),
        ("a mode that is not octal", "- { file: /a, mode: '0689' }"),
        ("an unknown choice", "- { file: /a, state: presnt }"),
        ("a number as boolean", "- { file: /a, replace: 3 }"),
        ("a word as boolean", "- { file: /a, replace: maybe }"),
        ("a name with a blank", "- { file: /a, owner: two words }"),
        ("a list as text", "- { file: /a, content: [a] }"),
        ("nothing as text", "- { file: /a, content: }"),
        ("a negative number", "- { user: a, uid: -1 }"),
        ("a number that is too large", "- { user: a, uid: 4294967295 }"),
        ("a text as number", "- { user: a, uid: many }"),
        ("a wrong duration", "- { service: a, stop_timeout: soon }"),
        ("a text as mapping", "- { environment_file: /a, variables: A=1 }"),
        ("a list in a mapping", "- { environment_file: /a, variables: { A: [1] } }"),
        ("watch on a file", "- { file: /a, watch: file:/b }"),
        ("a wrong retry", "- { file: /a, retry: 3 }"),
        ("a retry without times", "- { file: /a, retry: { delay: 3s } }"),
        ("an unknown key of retry", "- { file: /a, retry: { times: 3, tims: 2 } }"),
        ("a number as loop", "- { file: /a, loop: 3 }"),
        ("a mapping as loop", "- { file: /a, loop: { a: 1 } }"),
        ("a loop variable with a hyphen", "- { file: /a, loop: [1], loop_var: my-item }"),
        ("a mapping as when", "- { file: /a, when: { b: c } }"),
        ("prune of a play in a state", "- { file: /a, prune: true }"),
        ("a key of Ansible", "- { file: /a, register: result }"),
        ("a key of later versions", "- { command: a, run_once: true }"),
        ("a mapping in tags", "- { file: /a, tags: { a: b } }"),
        ("an include with a template", "- include: '{{ os }}.yml'"),
        ("an include without a file", "- include: { vars: { a: 1 } }"),
        ("an unknown key of an include", "- { include: a.yml, with: b }"),
    ];
    let files = [
        ("a string", "nothing but words"),
        ("a list of strings", "[web, db]"),
        ("a state as a play", "- file: /etc/motd"),
        ("a play without hosts", "{ become: true, states: [] }"),
        ("an unknown key of a play", "{ hosts: all, becom: true }"),
        ("a key of Ansible", "{ hosts: all, tasks: [] }"),
        ("a key of later versions", "{ hosts: all, rollout: {} }"),
        ("a mapping as hosts", "{ hosts: { a: b } }"),
        ("nothing as hosts", "{ hosts: }"),
        ("states that are no list", "{ hosts: all, states: { file: /etc/motd } }"),
        ("a template where none can be", "{ hosts: all, prune: '{{ prune }}' }"),
        ("an unknown connection", "{ hosts: all, connection: telnet }"),
        ("an unknown way to fail", "{ hosts: all, on_failure: continue, health: { tcp: 80 } }"),
        ("a rollback without health", "{ hosts: all, on_failure: rollback }"),
        ("a check of nothing", "{ hosts: all, health: { within: 30s } }"),
        ("a check of two things", "{ hosts: all, health: { tcp: 80, command: x } }"),
        ("a check of later versions", "{ hosts: all, health: { tcp: 80, from: host } }"),
        ("vars as a list", "{ hosts: all, vars: [a] }"),
        ("a variable with a hyphen", "{ hosts: all, vars: { my-port: 80 } }"),
        ("an included file with a wrong key", "{ states: [], vras: {} }"),
        ("an include of plays with more", "- { include: other.yml, when: true }"),
    ];
    let states = states.map(|(name, text)| (name, file_with(read(name, text))));
    let files = files.map(|(name, text)| (name, read(name, text)));
    for (name, file) in states.into_iter().chain(files) {
        assert!(!validator.is_valid(&file), "{name} is taken: {file}");
    }
}

#[test]
fn what_is_wrong_is_said_of_the_kind_that_is_meant() {
    let validator = validator();
    let said = |text: &str| problems(&validator, "", &file_with(read("states", text)));
    assert_eq!(
        said("- { user: a, group: b, ownr: c }"),
        [": /states/0: Additional properties are not allowed ('ownr' was unexpected)"]
    );
    assert_eq!(
        said("- { command: a, environment_file: b }"),
        [r#": /states/0/environment_file: "b" does not match "^/|\{[{%#]""#]
    );
}
