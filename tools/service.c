/* SPDX-License-Identifier: BSD-3-Clause */
#include "service.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "cli.h"

#define IDLE_LOOKS 100000     /* empty polls between two looks at the clock */
#define COLD_AFTER_NS 500000000
#define COLD_SLEEP_US 100000

/* ---- sessions ---- */

static void client_free(struct client *c)
{
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        c->sv->clients = c->next;
    while (c->nheld > 0) {
        plait_msg_release(c->held[c->first]);
        c->first = (c->first + 1) % c->cap;
        c->nheld--;
    }
    service_spin(c, false);
    plait_mem_release(c->window);
    if (c->sv->leaving)
        c->sv->leaving(c);
    free(c->held);
    free(c);
}

static void check_done(struct service *sv)
{
    if (sv->stopping && !sv->clients) {
        sv->done = true;
        plait_ctx_stop(sv->pctx);
    }
}

static void session_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct client *c = arg;
    struct service *sv = c->sv;

    (void)s;
    if (sv->verbose)
        printf("a session has ended: %s\n", why->text);
    client_free(c);
    check_done(sv);
}

static const struct plait_session_ops session_ops = { .on_closed = session_closed };

static void on_session(struct plait_session *s, const struct plait_session_request *req, void *arg)
{
    struct plait_session_opts opts = PLAIT_SESSION_OPTS_INIT;
    struct service *sv = arg;
    struct client *c = calloc(1, sizeof(*c));
    const char *why = c ? NULL : "the service has no memory left";

    if (c) {
        c->sv = sv;
        c->session = s;
        c->next = sv->clients;
        if (c->next)
            c->next->prev = c;
        sv->clients = c;
        opts.session_ops = &session_ops;
        opts.conn_ops = &sv->ops;
        opts.arg = c;
        opts.window = sv->window;
        if (sv->stopping)
            why = "the service is ending";
        else if (sv->admit)
            why = sv->admit(c, req, &opts);
    }
    if (why)
        plait_session_reject(s, why, NULL, 0);
    else if (plait_session_accept(s, &opts) < 0)
        why = plait_error_text();
    if (why && c)
        client_free(c);
    if (sv->verbose)
        printf("%s a session of process %d, user %u%s%s\n", why ? "rejected" : "accepted", (int)req->pid,
               (unsigned)req->uid, why ? ": " : "", why ? why : "");
}

/* ---- echo ---- */

static __attribute__((noinline)) int send_back_with_header(struct plait_msg *msg)
{
    struct plait_out out = PLAIT_OUT_INIT;

    out.hdr = msg->hdr;
    out.hdr_len = msg->hdr_len;
    out.data = msg->data;
    out.len = msg->len;
    return msg->kind == PLAIT_REQUEST ? plait_replyx(msg, &out) : plait_sendx(msg->conn, &out);
}

/* 0, or the code of the failure; PLAIT_E_AGAIN only for one-way messages: replies are always accepted. */
static inline int send_back(struct plait_msg *msg)
{
    if (__builtin_expect(msg->hdr_len != 0, 0))
        return send_back_with_header(msg);
    return msg->kind == PLAIT_REQUEST ? plait_reply(msg, msg->data, msg->len, 0)
                                      : plait_send(msg->conn, msg->data, msg->len, 0);
}

static int hold_for_later(struct client *c, struct plait_msg *msg)
{
    if (c->nheld == c->cap) {
        unsigned cap = c->cap ? 2 * c->cap : 64, i;
        struct plait_msg **held = malloc(cap * sizeof(*held));

        if (!held)
            return -1;
        for (i = 0; i < c->nheld; i++)
            held[i] = c->held[(c->first + i) % c->cap];
        free(c->held);
        c->held = held;
        c->cap = cap;
        c->first = 0;
    }
    msg = plait_msg_hold(msg);
    if (!msg)
        return -1;
    c->held[(c->first + c->nheld++) % c->cap] = msg;
    return 0;
}

static __attribute__((noinline)) void not_sent_back(struct client *c, struct plait_msg *msg, int rc)
{
    struct plait_conn *conn = msg->conn;

    if (rc == PLAIT_E_AGAIN && hold_for_later(c, msg) == 0)
        return;
    if (rc < 0 && rc != PLAIT_E_CLOSED) {
        cli_plait_error("a message cannot be sent back, its connection is ended");
        plait_conn_abort(conn);
    }
}

void service_echo(struct client *c, struct plait_msg *msg)
{
    int rc = PLAIT_E_AGAIN;

    if (__builtin_expect(c->nheld == 0 || msg->kind == PLAIT_REQUEST, 1))
        rc = send_back(msg);
    if (__builtin_expect(rc < 0, 0))
        not_sent_back(c, msg, rc);
}

