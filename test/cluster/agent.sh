#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Between the guests of cluster.sh, in place of ssh: agent.sh [-x] NODE COMMAND... runs COMMAND there, prints its
# output and exits with its exit status. As with ssh, a shell there reads the command. agent.sh --serve is the
# other end, which the server in each guest starts for every connection.
set -u
export LC_ALL=C
if [ "${1:-}" = --serve ]; then
    read -r command || exit
    # busybox's nc leaves SIGCHLD ignored, and MPICH's proxy then waits for ever
    eval "env --default-signal=CHLD bash -c $command" </dev/null 2>&1
    printf '\n\001exit %d\n' $?
    exit
fi
while [ "${1#-}" != "$1" ]; do shift; done
node=$1
shift
# its server may not have started yet
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    { exec 3<>"/dev/tcp/$node/514"; } 2>/dev/null && break
    [ $attempt != 10 ] || { echo "agent.sh: $node does not answer" >&2; exit 255; }
    sleep 0.5
done
printf '%q\n' "$*" >&3
# a command's last line may lack its end, hence one more line end before the exit status; what it left running
# may keep the connection open
rc=255 held=
while IFS= read -r line <&3; do
    case $line in
    $'\001exit '*) rc=${line#*exit }; break ;;
    *) [ -z "$held" ] || printf '%s\n' "${held#x}"; held=x$line ;;
    esac
done
[ "$held" = x ] || [ -z "$held" ] || printf '%s' "${held#x}"
exit "$rc"
