#!/bin/sh
echo '{"dyn": {"hosts": ["w3", "d1"], "vars": {"k": "v"}}, "_meta": {"hostvars": {"d1": {"q": 1}}}}'
