//! The JSON Schema (2020-12) of state files, for editors that complete and check while one types.
//!
//! It comes from what kinds and keys say of themselves. Each kind is a branch that its key chooses,
//! so that an editor offers, and complains about, the arguments of that kind only. It knows no
//! variables: a template may stand wherever it may give a value of the right type.

use serde_json::{Map, Value, json};

use super::composite::{Composite, OwnKinds, TYPES};
use super::keywords::{
    CHECK, CHECKED, COMMON, FACT, Form, INCLUDE, INCLUDED_FILE, KIND, KIND_ARGUMENT, Keyword, PLAY,
    keyword, names,
};
use crate::kind::{SPECS, Shape, Spec};

/// What makes a string a template.
const TEMPLATE: &str = r"\{[{%#]";
/// What variables may be called.
const VARIABLE: &str = r"^[A-Za-z_\u0080-\uFFFF][A-Za-z0-9_\u0080-\uFFFF]*$";
/// The words that are understood where a boolean is expected.
const BOOLEAN: &str = "^([Tt]rue|TRUE|[Ff]alse|FALSE|[Yy]es|YES|[Nn]o|NO|[Oo]n|ON|[Oo]ff|OFF)$";

/// The schema with a project's own kinds, as text that ends with a line end.
pub fn schema(own: &OwnKinds) -> String {
    let kinds = SPECS.iter().map(|spec| Branch::of(spec));
    let branches: Vec<Branch> = kinds.chain(own.0.iter().map(Branch::of_composite)).collect();
    format!("{:#}\n", file(&branches))
}

/// The branch of a state that is of one kind.
struct Branch {
    /// The kind, and the key that chooses it.
    name: String,
    /// What it makes so.
    summary: String,
    /// Its key and arguments, with the schemas of their values.
    properties: Map<String, Value>,
    /// The arguments that have to be given.
    required: Vec<String>,
    /// Groups of arguments of which at most one may stand.
    exclusive: Vec<Vec<String>>,
    /// Whether it may have the common keys that only one kind has: such a state may be in it.
    has_all_common: bool,
}

impl Branch {
    fn of(spec: &Spec) -> Self {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let key = list_of(&shape(&spec.key.shape));
        let about = format!("{}.\n\n{}", spec.summary, spec.key.summary);
        let mut properties = Map::from_iter([(spec.name.to_owned(), described(key, &about))]);
        for argument in spec.arguments {
            let mut value = described(shape(&argument.shape), argument.summary);
            if let Some(default) = argument.default() {
                value["default"] = default_of(&argument.shape, default);
            }
            properties.insert(argument.name.to_owned(), value);
        }
        let required = spec.arguments.iter().filter(|argument| argument.required);
        Self {
            name: spec.name.to_owned(),
            summary: spec.summary.to_owned(),
            properties,
            required: required.map(|argument| argument.name.to_owned()).collect(),
            exclusive: spec.exclusive.iter().map(|group| strings(group)).collect(),
            has_all_common: false,
        }
    }

    fn of_composite(composite: &Composite) -> Self {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for parameter in &composite.parameters {
            let mut value = match parameter.choices.as_slice() {
                [] => shape(&parameter.shape),
                choices => json!({ "anyOf": [{ "enum": choices }, reference("template")] }),
            };
            let (mut name, mut about) = (&*parameter.name, parameter.summary.clone());
            if parameter.key {
                value = list_of(&value);
                name = &composite.name;
                about = format!("{}\n\n{about}", composite.summary).trim().to_owned();
            } else if parameter.required {
                required.push(name.to_owned());
            }
            properties.insert(name.to_owned(), described(value, &about));
        }
        Self {
            name: composite.name.clone(),
            summary: composite.summary.clone(),
            properties,
            required,
            exclusive: Vec::new(),
            has_all_common: true,
        }
    }

    /// Where its schema stands among the definitions.
    fn definition(&self) -> String {
        format!("state-{}", self.name)
    }

    /// When a state is of this kind. Its name may be an argument of another kind, and which key
    /// comes first cannot be told here.
    fn chosen(&self, all: &[Branch]) -> Value {
        let is_common = keyword(COMMON, &self.name).is_some();
        let others = all.iter().filter(|other| {
            other.name != self.name && (is_common || other.properties.contains_key(&self.name))
        });
        let others: Vec<Value> = others.map(|other| json!({ "required": [other.name] })).collect();
        let mut condition = json!({ "type": "object", "required": [self.name] });
        if !others.is_empty() {
            condition["not"] = json!({ "anyOf": others });
        }
        condition
    }

