//! Quoting of words for shells whose kind is not known.

/// Quotes a word for a POSIX shell.
#[must_use]
pub fn for_sh(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes a word for whatever a login shell may be: sh, bash, dash, zsh, fish, csh, tcsh.
///
/// Within single quotes they agree on every character but these: `'` (ends the quotes), `\` (fish reads `\\` and
/// `\'`), `!` (csh's history), and the line feed (csh wants a `\` before it). Those stand outside of the quotes, each
/// escaped by a `\`, which is understood by all; a line feed becomes a blank, because there is no common spelling.
#[must_use]
pub fn for_any_shell(word: &str) -> String {
    let mut quoted = String::with_capacity(word.len() + 2);
    let mut open = false;
    for character in word.chars() {
        let character = if character == '\n' { ' ' } else { character };
        let outside = matches!(character, '\'' | '\\' | '!');
        if open == outside {
            quoted.push('\'');
            open = !open;
        }
        if outside {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    if open {
        quoted.push('\'');
    }
    if quoted.is_empty() { "''".to_owned() } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_real_shell() {
        for word in [
            "plain",
            "",
            "two words",
            "it's",
            r"a\b",
            r"\'",
            "wow!",
            "$HOME `id` \"x\"",
            "*?[a]",
            "~",
        ] {
            for quoted in [for_sh(word), for_any_shell(word)] {
                let script = format!("printf %s {quoted}");
                let output =
                    std::process::Command::new("/bin/sh").arg("-c").arg(script).output().unwrap();
                assert_eq!(String::from_utf8_lossy(&output.stdout), word, "{quoted}");
            }
        }
    }
}
