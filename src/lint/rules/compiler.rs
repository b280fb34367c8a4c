//! What every run warns of too.

use crate::lint::rule::Check;
use crate::lint::{Level, Rule};

pub(super) static BOOLEAN_WORD: Rule = Rule {
    name: "boolean-word",
    summary: "`yes`, `no`, `on` or `off` where a boolean is expected",
    why: "YAML 1.2 has them as text, and only YAML 1.1 as booleans. Here they are understood where a boolean is expected; \
          other tools, and templates that use the value, may see text.",
    instead: "Write `true` or `false`.",
    level: Level::Warn,
    wrong: "- service: nginx\n  enabled: yes\n",
    right: "- service: nginx\n  enabled: true\n",
    check: Check::Compiler,
};

pub(super) static NO_BECOME: Rule = Rule {
    name: "no-become",
    summary: "`become_user` without `become: true`",
    why: "It has no effect: the state acts as the user who logs in.",
    instead: "Say `become: true` for the state or its play, or leave `become_user` out.",
    level: Level::Warn,
    wrong: "- file: /srv/shop/notes\n  become_user: shop\n",
    right: "- file: /srv/shop/notes\n  become: true\n  become_user: shop\n",
    check: Check::Compiler,
};

pub(super) static RESERVED_NAME: Rule = Rule {
    name: "reserved-name",
    summary: "A variable with the name of something that converge knows",
    why: "The variable is never seen: `host`, `groups`, `facts` and the like always mean what converge knows.",
    instead: "Give it another name.",
    level: Level::Warn,
    wrong: "hosts: web\nvars: { host: shop.example.com }\nstates:\n  - file: /etc/motd\n    content: \"{{ host }}\"\n",
    right: "hosts: web\nvars: { site: shop.example.com }\nstates:\n  - file: /etc/motd\n    content: \"{{ site }}\"\n",
    check: Check::Compiler,
};
