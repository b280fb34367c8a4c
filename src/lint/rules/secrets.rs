use std::sync::LazyLock;

use regex::Regex;

use super::permissions::octal;
use super::{is_template, literal};
use crate::diagnostic::Diagnostic;
use crate::lang::State;
use crate::lang::yaml::{Kind, Node, Resolved, Scalar};
use crate::lint::rule::Check;
use crate::lint::{Level, Rule, Whole};

pub(super) static PLAIN_SECRET: Rule = Rule {
    name: "plain-secret",
    summary: "A password, token or private key in plain text",
    why: "Whoever may read the project may read it, now and in all of its history. It is not known to be secret either, so \
          plans, diffs and logs may show it.",
    instead: "Encrypt it (`converge secrets encrypt`), or give the name a value where the project is not kept: \
              `lookup('env', 'NAME')`, `-e @FILE`. Then change the secret, since it has been seen. Messages of this rule do \
              not show the line.",
    level: Level::Warn,
    wrong: "hosts: web\nvars: { database_password: kee8Ohng }\nstates:\n  - environment_file: /etc/shop.env\n    \
            variables: { DATABASE_PASSWORD: \"{{ database_password }}\" }\n",
    right: "hosts: web\nvars: { database_password: \"{{ lookup('env', 'DATABASE_PASSWORD') }}\" }\nstates:\n  - \
            environment_file: /etc/shop.env\n    variables: { DATABASE_PASSWORD: \"{{ database_password }}\" }\n",
    check: Check::Whole(plain),
};

