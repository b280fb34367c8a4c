use super::literal;
use crate::diagnostic::Diagnostic;
use crate::lang::State;
use crate::lint::rule::Check;
use crate::lint::{Level, Rule};

pub(super) static UNPINNED_PACKAGE: Rule = Rule {
    name: "unpinned-package",
    summary: "A `package` without a version",
    why: "Which version a host gets depends on when it was converged first: two hosts with the same state file may differ.",
    instead: "Name the version (`name=version`, or `version`, where `*` stands for anything), or pin it elsewhere: a \
              repository of your own, or a `release`. Most distributions' stable releases do that well enough, so the rule \
              is for those who turn it on: `lint: { warn: [unpinned-package] }` in `converge.yml`.",
    level: Level::Allow,
    wrong: "- package: nginx\n",
    right: "- package: nginx=1.22.*\n",
    check: Check::State(unpinned),
};

fn unpinned(state: &State, found: &mut Vec<Diagnostic>) {
    let present = state.argument("state").is_none_or(|node| literal(node) == Some("present"));
    let pinned = ["version", "release", "source"].iter().any(|name| state.argument(name).is_some());
    if state.spec.name != "package" || !present || pinned {
        return;
    }
    for name in state.key.items().unwrap_or(std::slice::from_ref(&state.key)) {
        let Some(text) = literal(name).filter(|text| !text.contains('=')) else { continue };
        let message =
            format!("the version of `{text}` is left to the day on which it is installed");
        found.push(
            Diagnostic::warning(UNPINNED_PACKAGE.name, message)
                .at(name.span, "")
                .help(format!("`{text}=VERSION`, where `*` stands for anything")),
        );
    }
}

pub(super) static LATEST_PACKAGE: Rule = Rule {
    name: "latest-package",
    summary: "A `package` with `state: latest`",
    why: "Any run may then bring a version that nobody has tried, on whichever host it is started for, and at a time that \
          somebody else decides.",
    instead: "Name the version and change it when it was tried. Security updates belong to their own tool, or to a play of \
              their own with `package: \"*\"` and `state: upgraded`.",
    level: Level::Warn,
    wrong: "- package: nginx\n  state: latest\n",
    right: "- package: nginx\n  version: 1.22.*\n",
    check: Check::State(latest),
};

fn latest(state: &State, found: &mut Vec<Diagnostic>) {
    let wanted = state.argument("state").filter(|node| literal(node) == Some("latest"));
    if let Some(node) = wanted.filter(|_| state.spec.name == "package") {
        let message = "any run may bring another version";
        found.push(
            Diagnostic::warning(LATEST_PACKAGE.name, message)
                .at(node.span, "")
                .help("name the `version`, and change it when it was tried"),
        );
    }
}
