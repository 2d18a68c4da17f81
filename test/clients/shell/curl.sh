#!/bin/sh
# curl GETURL POSTURL BODY: prints "STATUS BODY" for each answer.
set -eu
curl --silent --show-error --write-out '%{stderr}%{http_code}' "$1" >body 2>status
printf '%s %s\n' "$(cat status)" "$(cat body)"
curl --silent --show-error --write-out '%{stderr}%{http_code}' --header 'Content-Type: application/json' --data-binary "$3" "$2" >body 2>status
printf '%s %s\n' "$(cat status)" "$(cat body)"
