//! `converge secrets` on files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::hosts::Ended;

/// A project folder with a key and a list of recipients.
pub struct Project {
    folder: TempDir,
}

impl Project {
    pub fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        project.write("converge.yml", "project: test\n");
        let made = project.run(&["secrets", "keygen", "key.txt", "--add"]);
        assert_eq!(made.code, 0, "{made}");
        assert!(made.stdout.starts_with("age1"), "{made}");
        project
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, &[])
    }

    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_converge"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("HOME", self.folder.path());
        for name in ["CONVERGE_AGE_IDENTITY", "ANSIBLE_VAULT_PASSWORD_FILE", "VISUAL", "EDITOR"] {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        Ended::of(command.output().unwrap())
    }

    #[track_caller]
    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}\n{ended}");
        ended.stdout
    }

    #[track_caller]
    pub fn fails(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 1, "{arguments:?}\n{ended}");
        ended.stderr
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_key_is_private_and_never_overwritten() {
    let project = Project::new();
    assert_eq!(mode(&project.path("key.txt")), 0o600);
    let key = project.read("key.txt");
    assert!(key.contains("\nAGE-SECRET-KEY-1"), "{}", key.len());
    assert!(project.read(".converge/recipients").starts_with("age1"));
    let said = project.fails(&["secrets", "keygen", "key.txt"]);
    assert!(said.contains("keys are not overwritten"), "{said}");
    assert_eq!(project.read("key.txt"), key);
    // Another one beside it, which is not added.
    let public = project.succeeds(&["secrets", "keygen", "other.txt"]);
    assert!(!project.read(".converge/recipients").contains(public.trim()));
    project.succeeds(&["secrets", "keygen", "third.txt", "--add"]);
    assert_eq!(project.read(".converge/recipients").lines().count(), 2);
}

#[test]
fn files_are_encrypted_and_decrypted_whole() {
    let project = Project::new();
    let plain = "password: hunter2\n";
    project.write("vars.yml", plain);
    fs::set_permissions(project.path("vars.yml"), fs::Permissions::from_mode(0o640)).unwrap();
    project.succeeds(&["secrets", "encrypt", "vars.yml"]);
    assert!(!project.path("vars.yml").exists());
    let sealed = project.read("vars.yml.age");
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n"), "{sealed}");
    assert!(!sealed.contains("hunter2"));
    assert_eq!(mode(&project.path("vars.yml.age")), 0o640);
    assert!(project.fails(&["secrets", "encrypt", "vars.yml.age"]).contains("encrypted already"));

    let said = project.fails(&["secrets", "decrypt", "vars.yml.age"]);
    assert!(said.contains("there is no key for it") && said.contains("--identity"), "{said}");
    let key = ["--identity", "key.txt"];
    let printed =
        project.succeeds(&[&["secrets", "decrypt", "vars.yml.age", "-o", "-"], &key[..]].concat());
    assert_eq!(printed, plain);
    project.write("vars.yml", "in the way");
    let said = project.fails(&[&["secrets", "decrypt", "vars.yml.age"], &key[..]].concat());
    assert!(said.contains("it is there already"), "{said}");
    fs::remove_file(project.path("vars.yml")).unwrap();
    project.succeeds(&[&["secrets", "decrypt", "vars.yml.age"], &key[..]].concat());
    assert_eq!(project.read("vars.yml"), plain);
    assert_eq!(mode(&project.path("vars.yml")) & 0o077, 0, "it is not encrypted any more");
    assert!(!project.path("vars.yml.age").exists());
    // The key itself in the environment, as CI systems hand it over.
    project.succeeds(&["secrets", "encrypt", "vars.yml", "--output", "sealed"]);
    assert_eq!(project.read("vars.yml"), plain);
    let text = project.read("key.txt");
    let secret = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    let environment = [("CONVERGE_AGE_IDENTITY", secret)];
    let ended = project.run_with(&["secrets", "decrypt", "sealed", "-o", "-"], &environment);
    assert_eq!(ended.stdout, plain, "{ended}");
}

#[test]
fn values_are_encrypted_in_their_place() {
    let project = Project::new();
    let text = "# ours\nuser:   shop\ndb:\n  password: \"hunter2\" # changed yearly\n  port: 1\n";
    project.write("vars.yml", text);
    project.succeeds(&["secrets", "encrypt", "--value", "db.password", "vars.yml"]);
    let sealed = project.read("vars.yml");
    let begin =
        "# ours\nuser:   shop\ndb:\n  password: !secret | # changed yearly\n    -----BEGIN AGE";
    assert!(sealed.starts_with(begin), "{sealed}");
    assert!(sealed.ends_with("    -----END AGE ENCRYPTED FILE-----\n  port: 1\n"), "{sealed}");
    assert!(
        project
            .fails(&["secrets", "encrypt", "--value", "db.password", "vars.yml"])
            .contains("has a tag")
    );
    let key = ["--identity", "key.txt"];
    project.succeeds(
        &[&["secrets", "decrypt", "--value", "db.password", "vars.yml"], &key[..]].concat(),
    );
    assert_eq!(project.read("vars.yml"), text.replace("\"hunter2\" # changed yearly", "hunter2"));
    let said = project.fails(&["secrets", "encrypt", "--value", "usr", "vars.yml"]);
    assert!(said.contains("did you mean `user`?"), "{said}");
}

