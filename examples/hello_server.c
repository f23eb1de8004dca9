/* SPDX-License-Identifier: BSD-3-Clause */
/* A service that answers every request with a greeting, until SIGINT or SIGTERM.
 * Usage: hello_server [URI]; it prints the URI for hello_client. */
#include <plait/plait.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

static void check(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "hello_server: %s: %s\n", what, plait_error_text());
        exit(1);
    }
}

static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    char text[256];
    int len = snprintf(text, sizeof text, "hello, %.*s", (int)(msg->len < 200 ? msg->len : 200),
                       msg->data ? (const char *)msg->data : "");

    (void)conn, (void)arg;
    if (msg->kind == PLAIT_REQUEST && plait_reply(msg, text, (size_t)len, 0) < 0)
        fprintf(stderr, "hello_server: plait_reply: %s\n", plait_error_text());
}

static void on_signal(int fd, uint32_t events, void *ctx)
{
    (void)fd, (void)events;
    plait_ctx_stop(ctx);
}

int main(int argc, char **argv)
{
    static const struct plait_conn_ops ops = { .on_message = on_message };
    struct plait_listen_opts opts = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *listener;
    struct plait_watch *watch;
    struct plait_ctx *ctx;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before there are threads: signals come by descriptor only */
    opts.session.conn_ops = &ops;
    check(plait_ctx_create(&ctx, NULL), "plait_ctx_create");
    check(plait_watch_create(&watch, ctx, signalfd(-1, &set, 0), EPOLLIN, on_signal, ctx), "signalfd");
    check(plait_listen(&listener, ctx, argc > 1 ? argv[1] : "plait://127.0.0.1/hello", &opts), "listening");
    printf("listening on %s\n", plait_listener_uri(listener));
    fflush(stdout);
    check(plait_ctx_run(ctx, -1), "plait_ctx_run"); /* until on_signal stops it */
    check(plait_ctx_destroy(ctx), "plait_ctx_destroy"); /* with its listener and watch */
    return 0;
}
