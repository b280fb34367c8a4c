# Ends throw-away hosts and removes everything of them.
#   PREFIX FOLDER HOST...       these hosts of the sandbox in FOLDER
#   PREFIX FOLDER               the whole sandbox
#   --watch TOKEN PREFIX FOLDER the same once standard input ends, if FOLDER/lifetime still says TOKEN
# Nothing that is already gone is an error; what remains is named on standard error.
if [ "$1" = --watch ]; then
    token=$2; shift 2
    cat >/dev/null
    exec 9>"$2.lock" && flock 9 || exit 1
    [ "$(cat "$2/lifetime" 2>/dev/null)" = "$token" ] || exit 0
fi
prefix=$1 folder=$2; shift 2
all=
if [ $# -eq 0 ]; then
    all=yes
    for host in "$folder"/hosts/*/; do
        [ -d "$host" ] && host=${host%/} && set -- "$@" "${host##*/}"
    done
fi

machine_of() { number=$(cat "$folder/hosts/$1/number" 2>/dev/null) && [ -n "$number" ] && echo "$prefix-$number"; }
# The process of a host's nspawn, if it is still that: a number alone may be somebody else's by now.
process_of() {
    pid=$(cat "$folder/hosts/$1/pid" 2>/dev/null) && [ -n "$pid" ] &&
        tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qx -e "--machine=$2" && echo "$pid"
} 2>/dev/null

# First as an orderly shutdown, all at once, for a second.
for host; do
    machine=$(machine_of "$host") && pid=$(process_of "$host" "$machine") && kill "$pid"
done
for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    alive=
    for host; do
        machine=$(machine_of "$host") && process_of "$host" "$machine" >/dev/null && alive=yes
    done
    [ -n "$alive" ] || break
    sleep 0.05
done

# A namespace cannot go before all its processes have: its end of the link would stay on the bridge.
remove_machine() {
    for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        pids=$(ip netns pids "$1" 2>/dev/null)
        [ -n "$pids" ] || break
        kill -9 $pids 2>/dev/null
        sleep 0.05
    done
    [ ! -e "/run/netns/$1" ] || ip netns del "$1"
    rmdir "/run/systemd/nspawn/propagate/$1" 2>/dev/null
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
        for turn in 1 2 3 4 5 6 7 8 9 10; do
            [ -d "$hierarchy/$1" ] || break
            find "$hierarchy/$1" -depth -type d -exec rmdir {} \; 2>/dev/null
            [ ! -d "$hierarchy/$1" ] || sleep 0.02
        done
    done
}
for host; do
    machine=$(machine_of "$host")
    if [ -n "$machine" ]; then
        pid=$(process_of "$host" "$machine") && kill -9 "$pid"
        remove_machine "$machine"
    fi
    root=$folder/hosts/$host/root
    while mountpoint -q "$root"; do umount -R -l "$root" || exit 1; done
    rm -rf --one-file-system "$folder/hosts/$host" || exit 1
done

# What a sandbox that died in the middle of something may have left.
if [ -n "$all" ]; then
    for namespace in /run/netns/"$prefix"-*; do
        [ ! -e "$namespace" ] || remove_machine "${namespace##*/}"
    done
    [ ! -e "/run/netns/$prefix" ] || ip netns del "$prefix"
    rm -rf --one-file-system "$folder"
fi
