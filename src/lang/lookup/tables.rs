//! Lookups of one value in a file that is a table: INI, properties, CSV.

use std::collections::BTreeMap;

/// The value of a key in a section of an INI file, as Python's `configparser` reads it; the error
/// is what is wrong.
pub(super) fn ini(
    text: &str,
    section: &str,
    key: &str,
    case_sensitive: bool,
) -> Result<Option<String>, String> {
    let folded = |name: &str| if case_sensitive { name.to_owned() } else { name.to_lowercase() };
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut current = String::new();
    let mut last: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let (true, Some(last)) = (line.starts_with([' ', '\t']), &last) {
            let value = sections.get_mut(&current).and_then(|entries| entries.get_mut(last));
            value.into_iter().for_each(|value| value.push_str(&format!("\n{trimmed}")));
        } else if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            current = name.0.to_owned();
            sections.entry(current.clone()).or_default();
            last = None;
        } else {
            let (name, value) = trimmed
                .split_once(['=', ':'])
                .ok_or_else(|| format!("`{trimmed}` is neither a section nor `name = value`"))?;
            let name = folded(name.trim());
            let entries = sections.entry(current.clone()).or_default();
            if entries.insert(name.clone(), value.trim().to_owned()).is_some() {
                return Err(format!("`{name}` stands twice in a section"));
            }
            last = Some(name);
        }
    }
    let shared = sections.get("DEFAULT");
    let found = sections.get(section).ok_or_else(|| format!("there is no section `{section}`"))?;
    let value = found.get(&folded(key)).or_else(|| shared?.get(&folded(key)));
    Ok(value.cloned())
}

/// The rows of a CSV file, as Python's `csv` reads it: quotes are doubled inside of quotes.
pub(super) fn rows(text: &str, delimiter: char) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let (mut row, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            other if quoted => field.push(other),
            '"' if field.is_empty() => quoted = true,
            '\n' => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if characters.peek() == Some(&'\n') => {}
            other if other == delimiter => row.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ini_file_is_read_as_python_reads_it() {
        let text = "[a]\nPort = 80\n# c\ntext: x\n  y\n[DEFAULT]\nall=1\n[b]\n";
        let found = |section, key| ini(text, section, key, false).unwrap();
        assert_eq!(found("a", "port").as_deref(), Some("80"));
        assert_eq!(found("a", "text").as_deref(), Some("x\ny"));
        assert_eq!(found("b", "all").as_deref(), Some("1"));
        assert_eq!(found("b", "port"), None);
        assert!(ini(text, "c", "port", false).is_err());
        assert!(ini("x\n", "a", "x", false).is_err());
    }

    #[test]
    fn fields_have_quotes_with_delimiters_and_line_ends_in_them() {
        let text = "a,\"b,\"\"c\"\"\nd\",e\r\nf,,\"\"";
        let expected = [vec!["a", "b,\"c\"\nd", "e"], vec!["f", "", ""]];
        assert_eq!(rows(text, ','), expected);
    }
}
