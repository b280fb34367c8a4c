use std::fmt::Write;
use std::time::{Duration, Instant};

use similar::{Algorithm, TextDiff};

/// Most lines of a diff that are kept; what is left out is counted.
const LINE_LIMIT: usize = 2_000;
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
    let difference = TextDiff::configure()
        .algorithm(Algorithm::Myers)
        .deadline(Instant::now() + DEADLINE)
        .diff_lines(old_text, new_text);
    let unified =
        difference.unified_diff().context_radius(3).header(old_name, new_name).to_string();
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
