#!/bin/sh
case "$1" in
--list) echo '{"web": ["w1", "w2"], "db": {"hosts": ["d1"], "vars": {"port": 5432}}, "up": {"children": ["web"]}}' ;;
--host)
    case "$2" in
    w1) echo '{"own": "w1", "n": 5}' ;;
    d1) echo '{"ansible_host": "10.0.0.9"}' ;;
    *) echo '{}' ;;
    esac
    ;;
esac
