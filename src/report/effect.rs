use super::paint::Ink;
use super::{ChangeView, Resource, Verdict};

/// What happens, or would happen, to a resource, in one sign and a word or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Create,
    Change,
    Remove,
    Act,
    Depends,
    Fail,
    Skip,
    Nothing,
}

impl Effect {
    pub(super) fn of(resource: &Resource) -> Self {
        match resource.verdict {
            Verdict::Failed => Self::Fail,
            Verdict::Depends => Self::Depends,
            Verdict::Skipped => Self::Skip,
            Verdict::Ok if resource.changes.is_empty() => Self::Nothing,
            Verdict::Ok | Verdict::Change => Self::of_changes(&resource.changes),
        }
    }

    fn of_changes(changes: &[ChangeView]) -> Self {
        let mut result = None;
        for change in changes {
            // Owner and mode come with what is made; acts come with what is changed.
            if matches!(change.action.as_str(), "act" | "metadata") {
                continue;
            }
            let one = side(&change.diff);
            result = match result {
                None => Some(one),
                Some(before) if before == one => Some(one),
                Some(_) => Some(Self::Change),
            };
        }
        match result {
            Some(effect) => effect,
            None if !changes.is_empty() && changes.iter().all(|change| change.action == "act") => {
                Self::Act
            }
            None => Self::Change,
        }
    }

    pub(super) const fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Change => '~',
            Self::Remove => '-',
            Self::Act => '>',
            Self::Depends => '?',
            Self::Fail => '!',
            Self::Skip => '·',
            Self::Nothing => '=',
        }
    }

    pub(super) const fn ink(self) -> Ink {
        match self {
            Self::Create => Ink::Green,
            Self::Change => Ink::Yellow,
            Self::Remove | Self::Fail => Ink::Red,
            Self::Act => Ink::Blue,
            Self::Depends => Ink::Cyan,
            Self::Skip | Self::Nothing => Ink::Dim,
        }
    }

    /// In words, after the fact or, in a dry run, before it.
    pub(super) const fn words(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Create, true) => "would be created",
            (Self::Create, false) => "created",
            (Self::Change, true) => "would be changed",
            (Self::Change, false) => "changed",
            (Self::Remove, true) => "would be removed",
            (Self::Remove, false) => "removed",
            (Self::Act, true) => "would run",
            (Self::Act, false) => "ran",
            (Self::Depends, _) => "depends",
            (Self::Fail, _) => "failed",
            (Self::Skip, _) => "skipped",
            (Self::Nothing, _) => "ok",
        }
    }
}

/// Whether a difference makes, changes or removes its target.
fn side(diff: &str) -> Effect {
    if diff.starts_with("--- /dev/null\n") || diff.starts_with("absent → ") {
        return Effect::Create;
    }
    let mut lines = diff.lines();
    let first = lines.next().unwrap_or_default();
    if first.starts_with("--- ") {
        let removed = lines.next() == Some("+++ /dev/null");
        return if removed { Effect::Remove } else { Effect::Change };
    }
    if first.ends_with(" → absent") || first.ends_with(" → absent (hidden)") {
        return Effect::Remove;
    }
    let all = |sign: char| !diff.is_empty() && diff.lines().all(|line| line.starts_with(sign));
    if all('+') {
        Effect::Create
    } else if all('-') {
        Effect::Remove
    } else {
        Effect::Change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_say_what_they_do() {
        let cases: &[(&[(&str, &str)], Effect)] = &[
            (&[("content", "--- /dev/null\n+++ /etc/motd\n@@ -0,0 +1 @@\n+hi\n")], Effect::Create),
            (&[("content", "--- /etc/motd\n+++ /dev/null\n@@ -1 +0,0 @@\n-hi\n")], Effect::Remove),
            (&[("content", "--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-a\n+b\n")], Effect::Change),
            (
                &[("content", "absent → directory\n"), ("metadata", "+ root:root 0755\n")],
                Effect::Create,
            ),
            (&[("content", "file of 3 bytes → absent (hidden)\n")], Effect::Remove),
            (&[("metadata", "~ mode 0600 → 0644\n")], Effect::Change),
            (&[("packages", "+ nginx 1.22\n+ nginx-common 1.22\n")], Effect::Create),
            (&[("packages", "+ nginx 1.22\n- apache2 2.4\n")], Effect::Change),
            (&[("account", "- user shop\n")], Effect::Remove),
            (&[("unit", "~ inactive → active\n"), ("act", "reload\n")], Effect::Change),
            (&[("act", "run\n")], Effect::Act),
            (&[], Effect::Change),
        ];
        for (changes, expected) in cases {
            let views: Vec<ChangeView> = changes
                .iter()
                .map(|(action, diff)| ChangeView {
                    action: (*action).to_owned(),
                    target: String::from("t"),
                    diff: (*diff).to_owned(),
                })
                .collect();
            assert_eq!(Effect::of_changes(&views), *expected, "{changes:?}");
        }
    }
}
