use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::udiff::UnifiedHunkHeader;
use similar::{DiffOp, DiffTag, group_diff_ops};

use super::mask::{CHANGED_SECRET, Mask, SECRET, fits, hidden};

/// Most lines of a diff that are kept; what is left out is counted.
const LINE_LIMIT: usize = 2_000;
/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;
/// After that long, a coarser diff is good enough.
const DEADLINE: Duration = Duration::from_millis(500);

#[cfg(test)]
fn unified(path: &str, before: Option<&[u8]>, after: Option<&[u8]>) -> String {
    masked(path, before, after, &Masking { mask: &Mask::default(), hide_old: false })
}

/// What of a diff is not shown.
#[derive(Clone, Copy, Debug)]
pub struct Masking<'a> {
    /// The secrets.
    pub mask: &'a Mask,
    /// Whether nothing of the old side is shown.
    pub hide_old: bool,
}

/// What stands in the place of an old line that is not shown.
const HIDDEN: &str = "[hidden]";

/// A unified diff of a path's content, as `diff -u` prints it; a side that does not exist is
/// `/dev/null`. Secrets are not in it, nor what they may have been before.
///
/// Bytes that are not text are only counted. Control characters are shown as `\xNN`.
pub fn masked(
    path: &str,
    before: Option<&[u8]>,
    after: Option<&[u8]>,
    masking: &Masking<'_>,
) -> String {
    let old_name = if before.is_some() { path } else { "/dev/null" };
    let new_name = if after.is_some() { path } else { "/dev/null" };
    let (old, new) = (before.unwrap_or_default(), after.unwrap_or_default());
    let (Some(old_text), Some(new_text)) = (text(old), text(new)) else {
        return format!("binary content: {} bytes → {} bytes\n", old.len(), new.len());
    };
    let unified = hunks(old_name, new_name, old_text, new_text, masking);
    let mut shown = String::with_capacity(unified.len());
    let mut lines = unified.lines();
    for line in lines.by_ref().take(LINE_LIMIT) {
        sanitize(line, &mut shown);
        shown.push('\n');
    }
    let left = lines.count();
    if left > 0 {
        let _ = writeln!(shown, "… {left} more lines");
    }
    shown
}

/// A line of the new text, and what of it is secret.
type Secret<'t> = (&'t str, Vec<std::ops::Range<usize>>);

/// Most lines with secrets that others are compared with; beyond that all old lines are hidden.
const SECRET_LINES: usize = 200;

/// The whole of a unified diff; empty if the texts are equal.
fn hunks(
    old_name: &str,
    new_name: &str,
    old_text: &str,
    new_text: &str,
    masking: &Masking<'_>,
) -> String {
    let old: Vec<&str> = old_text.split_inclusive('\n').collect();
    let new: Vec<&str> = new_text.split_inclusive('\n').collect();
    let secret: Vec<Secret<'_>> = new
        .iter()
        .map(|line| (*line, masking.mask.parts(line)))
        .filter(|(_, parts)| !parts.is_empty())
        .take(SECRET_LINES)
        .collect();
    let mut unified = String::new();
    for group in group_diff_ops(operations(&old, &new), CONTEXT) {
        if group.is_empty() {
            continue;
        }
        // A string takes whatever is written to it.
        if unified.is_empty() {
            let _ = write!(unified, "--- {old_name}\n+++ {new_name}\n");
        }
        let _ = writeln!(unified, "{}", UnifiedHunkHeader::new(&group));
        for operation in group {
            let (tag, gone, come) = operation.as_tag_tuple();
            if tag == DiffTag::Equal {
                for line in &old[gone] {
                    append(' ', &hidden(line, &masking.mask.parts(line), SECRET), &mut unified);
                }
            } else {
                replaced(&old[gone], &new[come], &secret, masking, &mut unified);
            }
        }
    }
    unified
}

/// What makes the new lines of the old ones. Lines are compared by number: `similar`'s own
/// comparison of texts brings every algorithm for every type, two megabytes of the agent.
fn operations(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    let mut known = HashMap::new();
    let old = numbered(old, &mut known);
    let new = numbered(new, &mut known);
    let mut hook = Compact::new(Replace::new(Capture::new()), old.as_slice(), new.as_slice());
    let deadline = Some(Instant::now() + DEADLINE);
    let (old, new) = (old.as_slice(), new.as_slice());
    let Ok(()) = myers::diff_deadline(&mut hook, old, 0..old.len(), new, 0..new.len(), deadline);
    hook.into_inner().into_inner().into_ops()
}

/// Equal lines get equal numbers.
fn numbered<'t>(lines: &[&'t str], known: &mut HashMap<&'t str, usize>) -> Vec<usize> {
    let mut number = |line: &'t str| {
        let next = known.len();
        *known.entry(line).or_insert(next)
    };
    lines.iter().map(|line| number(line)).collect()
}

