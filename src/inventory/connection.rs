//! How a host is reached, by its variables: the own form (`ssh`, `connection`, `become`) and
//! Ansible's `ansible_*` names.
//!
//! The later layer wins, whichever form it is written in; in one layer the own form does. The keys
//! of `ssh` are merged over the layers, so that a group may give the user and a host the address.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::tree::Tree;
use super::variables::Variable;
use crate::diagnostic::{Diagnostic, Diagnostics, Span, nearest};
use crate::lang::yaml::Node;
use crate::ssh::{is_host_name, is_user_name};

/// How a host is reached, and whom to become there.
#[derive(Clone, Debug)]
pub struct Connection {
    /// By what means.
    pub kind: ConnectionKind,
    /// Where that is said, if it is.
    pub kind_said: Option<Span>,
    /// The host's name in the inventory.
    pub name: Arc<str>,
    /// The address; the name, if no variable gives one.
    pub host: String,
    /// The port; none leaves it to ssh's configuration.
    pub port: Option<u16>,
    /// Who logs in; none leaves it to ssh's configuration.
    pub user: Option<String>,
    /// A private key's path, as written: `~` is not expanded.
    pub identity_file: Option<String>,
    /// Hosts to go through, as in ssh's `ProxyJump`.
    pub jump: Option<String>,
    /// The login's password, unevaluated, since it is likely secret.
    pub password: Option<Node>,
    /// Whether to become another user; none leaves it to plays and the command line.
    pub becomes: Option<bool>,
    /// Whom to become; none means root.
    pub become_user: Option<String>,
    /// The password for becoming another user, unevaluated, since it is likely secret.
    pub become_password: Option<Node>,
}

/// By what means a host is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Over SSH.
    Ssh,
    /// The agent runs on the controller.
    Local,
    /// A throw-away host that is booted for the run.
    Sandbox,
}

impl ConnectionKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Local => "local",
            Self::Sandbox => "sandbox",
        }
    }

    /// The means of that name; Ansible's names of plugins that do the same are understood.
    pub fn named(name: &str) -> Option<Self> {
        match name.strip_prefix("ansible.builtin.").unwrap_or(name) {
            "ssh" | "smart" | "paramiko" | "paramiko_ssh" => Some(Self::Ssh),
            "local" => Some(Self::Local),
            "sandbox" => Some(Self::Sandbox),
            _ => None,
        }
    }
}

/// The error that a host or user is whose name might mean something to a shell.
pub(crate) fn not_plain(name: &str, what: &str, span: Span) -> Diagnostic {
    let message = format!("`{}` is not the name of a {what}", name.escape_debug());
    Diagnostic::error("wrong-value", message)
        .at(span, "")
        .help("names may go to a shell, as `%h` and `%r` of a ProxyCommand do")
}

/// What a variable sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Setting {
    Kind,
    Host,
    Port,
    User,
    IdentityFile,
    Jump,
    Password,
    Becomes,
    BecomeUser,
    BecomePassword,
}

/// Ansible's names.
const ANSIBLE: [(&str, Setting); 17] = [
    ("ansible_connection", Setting::Kind),
    ("ansible_host", Setting::Host),
    ("ansible_ssh_host", Setting::Host),
    ("ansible_port", Setting::Port),
    ("ansible_ssh_port", Setting::Port),
    ("ansible_user", Setting::User),
    ("ansible_ssh_user", Setting::User),
    ("ansible_private_key_file", Setting::IdentityFile),
    ("ansible_ssh_private_key_file", Setting::IdentityFile),
    ("ansible_password", Setting::Password),
    ("ansible_ssh_pass", Setting::Password),
    ("ansible_ssh_password", Setting::Password),
    ("ansible_become", Setting::Becomes),
    ("ansible_become_user", Setting::BecomeUser),
    ("ansible_become_pass", Setting::BecomePassword),
    ("ansible_become_password", Setting::BecomePassword),
    ("ansible_sudo_pass", Setting::BecomePassword),
];

