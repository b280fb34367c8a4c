//! What becomes of secrets on their way through expressions and templates.

use super::*;
use crate::change::{self, Change, Content, Masking, Sides};
use crate::diagnostic::{self, Diagnostics, Sources};
use crate::lang::template::LookupEnvironment;
use crate::lang::yaml;
use crate::secret::{Identities, Keyring, VaultPassword};
use crate::world::ContentId;

/// `hunter2-hunter2`, as `ansible-vault encrypt_string` has encrypted it.
const INLINE: &str = include_str!("../../../tests/secrets/inline.yml");
const SECRET: &str = "hunter2-hunter2";

const VARIABLES: &str = "\
name: shop
users:
  - name: anna
    password: @SECRET@
  - name: ben
    password: public
tokens:
  - one
  - @SECRET@
password: @SECRET@
dsn: \"postgres://app:{{ password }}@db/{{ name }}\"
copy: \"{{ users[0] }}\"
names: \"{{ users | map(attribute='name') | list }}\"
";

/// All of it is secret.
const HIDDEN: &str = "\
pin: 12
flag: true
greeting: \"hello {{ name }}\"
database: {user: shopper, password: 'tr0ub4dor&3', words: [alpha, beta]}
broken: \"{{ name | no_such_filter }}\"
";

struct Case {
    sources: Arc<Sources>,
    scope: Scope,
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let lines = INLINE.lines().skip(1).map(str::trim);
        let block = format!("!vault |\n      {}", lines.collect::<Vec<_>>().join("\n      "));
        let password = || VaultPassword { id: "prod".into(), password: b"staple".to_vec() };
        Self::with(&VARIABLES.replace("@SECRET@", &block), move || Ok(vec![password()]), false)
    }

    fn with(
        variables: &str,
        passwords: impl FnOnce() -> Result<Vec<VaultPassword>, String> + Send + 'static,
        untrusted: bool,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources = Arc::new(Sources::default());
        let layer = |source, label: &str| {
            let mut diagnostics = Diagnostics::default();
            let node = yaml::parse_one(&sources, source, &mut diagnostics).expect("variables");
            assert!(diagnostics.is_empty(), "{diagnostics:?}");
            let entries = node.entries().unwrap_or_default().iter();
            let variables = entries
                .map(|(key, value)| (Arc::from(key.as_text().unwrap_or_default()), value.clone()));
            let variables = variables.collect();
            Arc::new(Layer { label: label.to_owned(), variables, locked: false })
        };
        let layers = vec![
            layer(sources.add("vars.yml", variables), "vars"),
            layer(sources.add_hidden("vault.yml", HIDDEN), "vault"),
        ];
        let nobody: crate::secret::Ask = Arc::new(|_| None);
        let keyring =
            Keyring::new(Box::new(|_| Ok(Identities::default())), Box::new(passwords), nobody)
                .optional(untrusted);
        let environment =
            LookupEnvironment { project: folder.path().to_owned(), ..Default::default() };
        let templates = Templates::new(sources.clone(), untrusted, environment);
        let templates = Arc::new(templates.with_keyring(Arc::new(keyring)));
        let scope = Scope::new(templates, layers, BTreeMap::new(), Facts::Known(Json::Null));
        Self { sources, scope, folder }
    }

    fn node(&self, text: &str) -> Node {
        Node::text(Span::new(self.sources.add("state.yml", text), 0, text.len()), text)
    }

    fn say(&self, diagnostic: &Diagnostic) -> String {
        let said = diagnostic::render(diagnostic, &self.sources, diagnostic::Style::Plain);
        for secret in [SECRET, "tr0ub4dor", "shopper", "no_such_filter", "hello", "alpha"] {
            assert!(!said.contains(secret), "{said}");
        }
        said
    }

    /// The value of a text, with `[secret]` for what is secret.
    fn evaluate(&self, text: &str) -> String {
        match self.scope.evaluate(&self.node(text)) {
            Ok(Evaluated::Known(value)) => shown(&value),
            Ok(Evaluated::Unknown) => String::from("unknown"),
            Err(diagnostic) => self.say(&diagnostic),
        }
    }

    /// A template file as a diff shows it.
    fn render(&self, template: &str) -> String {
        let path = self.folder.path().join(format!("{}.j2", blake3::hash(template.as_bytes())));
        std::fs::write(&path, template).unwrap();
        let mention = self.node("template").span;
        match self.scope.render_file(&path, mention) {
            Ok(Rendered::Known(text, mask)) => {
                let after = Content::File(ContentId::of(text.as_bytes()));
                let change = Change::Content { path: "/x".into(), before: Content::Absent, after };
                let masking = Masking { mask: &mask, hide_old: false };
                let sides = Sides::Shown { before: None, after: Some(text.as_bytes()), masking };
                let diff = change::view(&change, sides).diff;
                let lines = diff.lines().skip(3).filter_map(|line| line.strip_prefix('+'));
                lines.collect::<Vec<_>>().join("|")
            }
            Ok(Rendered::Unknown) => String::from("unknown"),
            Err(diagnostic) => self.say(&diagnostic),
        }
    }
}

