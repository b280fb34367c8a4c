//! Projects with secrets, before any host is touched.

use crate::command::Project;

/// `hunter2-hunter2`, for the label `prod`, whose password is `staple`.
const INLINE: &str = include_str!("inline.yml");
/// A file with `database`, `api_token` and `port`, whose password is `correct horse`.
const VAULT: &str = include_str!("vault.yml");

/// A project with an inventory whose variables are encrypted.
fn project() -> Project {
    let project = Project::new();
    project.write("inventory/test.yml", "all:\n  hosts:\n    web1:\n");
    project.write("inventory/group_vars/all/main.yml", INLINE);
    project.write("inventory/group_vars/all/vault.yml", VAULT);
    project.write("one", "correct horse\n");
    project.write("two", "staple\n");
    project
}

const KEYS: [&str; 4] = ["--vault-password-file", "one", "--vault-id", "prod@two"];

/// Encrypts a file to another one, which may be there.
fn encrypt_to(project: &Project, plain: &str, sealed: &str) {
    project.write(sealed, "");
    std::fs::remove_file(project.path(sealed)).unwrap();
    project.succeeds(&["secrets", "encrypt", plain, "--output", sealed]);
}

/// What is said of some states.
fn said(project: &Project, states: &str, keys: &[&str]) -> String {
    let indented: String = states.lines().map(|line| format!("  {line}\n")).collect();
    project.write("state.yml", &format!("hosts: all\nstates:\n{indented}"));
    let said = project.fails(&[&["-i", "test", "state.yml", "--dry-run"], keys].concat());
    for secret in ["hunter2", "tr0ub4dor", "9f8e7d", "5432"] {
        assert!(!said.contains(secret), "{said}");
    }
    said
}

#[test]
fn a_secret_where_all_can_see_it_is_an_error() {
    let project = project();
    let cases = [
        ("- command: login {{ smtp_password }}", "`command`"),
        ("- command: [login, \"{{ smtp_password }}\"]", "`command`"),
        ("- command: x\n  argv: [login, \"{{ smtp_password }}\"]", "`argv`"),
        ("- command: x\n  undo: \"logout {{ smtp_password }}\"", "`undo`"),
        ("- command: x\n  unless: \"test {{ smtp_password }}\"", "`unless`"),
        ("- command: x\n  onlyif: [\"test {{ smtp_password }}\"]", "`onlyif`"),
        ("- command: x\n  name: \"{{ smtp_password }}\"", "`name`"),
        ("- command: x\n  id: \"{{ smtp_password }}\"", "`id`"),
        ("- command: x\n  tags: [\"{{ smtp_password }}\"]", "`tags`"),
        ("- command: x\n  timeout: \"{{ port }}\"", "`timeout`"),
        ("- command: x\n  environment: { \"{{ smtp_password }}\": x }", "`environment`"),
        ("- command: \"{{ item }}\"\n  loop: [\"{{ smtp_password }}\"]", "`command`"),
        ("- command: \"{{ item.password }}\"\n  loop: [\"{{ database }}\"]", "`command`"),
        ("- file: \"/srv/{{ smtp_password }}\"\n  content: x", "`file`"),
        ("- file: /srv/x\n  owner: \"{{ database.user }}\"\n  content: x", "`owner`"),
        ("- file: /srv/x\n  template: \"{{ smtp_password }}\"", "`template`"),
        (
            "- file: /srv/x\n  content: x\n  validate: \"check {{ smtp_password }} %s\"",
            "`validate`",
        ),
        ("- user: \"{{ database.user }}\"", "`user`"),
        ("- unit: \"{{ database.user }}.service\"\n  content: x", "`unit`"),
        ("- package: \"{{ smtp_password }}\"", "`package`"),
        ("- line_in_file: /srv/x\n  line: \"a={{ smtp_password }}\"", "`line`"),
        ("- line_in_file: /srv/x\n  line: \"a={{ port }}\"", "`line`"),
        ("- line_in_file: /srv/x\n  match: \"{{ smtp_password }}\"\n  line: a", "`match`"),
    ];
    for (states, name) in cases {
        let said = said(&project, states, &KEYS);
        let expected =
            format!("error: a secret cannot stand in {name}, which is not hidden\n --> state.yml:");
        assert!(said.starts_with(&expected), "{states}\n{said}");
        assert!(said.contains("`stdin` or `environment`"), "{said}");
        assert!(said.ends_with("1 error; no host was touched\n"), "{said}");
    }
}

#[test]
fn what_has_no_key_is_said_at_once_with_its_place() {
    let project = project();
    encrypt_to(&project, "one", "inventory/host_vars/web1.yml.age");
    let states = "- file: /srv/a\n  content: \"{{ smtp_password }}\"\n- file: /srv/b\n  content: \"{{ smtp_password }}!\"\n";
    let said_ = said(&project, states, &[]);
    let expected = [
        "error: this is encrypted, and there is no key for it\n --> inventory/group_vars/all/vault.yml:1:1",
        "error: this is encrypted, and there is no key for it\n --> inventory/host_vars/web1.yml.age:1:1",
        "error: this is encrypted, and there is no key for it\n --> inventory/group_vars/all/main.yml:2:",
        "`--vault-password-file FILE`",
        "`--vault-id prod@FILE`",
        "`--identity FILE` or `CONVERGE_AGE_IDENTITY`",
        "3 errors; no host was touched",
    ];
    for expected in expected {
        assert!(said_.contains(expected), "{expected}\n{said_}");
    }
    // With a key that opens another one.
    let said = said(&project, states, &["--vault-password-file", "two", "--identity", "key.txt"]);
    assert!(said.contains("none of the given passwords opens it"), "{said}");
    assert!(!said.contains("there is no key for it"), "{said}");
}

