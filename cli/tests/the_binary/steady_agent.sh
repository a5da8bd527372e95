#!/bin/sh
# The device agent with a clock that no neighbour disturbs, for tests of what follows from latencies.
#
# Everything is done by the real agent, and outputs are the real engine's; only the times that it saw are replaced by what
# the model's file makes of them: 20 µs, and a nanosecond per byte and thread, with samples that spread by 1 %. So a
# network's parts add up, a busy machine changes nothing, and a run ends the same way every time.
set -u

[ "$1" = measure ] || exec "$LATHE_REAL_AGENT" "$@"
read -r request
model=${request#*\"model\":\"}
model=${model%%\"*}
threads=${request#*\"threads\":}
threads=${threads%%[,\}]*}

answer=$(printf '%s\n' "$request" | "$LATHE_REAL_AGENT" measure) || exit
case $answer in
*'"samples_ns":['*) ;;
*)
    printf '%s\n' "$answer"
    exit
    ;;
esac
before=${answer%%\"samples_ns\":\[*}
rest=${answer#*\"samples_ns\":\[}
samples=${rest%%\]*}
after=${rest#*\]}

took=$((20000 + $(wc -c <"$model") / threads))
steady= place=0 IFS=,
for _ in $samples; do
    steady=$steady${steady:+,}$((took * (995 + 5 * (place % 3)) / 1000))
    place=$((place + 1))
done
printf '%s"samples_ns":[%s]%s\n' "$before" "$steady" "$after"
