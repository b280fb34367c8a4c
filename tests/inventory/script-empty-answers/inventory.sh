#!/bin/sh
echo '{"_meta": {"hostvars": {}}, "all": {"children": ["web", "ungrouped"]}, "web": {"hosts": []}, "ungrouped": {"hosts": ["u1"]}}'
