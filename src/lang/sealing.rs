//! Single values of YAML files that are encrypted (`!secret |`): found, made and opened, while every
//! other byte of the file stays as it is.

use super::yaml::{self, Kind, Node, Resolved, Style};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceId, Sources, Span};
use crate::secret::VAULT_MARK;

const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";

/// Makes the scalar of that name a `!secret` block; `seal` gives the armored text of a value. A dot
/// in a name leads into a mapping. Gives the new text of the whole file.
pub fn seal(
    sources: &Sources,
    source: SourceId,
    name: &str,
    seal: impl FnOnce(&str) -> Result<String, String>,
) -> Result<String, Diagnostic> {
    let text = sources.text(source);
    let root = root(sources, source)?;
    let (key, value) = find(&text, &root, source, name)?;
    let refused = |message: &str| Diagnostic::error("secret-value", message).at(value.span, "");
    let Kind::Scalar(scalar) = &value.kind else {
        let message =
            format!("`{name}` is {}, and only single values are encrypted", value.describe());
        return Err(Diagnostic::error("secret-value", message).at(value.span, ""));
    };
    if scalar.tag.is_some() {
        return Err(refused(
            "this value has a tag: it is encrypted already, or means something else",
        ));
    }
    if scalar.resolve() == Resolved::Null {
        return Err(refused("there is nothing to encrypt"));
    }
    let armored = seal(&scalar.text).map_err(|why| refused(&why))?;
    let (start, end) = (value.span.start as usize, value.span.end as usize);
    // A comment behind the value stays behind the mark.
    let line_end = text[end..].find('\n').map_or(text.len(), |at| end + at);
    let behind = if scalar.style == Style::Block { "" } else { &text[end..line_end] };
    let rest = if scalar.style == Style::Block { &text[end..] } else { &text[line_end..] };
    let block = indented(&armored, column(&text, key.span.start as usize) + 2);
    let start = if scalar.style == Style::Block { block_start(&text, key, start) } else { start };
    Ok(format!("{}!secret |{behind}\n{block}{rest}", &text[..start]))
}

/// Makes the `!secret` or `!vault` value of that name a plain one; `open` decrypts.
pub fn unseal(
    sources: &Sources,
    source: SourceId,
    name: &str,
    open: impl FnOnce(&[u8]) -> Result<String, String>,
) -> Result<String, Diagnostic> {
    let text = sources.text(source);
    let root = root(sources, source)?;
    let (key, value) = find(&text, &root, source, name)?;
    let refused = |message: &str| Diagnostic::error("secret-value", message).at(value.span, "");
    let Some((start, body)) = sealed(&text, value) else {
        return Err(refused("this value is not encrypted"));
    };
    let plain =
        open(value.as_text().unwrap_or_default().as_bytes()).map_err(|why| refused(&why))?;
    let indent = column(&text, key.span.start as usize) + 2;
    Ok(format!("{}{}{}", &text[..start], written(&plain, indent), &text[body.1..]))
}

/// Encrypts all `!secret` values anew: `seal_again` gives the armored text for that of a value.
/// Gives the new text of the whole file, and how many values there were.
pub fn reseal(
    sources: &Sources,
    source: SourceId,
    mut seal_again: impl FnMut(&[u8]) -> Result<String, String>,
) -> Result<(String, usize), Diagnostic> {
    let text = sources.text(source);
    let root = root(sources, source)?;
    let mut values = Vec::new();
    collect(&root, &mut values);
    values.sort_by_key(|value| value.span.start);
    values.dedup_by_key(|value| value.span.start);
    let mut renewed = String::with_capacity(text.len());
    let (mut from, mut count) = (0, 0);
    for value in values {
        let Some((_, (begin, end))) = sealed(&text, value) else { continue };
        let armored = seal_again(value.as_text().unwrap_or_default().as_bytes())
            .map_err(|why| Diagnostic::error("secret-value", why).at(value.span, ""))?;
        renewed.push_str(&text[from..begin]);
        renewed.push_str(indented(&armored, column(&text, begin)).trim());
        (from, count) = (end, count + 1);
    }
    renewed.push_str(&text[from..]);
    Ok((renewed, count))
}

fn root(sources: &Sources, source: SourceId) -> Result<Node, Diagnostic> {
    let mut diagnostics = Diagnostics::default();
    let root = yaml::parse_one(sources, source, &mut diagnostics);
    match (diagnostics.sorted().first(), root) {
        (Some(wrong), _) => Err(Diagnostic::clone(wrong)),
        (None, Some(root)) => Ok(root),
        (None, None) => {
            let span = Span::new(source, 0, 0);
            Err(Diagnostic::error("empty-file", "there is nothing in the file").at(span, ""))
        }
    }
}

