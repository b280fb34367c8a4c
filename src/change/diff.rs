use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::udiff::UnifiedHunkHeader;
use similar::{DiffOp, DiffTag, group_diff_ops};

/// Most lines of a diff that are kept; what is left out is counted.
const LINE_LIMIT: usize = 2_000;
/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;
/// After that long, a coarser diff is good enough.
const DEADLINE: Duration = Duration::from_millis(500);

/// A unified diff of a path's content, as `diff -u` prints it; a side that does not exist is
/// `/dev/null`.
///
/// Bytes that are not text are only counted. Control characters are shown as `\xNN`.
pub fn unified(path: &str, before: Option<&[u8]>, after: Option<&[u8]>) -> String {
    let old_name = if before.is_some() { path } else { "/dev/null" };
    let new_name = if after.is_some() { path } else { "/dev/null" };
    let (old, new) = (before.unwrap_or_default(), after.unwrap_or_default());
    let (Some(old_text), Some(new_text)) = (text(old), text(new)) else {
        return format!("binary content: {} bytes → {} bytes\n", old.len(), new.len());
    };
    let unified = hunks(old_name, new_name, old_text, new_text);
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

/// The whole of a unified diff; empty if the texts are equal.
fn hunks(old_name: &str, new_name: &str, old_text: &str, new_text: &str) -> String {
    let old: Vec<&str> = old_text.split_inclusive('\n').collect();
    let new: Vec<&str> = new_text.split_inclusive('\n').collect();
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
                append(' ', &old[gone], &mut unified);
            } else {
                append('-', &old[gone], &mut unified);
                append('+', &new[come], &mut unified);
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

fn append(sign: char, lines: &[&str], unified: &mut String) {
    for line in lines {
        unified.push(sign);
        unified.push_str(line);
        if !line.ends_with('\n') {
            unified.push_str("\n\\ No newline at end of file\n");
        }
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
    use super::unified;

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