/// The keys of `ssh`.
const SSH: [(&str, Setting); 5] = [
    ("host", Setting::Host),
    ("port", Setting::Port),
    ("user", Setting::User),
    ("identity_file", Setting::IdentityFile),
    ("jump", Setting::Jump),
];

/// The own form beside `ssh`.
const OWN: [(&str, Setting); 4] = [
    ("connection", Setting::Kind),
    ("become", Setting::Becomes),
    ("become_user", Setting::BecomeUser),
    ("become_password", Setting::BecomePassword),
];

/// What `connection` may be.
const KINDS: [&str; 3] = ["ssh", "local", "sandbox"];

fn find(table: &[(&str, Setting)], name: &str) -> Option<Setting> {
    table.iter().find(|(known, _)| *known == name).map(|(_, setting)| *setting)
}

/// What was written for a setting.
enum Written<'a> {
    Node(&'a Node),
    /// From a template that gave a whole mapping.
    Value(Value),
}

/// A setting's candidate.
struct Found<'a> {
    /// The name that it was written under.
    name: String,
    span: Span,
    written: Written<'a>,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Own,
    Ansible,
}

/// Reads the connection from all layers of a host's variables, the lowest first.
pub(super) fn read(
    name: &Arc<str>,
    kind: ConnectionKind,
    layers: &[&Variable],
    evaluate: &dyn Fn(&Node) -> Result<Value, Diagnostic>,
    diagnostics: &mut Diagnostics,
) -> Option<Connection> {
    let mut settings = Settings { found: IndexMap::new(), evaluate, wrong: Vec::new() };
    let mut layer = None;
    let mut own_in_layer: Vec<Setting> = Vec::new();
    for variable in layers {
        if layer != Some(&variable.origin) {
            layer = Some(&variable.origin);
            own_in_layer.clear();
        }
        if let Some(setting) = find(&ANSIBLE, &variable.name) {
            if !own_in_layer.contains(&setting) {
                settings.add(setting, variable, Form::Ansible);
            }
        } else if let Some(setting) = find(&OWN, &variable.name) {
            settings.add(setting, variable, Form::Own);
            own_in_layer.push(setting);
        } else if variable.name.as_ref() == "ssh" {
            own_in_layer.extend(settings.add_ssh(variable));
        }
    }
    let kind_said = settings.found.get(&Setting::Kind).map(|found| found.span);
    let kind = settings.kind().unwrap_or(kind);
    let connection = Connection {
        kind,
        kind_said,
        name: name.clone(),
        host: settings
            .plain(Setting::Host, "host", is_host_name)
            .unwrap_or_else(|| name.to_string()),
        port: settings.port(),
        user: settings.plain(Setting::User, "user", is_user_name),
        identity_file: settings.text(Setting::IdentityFile),
        jump: settings.jump(),
        password: settings.unevaluated(Setting::Password),
        becomes: settings.boolean(Setting::Becomes),
        become_user: settings.text(Setting::BecomeUser),
        become_password: settings.unevaluated(Setting::BecomePassword),
    };
    let is_right =
        settings.wrong.iter().all(|one| one.severity != crate::diagnostic::Severity::Error);
    settings.wrong.into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
    is_right.then_some(connection)
}

struct Settings<'a> {
    found: IndexMap<Setting, Found<'a>>,
    evaluate: &'a dyn Fn(&Node) -> Result<Value, Diagnostic>,
    wrong: Vec<Diagnostic>,
}

impl<'a> Settings<'a> {
    fn add(&mut self, setting: Setting, variable: &'a Variable, form: Form) {
        let found = Found {
            name: variable.name.to_string(),
            span: variable.value.span,
            written: Written::Node(&variable.value),
            form,
        };
        self.found.insert(setting, found);
    }

