#!/bin/sh
# Installs changeover on the machine of a branch. Needs root, and no network: everything is in the archive.
#
#   ./install.sh               install, or upgrade what is installed; the site file stays as it is
#   install.sh --rollback      return to the release before this one
#   install.sh --remove        remove the program; site file, secrets and what the agent remembers are kept
#   install.sh --purge         remove those too
#
#   --watch SECONDS            how long a new release must run well before it is kept (30)
#   --now                      upgrade although an incident is open or a runbook is at work
#   --root DIR                 install below DIR instead of / (images, tests)
#   PYTHON=/path/to/python3    the Python to build on, instead of the system's own
#
# An upgrade is built beside the release that runs. It takes over only when it accepts the site file, and it stays only
# when it runs well; otherwise the release before it is put back. What is installed has a copy of this script:
# /opt/changeover/current/share/changeover/install.sh
set -eu
umask 022
unset CDPATH

here=$(cd -- "$(dirname -- "$0")" && pwd)
root=
action=install
watch_s=30
must_be_quiet=yes
half=
first_word_s=30 # how long a release may take until it answers for the first time

say() { printf '%s\n' "$*"; }
complain() { printf 'install.sh: %s\n' "$*" >&2; }
fail() {
    complain "$@"
    exit 1
}

usage() {
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"
    exit "$1"
}

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --rollback) action=rollback ;;
            --remove) [ "$action" = purge ] || action=remove ;;
            --purge) action=purge ;;
            --now) must_be_quiet=no ;;
            --root | --watch)
                [ $# -ge 2 ] || fail "$1 needs a value"
                if [ "$1" = --root ]; then root=$2; else watch_s=$2; fi
                shift
                ;;
            -h | --help) usage 0 ;;
            *)
                complain "unknown: $1"
                usage 2 >&2
                ;;
        esac
        shift
    done
    case $watch_s in '' | *[!0-9]*) fail "--watch takes whole seconds, got: $watch_s" ;; esac
    if [ -n "$root" ]; then
        root=$(cd -- "$root" && pwd) || exit 1
        [ "$root" != / ] || root=
    fi
    [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "this needs root: sudo $0"
}

set_places() {
    opt=$root/opt/changeover
    releases=$opt/releases
    site=$root/etc/changeover/site.yaml
    unit=$root/usr/lib/systemd/system/changeover.service
    link=$root/usr/local/bin/changeover
}

take_turn() {
    mkdir -p "$opt"
    exec 9> "$opt/.lock"
    flock -n 9 || fail "another install.sh is at work on $opt"
}

# ---------------------------------------------------------------- what is there

# The version that `current` or `previous` leads to, empty for none.
version_of() {
    [ ! -L "$opt/$1" ] || basename -- "$(readlink -- "$opt/$1")"
}

is_complete() { [ -f "$releases/$1/.complete" ]; }

manager_runs() { [ -d "$root/run/systemd/system" ] && command -v systemctl > /dev/null; }

# The manager may start things that outlive us: they must not hold our turn.
manager() { systemctl "$@" 9>&-; }

# Tell whether a Python expression holds of s, the running agent's status.
status_says() {
    [ -f "$site" ] || return 1
    "$opt/current/bin/changeover" status --json -c "$site" 2> /dev/null \
        | "$opt/current/bin/python" -c "import json, sys; s = json.load(sys.stdin); sys.exit(not ($1))" 2> /dev/null
}

is_running() { status_says 's["agent"]["running"]'; }

# ---------------------------------------------------------------- building a release

check_archive() {
    for file in VERSION PYTHON MACHINE SHA256SUMS wheels/requirements.txt; do
        [ -f "$here/$file" ] || fail "there is nothing to install beside this script; it belongs into an unpacked archive" \
            "(changeover-VERSION-linux-*.tar.gz)"
    done
    (cd "$here" && sha256sum --check --quiet --strict SHA256SUMS) || fail "the archive is damaged: unpack it anew"
    machine=$(uname -m)
    [ "$machine" = "$(cat "$here/MACHINE")" ] \
        || fail "this archive is for $(cat "$here/MACHINE"), this machine is $machine"
}