/* Held messages of all connections of the session go in one order; the first that finds no space stops. */
static void on_writable(struct plait_conn *conn, void *arg)
{
    struct client *c = arg;

    (void)conn;
    while (c->nheld > 0) {
        struct plait_msg *msg = c->held[c->first];

        if (send_back(msg) == PLAIT_E_AGAIN)
            return;
        c->first = (c->first + 1) % c->cap;
        c->nheld--;
        plait_msg_release(msg);
    }
    if (c->sv->writable)
        c->sv->writable(c);
}

void service_spin(struct client *c, bool spin)
{
    if (spin == c->spin)
        return;
    c->spin = spin;
    if (spin)
        c->sv->spinning++;
    else
        c->sv->spinning--;
    plait_ctx_stop(c->sv->pctx); /* the loop changes its way of waiting */
}

/* ---- the end ---- */

static void begin_end(struct service *sv)
{
    struct client *c, *next;

    if (sv->stopping) { /* asked twice: do not wait for the clients */
        sv->done = true;
        plait_ctx_stop(sv->pctx);
        return;
    }
    sv->stopping = true;
    plait_listener_close(sv->listener); /* rejects those that wait: their on_closed may come here and now */
    sv->listener = NULL;
    for (c = sv->clients; c; c = next) {
        next = c->next;
        service_spin(c, false);
        plait_session_close(c->session);
    }
    check_done(sv);
}

static void on_signal(int fd, uint32_t events, void *arg)
{
    struct signalfd_siginfo si;
    struct service *sv = arg;

    (void)events;
    while (read(fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        if (sv->until_eof && si.ssi_signo == SIGINT)
            continue; /* Ctrl-C in the terminal: the parent ends, and with it our standard input */
        begin_end(sv);
    }
}

static void on_stdin(int fd, uint32_t events, void *arg)
{
    struct service *sv = arg;
    char buf[64];

    (void)events;
    if (read(fd, buf, sizeof(buf)) > 0)
        return;
    plait_watch_free(sv->eof_watch);
    sv->eof_watch = NULL;
    begin_end(sv);
}

/* ---- the loop ---- */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t events_of(struct plait_ctx *ctx)
{
    struct plait_ctx_stats st = { .size = sizeof(st) };

    return plait_ctx_get_stats(ctx, &st) == 0 ? st.events : 0;
}

/* Polls while a test runs. A client that has stopped in the middle of one does not cost a core for ever:
 * after half a second without anything the context sleeps until there is something again. */
static int spin(struct service *sv)
{
    uint64_t since = now_ns(), before;
    unsigned looks = 0;
    int n;

    while (sv->spinning > 0 && !sv->done) {
        n = plait_ctx_poll(sv->pctx);
        if (n < 0)
            return n;
        if (n > 0) {
            since = 0;
            continue;
        }
        if (++looks < IDLE_LOOKS)
            continue;
        looks = 0;
        if (since == 0)
            since = now_ns();
        if (now_ns() - since < COLD_AFTER_NS)
            continue;
        do {
            before = events_of(sv->pctx);
            n = plait_ctx_run(sv->pctx, COLD_SLEEP_US);
        } while (n == 0 && events_of(sv->pctx) == before);
        if (n < 0)
            return n;
        since = 0;
    }
    return 0;
}

static int loop(struct service *sv)
{
    int rc = 0;

    while (!sv->done && rc >= 0)
        rc = sv->spinning > 0 ? spin(sv) : plait_ctx_run(sv->pctx, -1);
    return rc;
}

static int setup(struct service *sv)
{
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;

    sv->ops = *sv->conn_ops;
    sv->ops.on_writable = on_writable;
    if (plait_ctx_create(&sv->pctx, &sv->ctx) < 0)
        return cli_plait_error("no context");
    if (plait_watch_create(&sv->sig_watch, sv->pctx, sv->sig_fd, EPOLLIN, on_signal, sv) < 0)
        return cli_plait_error("signals cannot be watched");
    if (sv->until_eof &&
        plait_watch_create(&sv->eof_watch, sv->pctx, STDIN_FILENO, EPOLLIN, on_stdin, sv) < 0)
        return cli_plait_error("standard input cannot be watched");
    lo.on_session = on_session;
    lo.session.arg = sv;
    lo.any_uid = sv->any_uid;
    if (plait_listen(&sv->listener, sv->pctx, sv->uri, &lo) < 0)
        return cli_plait_error("cannot listen");
    return CLI_OK;
}

int service_run(struct service *sv)
{
    int status;

    sv->sig_fd = cli_signal_fd();
    if (sv->sig_fd < 0)
        return CLI_FAILED;
    status = setup(sv);
    if (status == CLI_OK) {
        sv->listening(sv, plait_listener_uri(sv->listener));
        if (fflush(stdout))
            status = cli_error("standard output could not be written: %s", strerror(errno));
        else if (loop(sv) < 0)
            status = cli_plait_error("the context failed");
    }
    plait_listener_close(sv->listener);
    if (sv->pctx) {
        plait_ctx_destroy(sv->pctx); /* ends what is still open; on_closed frees the clients */
        sv->pctx = NULL;
    }
    close(sv->sig_fd);
    return status;
}
