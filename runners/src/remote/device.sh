#!/bin/sh
# What runs on the device beside the agent: it starts jobs that outlive a broken connection, ends them,
# and keeps the lease. POSIX shell with setsid and flock, so that Debian's dash, Android's mksh with
# toybox, and busybox all understand it.
#
# usage: sh device.sh FOLDER COMMAND [ARGUMENT …]
#
# Everything it has to say is a line on standard output that starts with "lathe-device:"; whatever else
# a login shell may print is not listened to. A job is the folder jobs/NAME with the file `request`:
#   begun       a folder: the job was started (made once, so that it never starts twice)
#   supervisor  number of the supervising process, and the boot that it belongs to
#   pid         number of the agent's process, which is also that of its session and group
#   holder      number of who waits for the job; when the last one leaves and nobody comes, it is ended
#   answer      the agent's standard output
#   complaint   the end of its standard error
#   timeout     there if the deadline passed
#   orphaned    there if nobody waited for it any more
#   exit        the agent's exit code (128 + number of the signal that killed it); written last

set -u
folder=$1
command=$2
shift 2
script=$0

say() { printf 'lathe-device: %s\n' "$*"; }

# Seconds since the boot, which no change of the clock moves, and the name of the boot.
look_at_the_clock() {
    read -r up rest </proc/uptime
    up=${up%%.*}
    boot=unknown
    { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
}

# The lease: one line "TOKEN EXPIRY BOOT OWNER…".
read_lease() {
    holder= expiry=0 of_boot= owner=
    { read -r holder expiry of_boot owner <"$folder/lease"; } 2>/dev/null
    look_at_the_clock
    [ -n "$holder" ] && [ "$of_boot" = "$boot" ] && [ "$expiry" -gt "$up" ]
}

write_lease() {
    printf '%s %s %s %s\n' "$1" "$((up + $2))" "$boot" "$3" >"$folder/lease.part" &&
        mv -f "$folder/lease.part" "$folder/lease"
}

# take TOKEN SECONDS STALE OWNER: STALE is a token whose owner is known to be gone.
take() {
    if read_lease && [ "$holder" != "$1" ] && [ "$holder" != "$3" ]; then
        say busy "$holder" "$((expiry - up))" "$owner"
        return
    fi
    if ! write_lease "$1" "$2" "$4"; then
        say unwritable
        return
    fi
    # Models and jobs of owners before this one: nobody will ask for them again.
    rm -rf "$folder/models"
    for job in "$folder"/jobs/*; do
        case ${job##*/} in
        "$1"-* | '*') ;;
        *)
            end "${job##*/}"
            rm -rf "$job"
            ;;
        esac
    done
    say taken
}

# renew TOKEN SECONDS: false if somebody else has taken the lease since.
renew() {
    read_lease
    if [ "$holder" != "$1" ]; then
        return 1
    fi
    write_lease "$1" "$2" "$owner"
}

release() {
    read_lease
    if [ "$holder" = "$1" ]; then
        rm -f "$folder/lease"
    fi
}

locked() {
    (
        flock -x 9 || exit 9
        "$@"
    ) 9>"$folder/lock"
}

# Whether a process of this number works in the folder of the job: numbers are given again.
at_work() { [ "$(readlink "/proc/$1/cwd" 2>/dev/null)" = "$(cd "$2" 2>/dev/null && pwd -P)" ]; }

# Ends a job with everything it has launched.
end() {
    dir=$folder/jobs/$1
    look_at_the_clock
    pid= supervisor= of_boot=
    { read -r supervisor of_boot <"$dir/supervisor"; } 2>/dev/null
    { read -r pid <"$dir/pid"; } 2>/dev/null
    [ "$of_boot" = "$boot" ] || return 0
    if [ -n "$pid" ] && at_work "$pid" "$dir"; then
        kill -KILL "-$pid" 2>/dev/null
    fi
    if [ -n "$supervisor" ] && [ ! -e "$dir/exit" ] && at_work "$supervisor" "$dir"; then
        # It writes down what happened; if it can't, it is ended too.
        sleep 1
        [ -e "$dir/exit" ] || kill -KILL "-$supervisor" 2>/dev/null
    fi
    return 0
}