fn shown(value: &Json) -> String {
    fn masked(value: &Json) -> Json {
        match (taint::secret(value), value) {
            (Some(secret), _) => match (secret.value, secret.parts) {
                (Json::String(text), Some(parts)) => {
                    let mut text = text.clone();
                    parts.iter().rev().for_each(|part| text.replace_range(part.clone(), "[part]"));
                    Json::String(text)
                }
                _ => Json::from("[secret]"),
            },
            (None, Json::Array(items)) => items.iter().map(masked).collect(),
            (None, Json::Object(entries)) => {
                entries.iter().map(|(key, value)| (key.clone(), masked(value))).collect()
            }
            (None, other) => other.clone(),
        }
    }
    masked(value).to_string()
}

#[test]
fn what_is_computed_from_a_secret_is_one_value_by_value() {
    let case = Case::new();
    let anna = r#"{"name":"anna","password":"[secret]"}"#;
    let ben = r#"{"name":"ben","password":"public"}"#;
    let cases = [
        ("{{ name }}", r#""shop""#.to_owned()),
        ("{{ password }}", r#""[secret]""#.to_owned()),
        ("{{ password | upper }}", r#""[secret]""#.to_owned()),
        ("{{ password | length }}", r#""[secret]""#.to_owned()),
        ("{{ 'yes' if password == 'x' else 'no' }}", r#""[secret]""#.to_owned()),
        ("{{ nothing | default(password) }}", r#""[secret]""#.to_owned()),
        ("{{ users[0].name }}", r#""anna""#.to_owned()),
        ("{{ users[0].password }}", r#""[secret]""#.to_owned()),
        ("{{ users[1].password }}", r#""public""#.to_owned()),
        ("{{ users[0]['password'] | b64encode }}", r#""[secret]""#.to_owned()),
        ("{{ users[0].get('password') }}", r#""[secret]""#.to_owned()),
        ("{{ users[0] }}", anna.to_owned()),
        ("{{ copy }}", anna.to_owned()),
        ("{{ copy.name }}", r#""anna""#.to_owned()),
        ("{{ copy.password }}", r#""[secret]""#.to_owned()),
        ("{{ users }}", format!("[{anna},{ben}]")),
        ("{{ users | list }}", format!("[{anna},{ben}]")),
        ("{{ users | reverse | list }}", format!("[{ben},{anna}]")),
        ("{{ users | selectattr('name', 'equalto', 'anna') | first }}", anna.to_owned()),
        ("{{ names }}", r#"["anna","ben"]"#.to_owned()),
        ("{{ users | map(attribute='password') | list }}", r#""[secret]""#.to_owned()),
        ("{{ users | to_json }}", r#""[secret]""#.to_owned()),
        ("{{ users[0] | combine({'shell': 'sh'}) }}", r#""[secret]""#.to_owned()),
        ("{{ users[0] | dict2items }}", r#""[secret]""#.to_owned()),
        ("{{ users[0].items() | list }}", r#""[secret]""#.to_owned()),
        ("{{ users[0].values() | list }}", r#""[secret]""#.to_owned()),
        ("{{ tokens }}", r#"["one","[secret]"]"#.to_owned()),
        ("{{ tokens[0] }}", r#""one""#.to_owned()),
        ("{{ tokens | join(',') }}", r#""[secret]""#.to_owned()),
        ("{{ tokens | last }}", r#""[secret]""#.to_owned()),
        ("{{ {'user': name, 'password': password} }}", r#""[secret]""#.to_owned()),
        ("{{ dsn }}", r#""[secret]""#.to_owned()),
        ("user={{ name }} password={{ password }};", r#""user=shop password=[part];""#.to_owned()),
        ("{% if password %}set{% endif %}", r#""[secret]""#.to_owned()),
        (
            "{% set x = password %}{{ name }} {{ x }} {{ name }}",
            r#""[part] [part] [part]""#.to_owned(),
        ),
        ("{{ pin }}", r#""[secret]""#.to_owned()),
        ("{{ pin + 1 }}", r#""[secret]""#.to_owned()),
        ("{{ greeting }}", r#""[secret]""#.to_owned()),
        ("{{ database.user }}", r#""[secret]""#.to_owned()),
        ("{{ database.words }}", r#"["[secret]","[secret]"]"#.to_owned()),
        ("{{ 'x' in database.words }}", r#""[secret]""#.to_owned()),
        ("{{ lookup('vars', 'password') }}", r#""[secret]""#.to_owned()),
    ];
    for (text, expected) in cases {
        assert_eq!(case.evaluate(text), expected, "{text}");
        // What is kept from the first time is as secret.
        assert_eq!(case.evaluate(text), expected, "{text}");
    }
}

#[test]
fn a_template_hides_what_its_secrets_have_written() {
    let case = Case::new();
    let cases = [
        ("user={{ name }}\npw={{ password }}\nend={{ name }}\n", "user=shop|pw=[secret]|end=shop"),
        ("pin={{ pin }};max=12\n", "pin=[secret];max=12"),
        ("a={{ name }}{{ pin }}{{ name }}b\n", "a=shop[secret]shopb"),
        // Texts that are long enough are found wherever they stand.
        ("hunter2-hunter2 {{ password }}\n", "[secret] [secret]"),
        (
            "{% for user in users %}{{ user.name }}:{{ user.password }}\n{% endfor %}",
            "anna:[secret]|ben:public",
        ),
        ("{% if flag %}on{% endif %} {{ name }}\n", "on [secret]"),
        (
            "{% set h = password | b64encode %}{{ name }} {{ h }} {{ name }}\n",
            "[secret] [secret] [secret]",
        ),
        ("{{ name }} {% set h = password %}{{ h }}\n", "shop [secret]"),
        (
            "{% for part in password.split('-') %}{{ part }}{{ part }};{% endfor %}\n",
            "[secret];[secret];",
        ),
        ("{% for one in password %}{{ one }}.{% endfor %}\n", &"[secret].".repeat(15)),
        ("{% for one in database.words %}{{ one }}{{ one }}{% endfor %}\n", "[secret]"),
        (
            "{% for k, v in users[0].items() %}{{ k }}={{ v }} {{ v }};{% endfor %}\n",
            "[secret]=[secret] [secret];[secret]=[secret] [secret];",
        ),
        (
            "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(pin) }} {{ m(name) }}\n",
            "[secret] [secret]",
        ),
        ("{% filter upper %}{{ password }}{% endfilter %} {{ name }}\n", "[secret] [secret]"),
        ("{% set x %}{{ pin }}{% endset %}a{{ x }}b\n", "a[secret]b"),
        (
            "{{ users | to_nice_json }}\n",
            "[secret]|[secret]|[secret]|[secret]|[secret]|[secret]|[secret]|[secret]|[secret]|[secret]",
        ),
        ("{{ dsn }} {{ name }}\n", "[secret] shop"),
        ("{{ name }} {# {{ password }} #}\n", "shop "),
    ];
    for (template, expected) in cases {
        assert_eq!(case.render(template), expected, "{template}");
    }
}

#[test]
fn a_template_that_is_included_has_the_same_secrets() {
    let case = Case::new();
    std::fs::write(case.folder.path().join("part.j2"), "pw={{ password }} {{ name }}").unwrap();
    let rendered = case.render("{{ name }}\n{% include 'part.j2' %}\n{{ name }}\n");
    assert_eq!(rendered, "shop|pw=[secret] [secret]");
    std::fs::write(case.folder.path().join("m.j2"), "{% macro line(x) %}{{ x }}!{% endmacro %}")
        .unwrap();
    let rendered = case.render("{% from 'm.j2' import line %}{{ line(name) }} {{ line(pin) }}\n");
    assert_eq!(rendered, "shop! [secret]");
}

#[test]
fn messages_quote_no_secrets() {
    let case = Case::new();
    let cases = [
        ("{{ password ~ nothing }}", "undefined variable `nothing`"),
        ("{{ password | regex_search('(') }}", "why is not shown"),
        ("{{ password.index('x') }}", "why is not shown"),
        ("{{ database.nothing }}", "`database` has no key `nothing`"),
        ("{{ lookup('file', password) }}", "why is not shown"),
        ("{{ lookup('pipe', 'echo ' ~ password) }}", "why is not shown"),
        ("{{ broken }}", "a secret is a template, and cannot be evaluated"),
        ("{{ [1, 2][password] }}", ""),
    ];
    for (text, expected) in cases {
        let said = case.evaluate(text);
        assert!(said.contains(expected), "{text}\n{said}");
        assert!(!said.starts_with('"'), "{text}\n{said}");
    }
    // Of a hidden source only the place is shown.
    let said = case.evaluate("{{ broken }}");
    assert!(said.contains("vault.yml:5:20") && said.contains("state.yml:1:"), "{said}");
}

#[test]
fn a_condition_may_use_a_secret() {
    let case = Case::new();
    let truth = |text: &str| case.scope.condition(&case.node(text)).unwrap();
    assert_eq!(truth("password == 'hunter2-hunter2'"), Truth::True);
    assert_eq!(truth("flag"), Truth::True);
    assert_eq!(truth("database.user == 'x'"), Truth::False);
}

#[test]
fn without_a_key_it_is_said_once_and_unknown_to_strangers() {
    let block: String = INLINE.lines().skip(1).map(|line| format!("  {}\n", line.trim())).collect();
    let variables = format!("name: x\na: !vault |\n{block}b: \"{{{{ a }}}}!\"\n");
    let case = Case::with(&variables, || Ok(Vec::new()), false);
    let first = case.evaluate("{{ a }}");
    let expected = "error: this is encrypted, and there is no key for it\n --> vars.yml:3:";
    assert!(first.starts_with(expected), "{first}");
    assert!(first.contains("help: name its password with `--vault-id prod@FILE`"), "{first}");
    // Wherever it is used, the message is the same.
    assert_eq!(case.evaluate("x{{ b }}y"), first);
    assert_eq!(case.evaluate("{{ name }}"), "\"x\"");

    let case = Case::with(&variables, || Ok(Vec::new()), true);
    assert_eq!(case.evaluate("{{ a }}"), "unknown");
    assert_eq!(case.evaluate("{{ b }}"), "unknown");
    assert_eq!(case.evaluate("{{ name }}"), "\"x\"");
}
