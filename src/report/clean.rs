use std::fmt::Write;

/// Text from outside as one line that steers no terminal; line breaks are shown as `\n`.
pub(super) fn line(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.trim_end_matches('\n').chars() {
        match character {
            '\n' => clean.push_str("\\n"),
            '\t' => clean.push(' '),
            _ => push(character, &mut clean),
        }
    }
    clean
}

/// Text from outside that steers no terminal and keeps its lines and tabs.
pub fn block(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\t' => clean.push(character),
            '\r' if characters.peek() == Some(&'\n') => {}
            _ => push(character, &mut clean),
        }
    }
    clean
}

fn push(character: char, into: &mut String) {
    // A string takes whatever is written to it.
    let _ = if character.is_control() {
        write!(into, "\\x{:02x}", u32::from(character))
    } else if reorders(character) {
        write!(into, "\\u{{{:x}}}", u32::from(character))
    } else {
        into.push(character);
        Ok(())
    };
}

/// Whether a character changes the order in which others are shown (Unicode UAX #9), so that a
/// line would read as something that it is not.
fn reorders(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As much of a line as fits into so many columns; what is cut is marked.
pub(super) fn fit(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(columns.saturating_sub(1)).collect();
    if columns > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        for (text, as_line, as_block) in [
            ("plain", "plain", "plain"),
            ("\u{1b}[31mred\u{7}", "\\x1b[31mred\\x07", "\\x1b[31mred\\x07"),
            ("a\r\nb\n", "a\\x0d\\nb", "a\nb\n"),
            ("over\rwritten", "over\\x0dwritten", "over\\x0dwritten"),
            ("a\tb", "a b", "a\tb"),
            ("\u{9b}2J", "\\x9b2J", "\\x9b2J"),
            ("ab\u{202e}cd", "ab\\u{202e}cd", "ab\\u{202e}cd"),
        ] {
            assert_eq!(line(text), as_line, "{text:?}");
            assert_eq!(block(text), as_block, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(fit("größe", 5), "größe");
        assert_eq!(fit("größer", 5), "größ…");
        assert_eq!(fit("x", 0), "");
    }
}
