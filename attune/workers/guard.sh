#!/bin/sh
# Ends what an Attune leaves behind: every process whose environment holds the boot id $1, and its process group. Prints
# the numbers of those processes.
# Waits for the end of its input, which is Attune's end, however that comes about.
# Less than a whole id would be part of other ids, and nothing at all part of everything.
[ ${#1} -eq 36 ] || exit 2
read -r _
for _ in 1 2 3 4 5 6 7 8 9 10; do
    # grep's status tells nothing: processes end while it looks at them, which it takes for errors.
    found=$(grep -lsF "ATTUNE_BOOT_ID=$1" /proc/[0-9]*/environ 2>/dev/null)
    [ -n "$found" ] || exit 0
    for path in $found; do
        pid=${path#/proc/}
        pid=${pid%/environ}
        # kill takes -1 for everybody.
        [ "$pid" -gt 1 ] || continue
        kill -KILL "-$pid" "$pid" 2>/dev/null
        echo "$pid"
    done
    sleep 0.1
done