find_python() {
    wanted=$(cat "$here/PYTHON")
    # A Python from somebody's PATH may lie in their home, where the service cannot read it; so the system's come first.
    for candidate in "${PYTHON:-}" "/usr/bin/python$wanted" /usr/bin/python3 "/usr/local/bin/python$wanted" \
        /usr/local/bin/python3 "python$wanted" python3; do
        command -v -- "${candidate:-none}" > /dev/null || continue
        found=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) || continue
        if [ "$found" = "$wanted" ]; then
            python=$(command -v -- "$candidate")
            return
        fi
        [ "$candidate" != "${PYTHON:-}" ] || fail "$PYTHON is Python $found, this archive is for Python $wanted"
    done
    fail "this archive is for Python $wanted, which is not on this machine; cure: install it (apt install" \
        "python$wanted), or build an archive here: make dist"
}

# `half` is a release that has not proven itself: unless it has become the current one, it goes when this script ends.
clear_away() {
    [ -z "$half" ] || [ "$half" = "$releases/$(version_of current)" ] || rm -rf -- "$half"
}

build_release() {
    release=$releases/$new
    if is_complete "$new" && cmp -s "$here/SHA256SUMS" "$release/.complete"; then
        return
    fi
    case $new in
        "$(version_of current)" | "$(version_of previous)")
            is_complete "$new" && fail "release $new is installed with another content; give the new one another version"
            ;;
    esac
    find_python
    say "building release $new in $release with $python"
    rm -rf -- "$release" # half made, or not in use
    mkdir -p "$releases"
    half=$release
    "$python" -m venv --without-pip "$release" || fail "this Python cannot make environments: $python"
    for pip in "$here"/wheels/pip-*.whl; do :; done
    PIP_CONFIG_FILE=/dev/null "$release/bin/python" "$pip/pip" --isolated --quiet --no-cache-dir \
        --disable-pip-version-check install --no-index --no-deps --require-hashes --root-user-action=ignore \
        --find-links "$here/wheels" --requirement "$here/wheels/requirements.txt" \
        || fail "release $new could not be built; what is installed runs on"
    mkdir -p "$release/share/changeover"
    for part in install.sh VERSION LICENSE README.md README.zh-CN.md config.example.yaml docs deploy; do
        cp -R -- "$here/$part" "$release/share/changeover/"
    done
    sync -f "$opt" # the mark must not be on disk before what it vouches for
    cp -- "$here/SHA256SUMS" "$release/.complete"
}

# The service's own user must be able to run it, whatever the rights on the way there.
try_release() {
    if [ -z "$root" ] && command -v setpriv > /dev/null; then
        # By way of sh: setpriv itself still has root's rights when it opens what it becomes.
        # shellcheck disable=SC2016
        setpriv --reuid=changeover --regid=changeover --clear-groups sh -c 'exec "$0" --version' \
            "$releases/$1/bin/changeover" > /dev/null
    else
        "$releases/$1/bin/changeover" --version > /dev/null
    fi || {
        complain "the user changeover cannot run release $1; is its Python open to all" \
            "($(readlink -f -- "$releases/$1/bin/python"))?"
        return 1
    }
}

check_site() {
    [ -f "$site" ] || return 0
    if ! said=$("$releases/$1/bin/changeover" check -c "$site" 2>&1); then
        printf '%s\n' "$said" >&2
        complain "release $1 does not accept the site file $site"
        return 1
    fi
    say "release $1 accepts the site file"
}

# ---------------------------------------------------------------- putting a release in its place

# The steps are joined by &&, because the shell does not stop at an error in what is called from an `if`.
put() {
    mkdir -p -- "$(dirname -- "$2")" && cp -- "$1" "$2.new" && chmod 0644 -- "$2.new" && mv -f -- "$2.new" "$2"
}

# Make the name $2 lead to $1, with no moment in which it leads nowhere.
lead() {
    mkdir -p -- "$(dirname -- "$2")" && ln -sfn -- "$1" "$2.new" && mv -fT -- "$2.new" "$2"
}

# Lay the files of release $1 where the system looks for them.
place_files() {
    from=$releases/$1/share/changeover
    put "$from/deploy/systemd/changeover.service" "$unit" \
        && put "$from/deploy/systemd/changeover.sysusers" "$root/usr/lib/sysusers.d/changeover.conf" \
        && put "$from/deploy/systemd/changeover.tmpfiles" "$root/usr/lib/tmpfiles.d/changeover.conf" \
        && put "$from/deploy/sysctl.d/60-changeover.conf" "$root/usr/lib/sysctl.d/60-changeover.conf" \
        && make_user && make_directories \
        && put "$from/config.example.yaml" "$root/etc/changeover/site.example.yaml" \
        && { ! manager_runs || manager daemon-reload; }
}

