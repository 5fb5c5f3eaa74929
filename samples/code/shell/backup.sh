#!/bin/sh
# Copy the databases of the library to the backup disk, check the copies, and delete old ones.
#
#     backup.sh [-n] /srv/library /mnt/backup
#
# Kept are the copies of the last seven days, the Sundays of the last five weeks, and the first of each month for ever.
# With -n nothing is written or deleted; the script prints what it would do.
set -eu

dry_run=false
while getopts n option; do
    case $option in
        n) dry_run=true ;;
        *) echo "usage: backup.sh [-n] SOURCE DESTINATION" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 2 ] || { echo "usage: backup.sh [-n] SOURCE DESTINATION" >&2; exit 2; }

source=$1
destination=$2
today=$(date +%Y-%m-%d)
lock=$destination/.lock

say() {
    printf '%s %s\n' "$(date +%H:%M:%S)" "$*"
}

run() {
    if $dry_run; then
        printf 'would run:'
        printf ' %s' "$@"
        echo
    else
        "$@"
    fi
}

# A folder can be made only once, so it serves as a lock on every file system.
if ! mkdir "$lock" 2>/dev/null; then
    say "another backup is running, or one was killed: $lock" >&2
    exit 1
fi
trap 'rmdir "$lock"' EXIT INT TERM

# An unmounted disk is an empty folder, and copying to it would fill the wrong one.
if [ ! -e "$destination/this-is-the-backup-disk" ]; then
    say "$destination does not look like the backup disk" >&2
    exit 1
fi

needed=$(du -sk "$source" | cut -f 1)
free=$(df -Pk "$destination" | awk 'NR == 2 { print $4 }')
if [ "$free" -lt $((needed * 2)) ]; then
    say "only $free KiB are free, and the copy may need $needed" >&2
    exit 1
fi

copy_databases() {
    for database in "$source"/*.sqlite; do
        [ -e "$database" ] || continue
        name=$(basename "$database" .sqlite)
        copy=$destination/$today/$name.sqlite
        run sqlite3 "$database" ".backup '$copy.part'"
        if ! $dry_run; then
            result=$(sqlite3 "$copy.part" 'PRAGMA integrity_check;')
            if [ "$result" != ok ]; then
                say "$name: the copy is damaged: $result" >&2
                return 1
            fi
        fi
        run mv "$copy.part" "$copy"
        run gzip --force "$copy"
        say "copied $name"
    done
}

# Succeeds for a day whose copy is kept.
is_kept() {
    day=$1
    age=$((($(date -d "$today" +%s) - $(date -d "$day" +%s)) / 86400))
    [ "$age" -lt 7 ] && return 0
    [ "$age" -lt 35 ] && [ "$(date -d "$day" +%u)" -eq 7 ] && return 0
    case $day in
        *-01) return 0 ;;
    esac
    return 1
}

run mkdir -p "$destination/$today"
copy_databases
for folder in "$destination"/????-??-??; do
    [ -d "$folder" ] || continue
    if ! is_kept "$(basename "$folder")"; then
        run rm -r "$folder"
        say "deleted $(basename "$folder")"
    fi
done
say "done"