/// The key and the value of a name: as it stands, else with dots as ways into mappings.
fn find<'n>(
    text: &str,
    root: &'n Node,
    source: SourceId,
    name: &str,
) -> Result<(&'n Node, &'n Node), Diagnostic> {
    let entry = |node: &'n Node, name: &str| {
        let found = node.entries()?.iter().find(|(key, _)| key.as_text() == Some(name));
        found.map(|(key, value)| (key, value))
    };
    let flows = |node: &Node| text[node.span.start as usize..].starts_with('{');
    let mut flow = flows(root);
    let mut found = entry(root, name);
    if found.is_none() {
        let mut node = root;
        for part in name.split('.') {
            flow |= flows(node);
            found = entry(node, part);
            match found {
                Some((_, value)) => node = value,
                None => break,
            }
        }
    }
    match found {
        Some((_, value)) if flow => {
            let message = "a block cannot stand between `{` and `}`";
            let help = "write the mapping with one value a line";
            Err(Diagnostic::error("secret-value", message).at(value.span, "").help(help))
        }
        Some(found) => Ok(found),
        None => {
            let message = format!("there is no value `{name}` in the file");
            let span = Span::new(source, 0, 0);
            let names =
                root.entries().unwrap_or_default().iter().filter_map(|(key, _)| key.as_text());
            let near = crate::diagnostic::nearest(name, names);
            let error = Diagnostic::error("secret-value", message).at(span, "");
            Err(match near {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help("a value in a mapping is named with dots: `database.password`"),
            })
        }
    }
}

fn collect<'n>(node: &'n Node, values: &mut Vec<&'n Node>) {
    match &node.kind {
        Kind::Scalar(scalar) => {
            if scalar.tag.as_deref() == Some("secret") {
                values.push(node);
            }
        }
        Kind::Sequence(items) => items.iter().for_each(|item| collect(item, values)),
        Kind::Mapping(entries) => entries.iter().for_each(|(_, value)| collect(value, values)),
    }
}

/// Where the tag of an encrypted value begins, and where its body begins and ends.
fn sealed(text: &str, value: &Node) -> Option<(usize, (usize, usize))> {
    let start = value.span.start as usize;
    let scalar = value.scalar()?;
    let tag = match scalar.tag.as_deref()? {
        "secret" => "!secret",
        "vault" | "vault-encrypted" => "!vault",
        _ => return None,
    };
    let body = if tag == "!secret" {
        let begin = start + text[start..].find(BEGIN)?;
        (begin, begin + text[begin..].find(END)? + END.len())
    } else {
        let begin = start + text[start..].find(VAULT_MARK)?;
        (begin, (value.span.end as usize).max(begin))
    };
    Some((text[..body.0].rfind(tag)?, body))
}

/// Where a block's `|` or `>` stands: its span may begin with its first line.
fn block_start(text: &str, key: &Node, start: usize) -> usize {
    let from = key.span.end as usize;
    text[from..start.max(from)].find(['|', '>']).map_or(start, |at| from + at)
}

/// How many characters stand before a place on its line.
fn column(text: &str, at: usize) -> usize {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[line..at].chars().count()
}

/// Lines with blanks before each; ends without a line end.
fn indented(text: &str, blanks: usize) -> String {
    let lines: Vec<String> =
        text.trim_end().lines().map(|line| format!("{}{line}", " ".repeat(blanks))).collect();
    lines.join("\n")
}