    fn schema(&self) -> Value {
        let mut properties = self.properties.clone();
        let has = |kind: &str| self.has_all_common || kind == self.name;
        let common = COMMON.iter().filter(|key| key.kind.is_none_or(has));
        add_common(&mut properties, common);
        let required = std::iter::once(&self.name).chain(&self.required);
        let mut schema = json!({
            "description": self.summary,
            "type": "object",
            "properties": properties,
            "required": required.collect::<Vec<_>>(),
            "additionalProperties": false,
        });
        let exclusive: Vec<Value> = self.exclusive.iter().flat_map(|group| pairs(group)).collect();
        if !exclusive.is_empty() {
            schema["allOf"] = Value::Array(exclusive);
        }
        schema
    }
}

/// That no two of these stand beside each other. Templates may: they may come to `omit`.
fn pairs(names: &[String]) -> Vec<Value> {
    let mut pairs = Vec::new();
    for (at, one) in names.iter().enumerate() {
        for other in &names[at + 1..] {
            let mut literal = Map::new();
            literal.insert(one.clone(), json!({ "not": reference("template") }));
            let message = format!("`{one}` and `{other}` exclude each other");
            let template =
                json!({ "type": "string", "pattern": TEMPLATE, "patternErrorMessage": message });
            let mut then = Map::new();
            then.insert(other.clone(), template);
            pairs.push(json!({
                "if": { "required": [one], "properties": literal },
                "then": { "properties": then },
            }));
        }
    }
    pairs
}

/// The whole schema.
fn file(branches: &[Branch]) -> Value {
    // What only a play has tells one without `hosts` from an included file.
    let of_plays = names(PLAY).filter(|name| keyword(INCLUDED_FILE, name).is_none());
    let of_plays: Vec<Value> = of_plays.map(|name| json!({ "required": [name] })).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "State file of converge",
        "description": "A play, a list of plays, a file that plays include, or a composite kind",
        "type": ["object", "array"],
        "if": { "type": "array" },
        "then": { "items": reference("entry") },
        "else": {
            "if": { "type": "object", "required": ["kind"] },
            "then": reference("kind"),
            "else": {
                "if": { "anyOf": of_plays },
                "then": reference("play"),
                "else": reference("included-file"),
            },
        },
        "$defs": definitions(branches),
    })
}

fn definitions(branches: &[Branch]) -> Map<String, Value> {
    let mut definitions = Map::new();
    let mut define = |name: &str, schema: Value| {
        definitions.insert(name.to_owned(), schema);
    };
    define("template", json!({ "type": "string", "pattern": TEMPLATE }));
    for (name, schema) in simple_shapes() {
        define(name, schema);
    }
    define("entry", entry());
    define("play", play());
    define("included-file", included_file());
    define("kind", kind());
    define("kind-argument", kind_argument());
    define("fact", fact());
    define("included", included());
    define("include", include());
    define("include-state", include_state());
    define("check", check());
    define("states", json!({ "type": ["array", "null"], "items": reference("state") }));
    define("state", state(branches));
    define("no-kind", no_kind(branches));
    for key in COMMON {
        define(&common_definition(key), of_keyword(key));
    }
    for branch in branches {
        define(&branch.definition(), branch.schema());
    }
    definitions
}

/// A play of a list, or an include that stands for the plays of a file.
fn entry() -> Value {
    let included = described(
        list_of(&reference("included")),
        "Files whose plays stand here, beside this one or beside the one that includes it",
    );
    json!({
        "if": { "type": "object", "required": ["include"], "maxProperties": 1 },
        "then": { "properties": { "include": included } },
        "else": reference("play"),
    })
}

fn play() -> Value {
    json!({
        "description": "States for some hosts",
        "type": "object",
        "properties": optional_properties(PLAY),
        "required": ["hosts"],
        "additionalProperties": false,
        "if": { "required": ["on_failure"], "properties": { "on_failure": { "const": "rollback" } } },
        "then": { "required": ["health"] },
    })
}

