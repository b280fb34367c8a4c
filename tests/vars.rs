//! `converge vars`: what is printed for the projects in `tests/vars` is in `tests/vars/expected.txt`.
//!
//! With `CONVERGE_ACCEPT=1` in the environment the expectation is written anew.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn converge(folder: &Path, inventory: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_converge"))
        .args(["vars", "-i", inventory])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn the_book_shows_what_is_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("book/src/inventory.md")).unwrap();
    for arguments in [&["web1.example.com"][..], &["web1.example.com", "--explain", "url"]] {
        let output = converge(&root.join("tests/vars/book"), "production", arguments);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let shown = format!("$ converge vars -i production {}\n{printed}```", arguments.join(" "));
        assert!(page.contains(&shown), "the page has no\n{shown}");
    }
}

#[test]
fn variables_and_where_they_come_from_are_shown() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vars");
    let questions: [&[&str]; 17] = [
        &["web1"],
        &["web1", "-e", "port=9", "-e", "{paths: []}"],
        &["web2", "--state-file", "site"],
        &["web1", "--state-file", "site"],
        &["web1", "--format", "json"],
        &["web1", "--explain", "url"],
        &["web1", "--explain", "url", "-e", "port=9"],
        &["web1", "--explain", "workers", "--state-file", "site"],
        &["web1", "--explain", "memory"],
        &["web1", "--explain", "broken"],
        &["web1", "--explain", "circle"],
        &["web1", "--explain", "neighbours"],
        &["web1", "--explain", "chosen"],
        &["web1", "--explain", "other"],
        // What is wrong.
        &["web1", "--explain", "prot"],
        &["web1", "--explain", "facts"],
        &["wbe1"],
    ];
    let mut made = String::new();
    for question in questions {
        let output = converge(&folder, "inventory/hosts.yml", question);
        made += &format!("$ converge vars -i hosts {}\n", question.join(" "));
        made += &String::from_utf8_lossy(&output.stdout);
        made += &String::from_utf8_lossy(&output.stderr);
        let right = output.status.success();
        assert_eq!(output.status.code(), Some(i32::from(!right)), "0, or bad usage");
        made.push('\n');
    }
    let path = folder.join("expected.txt");
    if std::env::var_os("CONVERGE_ACCEPT").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(made == expected, "---- expected\n{expected}---- made\n{made}");
}
