# SPDX-License-Identifier: BSD-3-Clause
# What ./demo and ./check share: installing packages, steps with a log, configuring a build folder.
# Sourced by bash with the top of the tree as the current folder. Nothing here reads standard input.

export LC_ALL=C DEBIAN_FRONTEND=noninteractive
exec </dev/null
logs=$PWD/build/log
jobs=$(nproc)
step=0
steps=0

if [ -t 1 ] && [ "${CI:-}" != true ]; then
    bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' std=$'\e[m'
else
    bold= red= green= std=
fi

die() {
    echo "${red}$0: $*${std}" >&2
    exit 1
}

# as_root CMD...: with sudo where we are not root
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@" || sudo "$@" </dev/tty
    fi
}

# packages_of PART...: the packages in these parts of ./build-deps
packages_of() {
    awk -v parts=" $* " '/^\[/ { on = index(parts, " " substr($0, 2, length($0) - 2) " ") }
                         /^[a-z]/ && on' build-deps
}

# install_missing PART...: with apt-get, and only what is missing
install_missing() {
    local missing known
    if ! command -v dpkg-query >/dev/null; then
        echo "This is not Debian or Ubuntu: nothing is installed. configure will name what it misses."
        return
    fi
    missing=$(comm -23 <(packages_of "$@" | sort) \
        <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' | sort -u))
    [ -n "$missing" ] || return 0
    echo "These packages are missing and are installed now with apt-get:" $missing
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        die "not root, and sudo is not here; ask an administrator for: apt-get install" $missing
    fi
    run_logged apt as_root apt-get update -qq
    # one name that this release does not have would keep apt-get from all of them
    known=$(apt-cache show --no-all-versions $missing 2>/dev/null | sed -n 's/^Package: //p' | sort -u)
    for missing in $(comm -23 <(printf '%s\n' $missing) <(echo "$known")); do
        echo "  not in this release, left out: $missing"
    done
    run_logged apt as_root apt-get install -y -qq --no-install-recommends $known ||
        { tail -n 20 "$logs/apt.log"; die "apt-get failed; its output is in $logs/apt.log"; }
}

# run_logged NAME CMD...: the output goes to build/log/NAME.log
run_logged() {
    local log=$logs/$1.log
    shift
    mkdir -p "$logs"
    echo "+ $*" >>"$log"
    "$@" >>"$log" 2>&1
}

# begin TEXT: a progress line
begin() {
    step=$((step + 1))
    began=$SECONDS
    echo "${bold}[$step/$steps] $*${std}"
}

# what_failed LOG: its first errors, which a parallel make may have buried, and its end
what_failed() {
    grep -nE -A 5 'error:|undefined reference|ERROR' "$1" | head -n 25
    echo ...
    tail -n 12 "$1"
}

# must NAME CMD...: run_logged, and the end if it fails
must() {
    local name=$1
    run_logged "$@" && return
    what_failed "$logs/$name.log"
    die "failed: $2 (whole output: $logs/$name.log)"
}

# make_configure: ./configure, if it is missing or older than what it is made from
make_configure() {
    if [ ! -x configure ] || [ -n "$(find configure.ac m4/plait_*.m4 -newer configure 2>/dev/null)" ]; then
        run_logged configure ./autogen.sh
    fi
}

# configure_in FOLDER OPTION...: unless it has been configured so before
configure_in() {
    local folder=$1 o
    shift
    if [ -e "$folder/Makefile" ] && [ ! configure -nt "$folder/config.status" ]; then
        for o in "$@"; do
            grep -qF -- "'$o'" <("$folder/config.status" --config) || break
            o=
        done
        [ -n "${o:-}" ] || return 0
    fi
    mkdir -p "$folder"
    (cd "$folder" && ../configure "$@") || return
    # objects of another configuration must not stay
    make -C "$folder" clean
}