fn included_file() -> Value {
    let mut properties = optional_properties(INCLUDED_FILE);
    // A file that is only begun may become a play.
    properties.extend(keyword(PLAY, "hosts").map(|key| (key.name.to_owned(), of_keyword(key))));
    json!({
        "description": "States that plays include",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// A file that defines a composite kind.
fn kind() -> Value {
    json!({
        "description": "A kind of this project",
        "type": "object",
        "properties": properties(KIND),
        "required": ["kind", "arguments"],
        "additionalProperties": false,
    })
}

fn kind_argument() -> Value {
    json!({
        "type": "object",
        "properties": properties(KIND_ARGUMENT),
        "additionalProperties": false,
    })
}

fn fact() -> Value {
    json!({
        "type": "object",
        "properties": properties(FACT),
        "required": ["command"],
        "additionalProperties": false,
    })
}

/// The name of a file that is included.
fn included() -> Value {
    json!({
        "type": ["string", "number"],
        "pattern": r"^([^{]|\{(?![{%#]))*$",
        "patternErrorMessage": "The name of an included file cannot be a template: choose with `when`",
    })
}

/// An include of a play: a mapping.
fn include() -> Value {
    json!({
        "type": "object",
        "properties": properties(INCLUDE),
        "required": ["file"],
        "additionalProperties": false,
    })
}

/// An include among states.
fn include_state() -> Value {
    let files = json!({ "anyOf": [list_of(&reference("included")), reference("include")] });
    let about = "States of other files, which stand here";
    let mut properties = Map::from_iter([("include".to_owned(), described(files, about))]);
    let beside = INCLUDE.iter().filter(|key| key.name != "file");
    properties.extend(beside.map(|key| (key.name.to_owned(), of_keyword(key))));
    json!({
        "type": "object",
        "properties": properties,
        "required": ["include"],
        "additionalProperties": false,
    })
}

fn check() -> Value {
    let required = names(CHECK).take(CHECKED).map(|name| json!({ "required": [name] }));
    json!({
        "type": "object",
        "properties": properties(CHECK),
        "additionalProperties": false,
        "oneOf": required.collect::<Vec<_>>(),
    })
}

/// A state, whose kind is told by the key that names it.
fn state(branches: &[Branch]) -> Value {
    let kinds = branches.iter().map(
        |branch| json!({ "if": branch.chosen(branches), "then": reference(&branch.definition()) }),
    );
    let known = branches.iter().map(|branch| json!({ "required": [branch.name] }));
    let mut all: Vec<Value> = kinds.collect();
    all.push(json!({
        "if": { "type": "object", "anyOf": known.collect::<Vec<_>>() },
        "else": reference("no-kind"),
    }));
    json!({
        "type": "object",
        "if": { "type": "object", "required": ["include"] },
        "then": reference("include-state"),
        "else": { "allOf": all },
    })
}

/// A state whose kind is not told yet: what an editor offers then.
fn no_kind(branches: &[Branch]) -> Value {
    let mut properties = Map::new();
    for branch in branches {
        let key = branch.properties.get(&branch.name).cloned();
        properties.extend(key.map(|key| (branch.name.clone(), key)));
    }
    properties.insert("include".to_owned(), json!({ "description": "States of other files" }));
    add_common(&mut properties, COMMON.iter());
    // No kind's key is there, so that requiring one of them refuses the state in any case; editors
    // show a message of their own for that, and for hardly anything else.
    json!({
        "allOf": [
            { "properties": properties, "additionalProperties": false },
            {
                "required": branches.iter().map(|branch| &branch.name).take(1).collect::<Vec<_>>(),
                "errorMessage": "A state needs a key that names its kind, such as `package`",
            },
        ],
    })
}

/// Adds common keys; a kind's own keys of the same name stay.
fn add_common(properties: &mut Map<String, Value>, keys: impl Iterator<Item = &'static Keyword>) {
    for key in keys {
        properties.entry(key.name).or_insert_with(|| reference(&common_definition(key)));
    }
}

fn common_definition(key: &Keyword) -> String {
    format!("common-{}", key.name)
}

fn properties(keys: &'static [Keyword]) -> Map<String, Value> {
    keys.iter().map(|key| (key.name.to_owned(), of_keyword(key))).collect()
}

/// The same where a key may stand without a value, as if it were not there.
fn optional_properties(keys: &'static [Keyword]) -> Map<String, Value> {
    let mut properties = properties(keys);
    for (name, schema) in properties.iter_mut().filter(|(name, _)| name.as_str() != "hosts") {
        let scalar = keyword(keys, name).is_some_and(|key| match key.form {
            Form::Value(shape) => !matches!(shape, Shape::List(_) | Shape::Mapping(_)),
            Form::Literal(_) => true,
            _ => false,
        });
        if scalar {
            continue;
        }
        if let Some(Value::Array(alternatives)) = schema.get_mut("anyOf") {
            alternatives.push(json!({ "type": "null" }));
        } else if let Some(kind) = schema.get_mut("type") {
            *kind = json!([kind.take(), "null"]);
        }
    }
    properties
}

/// The value of a key of the language.
fn of_keyword(key: &Keyword) -> Value {
    let schema = match &key.form {
        Form::Value(form) => shape(form),
        Form::Literal(form) => literal(form),
        Form::Condition => list_of(&json!({ "type": ["string", "boolean", "number", "null"] })),
        Form::Loop => json!({ "type": ["array", "string"] }),
        Form::VariableName => json!({ "type": "string", "pattern": VARIABLE }),
        Form::Variables => {
            json!({ "type": "object", "propertyNames": { "pattern": VARIABLE } })
        }
        Form::Fields(keys) => json!({
            "type": "object",
            "properties": properties(keys),
            "required": names(keys).take(1).collect::<Vec<_>>(),
            "additionalProperties": false,
        }),
        Form::DurationOrBoolean => {
            json!({ "anyOf": [{ "type": "boolean" }, reference("duration")] })
        }
        Form::FalseOr(word) => {
            json!({ "anyOf": [{ "enum": [false, word] }, reference("template")] })
        }
        Form::Included => reference("included"),
        Form::Includes => {
            let one = json!({ "anyOf": [reference("included"), reference("include")] });
            list_of(&one)
        }
        Form::States => reference("states"),
        Form::Checks => list_of(&reference("check")),
        Form::Arguments => json!({
            "type": "object",
            "propertyNames": { "pattern": VARIABLE },
            "additionalProperties": { "anyOf": [reference("kind-argument"), { "type": "null" }] },
        }),
        Form::Facts => json!({
            "type": "object",
            "propertyNames": { "pattern": VARIABLE },
            "additionalProperties": reference("fact"),
        }),
        Form::Type => json!({ "enum": TYPES.iter().map(|(word, _)| word).collect::<Vec<_>>() }),
    };
    described(schema, key.summary)
}

/// Shapes that are defined once; strings among them may be templates.
fn simple_shapes() -> Vec<(&'static str, Value)> {
    let string = |types: Value, pattern: &str, problem: &str| {
        json!({
            "type": types,
            "pattern": format!("{pattern}|{TEMPLATE}"),
            "patternErrorMessage": problem,
        })
    };
    let mut integer = string(json!(["integer", "string"]), r"^\+?[0-9]+$", "This is no integer");
    integer["minimum"] = json!(0);
    integer["maximum"] = json!(u32::MAX - 1);
    let mut mode = string(
        json!(["integer", "string"]),
        "^(0o)?0?[0-7]{3,4}$",
        "Modes are three or four octal digits, for example 0644",
    );
    mode["minimum"] = json!(0);
    mode["maximum"] = json!(7777);
    let mut duration = string(
        json!(["number", "string"]),
        r"^\s*[0-9.]+\s*$|^\s*([0-9.]+\s*(ms|s|m|h|d)\s*)+$",
        "This is no duration, such as 90, 60s, 10m, 1h30m, 14d or 500ms",
    );
    duration["minimum"] = json!(0);
    vec![
        ("text", json!({ "type": ["string", "number", "boolean"] })),
        ("local", json!({ "type": ["string", "number"] })),
        ("path", string(json!("string"), "^/", "A path on the host begins with `/`")),
        (
            "name",
            string(
                json!(["string", "number"]),
                r"^[^\s/\u0000-\u001F\u007F]+$",
                "A name has no blanks and no `/`",
            ),
        ),
        ("mode", mode),
        (
            "boolean",
            string(json!(["boolean", "string"]), BOOLEAN, "This is neither true nor false"),
        ),
        ("integer", integer),
        ("duration", duration),
    ]
}

/// The schema of a shape.
fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Text | Shape::Content => reference("text"),
        Shape::Template | Shape::LocalFile | Shape::LocalFolder => reference("local"),
        Shape::Path => reference("path"),
        Shape::Name | Shape::Principal => reference("name"),
        Shape::Mode => reference("mode"),
        Shape::Boolean => reference("boolean"),
        Shape::Integer => reference("integer"),
        Shape::Duration => reference("duration"),
        Shape::Choice(words) => json!({ "anyOf": [{ "enum": words }, reference("template")] }),
        Shape::List(inner) => list_of(&self::shape(inner)),
        Shape::Mapping(inner) => {
            let entries = json!({ "type": "object", "additionalProperties": self::shape(inner) });
            json!({ "anyOf": [entries, reference("template")] })
        }
        Shape::Any => json!({}),
    }
}

/// The schema of a shape whose value is no template.
fn literal(shape: &Shape) -> Value {
    match shape {
        Shape::Boolean => json!({ "type": ["boolean", "string"], "pattern": BOOLEAN }),
        Shape::Choice(words) => json!({ "enum": words }),
        other => json!({ "allOf": [self::shape(other), { "not": reference("template") }] }),
    }
}

/// A value alone, or a list of such.
fn list_of(one: &Value) -> Value {
    json!({ "anyOf": [one, { "type": "array", "items": one }] })
}

fn reference(definition: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{definition}") })
}

/// A schema with what it means, which editors show.
fn described(schema: Value, description: &str) -> Value {
    let mut described = json!({ "description": description });
    if let (Some(described), Value::Object(schema)) = (described.as_object_mut(), schema) {
        described.extend(schema);
    }
    described
}

/// A default as an editor would fill it in.
fn default_of(shape: &Shape, text: &str) -> Value {
    match shape {
        Shape::Boolean => Value::Bool(text == "true"),
        Shape::Integer | Shape::List(Shape::Integer) => {
            text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
        }
        _ => Value::from(text),
    }
}
