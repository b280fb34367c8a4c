use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::clean;

/// Longest value that is shown in one line, in characters.
const LINE_LIMIT: usize = 200;

/// What a variable comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum VariableValue {
    /// This.
    Known(Value),
    /// That needs facts of the host.
    NeedsFacts,
    /// It cannot be told, for this reason, at this place.
    Failed(String),
}

/// A place that says what a variable is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariablePlace {
    /// What the layer is called.
    pub layer: String,
    /// `file:line:column`.
    pub at: String,
    /// What stands there.
    pub text: String,
}

/// The variables of a host in a play.
#[derive(Clone, Debug, PartialEq)]
pub struct PlayVariables {
    /// The play; none where there is no state file.
    pub play: Option<String>,
    /// By name.
    pub variables: Vec<(String, VariablePlace, VariableValue)>,
}

/// Where a variable of a host comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableOrigin {
    /// The plays in which that is so; none where there is no state file.
    pub plays: Vec<String>,
    /// All places that say something of it, the lowest first: the last one holds.
    pub places: Vec<VariablePlace>,
    /// What it comes to.
    pub value: VariableValue,
    /// The names that its templates use, and those that theirs use.
    pub uses: Vec<VariableUse>,
}

/// A name that a template uses.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableUse {
    /// How many templates lie between it and the variable.
    pub depth: usize,
    /// The name.
    pub name: String,
    /// What says what it is.
    pub source: VariableSource,
    /// What it comes to; none where that is not shown.
    pub value: Option<VariableValue>,
}

/// What says what a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariableSource {
    /// A place: it is a variable.
    Place(VariablePlace),
    /// Converge knows it by itself.
    Known,
    /// Nothing does.
    Nowhere,
}

impl VariableValue {
    /// As data for people; all that is shown of a value comes from here.
    fn shown(&self) -> Value {
        match self {
            Self::Known(value) => value.clone(),
            Self::NeedsFacts => json!("(needs facts)"),
            Self::Failed(why) => json!(format!("(error: {why})")),
        }
    }

    fn in_one_line(&self) -> String {
        let text = match self {
            Self::Known(_) => self.shown().to_string(),
            other => other.shown().as_str().unwrap_or_default().to_owned(),
        };
        match text.char_indices().nth(LINE_LIMIT) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// The variables of a host as YAML; plays that give it equal ones together.
pub fn variables_text(scopes: &[PlayVariables]) -> String {
    let mut documents: Vec<(Vec<String>, String)> = Vec::new();
    for scope in scopes {
        let values = scope.variables.iter();
        let values: Map<String, Value> =
            values.map(|(name, _, value)| (name.clone(), value.shown())).collect();
        let document = yaml(&Value::Object(values));
        match documents.iter_mut().find(|(_, known)| *known == document) {
            Some((plays, _)) => plays.extend(scope.play.clone()),
            None => documents.push((scope.play.clone().into_iter().collect(), document)),
        }
    }
    let documents = documents.into_iter().map(|(plays, document)| match plays.as_slice() {
        [] => document,
        plays => format!("# {}\n{document}", in_plays(plays)),
    });
    clean::block(&documents.collect::<Vec<_>>().join("---\n"))
}

/// The same for programs, with the place of each.
pub fn variables_json(host: &str, scopes: &[PlayVariables]) -> String {
    let scopes: Vec<Value> = scopes
        .iter()
        .map(|scope| {
            let variables: Map<String, Value> = scope
                .variables
                .iter()
                .map(|(name, place, value)| {
                    let mut entry = json!({ "layer": place.layer, "at": place.at });
                    match value {
                        VariableValue::Known(_) => entry["value"] = value.shown(),
                        VariableValue::NeedsFacts => entry["needs_facts"] = json!(true),
                        VariableValue::Failed(why) => entry["error"] = json!(why),
                    }
                    (name.clone(), entry)
                })
                .collect();
            json!({ "play": scope.play, "variables": variables })
        })
        .collect();
    format!("{}\n", json!({ "host": host, "scopes": scopes }))
}

/// Where a variable of a host comes from, for people.
pub fn origin_text(host: &str, name: &str, origins: &[VariableOrigin]) -> String {
    let mut text = String::new();
    for (index, origin) in origins.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let plays = match origin.plays.as_slice() {
            [] => String::new(),
            plays => format!(" in {}", in_plays(plays)),
        };
        let _ = writeln!(text, "{name} of {host}{plays}\n");
        text.push_str("layers that have it, the lowest first:\n");
        for (index, place) in origin.places.iter().enumerate() {
            let holds = if index + 1 == origin.places.len() { "  <- holds" } else { "" };
            let _ = writeln!(text, "  {} ({}){holds}", place.layer, place.at);
            text.push_str(&indented(&place.text, "    "));
        }
        text.push_str("\nvalue:\n");
        text.push_str(&indented(&yaml(&origin.value.shown()), "  "));
        if !origin.uses.is_empty() {
            text.push_str("\nits templates use:\n");
        }
        for used in &origin.uses {
            add_use(&mut text, used);
        }
    }
    clean::block(&text)
}

fn add_use(text: &mut String, used: &VariableUse) {
    let indent = "  ".repeat(used.depth + 1);
    let _ = write!(text, "{indent}{}", used.name);
    if let Some(value) = &used.value {
        let _ = write!(text, " = {}", value.in_one_line());
    }
    match &used.source {
        VariableSource::Place(place) => {
            let again = if used.value.is_none() { ", see above" } else { "" };
            let _ = writeln!(text, "  [{}, {}{again}]", place.layer, place.at);
            let template = place.text.contains("{{") || place.text.contains("{%");
            if template && used.value.is_some() {
                text.push_str(&indented(&place.text, &format!("{indent}    ")));
            }
        }
        VariableSource::Known => text.push_str("  [known of every host]\n"),
        VariableSource::Nowhere => text.push_str("  [defined nowhere]\n"),
    }
}

fn in_plays(plays: &[String]) -> String {
    let names: Vec<String> = plays.iter().map(|play| format!("`{play}`")).collect();
    let word = if names.len() == 1 { "the play" } else { "the plays" };
    format!("{word} {}", names.join(", "))
}

fn yaml(value: &Value) -> String {
    // A tree of JSON always has its YAML.
    serde_yaml::to_string(value).unwrap_or_default()
}

/// Lines as they stand in their file, moved to `indent`: the first one has none of its own.
fn indented(text: &str, indent: &str) -> String {
    let blank = |line: &&str| !line.trim().is_empty();
    let own = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let rest = text.lines().skip(1).filter(blank).map(own).min().unwrap_or(0);
    let mut moved = String::new();
    for (index, line) in text.trim_end().lines().enumerate() {
        let line = if index == 0 { line } else { line.get(rest..).unwrap_or_default() };
        let _ = writeln!(moved, "{}", format!("{indent}{line}").trim_end());
    }
    moved
}
