//! Host names with a port or with ranges in them: `web[01:10].example.com:2222`.

use std::net::Ipv6Addr;
use std::ops::Range;

/// Most hosts that one name may stand for.
const HOST_LIMIT: usize = 100_000;

/// A range that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadRange {
    /// The bytes of the name that are meant.
    pub(super) at: Range<usize>,
    /// What is wrong with them.
    pub(super) message: String,
}

/// Splits a name into host (possibly with ranges) and port; none if it is not an address, and then
/// a name is taken literally.
///
/// A port follows a colon; for an IPv6 address the address stands in brackets (`[fe80::1]:22`).
pub(super) fn address(text: &str) -> Option<(&str, Option<u32>)> {
    let mut rest = text;
    let mut port = None;
    if let Some((inside, digits)) = rest.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:"))
        && !inside.is_empty()
        && is_digits(digits)
    {
        rest = inside;
        port = Some(digits.parse().ok()?);
    }
    if let Some((head, digits)) = rest.rsplit_once(':')
        && is_digits(digits)
        && is_without_colons(head)
    {
        rest = head;
        port = Some(digits.parse().ok()?);
    }
    (is_ipv6(rest) || is_host_name(rest)).then_some((rest, port))
}

/// All hosts that a name with ranges stands for; the name itself if it has none.
///
/// Ranges are `[begin:end]` or `[begin:end:step]`, ends included: numbers, padded as `begin` is, or
/// single letters (a to z, then A to Z).
pub(super) fn expand(text: &str) -> Result<Vec<String>, BadRange> {
    let mut names = vec![String::new()];
    let mut at = 0;
    while let Some(open) = text[at..].find('[').map(|found| at + found) {
        let bad = |end: usize, message: &str| BadRange { at: open..end, message: message.into() };
        let Some(close) = text[open..].find(']').map(|found| open + found) else {
            return Err(bad(text.len(), "a `[` without its `]`"));
        };
        let parts =
            sequence(&text[open + 1..close]).map_err(|message| bad(close + 1, message.as_str()))?;
        if names.len().saturating_mul(parts.len()) > HOST_LIMIT {
            let message = format!("this stands for more than {HOST_LIMIT} hosts");
            return Err(bad(close + 1, &message));
        }
        let head = &text[at..open];
        names = names
            .iter()
            .flat_map(|name| parts.iter().map(move |part| format!("{name}{head}{part}")))
            .collect();
        at = close + 1;
    }
    for name in &mut names {
        name.push_str(&text[at..]);
    }
    Ok(names)
}

/// The members of one range, given without its brackets.
fn sequence(range: &str) -> Result<Vec<String>, String> {
    let bounds: Vec<&str> = range.split(':').collect();
    let (begin, end, step) = match bounds[..] {
        [begin, end] => (begin, end, "1"),
        [begin, end, step] => (begin, end, step),
        _ => return Err("a range is written `[begin:end]` or `[begin:end:step]`".into()),
    };
    if end.is_empty() {
        return Err("a range needs an end".into());
    }
    let begin = if begin.is_empty() { "0" } else { begin };
    let step = match step.parse::<usize>() {
        Ok(step) if step > 0 => step,
        _ => return Err(format!("the step of a range is a number from 1, not `{step}`")),
    };
    if let (Some(first), Some(last)) = (letter(begin), letter(end)) {
        if first > last {
            return Err(format!("`{begin}` comes after `{end}`"));
        }
        let letters = ('a'..='z').chain('A'..='Z').skip(first).take(last - first + 1);
        return Ok(letters.step_by(step).map(String::from).collect());
    }
    let number = |text: &str| {
        text.parse::<u64>().map_err(|_| format!("`{text}` is neither a number nor a letter"))
    };
    let (first, last) = (number(begin)?, number(end)?);
    if first > last {
        return Err(format!("`{begin}` is more than `{end}`"));
    }
    let padded = begin.len() > 1 && begin.starts_with('0');
    if padded && begin.len() != end.len() {
        return Err(format!("`{begin}` and `{end}` need the same number of digits"));
    }
    if (last - first) / step as u64 >= HOST_LIMIT as u64 {
        return Err(format!("this stands for more than {HOST_LIMIT} hosts"));
    }
    let width = if padded { begin.len() } else { 0 };
    Ok((first..=last).step_by(step).map(|number| format!("{number:0width$}")).collect())
}

