#!/bin/sh
if [ "$1" = --list ]; then
    echo '{"web": {"hosts": ["w1", "w2", "w3"]}}'
elif [ "$2" = w3 ]; then
    true
else
    echo "{\"me\": \"$2\", \"list\": [1, {\"a\": null}]}"
fi
