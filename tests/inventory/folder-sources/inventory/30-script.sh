#!/bin/sh
echo '{"web": {"hosts": ["s1"], "vars": {"x": "from-script"}}, "_meta": {"hostvars": {"s1": {"a": 1}}}}'