#[test]
fn what_ansible_vault_has_encrypted_is_decrypted() {
    let project = Project::new();
    project.write("vault.yml", include_str!("vault.yml"));
    project.write("inline.yml", include_str!("inline.yml"));
    project.write("one", "correct horse\n");
    project.write("two", "#!/bin/sh\n[ \"$*\" = \"--vault-id prod\" ] && echo staple\n");
    let client = project.path("pass-client");
    fs::rename(project.path("two"), &client).unwrap();
    fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
    let said = project.fails(&["secrets", "decrypt", "vault.yml", "-o", "-"]);
    assert!(said.contains("--vault-password-file FILE"), "{said}");
    let said = project.fails(&["secrets", "decrypt", "--value", "smtp_password", "inline.yml"]);
    assert!(said.contains("`--vault-id prod@FILE`"), "{said}");
    let decrypt = ["secrets", "decrypt", "vault.yml", "-o", "-"];
    let plain = project.succeeds(&[&decrypt[..], &["--vault-password-file", "one"]].concat());
    assert!(plain.starts_with("database:\n  user: shop\n"), "{plain}");
    let ended = project.run_with(&decrypt, &[("ANSIBLE_VAULT_PASSWORD_FILE", "one")]);
    assert_eq!(ended.stdout, plain, "{ended}");
    let arguments = ["secrets", "decrypt", "--value", "smtp_password", "inline.yml"];
    project.succeeds(&[&arguments[..], &["--vault-id", "prod@pass-client"]].concat());
    assert_eq!(project.read("inline.yml"), "smtp_password: hunter2-hunter2\n");
    let said = project.fails(&["secrets", "edit", "vault.yml"]);
    assert!(said.contains("Ansible Vault is only read"), "{said}");
}

#[test]
fn an_edited_file_is_encrypted_anew() {
    let project = Project::new();
    project.write("vars.yml", "password: hunter2\n");
    project.succeeds(&["secrets", "encrypt", "vars.yml"]);
    let before = project.read("vars.yml.age");
    let edit = ["secrets", "edit", "vars.yml.age", "--identity", "key.txt"];
    // The editor is told a file that nobody else may read, and that is gone afterwards.
    project.write("look", "#!/bin/sh\nstat -c '%a %n' \"$1\" \"${1%/*}\" >seen\n");
    let look = [("EDITOR", "sh ./look")];
    let ended = project.run_with(&edit, &look);
    assert_eq!((ended.code, project.read("vars.yml.age")), (0, before.clone()), "{ended}");
    let seen = project.read("seen");
    let lines: Vec<&str> = seen.lines().collect();
    assert!(lines[0].starts_with("600 /dev/shm/converge-"), "{seen}");
    assert!(lines[0].ends_with("/vars.yml") && lines[1].starts_with("700 "), "{seen}");
    assert!(!Path::new(lines[1].trim_start_matches("700 ")).exists(), "{seen}");

    let change = [("VISUAL", "sed -i s/hunter2/hunter3/"), ("EDITOR", "false")];
    let ended = project.run_with(&edit, &change);
    assert_eq!(ended.code, 0, "{ended}");
    let after = project.read("vars.yml.age");
    assert_ne!(after, before);
    let decrypt = ["secrets", "decrypt", "vars.yml.age", "-o", "-", "--identity", "key.txt"];
    assert_eq!(project.succeeds(&decrypt), "password: hunter3\n");

    // What is no YAML any more is not taken, and not shown.
    let spoil = [("EDITOR", "sed -i 's/^/[/'")];
    let ended = project.run_with(&edit, &spoil);
    assert_eq!(ended.code, 1, "{ended}");
    assert!(ended.stderr.contains("it cannot be read as YAML"), "{ended}");
    assert!(!ended.stderr.contains("hunter3"), "{ended}");
    assert_eq!(project.read("vars.yml.age"), after);
    let ended = project.run_with(&edit, &[("EDITOR", "false")]);
    assert_eq!((ended.code, project.read("vars.yml.age")), (1, after), "{ended}");
}

#[test]
fn files_and_values_go_to_the_present_recipients() {
    let project = Project::new();
    project.write("whole.yml", "a: one\n");
    project.write("values.yml", "a: one\nlist:\n  b: two\n  c: plain\n");
    project.succeeds(&["secrets", "encrypt", "whole.yml"]);
    project.succeeds(&["secrets", "encrypt", "--value", "a", "values.yml"]);
    project.succeeds(&["secrets", "encrypt", "--value", "list.b", "values.yml"]);
    project.succeeds(&["secrets", "keygen", "new.txt"]);
    let decrypt = |file: &str, key: &str| {
        project.run(&["secrets", "decrypt", file, "-o", "-", "--identity", key]).stdout
    };
    assert_eq!(decrypt("whole.yml.age", "new.txt"), "");
    let text = project.read("new.txt");
    let public = text.lines().next().unwrap().trim_start_matches("# public key: ");
    project.write(".converge/recipients", &format!("{public}\n"));
    let rekey = ["secrets", "rekey", "whole.yml.age", "values.yml", "--identity", "key.txt"];
    project.succeeds(&rekey);
    assert_eq!(decrypt("whole.yml.age", "new.txt"), "a: one\n");
    assert_eq!(decrypt("whole.yml.age", "key.txt"), "");
    for name in ["a", "list.b"] {
        let value = ["secrets", "decrypt", "--value", name, "values.yml", "--identity", "new.txt"];
        project.succeeds(&value);
    }
    assert_eq!(project.read("values.yml"), "a: one\nlist:\n  b: two\n  c: plain\n");
    let said = project.fails(&["secrets", "rekey", "values.yml"]);
    assert!(said.contains("there is nothing encrypted in it"), "{said}");
    fs::remove_file(project.path(".converge/recipients")).unwrap();
    assert!(project.fails(&["secrets", "encrypt", "values.yml"]).contains("nobody is named"));
}
