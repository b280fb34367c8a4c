use super::*;
use crate::diagnostic::{self, Diagnostics, Sources};
use crate::lang::template::LookupEnvironment;
use crate::lang::yaml;

/// Variables and a value to evaluate, as YAML.
struct Case {
    sources: Arc<Sources>,
    scope: Scope,
    node: Node,
}

impl Case {
    fn new(variables: &str, value: &str, facts: Facts) -> Self {
        Self::at(variables, value, facts, LookupEnvironment::default(), false)
    }

    fn at(
        variables: &str,
        value: &str,
        facts: Facts,
        lookup: LookupEnvironment,
        untrusted: bool,
    ) -> Self {
        let sources = Arc::new(Sources::default());
        let read = |name: &str, text: &str| {
            let mut diagnostics = Diagnostics::default();
            let source = sources.add(name, text);
            let node = yaml::parse_one(&sources, source, &mut diagnostics);
            assert!(diagnostics.is_empty(), "{text}: {diagnostics:?}");
            node
        };
        let variables = read("vars.yml", variables);
        let node = read("web.yml", value).expect("a value");
        let variables = variables.iter().flat_map(|node| node.entries().unwrap_or_default());
        let variables = variables
            .map(|(key, value)| (Arc::from(key.as_text().unwrap_or_default()), value.clone()))
            .collect();
        let layer = Arc::new(Layer { label: String::from("vars.yml"), variables, locked: false });
        let templates = Arc::new(Templates::new(sources.clone(), untrusted, lookup));
        let magic = BTreeMap::from([(String::from("inventory_hostname"), Value::from("web1"))]);
        Self { sources, scope: Scope::new(templates, vec![layer], magic, facts), node }
    }

    fn evaluate(&self) -> String {
        self.say(self.scope.evaluate(&self.node).map(|value| match value {
            Evaluated::Known(json) => json.to_string(),
            Evaluated::Unknown => String::from("unknown"),
        }))
    }

    fn condition(&self) -> String {
        self.say(self.scope.condition(&self.node).map(|truth| format!("{truth:?}")))
    }

    fn say(&self, result: Result<String, Diagnostic>) -> String {
        result.unwrap_or_else(|diagnostic| {
            diagnostic::render(&diagnostic, &self.sources, diagnostic::Style::Plain)
        })
    }
}

fn evaluate(variables: &str, value: &str) -> String {
    Case::new(variables, value, Facts::Unknown).evaluate()
}