make_user() {
    mkdir -p "$root/etc" || return 1
    if command -v systemd-sysusers > /dev/null; then
        systemd-sysusers ${root:+--root="$root"} changeover.conf
    elif ! grep -qs '^changeover:' "$root/etc/passwd"; then
        useradd ${root:+--prefix "$root"} --system --user-group --no-create-home --home-dir /var/lib/changeover \
            --shell /usr/sbin/nologin changeover
    fi
}

make_directories() {
    if command -v systemd-tmpfiles > /dev/null; then
        systemd-tmpfiles ${root:+--root="$root"} --create changeover.conf
        return
    fi
    group=$(sed -n 's/^changeover:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group")
    user=$(sed -n 's/^changeover:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/passwd")
    mkdir -p "$root/etc/changeover/credentials" "$root/var/lib/changeover" \
        && chown "0:$group" "$root/etc/changeover" && chmod 0750 "$root/etc/changeover" \
        && chmod 0700 "$root/etc/changeover/credentials" "$root/var/lib/changeover" \
        && chown "$user:$group" "$root/var/lib/changeover" \
        && { [ ! -f "$site" ] || { chown "0:$group" "$site" && chmod 0640 "$site"; }; }
}

# Kernel settings are this machine's, not a directory's.
set_kernel() {
    [ -z "$root" ] || return 0
    settings=/usr/lib/sysctl.d/60-changeover.conf
    for setter in /usr/lib/systemd/systemd-sysctl /lib/systemd/systemd-sysctl; do
        [ -x "$setter" ] && { "$setter" "$settings" || complain "kernel settings not set: $settings"; return 0; }
    done
    sysctl --quiet --load "$settings" || complain "kernel settings not set: $settings"
}

activate() {
    place_files "$1" && lead "releases/$1" "$opt/current" \
        && lead ../../../opt/changeover/current/bin/changeover "$link" && sync -f "$opt"
}

main_process() { manager show --property=MainPID --value changeover.service; }

# Start what `current` leads to, and watch it. $1: a Python expression over s that it must fulfil beside running.
start_and_watch() {
    manager enable --quiet changeover.service || return 1
    manager restart changeover.service || return 1
    process=$(main_process)
    well_s=0
    left_s=$((first_word_s + watch_s))
    while [ "$well_s" -lt "$watch_s" ]; do
        sleep 1
        # Another process means that it has fallen and was started again.
        [ "$(main_process)" = "$process" ] || return 1
        if status_says "s['agent']['running'] and ($1)"; then
            well_s=$((well_s + 1))
        elif [ "$well_s" -gt 0 ]; then
            return 1
        fi
        left_s=$((left_s - 1))
        [ "$left_s" -gt 0 ] || return 1
    done
}

# Release $1 takes over from $2; when it does not run well, $2 comes back.
take_over() {
    # A journal that the new release cannot read puts the agent into safe mode. One that was there before counts not.
    expression='True'
    ! status_says 's["agent"]["running"] and s["mode"] != "safe"' || expression='s["mode"] != "safe"'
    if ! activate "$1"; then
        complain "release $1 could not be put in its place"
        [ -z "$2" ] || activate "$2"
        return 1
    fi
    if ! manager_runs; then
        ! is_running || say "an agent that systemd did not start is running: end it, and start it anew"
        return 0
    fi
    [ -f "$site" ] || return 0
    if [ -n "$2" ] && ! manager is-enabled --quiet changeover.service && ! manager is-active --quiet changeover.service; then
        say "the agent was stopped before, and stays so"
        return 0
    fi
    say "starting release $1, and watching it for $watch_s s"
    ! start_and_watch "$expression" || return 0
    complain "release $1 does not run well; see: journalctl -u changeover"
    [ -n "$2" ] || return 1
    if activate "$2" && start_and_watch True; then
        complain "release $2 is back, and runs"
    else
        complain "release $2 is back, but does not run either"
    fi
    return 1
}

# ---------------------------------------------------------------- what can be asked for

install_or_upgrade() {
    check_archive
    new=$(cat "$here/VERSION")
    old=$(version_of current)
    older=$(version_of previous)
    [ -z "$old" ] || is_complete "$old" || old=
    if [ -n "$old" ] && [ "$must_be_quiet" = yes ] && is_running; then
        status_says 'not s["incidents"] and all(r["state"] in ("done", "undone", "held") for r in s["runs"])' \
            || fail "an incident is open or a runbook is at work (changeover status); upgrade later, or with --now"
    fi
    build_release
    if [ "$old" = "$new" ]; then
        activate "$new"
        set_kernel
        say "release $new is installed already; its files were laid anew"
        return
    fi
    [ -n "$old" ] || place_files "$new" # the user is there before it is tried
    try_release "$new" || fail "nothing has changed; what is installed runs on"
    if ! check_site "$new"; then
        [ -z "$old" ] || fail "nothing has changed; release $old runs on"
        half=
        activate "$new"
        fail "release $new is installed, and not started: mend the site file (changeover check), then start the agent"
    fi
    set_kernel
    [ -z "$old" ] || lead "releases/$old" "$opt/previous"
    if ! take_over "$new" "$old"; then
        if [ -z "$old" ]; then
            half=
            fail "release $new stays, as there is no other"
        fi
        if [ -n "$older" ]; then lead "releases/$older" "$opt/previous"; else rm -f -- "$opt/previous"; fi
        exit 1
    fi
    half=
    forget_old_releases
    say "release $new is installed${old:+; the one before, $old, is kept: install.sh --rollback}"
    tell_what_next
}

tell_what_next() {
    if [ ! -f "$site" ]; then
        say "next: write the site file from what this machine shows, fill in the rest, try it, start the agent:"
        say "    changeover init"
        say "    changeover check"
        say "    changeover doctor"
    elif manager_runs; then
        return
    fi
    if manager_runs; then
        say "    systemctl enable --now changeover"
    else
        say "systemd does not run here; the agent is started by: changeover run"
    fi
}

forget_old_releases() {
    for release in "$releases"/*; do
        case $(basename -- "$release") in
            "$(version_of current)" | "$(version_of previous)") ;;
            *) rm -rf -- "$release" ;;
        esac
    done
}

roll_back() {
    old=$(version_of current)
    new=$(version_of previous)
    [ -n "$new" ] || fail "there is no release before ${old:-this one}"
    is_complete "$new" || fail "release $new is not whole"
    check_site "$new" || fail "release $old stays"
    lead "releases/$old" "$opt/previous"
    if ! take_over "$new" "$old"; then
        lead "releases/$new" "$opt/previous"
        exit 1
    fi
    say "release $new is back; $old is kept: install.sh --rollback returns to it"
}

remove() {
    if manager_runs && [ -e "$unit" ]; then
        manager disable --quiet --now changeover.service
    elif is_running; then
        fail "the agent is running, and systemd did not start it: end it first"
    fi
    rm -f -- "$unit" "$root/etc/systemd/system/multi-user.target.wants/changeover.service" \
        "$root/usr/lib/sysusers.d/changeover.conf" "$root/usr/lib/tmpfiles.d/changeover.conf" \
        "$root/usr/lib/sysctl.d/60-changeover.conf" "$root/etc/changeover/site.example.yaml"
    case $(readlink -- "$link" || :) in */opt/changeover/*) rm -f -- "$link" ;; esac
    rm -rf -- "$opt"
    ! manager_runs || manager daemon-reload
    say "changeover is removed; the kernel settings of 60-changeover.conf stay until the next start of the machine"
    if [ "$action" = remove ]; then
        say "kept: /etc/changeover (site file, secrets), /var/lib/changeover (what the agent remembers), user changeover"
        say "they go with: install.sh --purge"
        return
    fi
    rm -rf -- "$root/etc/changeover" "$root/var/lib/changeover" "$root/etc/systemd/system/changeover.service.d"
    ! grep -qs '^changeover:' "$root/etc/passwd" || userdel ${root:+--prefix "$root"} changeover
    say "removed too: site file, secrets, what the agent remembered, user changeover"
}

main() {
    read_arguments "$@"
    set_places
    take_turn
    trap clear_away EXIT
    trap 'exit 130' INT TERM
    case $action in
        install) install_or_upgrade ;;
        rollback) roll_back ;;
        remove | purge) remove ;;
    esac
}

# The last line, so that the whole script is read before it may remove itself.
main "$@"