/// A text as a scalar of a block mapping.
fn written(plain: &str, indent: usize) -> String {
    let printable = !plain.contains(|one: char| one.is_control() && one != '\n');
    let body = plain.strip_suffix('\n').unwrap_or(plain);
    if plain.contains('\n') && printable && !body.starts_with([' ', '\n']) && !body.ends_with('\n')
    {
        let lines = body.lines().map(|line| match line {
            "" => String::new(),
            line => format!("{}{line}", " ".repeat(indent)),
        });
        let chomping = if body == plain { "-" } else { "" };
        return format!("|{chomping}\n{}", lines.collect::<Vec<_>>().join("\n"));
    }
    let simple = |one: char| one.is_ascii_alphanumeric() || "_-./".contains(one);
    let scalar = yaml::Scalar { text: plain.into(), style: Style::Plain, tag: None, secret: false };
    let is_text = matches!(scalar.resolve(), Resolved::Text(_));
    let begins = plain.starts_with(|one: char| one.is_ascii_alphanumeric());
    if is_text && begins && plain.chars().all(simple) {
        return plain.to_owned();
    }
    // A string of JSON is one of YAML.
    serde_json::Value::String(plain.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic;

    /// Stands for encryption: hexadecimal between the lines that age has.
    fn sealing(plain: &str) -> Result<String, String> {
        let body = data_encoding::HEXLOWER.encode(plain.as_bytes());
        Ok(format!("{BEGIN}\n{body}\n{END}\n"))
    }

    fn opening(sealed: &[u8]) -> Result<String, String> {
        let text = String::from_utf8_lossy(sealed);
        let body = text.lines().nth(1).ok_or("no body")?;
        let plain = data_encoding::HEXLOWER.decode(body.as_bytes()).map_err(|_| "not sealed")?;
        Ok(String::from_utf8_lossy(&plain).into_owned())
    }

    fn with<T>(
        text: &str,
        run: impl FnOnce(&Sources, SourceId) -> Result<T, Diagnostic>,
    ) -> Result<T, String> {
        let sources = Sources::default();
        let source = sources.add("x.yml", text);
        run(&sources, source)
            .map_err(|error| diagnostic::render(&error, &sources, diagnostic::Style::Plain))
    }

    fn value(text: &str, path: &str) -> String {
        let sources = Sources::default();
        let source = sources.add("x.yml", text);
        let root = root(&sources, source).unwrap_or_else(|_| panic!("{text}"));
        let node = path.split('.').fold(&root, |node, part| match part.parse::<usize>() {
            Ok(index) => &node.items().unwrap()[index],
            Err(_) => node.get(part).unwrap(),
        });
        node.as_text().unwrap().to_owned()
    }

    #[test]
    fn a_value_is_sealed_and_opened_in_its_place() {
        let cases = [
            ("a: 1\npassword: hunter2\nb: 2\n", "password", "hunter2"),
            ("# top\npassword: hunter2   # why\n\nb: 2\n", "password", "hunter2"),
            ("password: \"it's: \\\"x\\\"\"", "password", "it's: \"x\""),
            ("db:\n    user: shop\n    password: 'x y'\n    port: 1\n", "db.password", "x y"),
            ("password: |\n  one\n   two\n\n  three\nb: 2\n", "password", "one\n two\n\nthree\n"),
            ("password: |-\n  one\n  two\nb: 2\n", "password", "one\ntwo"),
            ("password: |+\n  one\n\n\nb: 2\n", "password", "one\n\n\n"),
            ("password: >-\n  one\n  two\n# end\n", "password", "one two"),
            ("port: 5432\n", "port", "5432"),
        ];
        for (text, name, plain) in cases {
            let sealed = with(text, |sources, source| seal(sources, source, name, sealing));
            let sealed = sealed.unwrap_or_else(|error| panic!("{text}\n{error}"));
            assert!(sealed.contains("!secret |"), "{sealed}");
            assert!(!sealed.contains(plain), "{sealed}");
            let opened = with(&sealed, |sources, source| unseal(sources, source, name, opening));
            let opened = opened.unwrap_or_else(|error| panic!("{sealed}\n{error}"));
            assert_eq!(value(&opened, name), plain, "{sealed}\n{opened}");
            // All else is as it was, comments too.
            for other in
                ["a: 1\n", "b: 2\n", "# top\n", "# end\n", "    port: 1\n", "    user: shop\n"]
            {
                assert_eq!(text.contains(other), sealed.contains(other), "{sealed}");
                assert_eq!(text.contains(other), opened.contains(other), "{opened}");
            }
        }
    }

    #[test]
    fn bytes_outside_of_the_value_stay() {
        let text = "a:   1 # one\nlist:\n- name: x\n  password: hunter2 # two\n- y\n\n\nb: [1,  2]";
        let error = with(text, |sources, source| seal(sources, source, "list.password", sealing));
        assert!(error.unwrap_err().contains("there is no value `list.password`"));
        let text = "a:   1 # one\nd:\n   password: hunter2 # two\n\n\nb: [1,  2]";
        let sealed =
            with(text, |sources, source| seal(sources, source, "d.password", sealing)).unwrap();
        let body = "     -----BEGIN AGE ENCRYPTED FILE-----\n     68756e74657232\n     -----END AGE ENCRYPTED FILE-----";
        let expected =
            format!("a:   1 # one\nd:\n   password: !secret | # two\n{body}\n\n\nb: [1,  2]");
        assert_eq!(sealed, expected);
    }

    #[test]
    fn all_values_are_sealed_anew() {
        let text = with("a: one\nb: x\n", |s, i| seal(s, i, "a", sealing)).unwrap();
        let text = format!("{text}list:\n- !secret |\n  {BEGIN}\n  74776f\n  {END}\n- plain\n");
        let (renewed, count) = with(&text, |sources, source| {
            reseal(sources, source, |body| sealing(&opening(body)?.to_uppercase()))
        })
        .unwrap();
        assert_eq!(count, 2);
        let read = |path| opening(value(&renewed, path).as_bytes()).unwrap();
        assert_eq!((read("a").as_str(), read("list.0").as_str()), ("ONE", "TWO"), "{renewed}");
        assert_eq!(value(&renewed, "list.1"), "plain");
        assert_eq!(value(&renewed, "b"), "x");
    }

    #[test]
    fn what_cannot_be_sealed_is_said() {
        let cases = [
            ("a: {b: c}\n", "a.b", "a block cannot stand between `{` and `}`"),
            ("a: [1]\n", "a", "`a` is a list"),
            ("a: !vault x\n", "a", "has a tag"),
            ("a:\n", "a", "nothing to encrypt"),
            ("password: x\n", "pasword", "did you mean `password`?"),
            ("a: [\n", "a", "x.yml:"),
        ];
        for (text, name, said) in cases {
            let error =
                with(text, |sources, source| seal(sources, source, name, sealing)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let error = with("a: b\n", |s, i| unseal(s, i, "a", opening)).unwrap_err();
        assert!(error.contains("this value is not encrypted"), "{error}");
    }
}
