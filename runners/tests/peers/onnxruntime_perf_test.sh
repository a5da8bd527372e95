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
while [ "$index" -lt "$runs" ]; do
    echo "models,0.00$((index + 1)),2048000,50,$index" >>"$2"
    index=$((index + 1))
done
echo 'Session creation time cost: 0.0153 s'
echo 'First inference time cost: 2 ms'
[ "$runs" = 3 ] && echo 'Total inference time cost: 0.006 s' || echo 'Total inference time cost: 0.015 s'
echo "Total inference requests: $runs"
echo 'Peak working set size: 2048000 bytes'