    /// Takes the keys of one `ssh` mapping; gives what they set.
    fn add_ssh(&mut self, variable: &'a Variable) -> Vec<Setting> {
        let node = &variable.value;
        let mut entries: Vec<(String, Span, Span, Written<'a>)> = Vec::new();
        if let Some(written) = node.entries() {
            for (key, value) in written {
                let name = key.as_text().unwrap_or_default().to_owned();
                entries.push((name, key.span, value.span, Written::Node(value)));
            }
        } else {
            match (self.evaluate)(node) {
                Ok(Value::Object(object)) => {
                    for (name, value) in object {
                        entries.push((name, node.span, node.span, Written::Value(value)));
                    }
                }
                Ok(Value::Null) => {}
                Ok(other) => {
                    let message = "`ssh` has to be a mapping";
                    self.wrong.push(
                        Diagnostic::error("wrong-type", message)
                            .at(node.span, format!("this is {}", describe(&other)))
                            .help(
                                "it has the keys `host`, `port`, `user`, `identity_file`, `jump`",
                            ),
                    );
                }
                Err(diagnostic) => self.wrong.push(diagnostic),
            }
        }
        let mut settings = Vec::new();
        for (name, key, span, written) in entries {
            let Some(setting) = find(&SSH, &name) else {
                let message = format!("unknown key `{name}` in `ssh`");
                let label = nearest(&name, SSH.map(|(known, _)| known))
                    .map_or_else(String::new, |near| format!("did you mean `{near}`?"));
                let mut diagnostic = Diagnostic::error("unknown-argument", message).at(key, label);
                if diagnostic.labels.iter().all(|label| label.text.is_empty()) {
                    diagnostic = diagnostic
                        .help("it has the keys `host`, `port`, `user`, `identity_file`, `jump`");
                }
                self.wrong.push(diagnostic);
                continue;
            };
            let name = format!("ssh.{name}");
            self.found.insert(setting, Found { name, span, written, form: Form::Own });
            settings.push(setting);
        }
        settings
    }

    /// The value of a setting, with what to call it and where it stands.
    fn value(&mut self, setting: Setting) -> Option<(Value, String, Span, Form)> {
        let found = self.found.get(&setting)?;
        let value = match &found.written {
            Written::Node(node) => (self.evaluate)(node),
            Written::Value(value) => Ok(value.clone()),
        };
        let (name, span, form) = (found.name.clone(), found.span, found.form);
        match value {
            Ok(Value::Null) => None,
            Ok(value) => Some((value, name, span, form)),
            Err(diagnostic) => {
                self.wrong.push(diagnostic);
                None
            }
        }
    }

    fn wrong_type(&mut self, name: &str, wanted: &str, found: &Value, span: Span) {
        let message = format!("`{name}` has to be {wanted}");
        self.wrong.push(
            Diagnostic::error("wrong-type", message)
                .at(span, format!("this is {}", describe(found))),
        );
    }

    fn text(&mut self, setting: Setting) -> Option<String> {
        let (value, name, span, _) = self.value(setting)?;
        match value {
            Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            other => {
                self.wrong_type(&name, "a string", &other, span);
                None
            }
        }
    }

    /// A name that may go to a shell, within a `ProxyCommand`.
    fn plain(
        &mut self,
        setting: Setting,
        what: &str,
        is_plain: fn(&str) -> bool,
    ) -> Option<String> {
        let span = self.found.get(&setting)?.span;
        let text = self.text(setting)?;
        if !is_plain(&text) {
            self.wrong.push(not_plain(&text, what, span));
        }
        Some(text)
    }

    fn port(&mut self) -> Option<u16> {
        let (value, name, span, _) = self.value(Setting::Port)?;
        let number = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
        if port.is_none() {
            self.wrong_type(&name, "a port, from 1 to 65535", &value, span);
        }
        port
    }

    fn jump(&mut self) -> Option<String> {
        let (value, name, span, _) = self.value(Setting::Jump)?;
        let hosts: Option<Vec<&str>> = match &value {
            Value::String(text) if !text.is_empty() => Some(vec![text.as_str()]),
            Value::Array(items) => items.iter().map(Value::as_str).collect(),
            _ => None,
        };
        if hosts.is_none() {
            self.wrong_type(&name, "a host, or a list of hosts", &value, span);
        }
        hosts.map(|hosts| hosts.join(",")).filter(|hosts| !hosts.is_empty())
    }

    fn boolean(&mut self, setting: Setting) -> Option<bool> {
        let (value, name, span, form) = self.value(setting)?;
        let (boolean, spelled) = match &value {
            Value::Bool(boolean) => (Some(*boolean), None),
            Value::Number(number) if form == Form::Ansible => match number.as_u64() {
                Some(0) => (Some(false), None),
                Some(1) => (Some(true), None),
                _ => (None, None),
            },
            Value::String(text) => match text.to_lowercase().as_str() {
                "true" => (Some(true), None),
                "false" => (Some(false), None),
                "yes" | "on" => (Some(true), Some("true")),
                "no" | "off" => (Some(false), Some("false")),
                _ => (None, None),
            },
            _ => (None, None),
        };
        match (boolean, spelled) {
            (None, _) => self.wrong_type(&name, "a boolean", &value, span),
            // Ansible's variables have always been spelled so.
            (Some(_), Some(right)) if form == Form::Own => {
                let message = format!("`{name}` is a boolean, which YAML 1.2 spells `{right}`");
                self.wrong.push(Diagnostic::warning("boolean-spelling", message).at(span, ""));
            }
            _ => {}
        }
        boolean
    }

    fn kind(&mut self) -> Option<ConnectionKind> {
        let (value, name, span, form) = self.value(Setting::Kind)?;
        let Value::String(text) = &value else {
            self.wrong_type(&name, "`ssh`, `local` or `sandbox`", &value, span);
            return None;
        };
        let short = text.strip_prefix("ansible.builtin.").unwrap_or(text);
        match short {
            "ssh" => Some(ConnectionKind::Ssh),
            "smart" | "paramiko" | "paramiko_ssh" if form == Form::Ansible => {
                Some(ConnectionKind::Ssh)
            }
            "local" => Some(ConnectionKind::Local),
            "sandbox" => Some(ConnectionKind::Sandbox),
            _ => {
                let message = format!("unknown connection `{text}`");
                let label = nearest(text, KINDS).map_or_else(
                    || "there is `ssh`, `local` and `sandbox`".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                self.wrong.push(Diagnostic::error("wrong-value", message).at(span, label));
                None
            }
        }
    }

    fn unevaluated(&self, setting: Setting) -> Option<Node> {
        match self.found.get(&setting)?.written {
            Written::Node(node) if !node.is_null() => Some(node.clone()),
            _ => None,
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.trim().is_empty() => "empty".into(),
        // The text itself might be secret.
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}

/// Warns of Ansible's other connection variables, once each: they have no effect here.
pub(super) fn warn_of_ignored(tree: &Tree, diagnostics: &mut Diagnostics) {
    let groups = tree
        .groups
        .values()
        .flat_map(|group| group.variables.iter().chain(group.files.iter().flatten()));
    let hosts = tree
        .hosts
        .values()
        .flat_map(|host| host.variables.iter().chain(host.files.iter().flatten()));
    let mut ignored: IndexMap<&str, Vec<Span>> = IndexMap::new();
    for variable in groups.chain(hosts) {
        let is_other = variable.name.starts_with("ansible_")
            && variable.name.as_ref() != "ansible_group_priority"
            && find(&ANSIBLE, &variable.name).is_none();
        if is_other {
            let places = ignored.entry(&variable.name).or_default();
            if !places.contains(&variable.key) {
                places.push(variable.key);
            }
        }
    }
    for (name, places) in ignored {
        // Without the prefix that all share, or everything would be near.
        let short = |name: &'static str| name.trim_start_matches("ansible_");
        let near = nearest(&name["ansible_".len()..], ANSIBLE.map(|(known, _)| short(known)));
        let label = near.map_or_else(String::new, |near| format!("did you mean `ansible_{near}`?"));
        let message = format!("`{name}` is ignored");
        let mut diagnostic = Diagnostic::warning("ignored-variable", message);
        if let Some((first, others)) = places.split_first() {
            diagnostic = diagnostic.at(*first, label);
            if !others.is_empty() {
                diagnostic = diagnostic.note(format!("and in {} other places", others.len()));
            }
        }
        diagnostics.push(diagnostic);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Given, Inventory, Spec};
    use super::*;
    use crate::diagnostic::{self, Sources};
    use crate::lang::yaml::Resolved;

    /// Values without templates.
    fn evaluate(node: &Node) -> Result<Value, Diagnostic> {
        let scalar = node.scalar().unwrap();
        Ok(match scalar.resolve() {
            Resolved::Null => Value::Null,
            Resolved::Boolean(boolean) => boolean.into(),
            Resolved::Integer(number) => number.into(),
            Resolved::Float(number) => number.into(),
            Resolved::Text(text) => text.as_ref().into(),
        })
    }

    fn connect(text: &str) -> (Option<Connection>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.yml");
        std::fs::write(&path, text).unwrap();
        let sources = Sources::default();
        let mut diagnostics = Diagnostics::default();
        let spec = Spec::new(vec![Given::Path(path)], folder.path().to_owned());
        let inventory = Inventory::load(&sources, &spec, &mut diagnostics);
        let connection = inventory.connection("h", &evaluate, &mut diagnostics);
        let said = diagnostics
            .sorted()
            .into_iter()
            .map(|one| diagnostic::render(one, &sources, diagnostic::Style::Plain))
            .collect();
        (connection, said)
    }

    #[test]
    fn both_forms_are_understood_and_the_later_layer_wins() {
        let text = "\
all:
  vars: { ssh: { user: deploy, port: 22 }, ansible_user: other, become: true }
  hosts:
    h: { ansible_port: '2222', ssh: { host: 10.0.0.5 }, ansible_become_password: secret }
";
        let (connection, said) = connect(text);
        assert_eq!(said, "");
        let connection = connection.unwrap();
        assert_eq!(connection.kind, ConnectionKind::Ssh);
        assert_eq!(connection.host, "10.0.0.5");
        assert_eq!(connection.port, Some(2222));
        assert_eq!(connection.user.as_deref(), Some("deploy"));
        assert_eq!(connection.becomes, Some(true));
        assert_eq!(connection.become_password.unwrap().as_text(), Some("secret"));
    }

    #[test]
    fn what_is_wrong_is_said_at_its_place() {
        let (connection, said) = connect(
            "all:\n  hosts:\n    h: { ssh: { prot: 22, port: 70000 }, connection: docker }\n",
        );
        assert!(connection.is_none());
        let expected = "\
error: unknown key `prot` in `ssh`
 --> hosts.yml:3:17
  |
3 |     h: { ssh: { prot: 22, port: 70000 }, connection: docker }
  |                 ^^^^ did you mean `port`?
error: `ssh.port` has to be a port, from 1 to 65535
 --> hosts.yml:3:33
  |
3 |     h: { ssh: { prot: 22, port: 70000 }, connection: docker }
  |                                 ^^^^^ this is the number 70000
error: unknown connection `docker`
 --> hosts.yml:3:54
  |
3 |     h: { ssh: { prot: 22, port: 70000 }, connection: docker }
  |                                                      ^^^^^^ there is `ssh`, `local` and `sandbox`
";
        assert_eq!(said, expected);
    }

    #[test]
    fn other_variables_of_ansible_are_a_warning_once() {
        let (connection, said) = connect(
            "all:\n  hosts: { h: { ansible_prot: 1 } }\n  vars: { ansible_pipelining: true }\n",
        );
        assert!(connection.is_some());
        let expected = "\
warning: `ansible_prot` is ignored
 --> hosts.yml:2:17
  |
2 |   hosts: { h: { ansible_prot: 1 } }
  |                 ^^^^^^^^^^^^ did you mean `ansible_port`?
warning: `ansible_pipelining` is ignored
 --> hosts.yml:3:11
  |
3 |   vars: { ansible_pipelining: true }
  |           ^^^^^^^^^^^^^^^^^^
";
        assert_eq!(said, expected);
    }
}
