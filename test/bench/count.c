/* SPDX-License-Identifier: BSD-3-Clause */
/* Counts what a small message costs: under `valgrind --tool=callgrind` this program sends N times 48 messages of 8 bytes
 * between two contexts of its own, so that count.sh can take the difference of two runs. Everything goes through the
 * public functions and through real shared memory. */
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BURST = 48 };
enum mode { ONEWAY, RPC, BATCH }; /* batch: requests and replies with PLAIT_MORE */

static long messages, replies;
static unsigned more;

static void check(int rc, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "count: %s: %s\n", what, plait_error_text());
    exit(1);
}

/* The user's own part is as small as it can be; count.sh subtracts these functions. */
__attribute__((noinline)) static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    (void)conn;
    (void)arg;
    messages++;
    if (msg->kind == PLAIT_REQUEST)
        check(plait_reply(msg, msg->data, msg->len, more), "reply");
}

__attribute__((noinline)) static void on_reply(struct plait_msg *reply, int status, void *arg)
{
    (void)reply;
    (void)arg;
    check(status, "status of a reply");
    replies++;
}

static const struct plait_conn_ops ops = { .on_message = on_message };

static void burst(struct plait_conn *conn, enum mode mode)
{
    static const char data[8] = "1234567";
    int i;

    for (i = 0; i < BURST; i++) {
        if (mode == ONEWAY)
            check(plait_send(conn, data, sizeof data, 0), "send");
        else
            check(plait_request(conn, data, sizeof data, more, on_reply, NULL), "request");
    }
}

int main(int argc, char **argv)
{
    struct plait_ctx *client, *server;
    struct plait_listen_opts listen_opts = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *listener;
    struct plait_session *session;
    struct plait_conn *conn;
    enum mode mode = argc < 2 || strcmp(argv[1], "oneway") == 0 ? ONEWAY : strcmp(argv[1], "rpc") == 0 ? RPC : BATCH;
    long i, n = argc > 2 ? atol(argv[2]) : 1000;

    more = mode == BATCH ? PLAIT_MORE : 0;
    check(plait_ctx_create(&client, NULL), "client's context");
    check(plait_ctx_create(&server, NULL), "server's context");
    listen_opts.session.conn_ops = &ops;
    check(plait_listen(&listener, server, "plait://127.0.0.1/count", &listen_opts), "listen");
    check(plait_session_open(&session, client, plait_listener_uri(listener), NULL), "open");
    conn = plait_session_conn(session, 0);
    while (!conn || !plait_conn_is_open(conn)) {
        check(plait_ctx_poll(client), "poll");
        check(plait_ctx_poll(server), "poll");
        conn = plait_session_conn(session, 0);
    }
    for (i = 0; i < n; i++) {
        burst(conn, mode);
        do { /* at first the server takes it for a dialogue, one message at a time */
            check(plait_ctx_poll(server), "poll");
            check(plait_ctx_poll(client), "poll");
        } while (messages < (i + 1) * BURST);
    }
    while (messages < n * BURST || replies < (mode == ONEWAY ? 0 : n * BURST)) {
        check(plait_ctx_poll(server), "poll");
        check(plait_ctx_poll(client), "poll");
    }
    printf("%ld messages, %ld replies\n", messages, replies);
    plait_session_release(session);
    check(plait_ctx_destroy(client), "destroy");
    check(plait_ctx_destroy(server), "destroy");
    return 0;
}
