#!/bin/sh
echo '{"all": {"hosts": ["a1", "b1"], "vars": {"everywhere": true}}, "ungrouped": ["c1"],
 "web": {"hosts": ["a1"], "vars": {"x": [1, {"y": null}]}, "children": ["sub"]},
 "sub": {"hosts": ["b1"], "vars": {"ansible_group_priority": 5, "x": "sub"}},
 "_meta": {"hostvars": {"a1": {"own": "é", "template": "{{ x }}"}}}}'
