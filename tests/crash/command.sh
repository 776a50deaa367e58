#!/bin/sh
# command.sh EFFECTS SECONDS [deaf]: leaves one line of effect, runs that long with a grandchild in a session of its
# own that ignores every signal it can, and prints the nonce of the line. Deaf, it ignores them too.
[ -z "$3" ] || trap '' INT TERM HUP
read -r nonce < /proc/sys/kernel/random/uuid
printf '%s %s %s\n' "$(date +%s%N)" "$LATTICED_STEP_KEY" "$nonce" >> "$1"
(trap '' INT TERM HUP; setsid sleep 300) > /dev/null 2>&1 &
sleep "$2"
printf '%s' "$nonce"
