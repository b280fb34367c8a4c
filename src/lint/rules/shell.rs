//! Shell lines, as far as it takes to see which programs they start.

/// The words of each simple command of a shell line. Quotes are taken away and words are not
/// expanded.
pub(super) fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(one) = characters.next() {
        match (quote, one) {
            (Some(open), close) if open == close => quote = None,
            (Some('"') | None, '\\') => {
                word.get_or_insert_default().extend(characters.next());
            }
            (Some(_), other) => word.get_or_insert_default().push(other),
            (None, '\'' | '"') => {
                quote = Some(one);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => {
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            // Where output goes is no command: `2>&1`, `&>file`.
            (None, '&') if word.as_deref().is_some_and(|word| word.ends_with(['>', '<'])) => {
                word.get_or_insert_default().push('&');
            }
            (None, ';' | '&' | '|' | '(' | ')' | '\n') => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            (None, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    commands.push(words);
    commands.iter_mut().for_each(without_beginning);
    commands.retain(|words| !words.is_empty());
    commands
}

/// Takes away what may stand before the program: variables, and words of the shell.
fn without_beginning(words: &mut Vec<String>) {
    const SHELL: [&str; 11] =
        ["if", "then", "elif", "else", "while", "until", "do", "!", "{", "exec", "time"];
    let assigns = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_')
        })
    };
    let count = words.iter().take_while(|word| SHELL.contains(&word.as_str()) || assigns(word));
    let count = count.count();
    words.drain(..count);
}

/// The program's name without its folder.
pub(super) fn program(words: &[String]) -> &str {
    let first = words.first().map_or("", String::as_str);
    first.rsplit('/').next().unwrap_or(first)
}

/// The first word after the program that is no option.
pub(super) fn first_argument(words: &[String]) -> Option<&str> {
    words.iter().skip(1).map(String::as_str).find(|word| !word.starts_with('-'))
}

/// Whether a line writes its output to a file.
pub(super) fn writes_to_file(line: &str) -> bool {
    let mut quote = None;
    let mut characters = line.char_indices().peekable();
    while let Some((at, one)) = characters.next() {
        match (quote, one) {
            (Some(open), close) if open == close => quote = None,
            (Some('"') | None, '\\') => {
                characters.next();
            }
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(one),
            // In a template it compares.
            (None, '{') if line[at..].starts_with("{{") => {
                let end = line[at..].find("}}").map_or(line.len(), |end| at + end);
                while characters.next_if(|(next, _)| *next < end).is_some() {}
            }
            (None, '>') => {
                let target = line[at..].trim_start_matches(['>', '|', ' ']);
                let nowhere = ["&1", "&2", "&-", "/dev/null", "/dev/std", "&/dev/null"];
                // `[ a \> b ]` is quoted, `=>` and `->` are no redirections of anything.
                let arrow = line[..at].ends_with(['=', '-']);
                if !arrow && !nowhere.iter().any(|place| target.starts_with(place)) {
                    return true;
                }
                while characters.next_if(|(_, next)| *next == '>').is_some() {}
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_programs_that_it_starts() {
        let cases = [
            ("mkdir -p '/a b'", "mkdir|-p|/a b"),
            (
                "cd /x && LANG=C make install; echo \"a;b\" | tee c",
                "cd|/x make|install echo|a;b tee|c",
            ),
            ("if ! test -e /x; then rm /x 2>&1; fi", "test|-e|/x rm|/x|2>&1 fi"),
            ("# nothing\ntrue", "true"),
        ];
        for (line, expected) in cases {
            let found: Vec<String> = commands(line).iter().map(|words| words.join("|")).collect();
            assert_eq!(found.join(" "), expected, "{line}");
        }
    }

    #[test]
    fn output_to_a_file_is_seen() {
        let cases = [
            ("echo x > /etc/y", true),
            ("echo x >>y", true),
            ("grep x y >/dev/null 2>&1", false),
            ("test 1 -gt 2 2> /dev/null", false),
            ("grep '>' y", false),
            ("test {{ a > b }}", false),
        ];
        for (line, expected) in cases {
            assert_eq!(writes_to_file(line), expected, "{line}");
        }
    }
}
