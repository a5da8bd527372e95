#!/bin/sh
case ${MODE-} in
garbage) echo 'Segmentation imminent'; exit 0 ;;
killed) echo 'last words' >&2; kill -SEGV $$ ;;
refused) echo 'Load model failed: unknown operator' >&2; exit 1 ;;
endless) sleep 60 & wait ;;
esac
while [ $# -gt 2 ]; do
    case $1 in -r) runs=$2 ;; -m) mode=$2 ;; esac
    shift
done
[ -s "$1" ] || exit 3
[ "$mode" = times ] || runs=3
index=0
total=0
while [ "$index" -lt "$runs" ]; do
    total=$((total + index + 1))
    printf 'models,0.%03d,2048000,50,%d\n' $((index + 1)) "$index" >>"$2"
    index=$((index + 1))
done
echo 'Session creation time cost: 0.0153 s'
echo 'First inference time cost: 2 ms'
printf 'Total inference time cost: %d.%03d s\n' $((total / 1000)) $((total % 1000))
echo "Total inference requests: $runs"
echo 'Peak working set size: 2048000 bytes'
