#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The examples hello, workers and epoll, as a user would run them.
suite=examples
. "$(dirname "$0")/examples_common.sh"

# ---- hello ----

one_hello() { # one_hello NAME CLIENT'S-ARGUMENTS ANSWER
    ends 0 "$1" "$bin/hello_client" "$uri" $2 && [ "$(cat "$dir/$1.out")" = "$3" ]
}

stopped_by() { # stopped_by SIGNAL NAME
    kill -s "$1" "$pid" && server_ends "$2"
}

no_server() {
    ends 1 no_server "$bin/hello_client" "$uri" && says no_server "nobody listens" &&
        says no_server "start the server first"
}

verdict hello_server server hello_server "$bin/hello_server"
verdict hello_client one_hello hello '' 'hello, world'
verdict hello_again one_hello again plait 'hello, plait'
verdict hello_address_in_use ends 1 in_use "$bin/hello_server" "$uri"
verdict hello_address_in_use_text says in_use "$(sed 's,plait://\([^/]*\)/.*,\1,' <<<"$uri")"
verdict hello_stop stopped_by TERM hello_server
verdict hello_without_server no_server
verdict hello_malformed_uri ends 1 malformed "$bin/hello_client" hello
verdict hello_malformed_uri_text says malformed "does not begin with plait://"
verdict hello_usage ends 2 usage "$bin/hello_client"
verdict hello_any_port server interrupted "$bin/hello_server" plait://127.0.0.1:0/other
verdict hello_interrupted stopped_by TERM interrupted

# ---- workers ----

verdict workers ends 0 workers "$bin/workers"
verdict workers_all_answered says workers 'connection 0, CPU '
verdict workers_server server portals "$bin/workers" server
verdict workers_client ends 0 client1 "$bin/workers" client "$uri"
verdict workers_client_again ends 0 client2 "$bin/workers" client "$uri"
verdict workers_stop stopped_by TERM portals
verdict workers_without_server ends 1 lonely "$bin/workers" client "$uri"
verdict workers_without_server_text says lonely "nobody listens"
verdict workers_usage ends 2 workers_usage "$bin/workers" clients

# ---- epoll: lines of input come in between; the end of the input ends it ----

said() { # said WORDS: the next lines of the server, until one has them
    local line
    while IFS= read -r -t $patience -u 8 line; do
        [[ $line != *"$1"* ]] || return 0
    done
    return 1
}

mkfifo "$dir/input"
exec 5<>"$dir/input" # else the next two would wait for each other
exec 6>"$dir/input" 7<"$dir/input" 5<&-
verdict epoll_server server epoll "$bin/epoll"
exec 7<&-
verdict epoll_request one_hello epoll1 '' 'hello from epoll'
echo 'good morning' >&6
verdict epoll_line said 'good morning'
verdict epoll_next_request one_hello epoll2 '' 'good morning'
exec 6>&-
verdict epoll_end server_ends epoll
verdict epoll_counts says epoll '2 requests, '

verdict nothing_left clean
exit $bad
