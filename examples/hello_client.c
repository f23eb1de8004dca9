/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks a hello_server for a greeting. Usage: hello_client URI [NAME] */
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "hello_client: %s: %s\n", what, plait_error_text());
        exit(1);
    }
}

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *ctx)
{
    (void)s;
    if (why->code < 0)
        fprintf(stderr, "hello_client: the session has ended: %s\n", why->text);
    plait_ctx_stop(ctx);
}

int main(int argc, char **argv)
{
    static const struct plait_session_ops ops = { .on_closed = on_closed };
    struct plait_session_opts opts = PLAIT_SESSION_OPTS_INIT;
    const char *name = argc > 2 ? argv[2] : "world";
    struct plait_session *s;
    struct plait_msg *reply;
    struct plait_ctx *ctx;

    if (argc < 2) {
        fprintf(stderr, "usage: hello_client URI [NAME]\n");
        return 2;
    }
    check(plait_ctx_create(&ctx, NULL), "plait_ctx_create");
    opts.session_ops = &ops;
    opts.arg = ctx;
    check(plait_session_open(&s, ctx, argv[1], &opts), "plait_session_open");
    check(plait_session_wait(s, -1), argv[1]);
    check(plait_call(plait_session_conn(s, 0), name, strlen(name), &reply, 1000000), "plait_call");
    printf("%.*s\n", (int)reply->len, (const char *)reply->data);
    plait_msg_release(reply);
    check(plait_session_close(s), "plait_session_close");
    check(plait_ctx_run(ctx, -1), "plait_ctx_run"); /* until on_closed stops it */
    plait_session_release(s);
    check(plait_ctx_destroy(ctx), "plait_ctx_destroy");
    return 0;
}
