#!/bin/sh
test "$1" = --list || exit 1
cat <<'END'
{"web": {}, "db": ["d1", "d2"], "odd": {"foo": "{{ x }}", "n": 1},
 "_meta": {"hostvars": {"d1": {"x": 1e3, "y": "\ud83d\ude00", "z": "{{ q }}"}, "unknown": {"a": 1}}},
 "up": {"children": ["db", "fresh"], "vars": {"t": "{{ s }}", "ansible_user": "me"}},
 "plain": {"hosts": ["p1"], "vars": {}}}
END