/// What secrets of well-known services look like. Each form has a beginning, or a length, that
/// nothing else has.
const FORMS: [(&str, &str); 10] = [
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    ("an identity of age", r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}"),
    ("a key of AWS", r"\bAKIA[0-9A-Z]{16}\b"),
    ("a token of GitHub", r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    ("a token of GitHub", r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    ("a token of GitLab", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a token of Slack", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    ("a key of Stripe", r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    ("a key of Google", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("a password in an address", r"\b[a-z][a-z0-9+.-]*://[^/\s:@{}$<>]+:[^/\s@{}$<>]+@[^\s/]"),
];

static COMPILED: LazyLock<Vec<(&'static str, Regex)>> = LazyLock::new(|| {
    let compiled = FORMS.iter().map(|(what, form)| Some((*what, Regex::new(form).ok()?)));
    compiled.flatten().collect()
});

/// Names whose values are secret, by their last words.
const NAMES: [&[&str]; 15] = [
    &["password"],
    &["passwd"],
    &["passphrase"],
    &["secret"],
    &["token"],
    &["credential"],
    &["credentials"],
    &["apikey"],
    &["api", "key"],
    &["private", "key"],
    &["secret", "key"],
    &["access", "key"],
    &["encryption", "key"],
    &["signing", "key"],
    &["master", "key"],
];

fn plain(whole: &Whole<'_>, found: &mut Vec<Diagnostic>) {
    for play in &whole.subject.program.plays {
        for (_, layer) in play.definitions() {
            for (name, node) in &layer.variables {
                look(name, node, found);
            }
        }
        for state in play.states() {
            look("", &state.key, found);
            for (argument, node) in state.arguments() {
                look(argument.name, node, found);
            }
            if let Some(node) = state.common("environment") {
                look("environment", node, found);
            }
        }
        for (_, node) in play.values() {
            // The play's own environment, and all that is a mapping.
            if node.entries().is_some() {
                look("", node, found);
            }
        }
    }
}

fn look(name: &str, node: &Node, found: &mut Vec<Diagnostic>) {
    match &node.kind {
        Kind::Mapping(entries) => {
            for (key, value) in entries.iter() {
                look(key.as_text().unwrap_or_default(), value, found);
            }
        }
        Kind::Sequence(items) => items.iter().for_each(|item| look(name, item, found)),
        Kind::Scalar(scalar) if is_encrypted(scalar) => {}
        Kind::Scalar(scalar) => {
            let form = COMPILED.iter().find(|(_, form)| form.is_match(&scalar.text));
            let message = match form {
                Some((what, _)) => format!("{what} in plain text"),
                None if is_secret(name) && is_value(node) => {
                    format!("the value of `{name}` stands here in plain text")
                }
                None => return,
            };
            found.push(
                Diagnostic::warning(PLAIN_SECRET.name, message)
                    .at(node.span, "")
                    .help("change it, and encrypt the new one: `converge secrets encrypt --value NAME FILE`")
                    .hidden(),
            );
        }
    }
}

fn is_encrypted(scalar: &Scalar) -> bool {
    let tag = scalar.tag.as_deref();
    scalar.secret || tag.is_some_and(|tag| ["secret", "vault", "vault-encrypted"].contains(&tag))
}

/// Whether a name says that its value is secret.
fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(['_', '-', '/', '.', ' ']).collect();
    NAMES.iter().any(|ending| words.ends_with(ending))
}

/// Whether a value can be a secret: not a template, a path, a boolean or a number.
fn is_value(node: &Node) -> bool {
    let Some(text) = literal(node) else { return false };
    let kind = node.scalar().map(|scalar| scalar.resolve());
    let word = ["yes", "no", "on", "off", "true", "false", "none", "password"];
    matches!(kind, Some(Resolved::Text(_)))
        && !text.is_empty()
        && !text.starts_with(['/', '~', '.', '$'])
        && !text.contains("://")
        && !text.contains(' ')
        && !word.contains(&text.to_ascii_lowercase().as_str())
}

pub(super) static READABLE_SECRET: Rule = Rule {
    name: "readable-secret",
    summary: "A file that everybody on the host may read, and whose name says that it holds a secret",
    why: "Every user and every service of the host may read it. A new `file` is readable by all (0644) unless its `mode` says \
          otherwise.",
    instead: "Give it a `mode` that only its owner, or its group, may read: `mode: 0600`, `mode: 0640`.",
    level: Level::Warn,
    wrong: "- file: /etc/ssl/private/shop.key\n  source: shop.key\n",
    right: "- file: /etc/ssl/private/shop.key\n  source: shop.key\n  mode: 0600\n",
    check: Check::State(readable),
};

fn readable(state: &State, found: &mut Vec<Diagnostic>) {
    let kind = state.spec.name;
    let absent = state.argument("state").is_some_and(|node| literal(node) == Some("absent"));
    if !matches!(kind, "file" | "environment_file") || absent {
        return;
    }
    let mode = state.argument("mode");
    let readable = match mode {
        Some(node) => literal(node).and_then(octal).is_some_and(|mode| mode & 0o004 != 0),
        None => {
            let made = ["content", "template", "source"];
            kind == "file" && made.iter().any(|name| state.argument(name).is_some())
        }
    };
    let keys = state.key.items().unwrap_or(std::slice::from_ref(&state.key));
    for key in keys.iter().filter(|_| readable) {
        let Some(path) = key.as_text().filter(|path| holds_secret(path)) else { continue };
        let message = match mode {
            Some(_) => format!("everybody may read `{path}`"),
            None => format!("everybody may read `{path}`, since a new file is 0644"),
        };
        let place = mode.map_or(key.span, |node| node.span);
        found.push(
            Diagnostic::warning(READABLE_SECRET.name, message)
                .at(place, "")
                .help("`mode: 0600`, or 0640 with the `group` that has to read it"),
        );
    }
}

/// Whether a file's name says that it holds a secret; its beginning may be a template.
fn holds_secret(path: &str) -> bool {
    const NAMES: [&str; 13] = [
        ".env",
        "id_rsa",
        "id_ed25519",
        "id_ecdsa",
        "id_dsa",
        ".pgpass",
        ".netrc",
        ".my.cnf",
        "shadow",
        "gshadow",
        "privkey.pem",
        "key.pem",
        ".git-credentials",
    ];
    const ENDINGS: [&str; 8] =
        [".key", ".env", "-key.pem", "_key.pem", ".key.pem", ".p12", ".pfx", ".keytab"];
    // Keys of package sources are public.
    let public =
        ["/usr/share/keyrings/", "/etc/apt/"].iter().any(|folder| path.starts_with(folder));
    let name = path.rsplit('/').next().unwrap_or(path);
    let host_key = name.starts_with("ssh_host_") && name.ends_with("_key");
    let ends_open = is_template(name) && name.ends_with('}');
    !public
        && !ends_open
        && (NAMES.contains(&name)
            || host_key
            || ENDINGS.iter().any(|ending| name.ends_with(ending)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_regular_expressions_and_find_what_they_are_for() {
        assert_eq!(COMPILED.len(), FORMS.len());
        let key = ["-----BEGIN OPENSSH PRIVATE", " KEY-----"].concat();
        let token = ["gh", "p_", &"a1B2".repeat(9)].concat();
        for text in [key.as_str(), token.as_str(), "postgres://shop:hunter2@db1/shop"] {
            assert!(COMPILED.iter().any(|(_, form)| form.is_match(text)), "{text}");
        }
        for text in
            ["-----BEGIN PUBLIC KEY-----", "ghp_short", "http://db1:80/", "a://{{ u }}:{{ p }}@h"]
        {
            assert!(!COMPILED.iter().any(|(_, form)| form.is_match(text)), "{text}");
        }
    }

    #[test]
    fn names_say_what_is_secret_by_their_last_words() {
        for name in
            ["password", "DB_PASSWORD", "api-key", "mysql-server/root_password", "jwt_secret"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["password_file", "key", "ssh_key", "secret_name", "tokens", "token_url", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn names_of_files_say_what_they_hold() {
        for path in ["/etc/shop.env", "/srv/.env", "/etc/ssl/{{ site }}.key", "/root/.ssh/id_rsa"] {
            assert!(holds_secret(path), "{path}");
        }
        for path in
            ["/etc/apt/keyrings/x.key", "/root/.ssh/id_rsa.pub", "/etc/ca.pem", "/etc/{{ a }}"]
        {
            assert!(!holds_secret(path), "{path}");
        }
    }
}