# supervise JOB SECONDS WORD…: runs the agent until it ends or its time is over.
supervise() {
    cd "$folder/jobs/$1" || exit 1
    seconds=$2
    shift 2
    look_at_the_clock
    echo "$$ $boot" >supervisor
    export ORT_DISABLE_TELEMETRY=1
    {
        setsid sh -c 'echo $$ >pid; exec "$@"' sh "$@" <request 2>&1 >answer &
        child=$!
        (
            trap 'kill -KILL "$nap"' TERM
            sleep "$seconds" &
            nap=$!
            wait "$nap" && {
                : >timeout
                kill -KILL "-$child"
            }
        ) >/dev/null 2>&1 &
        dog=$!
        wait "$child"
        code=$?
        kill "$dog"
        # What it has left behind would disturb the next job.
        kill -KILL "-$child"
        echo "$code" >code
    } 2>/dev/null | tail -c 4096 >complaint
    mv -f code exit
}

# hold JOB NUMBER SECONDS TOKEN: waits until whoever launched the job is gone, and ends the job and the
# lease if nobody else comes to wait for it.
hold() {
    cd "$folder/jobs/$1" || exit 0
    cat >/dev/null
    [ -e exit ] && exit 0
    sleep "$3"
    last=
    { read -r last <holder; } 2>/dev/null
    if [ "$last" = "$2" ] && [ ! -e exit ]; then
        : >orphaned
        end "$1"
        locked release "$4"
    fi
    exit 0
}

# attach JOB NUMBER GRACE TOKEN IDLE [SUPERVISOR]: waits for the end of the job and tells of it.
attach() {
    cd "$folder/jobs/$1" 2>/dev/null || {
        say absent
        return
    }
    [ -e begun ] || {
        say absent
        return
    }
    # A launcher that was slow to arrive doesn't take the place of the one that came after it.
    last=0
    { read -r last <holder; } 2>/dev/null
    [ "$2" -gt "${last:-0}" ] && echo "$2" >holder
    exec 3<&0
    setsid sh "$script" "$folder" hold "$1" "$2" "$3" "$4" <&3 >/dev/null 2>&1 &
    held=$!
    if [ -n "${6:-}" ]; then
        wait "$6"
    else
        supervisor= of_boot=
        tries=0
        look_at_the_clock
        while [ ! -e exit ]; do
            { read -r supervisor of_boot <supervisor; } 2>/dev/null
            tries=$((tries + 1))
            if [ -z "$supervisor" ]; then
                # It was launched a moment ago.
                [ "$tries" -gt 10 ] && break
            else
                [ "$of_boot" = "$boot" ] && at_work "$supervisor" . || break
            fi
            sleep 1
        done
    fi
    if [ ! -e orphaned ]; then
        # Where standard input and output are one socket, as with adb, what holds the one keeps the other
        # open.
        {
            kill -KILL "-$held" || kill -KILL "$held"
            wait "$held"
        } 2>/dev/null
        locked renew "$4" "$5"
    fi
    code=
    { read -r code <exit; } 2>/dev/null
    why=itself
    [ -e timeout ] && why=late
    [ -e orphaned ] && why=orphaned
    if [ -n "$code" ]; then
        say ended "$code" "$why"
    else
        say vanished "$(df -Pk . 2>/dev/null | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)"
    fi
}

# start JOB NUMBER GRACE TOKEN IDLE SECONDS WORD…: NUMBER grows with every try of the same job
start() {
    cd "$folder/jobs/$1" 2>/dev/null || {
        say absent
        return
    }
    if ! locked renew "$4" "$(($6 + $5))"; then
        read_lease
        say taken_away "$owner"
        return
    fi
    if mkdir begun 2>/dev/null; then
        job=$1 number=$2 grace=$3 token=$4 idle=$5 seconds=$6
        shift 6
        setsid sh "$script" "$folder" supervise "$job" "$seconds" "$@" </dev/null >/dev/null 2>&1 &
        attach "$job" "$number" "$grace" "$token" "$idle" "$!"
    else
        attach "$1" "$2" "$3" "$4" "$5"
    fi
}

mkdir -p "$folder/jobs" || {
    say unwritable
    exit 0
}
case $command in
take) locked take "$@" ;;
release) locked release "$@" ;;
start) start "$@" ;;
attach) attach "$@" ;;
supervise) supervise "$@" ;;
hold) hold "$@" ;;
end)
    end "$1"
    say ended
    ;;
forget)
    for job in "$@"; do
        rm -rf "$folder/jobs/$job"
    done
    say forgotten
    ;;
delete)
    # delete FILE…, below the folder.
    for file in "$@"; do
        rm -f "$folder/$file"
    done
    say deleted
    ;;
size)
    # size FILE…: bytes of each, or "none".
    for file in "$@"; do
        if [ -f "$file" ]; then
            say size "$(wc -c <"$file" | tr -d ' ')"
        else
            say size none
        fi
    done
    ;;
*) say unknown "$command" ;;
esac
exit 0