fn letter(text: &str) -> Option<usize> {
    let mut characters = text.chars();
    let (first, rest) = (characters.next()?, characters.next());
    if rest.is_some() {
        return None;
    }
    ('a'..='z').chain('A'..='Z').position(|letter| letter == first)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether every colon, and every bracket, belongs to a complete bracketed expression.
fn is_without_colons(text: &str) -> bool {
    let mut inside = false;
    for byte in text.bytes() {
        match byte {
            b']' if inside => inside = false,
            _ if inside => {}
            b'[' => inside = true,
            b':' | b']' => return false,
            _ => {}
        }
    }
    !inside
}

/// The text with every range replaced by `0`; none if something in brackets is not a range of
/// members that `allowed` accepts.
fn without_ranges(text: &str, allowed: impl Fn(&str, &str) -> bool) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('[') {
        let (range, tail) = tail.split_once(']')?;
        let bounds: Vec<&str> = range.split(':').collect();
        let fits = match bounds[..] {
            [begin, end] => allowed(begin, end),
            [begin, end, step] => allowed(begin, end) && is_digits(step),
            _ => false,
        };
        if !fits {
            return None;
        }
        plain.push_str(head);
        plain.push('0');
        rest = tail;
    }
    plain.push_str(rest);
    Some(plain)
}

fn is_ipv6(text: &str) -> bool {
    let hexadecimal =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    without_ranges(text, |begin, end| hexadecimal(begin) && hexadecimal(end))
        .is_some_and(|plain| plain.parse::<Ipv6Addr>().is_ok())
}

fn is_host_name(text: &str) -> bool {
    let one_letter = |text: &str| text.len() == 1 && text.as_bytes()[0].is_ascii_alphabetic();
    let word = |character: char| character.is_alphanumeric() || character == '_';
    let plain = without_ranges(text, |begin, end| {
        (one_letter(begin) && one_letter(end)) || (is_digits(begin) && is_digits(end))
    });
    plain.is_some_and(|plain| {
        plain.split('.').all(|label| {
            label.starts_with(word)
                && !label.ends_with(['_', '-'])
                && label.chars().all(|character| word(character) || character == '-')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_split_from_a_name() {
        let cases = [
            ("web1", Some(("web1", None))),
            ("web1:2222", Some(("web1", Some(2222)))),
            ("web[1:3]:22", Some(("web[1:3]", Some(22)))),
            ("web[1:3]", Some(("web[1:3]", None))),
            ("fe80::1", Some(("fe80::1", None))),
            ("[fe80::1]:22", Some(("fe80::1", Some(22)))),
            ("10.0.0.[1:9]", Some(("10.0.0.[1:9]", None))),
            ("web:db", None),
            ("web:", None),
            ("web-", None),
            ("web*", None),
            ("!web", None),
        ];
        for (text, expected) in cases {
            assert_eq!(address(text), expected, "{text}");
        }
    }

    #[test]
    fn ranges_are_expanded() {
        let cases = [
            ("web", "web"),
            ("web[1:3]", "web1 web2 web3"),
            ("web[01:10:4]x", "web01x web05x web09x"),
            ("[a:c]", "a b c"),
            ("[y:B]", "y z A B"),
            ("n[:2]", "n0 n1 n2"),
            ("n[8:10]", "n8 n9 n10"),
            ("a[1:2]b[1:2]", "a1b1 a1b2 a2b1 a2b2"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text).unwrap().join(" "), expected, "{text}");
        }
    }

    #[test]
    fn a_range_that_makes_no_sense_says_why() {
        let cases = [
            ("web[1:", 3..6, "a `[` without its `]`"),
            ("web[1]", 3..6, "a range is written `[begin:end]` or `[begin:end:step]`"),
            ("web[1:]", 3..7, "a range needs an end"),
            ("web[01:100]", 3..11, "`01` and `100` need the same number of digits"),
            ("web[3:1]", 3..8, "`3` is more than `1`"),
            ("web[f:a]", 3..8, "`f` comes after `a`"),
            ("web[a:9]", 3..8, "`a` is neither a number nor a letter"),
            ("web[1:9:0]", 3..10, "the step of a range is a number from 1, not `0`"),
            ("web[1:999999999]", 3..16, "this stands for more than 100000 hosts"),
        ];
        for (text, at, message) in cases {
            let message = message.to_owned();
            assert_eq!(expand(text), Err(BadRange { at, message }), "{text}");
        }
    }
}