#[test]
fn values_are_evaluated() {
    let cases = [
        // A lone expression keeps its type, text around it makes text.
        ("port: 80", "'{{ port }}'", "80"),
        ("port: 80", "'{{ port }}0'", r#""800""#),
        ("port: 80", "'{{ port + 1 }}'", "81"),
        ("l: [1, a]", "'{{ l }}'", r#"[1,"a"]"#),
        ("l: [1, a, true, null]", "'x {{ l }}'", r#""x [1, 'a', True, None]""#),
        ("m: {b: 1, a: 1.5}", "'{{ m }}'", r#"{"b":1,"a":1.5}"#),
        ("m: {b: it's}", "'{{ m }}!'", r#""{'b': \"it's\"}!""#),
        ("t: true", "'{{ t }} {{ none }}'", r#""True ""#),
        ("a: 1", ">\n  {{ [a] }}\n", "[1]"),
        ("a: x", "|\n  {{ a }}\n", r#""x\n""#),
        (
            "",
            "{a: yes, b: [1, 0x10, 1.5, ~], c: '1'}",
            r#"{"a":"yes","b":[1,16,1.5,null],"c":"1"}"#,
        ),
        ("a: 1", "!unsafe '{{ a }}'", r#""{{ a }}""#),
        // Variables use variables, and are evaluated where they are used.
        ("a: '{{ b }}/x'\nb: /srv", "'{{ a }}'", r#""/srv/x""#),
        ("a: ['{{ b }}', {c: '{{ b }}'}]\nb: 1", "'{{ a }}'", r#"[1,{"c":1}]"#),
        ("", "'{{ inventory_hostname }}'", r#""web1""#),
        // What is missing is an error but for those who ask.
        ("", "'{{ a | default(7) }}'", "7"),
        ("", "'{{ a.b.c | default(7) }}'", "7"),
        ("a: {}", "'{{ a.b is defined }}'", "false"),
        ("a: '{{ nope }}'", "'{{ a | default(7) }}'", "7"),
        ("", "'{{ a | default(omit) }}'", r#""__converge_omit__9e1a7c55""#),
        // Jinja.
        ("", "'{% for i in range(3) %}{{ i }}{% endfor %}'", r#""012""#),
        ("", "|\n  {% if true %}\n  a\n  {% endif %}\n  b\n", r#""a\nb\n""#),
        (
            "l: [{n: a, v: 1}, {n: b, v: 2}]",
            "'{{ l | map(attribute=\"n\") | list }}'",
            r#"["a","b"]"#,
        ),
        ("l: [{n: a}, {}]", "'{{ l | selectattr(\"n\", \"defined\") | list }}'", r#"[{"n":"a"}]"#),
        ("s: a-b", "'{{ s.split(\"-\") }}'", r#"["a","b"]"#),
        ("m: {a: 1}", "'{{ m.items() | list }}'", r#"[["a",1]]"#),
        ("m: {a: 1}", "'{{ m.get(\"b\", 2) }}'", "2"),
    ];
    for (variables, value, expected) in cases {
        assert_eq!(evaluate(variables, value), expected, "{value}");
    }
}

#[test]
fn filters_are_those_of_ansible() {
    let cases = [
        ("{'a': {'b': 1}} | combine({'a': {'c': 2}}, recursive=True)", r#"{"a":{"b":1,"c":2}}"#),
        ("{'a': [1, 2]} | combine({'a': [2, 3]}, list_merge='append_rp')", r#"{"a":[1,2,3]}"#),
        ("{'a': 1} | combine({'a': 2}, {'b': 3})", r#"{"a":2,"b":3}"#),
        ("{'a': 1} | dict2items", r#"[{"key":"a","value":1}]"#),
        ("[{'key': 'a', 'value': 1}] | items2dict", r#"{"a":1}"#),
        ("[1, [2, [3, none]]] | flatten", "[1,2,3]"),
        ("[1, [2, [3]]] | flatten(levels=1)", "[1,2,[3]]"),
        ("[1, 2, 2] | union([3])", "[1,2,3]"),
        ("[1, 2, 3] | difference([2])", "[1,3]"),
        ("[1, 2] | symmetric_difference([2, 3])", "[1,3]"),
        ("[1, 2] | zip(['a', 'b']) | list", r#"[[1,"a"],[2,"b"]]"#),
        ("[1, 2] | zip_longest([3], fillvalue=0)", "[[1,3],[2,0]]"),
        ("[1, 2] | product(['a']) | list", r#"[[1,"a"],[2,"a"]]"#),
        ("'b' | extract({'b': {'c': 5}}, 'c')", "5"),
        ("'foobar' | regex_replace('^f(o+)', '\\1-')", r#""oo-bar""#),
        ("'v1.22' | regex_search('(\\d+)\\.(\\d+)', '\\2')", r#"["22"]"#),
        ("'abc' | regex_search('x')", "null"),
        ("'a1b22' | regex_findall('\\d+')", r#"["1","22"]"#),
        ("'a.b' | regex_escape", r#""a\\.b""#),
        ("{'b': [1, true], 'a': 'é'} | to_json", r#""{\"b\": [1, true], \"a\": \"\\u00e9\"}""#),
        ("{'b': [], 'a': 1} | to_nice_json(indent=2)", r#""{\n  \"a\": 1,\n  \"b\": []\n}""#),
        ("'{\"a\": [1]}' | from_json", r#"{"a":[1]}"#),
        (
            "{'b': {'c': 'x'}, 'a': [1, {'d': 'no'}]} | to_nice_yaml",
            r#""a:\n- 1\n-   d: 'no'\nb:\n    c: x\n""#,
        ),
        ("{'a': [1, 'x: y'], 'b': ''} | to_yaml", r#""a: [1, 'x: y']\nb: ''\n""#),
        ("'a: [1, 0x10]' | from_yaml", r#"{"a":[1,16]}"#),
        ("'hällo' | b64encode", r#""aMOkbGxv""#),
        ("'aMOkbGxv' | b64decode", r#""hällo""#),
        ("'test' | hash('md5')", r#""098f6bcd4621d373cade4e832627b4f6""#),
        ("'test' | hash", r#""a94a8fe5ccb19ba61c4c0873d391e987982fbbd3""#),
        ("\"it's\" | quote", r#""'it'\"'\"'s'""#),
        ("'/a/b.c' | basename", r#""b.c""#),
        ("'/a/b.c' | dirname", r#""/a""#),
        ("'/a/b.c' | splitext | list", r#"["/a/b",".c"]"#),
        ("['/a', 'b', 'c'] | path_join", r#""/a/b/c""#),
        ("'yes' | bool", "true"),
        ("'x' | bool", "false"),
        ("'12' | int + 1", "13"),
        ("'x' | int(default=3)", "3"),
        ("'1.5' | float", "1.5"),
        ("true | ternary('a', 'b')", r#""a""#),
        ("none | ternary('a', 'b', 'c')", r#""c""#),
        ("1048576 | human_readable", r#""1.00 MB""#),
        ("'1.5 KB' | human_to_bytes", "1536"),
        ("'1.10' is version('1.9', '>')", "true"),
        ("[1] is subset([1, 2])", "true"),
        ("'abc' is match('a.c$')", "true"),
        ("'xabc' is match('abc')", "false"),
        ("'xabc' is search('abc')", "true"),
        ("[1, 2] is contains(2)", "true"),
        ("'b' in ['a', 'b']", "true"),
        ("[3, 1] | sort | first", "1"),
        ("['B', 'a'] | map('lower') | join(',')", r#""b,a""#),
        ("'x' | ansible.builtin.b64encode", r#""eA==""#),
        ("(100 | random(seed='a')) == (100 | random(seed='a'))", "true"),
    ];
    for (expression, expected) in cases {
        let value = serde_json::Value::from(format!("{{{{ {expression} }}}}")).to_string();
        assert_eq!(evaluate("", &value), expected, "{expression}");
    }
}

#[test]
fn conditions_hold_or_not() {
    let cases = [
        ("a: 1", "a == 1", "True"),
        ("a: 1", "[a == 1, a > 1]", "False"),
        ("a: 1", "[b is defined, b.c == 1]", "False"),
        ("a: 'false'", "a", "False"),
        ("a: []", "not a", "True"),
        ("", "yes", "True"),
        ("a: 1", "'{{ a == 1 }}'", "True"),
        ("", "facts.os.family == 'debian'", "Unknown"),
        ("", "facts is defined", "True"),
        ("f: '{{ facts.os.id }}'", "f == 'x' and f > 1", "Unknown"),
        ("", "[facts.cpus > 1, false]", "False"),
    ];
    for (variables, condition, expected) in cases {
        let case = Case::new(variables, condition, Facts::Unknown);
        assert_eq!(case.condition(), expected, "{condition}");
    }
}

#[test]
fn facts_are_data_and_their_absence_spreads() {
    let facts = Facts::Known(serde_json::json!({"os": {"family": "{{ 1 }}"}, "cpus": 2}));
    let cases = [
        ("", "'{{ facts.os.family }}'", r#""{{ 1 }}""#, "unknown"),
        ("n: '{{ facts.cpus * 2 }}'", "[1, '{{ n + 1 }}']", "[1,5]", "unknown"),
        ("n: '{{ facts.cpus }}'", "'{{ range(n) | list }}'", "[0,1]", "unknown"),
        ("", "'{% for i in range(facts.cpus) %}{{ i }}{% endfor %}'", r#""01""#, "unknown"),
        ("", "'{{ ansible_facts.cpus }}!'", r#""2!""#, "unknown"),
    ];
    for (variables, value, known, unknown) in cases {
        assert_eq!(Case::new(variables, value, facts.clone()).evaluate(), known, "{value}");
        assert_eq!(Case::new(variables, value, Facts::Unknown).evaluate(), unknown, "{value}");
    }
    let said = evaluate("", "'{{ prot ~ facts.cpus }}'");
    assert!(said.starts_with("error: undefined variable `prot`"), "{said}");
}

#[test]
fn an_undefined_variable_is_shown_in_its_place() {
    let said = evaluate("http_port: 80\n", "listen: 'a {{ htpt_port }}'\n");
    let expected = "\
error: undefined variable `htpt_port`
 --> web.yml:1:15
  |
1 | listen: 'a {{ htpt_port }}'
  |               ^^^^^^^^^ did you mean `http_port`?
";
    assert_eq!(said, expected);
}

#[test]
fn an_undefined_variable_in_another_one_shows_both() {
    let said = evaluate("root: /srv/{{ ap }}\napp: shop\n", "home: '{{ root }}'\n");
    let expected = "\
error: undefined variable `ap`
 --> vars.yml:1:15
  |
1 | root: /srv/{{ ap }}
  |               ^^ did you mean `app`?
  |
 ::: web.yml:1:11
  |
1 | home: '{{ root }}'
  |           ---- used here
";
    assert_eq!(said, expected);
}

#[test]
fn what_is_wrong_in_a_template_is_said() {
    let cases = [
        ("m: {name: x}", "'{{ m.nmae }}'", "error: `m` has no key `nmae`", "did you mean `name`?"),
        ("m: {}", "'{{ m.x.y }}'", "error: `m` has no key `x`", "it is empty"),
        ("l: [1]", "'{{ l[3] }}'", "error: the list `l` has no item `3`", "it has 1"),
        (
            "a: '{{ b }}'\nb: '{{ a }}'",
            "'{{ a }}'",
            "error: the variable `a` needs itself",
            "`b` needs `a`",
        ),
        ("", "'{{ 1 | upcase }}'", "error: unknown filter `upcase`", "web.yml:1:9"),
        ("", "'{{ 1 | combne({}) }}'", "error: unknown filter `combne`", "did you mean `combine`?"),
        ("", "'{{ 1 is evn }}'", "error: unknown test `evn`", "did you mean `even`?"),
        ("", "'{{ now() }}'", "error: unknown function `now`", "web.yml:1:5"),
        ("", "'a {{ 1 + }}'", "error: this template cannot be read", "web.yml:1:"),
        ("", "'{% if x %}'", "error: this template cannot be read", "`if` is not ended by `endif`"),
        ("", "'{% if x'", "error: this template cannot be read", "it ends too early"),
        (
            "",
            "'{% for x in [] %}{% if x %}{% set y = 1 %}{% endif %}'",
            "error: this template cannot be read",
            "`for` is not ended by `endfor`",
        ),
        ("", "\"{{ 'x' | combine({}) }}\"", "error: `combine` takes a mapping, not a string", ""),
        ("", "\"{{ 1 + 'x' }}\"", "error: ", "web.yml:1:5"),
        ("", "'{{ lookup }}'", "error: a function is not data", ""),
        ("", "|\n  ok\n  line {{ nope }}\n", "error: undefined variable `nope`", "web.yml:3:11"),
        (
            "",
            "a: >-\n  one\n  two {{ nope }}\n",
            "error: undefined variable `nope`",
            "web.yml:3:10",
        ),
        (
            "",
            "'{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'",
            "error: this template does not come to an end",
            "",
        ),
        (
            "",
            "'{% for i in range(80) %}{{ \"x\" * 1000000 }}{% endfor %}'",
            "error: the template makes more than 64 MiB",
            "web.yml:1:1",
        ),
        ("", "!volt x", "error: the tag `!volt` is not understood here", ""),
        (
            "",
            "!vault x",
            "error: this cannot be decrypted: this is neither encrypted",
            "web.yml:1:8",
        ),
    ];
    for (variables, value, message, detail) in cases {
        let said = evaluate(variables, value);
        assert!(said.starts_with(message), "{value}: {said}");
        assert!(said.contains(detail), "{value}: {said}");
    }
}

#[test]
fn items_go_before_everything_and_are_never_templates() {
    let case = Case::new("item: 1", "'{{ item }}'", Facts::Unknown);
    let item = Json::from("{{ x }}");
    let scope = case.scope.with_value("item", item.clone());
    assert_eq!(scope.evaluate(&case.node), Ok(Evaluated::Known(item)));
    assert!(scope.defined("item") && scope.defined("facts") && !scope.defined("nope"));
}

#[test]
fn template_files_are_rendered_as_by_ansible() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("templates/a.j2");
    std::fs::create_dir_all(folder.path().join("templates/parts")).unwrap();
    std::fs::write(folder.path().join("templates/parts/b.j2"), "port {{ port }}\n").unwrap();
    let text = "{% if true %}\n  x\n{% endif %}\n{% include 'parts/b.j2' %}\nend {{ port }}\n";
    std::fs::write(&path, text).unwrap();
    let lookup =
        LookupEnvironment { project: folder.path().to_owned(), ..LookupEnvironment::default() };
    let render = |variables: &str| {
        let case = Case::at(variables, "template: a.j2", Facts::Unknown, lookup.clone(), true);
        let mention = case.node.get("template").unwrap().span;
        case.say(case.scope.render_file(&path, mention).map(|text| format!("{text:?}")))
    };
    assert_eq!(render("port: 80"), r#"Known("  x\nport 80end 80\n", Mask(nothing))"#);
    assert_eq!(render("port: '{{ facts.cpus }}'"), "Unknown");
    let expected = "\
error: undefined variable `port`
 --> templates/parts/b.j2:1:9
  |
1 | port {{ port }}
  |         ^^^^ did you mean `prt`?
  |
 ::: templates/a.j2:4:4
  |
4 | {% include 'parts/b.j2' %}
  |    -------------------- included here
  |
 ::: web.yml:1:11
  |
1 | template: a.j2
  |           ---- the template is used here
";
    assert_eq!(render("prt: 80"), expected);
    std::fs::write(&path, "{% include 'gone.j2' %}").unwrap();
    assert!(render("").starts_with("error: there is no template `gone.j2`"), "{}", render(""));
}

#[test]
fn lookups_reach_no_further_than_they_may() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key.pub"), "ssh-ed25519 AAAA\n").unwrap();
    let lookup = LookupEnvironment {
        variables: BTreeMap::from([
            (String::from("WHO"), String::from("me")),
            (String::from("PATH"), String::from("/usr/bin:/bin")),
        ]),
        project: folder.path().to_owned(),
    };
    let cases = [
        ("\"{{ lookup('env', 'WHO') }}\"", r#""me""#, "error: `lookup('env', …)` is not evaluated"),
        ("\"{{ lookup('file', 'key.pub') }}\"", r#""ssh-ed25519 AAAA""#, r#""ssh-ed25519 AAAA""#),
        ("\"{{ lookup('pipe', 'echo hi') }}\"", r#""hi""#, "error: `lookup('pipe', …)` is not"),
        (
            "\"{{ lookup('pipe', 'echo hi', errors='ignore') }}\"",
            r#""hi""#,
            "error: `lookup('pipe', …)` is not",
        ),
        ("\"{{ lookup('file', '/etc/passwd') | length > 0 }}\"", "true", "error: `lookup('file', "),
        (
            "\"{{ lookup('pipe', 'echo ' ~ facts.name) }}\"",
            "error: facts and items of loops must not reach",
            "error: `lookup('pipe', …)` is not evaluated",
        ),
        (
            "\"{{ lookup('file', facts.path) }}\"",
            "error: `/etc/passwd` leaves its folder beside facts",
            "error: `/etc/passwd` leaves its folder beside facts",
        ),
        (
            "\"{{ lookup('template', facts.path) }}\"",
            "error: `/etc/passwd` leaves its folder beside facts",
            "error: `/etc/passwd` leaves its folder beside facts",
        ),
        (
            "\"{{ lookup('ini', 'a', file=facts.path) }}\"",
            "error: `/etc/passwd` leaves its folder beside facts",
            "error: `/etc/passwd` leaves its folder beside facts",
        ),
        ("\"{{ query('fileglob', '*.pub') | length }}\"", "1", "1"),
        ("\"{{ query('fileglob', '/etc/passw?') }}\"", "[\"/etc/passwd\"]", "[]"),
        ("\"{{ lookup('template', 'key.pub') }}\"", "\"ssh-ed25519 AAAA\\n\"", "\"ssh-ed25519"),
        (
            "\"{{ lookup('template', '/etc/hostname') | length > 0 }}\"",
            "true",
            "error: `lookup('file', '/etc/hostname')` leaves the project",
        ),
        ("\"{{ '/etc/passwd' is file }}\"", "true", "error: files of this machine are not looked"),
        (
            "\"{{ facts.path is file }}\"",
            "error: `/etc/passwd` leaves its folder beside facts",
            "error: files of this machine are not looked",
        ),
        ("\"{{ '$WHO' | expandvars }}\"", r#""me""#, "error: `lookup('env', …)` is not evaluated"),
    ];
    let facts = Facts::Known(serde_json::json!({"name": "$(reboot)", "path": "/etc/passwd"}));
    for (value, trusted, untrusted) in cases {
        for (expected, is_untrusted) in [(trusted, false), (untrusted, true)] {
            let case = Case::at("", value, facts.clone(), lookup.clone(), is_untrusted);
            let said = case.evaluate();
            assert!(said.starts_with(expected), "{value}: {said}");
        }
    }
}

#[test]
fn facts_lead_the_names_of_files_to_no_other_folder() {
    let facts = serde_json::json!({"name": "web1", "up": "../../etc", "path": "/etc/shadow"});
    let cases = [
        ("", "'motd/{{ facts.name }}'", false),
        ("", "'../motd/{{ facts.name }}.txt'", false),
        ("root: /srv/keys", "'{{ root }}/{{ facts.name }}'", false),
        ("", "'motd/../{{ host }}'", false),
        ("", "'motd/{{ facts.up }}'", true),
        ("", "'motd/{{ facts.up | upper }}'", true),
        ("", "'{{ facts.path }}'", true),
        ("", "'motd{{ facts.path }}'", true),
        ("x: '{{ facts.up }}'", "'motd/{{ x }}'", true),
    ];
    for (variables, value, leads) in cases {
        let variables = format!("host: web1\n{variables}");
        let lookup = LookupEnvironment::default();
        let case = Case::at(&variables, value, Facts::Known(facts.clone()), lookup, false);
        let Ok(Evaluated::Known(Json::String(name))) = case.scope.evaluate(&case.node) else {
            panic!("{value}: {}", case.evaluate());
        };
        assert_eq!(case.scope.facts_lead(&case.node, &name), leads, "{value}: {name}");
    }
    let case = Case::new("", "'motd/{{ item }}'", Facts::Known(facts));
    for (items, item, leads) in [
        ("{{ ['../a', 'b'] }}", "../a", false),
        ("{{ [facts.up] }}", "../../etc", true),
        ("{{ [facts.name] }}", "web1", false),
    ] {
        let items = Arc::new(Node::text(case.node.span, items));
        let scope = case.scope.with_item("item", &Json::from(item), &items, 0);
        assert_eq!(scope.facts_lead(&case.node, &format!("motd/{item}")), leads, "{item}");
    }
}

#[test]
fn variables_of_other_hosts_are_evaluated_there() {
    let hosts = Arc::new(HostVariables::default());
    let case =
        Case::new("port: 80\nurl: ':{{ port }}'", "\"{{ hostvars['db1'].url }}\"", Facts::Unknown);
    let inner = &case.scope.inner;
    let layer = |port: &str| {
        let node = Node::text(case.node.span, port);
        Arc::new(Layer {
            label: String::new(),
            variables: [(Arc::from("port"), node)].into(),
            locked: false,
        })
    };
    let magic = BTreeMap::from([(String::from("hostvars"), hosts.value())]);
    let scope = |port: &str| {
        let layers = vec![inner.layers[0].clone(), layer(port)];
        Scope::new(inner.templates.clone(), layers, magic.clone(), Facts::Unknown)
    };
    let (web1, db1) = (scope("80"), scope("5432"));
    hosts.set(String::from("web1"), web1.clone());
    hosts.set(String::from("db1"), db1);
    assert_eq!(web1.evaluate(&case.node), Ok(Evaluated::Known(Json::from(":5432"))));
}

#[test]
fn hosts_are_compiled_in_parallel() {
    fn shared<T: Send + Sync>() {}
    shared::<Scope>();
    shared::<Templates>();
}