/// Lines that go, and those that come in their place. Beside a new secret the old lines are hidden:
/// they have the old one. Of a line that is the same but for its secret, the rest is shown.
///
/// `secret` are all new lines with secrets: one that stood elsewhere in the file is hidden as well.
fn replaced(
    old: &[&str],
    new: &[&str],
    secret: &[Secret<'_>],
    masking: &Masking<'_>,
    unified: &mut String,
) {
    let parts: Vec<_> = new.iter().map(|line| masking.mask.parts(line)).collect();
    let with_secret = || new.iter().zip(&parts).filter(|(_, parts)| !parts.is_empty());
    let hide_old = masking.hide_old || with_secret().next().is_some();
    let mut changed = vec![false; new.len()];
    for line in old {
        let twin = (0..new.len()).find(|at| {
            !parts[*at].is_empty() && !changed[*at] && fits(line, new[*at], &parts[*at])
        });
        match twin {
            Some(at) => {
                changed[at] = true;
                append('-', &hidden(new[at], &parts[at], SECRET), unified);
            }
            None if secret.iter().any(|(other, parts)| fits(line, other, parts)) => {
                append('-', &format!("{HIDDEN}\n"), unified);
            }
            None if hide_old || secret.len() == SECRET_LINES => {
                append('-', &format!("{HIDDEN}\n"), unified)
            }
            None => append('-', &hidden(line, &masking.mask.parts(line), SECRET), unified),
        }
    }
    for ((line, parts), changed) in new.iter().zip(&parts).zip(changed) {
        append('+', &hidden(line, parts, if changed { CHANGED_SECRET } else { SECRET }), unified);
    }
}

fn append(sign: char, line: &str, unified: &mut String) {
    unified.push(sign);
    unified.push_str(line);
    if !line.ends_with('\n') {
        unified.push_str("\n\\ No newline at end of file\n");
    }
}

/// Text, or nothing if it is not UTF-8 or has NUL bytes.
fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// Keeps what comes from a host from steering a terminal.
pub fn sanitize(line: &str, into: &mut String) {
    for character in line.chars() {
        if character.is_control() && character != '\t' {
            let _ = write!(into, "\\x{:02x}", u32::from(character));
        } else {
            into.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mask, Masking, masked, unified};

    #[test]
    fn secrets_and_what_they_were_are_hidden() {
        let mut mask = Mask::default();
        let new = "user = shop\npassword = hunter3\nport = 2\nname = x\n";
        let at = new.find("hunter3").unwrap();
        mask.add_parts(new, &std::iter::once(at..at + 7).collect::<Vec<_>>());
        mask.add_text("hunter3");
        let diff = |old: Option<&str>, new: &str, hide_old| {
            let masking = Masking { mask: &mask, hide_old };
            masked("/x", old.map(str::as_bytes), Some(new.as_bytes()), &masking)
                .lines()
                .skip(3)
                .map(|line| format!("{line}\n"))
                .collect::<String>()
        };
        let old = "user = shop\npassword = hunter2\nport = 1\nname = x\n";
        // The old port is hidden, too: nobody knows what else is in a line beside a secret.
        let expected = " user = shop\n-password = [secret]\n-[hidden]\n+password = [secret, changed]\n\
                        +port = 2\n name = x\n";
        assert_eq!(diff(Some(old), new, false), expected);
        let expected = "+user = shop\n+password = [secret]\n+port = 2\n+name = x\n";
        assert_eq!(diff(None, new, false), expected);
        // A secret that stays is hidden beside what changes, and so is one that goes.
        let old = "user = shop\npassword = hunter3\nport = 1\nname = x\n";
        let expected = " user = shop\n password = [secret]\n-port = 1\n+port = 2\n name = x\n";
        assert_eq!(diff(Some(old), new, false), expected);
        let expected = " user = shop\n password = [secret]\n-[hidden]\n+port = 2\n name = x\n";
        assert_eq!(diff(Some(old), new, true), expected);
        let expected = " user = shop\n-password = [secret]\n port = 1\n name = x\n";
        assert_eq!(diff(Some(old), "user = shop\nport = 1\nname = x\n", false), expected);
        // One that stood elsewhere was what it is now, too.
        let old = "password = hunter2\nuser = shop\nport = 2\nname = x\n";
        let shown = diff(Some(old), new, false);
        assert!(shown.contains("-[hidden]\n") && !shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn a_diff_is_what_diff_u_prints() {
        let diff = unified("/etc/motd", Some(b"a\nb\nc\n"), Some(b"a\nB\nc"));
        let expected = "\
--- /etc/motd
+++ /etc/motd
@@ -1,3 +1,3 @@
 a
-b
-c
+B
+c
\\ No newline at end of file
";
        assert_eq!(diff, expected);
        assert!(unified("/x", None, Some(b"new\n")).starts_with("--- /dev/null\n+++ /x\n@@ "));
        assert_eq!(unified("/x", Some(b"\0"), None), "binary content: 1 bytes → 0 bytes\n");
        assert!(unified("/x", None, Some(b"\x1b[31m\n")).contains("+\\x1b[31m"));
    }
}
