use crate::lint::rule::Check;
use crate::lint::{Level, Rule};

pub(super) static UNUSED_ALLOW: Rule = Rule {
    name: "unused-allow",
    summary: "A comment that allows what is not there",
    why: "It stands there as if something were wrong, and would hide it if it came back.",
    instead: "Take the comment away.",
    level: Level::Warn,
    wrong: "# converge: allow odd-mode\n- file: /etc/motd\n  content: Welcome\n  mode: 0644\n",
    right: "- file: /etc/motd\n  content: Welcome\n  mode: 0644\n",
    check: Check::Comment,
};

pub(super) static UNKNOWN_RULE: Rule = Rule {
    name: "unknown-rule",
    summary: "A comment, or a setting, that names a rule which does not exist",
    why: "It allows nothing.",
    instead: "Name the rule as the message that it is about does: `warning[RULE]`.",
    level: Level::Warn,
    wrong: "- command: /srv/shop/check # converge: allow command-without-gard\n  read_only: true\n",
    right: "- command: /srv/shop/check\n  read_only: true\n",
    check: Check::Comment,
};