#[test]
fn what_is_wrong_in_a_secret_file_is_said_without_its_words() {
    let project = Project::new();
    project.write("inventory/test.yml", "all:\n  hosts:\n    web1:\n");
    let cases = [
        ("a: b\nhunter2: [x\n", "this is not YAML"),
        ("- hunter2\n", "has to be a mapping"),
        ("a: \"{{ hunter2 }}\"\n", "a secret is a template, and cannot be evaluated"),
        ("a: !hunter2\n", "a value that begins with `!` needs quotes"),
    ];
    for (text, expected) in cases {
        project.write("plain.yml", text);
        encrypt_to(&project, "plain.yml", "inventory/group_vars/all.yml.age");
        let states = "- file: /srv/a\n  content: \"{{ a | default('') }}{{ a }}\"";
        let said = said(&project, states, &["--identity", "key.txt"]);
        assert!(said.contains(expected) && said.contains("all.yml.age:"), "{said}");
    }
}

#[test]
fn an_encrypted_inventory_is_not_ini() {
    let project = Project::new();
    project.write("plain.ini", "[web]\nweb1 password=hunter2\n");
    project.write("inventory/all/other.yml", "all:\n  hosts:\n    web1:\n");
    encrypt_to(&project, "plain.ini", "inventory/all/hosts.ini.age");
    for command in [&["inventory", "-i", "all", "--list"][..], &["vars", "-i", "all", "web1"]] {
        let ended = project.run_with(&[command, &["--identity", "key.txt"]].concat(), &[]);
        let said = format!("{ended:?}");
        assert!(!said.contains("hunter2") && said.contains("cannot be INI"), "{said}");
    }
}

#[test]
fn inventories_are_listed_without_secrets() {
    let project = project();
    let listed = project.succeeds(&[&["inventory", "-i", "test", "--list"][..], &KEYS].concat());
    let list: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let variables = &list["_meta"]["hostvars"]["web1"];
    assert_eq!(variables["database"]["password"], "(secret)", "{listed}");
    assert_eq!(variables["port"], "(secret)");
    let inline = variables["smtp_password"]["__ansible_vault"].as_str().unwrap();
    assert!(inline.starts_with("$ANSIBLE_VAULT;1.2;AES256;prod\n"), "{inline}");
    assert!(project.fails(&["inventory", "-i", "test", "--list"]).contains("there is no key"));
}

#[test]
fn variables_are_encrypted_wherever_they_stand() {
    let project = project();
    project.write("vars.yml", "from_file: one-s3cret\n");
    project.write("extra.yml", "from_extra: two-s3cret\n");
    project.succeeds(&["secrets", "encrypt", "vars.yml"]);
    project.succeeds(&["secrets", "encrypt", "--value", "from_extra", "extra.yml"]);
    // As far as the name of a user that is not there: then all of it was read.
    let state = "hosts: all\nvars_files: [vars.yml.age]\nstates:\n  - file: /srv/x\n    content: \"{{ from_file }} {{ from_extra }}\"\n  - command: \"{{ from_file }} {{ from_extra }}\"\n";
    project.write("state.yml", state);
    let arguments =
        ["-i", "test", "state.yml", "--dry-run", "-e", "@extra.yml", "--identity", "key.txt"];
    let said = project.fails(&[&arguments[..], &KEYS].concat());
    assert!(said.contains("a secret cannot stand in `command`"), "{said}");
    assert!(said.ends_with("1 error; no host was touched\n"), "{said}");
}

#[test]
fn an_argument_of_the_type_secret_is_one() {
    let project = Project::new();
    project.write("inventory/test.yml", "all:\n  hosts:\n    web1:\n");
    let kind = "kind: app\narguments:\n  name: { key: true }\n  token: { type: secret, required: true }\n  port: { type: integer, default: 1 }\nstates:\n  - command: \"login {{ token }} {{ port }}\"\n";
    project.write("kinds/app.yml", kind);
    let said = said(&project, "- app: shop\n  token: hunter2", &[]);
    assert!(said.starts_with("error: a secret cannot stand in `command`"), "{said}");
}

#[test]
fn variables_are_shown_and_linted_without_secrets() {
    let project = project();
    let shown = project.succeeds(&[&["vars", "-i", "test", "web1"][..], &KEYS].concat());
    assert!(shown.contains("(secret)") && !shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains("tr0ub4dor") && !shown.contains("9f8e7d"), "{shown}");
    let explain = ["vars", "-i", "test", "web1", "--explain", "api_token"];
    let shown = project.succeeds(&[&explain[..], &KEYS].concat());
    assert!(shown.contains("(secret)") && !shown.contains("9f8e7d"), "{shown}");
    // A linter needs no keys.
    project.write(
        "state.yml",
        "hosts: all\nvars:\n  db_password: \"{{ database.password }}\"\nstates:\n  - file: /etc/x\n    content: \"{{ db_password }} {{ smtp_password }}\"\n    mode: 0600\n",
    );
    project.succeeds(&["lint", "-i", "test", "state.yml"]);
}
