/* SPDX-License-Identifier: BSD-3-Clause */
/* plait ping: round trips to an echo service. */
#include <argp.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include <plait/plait.h>
#include "cli.h"
#include "figure.h"
#include "stats.h"

enum { OPT_JSON = 256, OPT_TIMEOUT };

struct ping {
    const char *uri;
    unsigned long count; /* 0: until Ctrl-C */
    double interval_s, timeout_s;
    size_t size;
    bool json;

    struct plait_ctx *ctx;
    struct plait_session *session;
    struct plait_conn *conn;
    struct plait_watch *watch;
    char transport[16], wire[256];
    int sig_fd;
    bool interrupted, closed, calling;
    unsigned char *data;
    double *rtt_us;
    unsigned long sent, received, cap;
};

static const struct argp_option options[] = {
    { "count", 'c', "N", 0, "Send N requests (5); 0: until Ctrl-C", 0 },
    { "interval", 'i', "S", 0, "Wait S seconds between two requests (1)", 0 },
    { "size", 's', "BYTES", 0, "Bytes in each request and reply (8), as 8, 64k", 0 },
    { "timeout", OPT_TIMEOUT, "S", 0, "Wait at most S seconds for the session, and for each reply (5)", 0 },
    { "json", OPT_JSON, NULL, 0, "One JSON object per line", 0 },
    { 0 }
};

static const char doc[] =
    "Opens a session to an echo service (plait serve) and tells how long requests take to be answered."
    "\v"
    "Both sides sleep between two requests, so a round trip contains two wake-ups and is far longer than "
    "what plait perf lat measures between processes that poll.\n\n"
    "Examples:\n"
    "  plait ping plait://127.0.0.1:7000\n"
    "  plait ping --count 1000 --interval 0 --size 4k plait://127.0.0.1:7000/echo\n"
    "  plait ping --json 'plait://127.0.0.1:7000/echo?transport=shm'\n\n"
    "Exit status: 0 if every request was answered, 1 if not, or if there was no session; 2 for a mistake in "
    "the command line.";

static void parse_number(int key, char *arg, struct argp_state *state)
{
    struct ping *p = state->input;
    const char *why;

    if (key == 'c' && cli_parse_count(arg, &p->count, &why))
        argp_error(state, "--count: '%s': %s", arg, why);
    if (key == 'i' && cli_parse_seconds(arg, &p->interval_s, &why))
        argp_error(state, "--interval: '%s': %s", arg, why);
    if (key == OPT_TIMEOUT && cli_parse_seconds(arg, &p->timeout_s, &why))
        argp_error(state, "--timeout: '%s': %s", arg, why);
    if (key == 's') {
        if (cli_parse_size(arg, &p->size, &why))
            argp_error(state, "--size: '%s': %s", arg, why);
        if (p->size > PLAIT_EAGER_MAX)
            argp_error(state, "--size: '%s': messages have at most %uk bytes in this version", arg,
                       PLAIT_EAGER_MAX >> 10);
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ping *p = state->input;

    switch (key) {
    case 'c':
    case 'i':
    case 's':
    case OPT_TIMEOUT:
        parse_number(key, arg, state);
        break;
    case OPT_JSON:
        p->json = true;
        break;
    case ARGP_KEY_ARG:
        if (p->uri)
            argp_error(state, "one URI is enough: '%s' is too much", arg);
        p->uri = arg;
        break;
    case ARGP_KEY_END:
        if (!p->uri)
            argp_error(state, "the URI is missing, as plait://127.0.0.1:7000 (plait serve prints one)");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static void on_signal(int fd, uint32_t events, void *arg)
{
    struct signalfd_siginfo si;
    struct ping *p = arg;

    (void)events;
    while (read(fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
        p->interrupted = true;
    if (p->calling)
        plait_conn_abort(p->conn); /* plait_call() returns */
    else if (!p->conn && p->session)
        plait_session_close(p->session); /* plait_session_wait() returns */
    plait_ctx_stop(p->ctx);
}

static void on_session_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct ping *p = arg;

    (void)s;
    (void)why;
    p->closed = true;
    plait_ctx_stop(p->ctx);
}

static const struct plait_session_ops session_ops = { .on_closed = on_session_closed };

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int open_session(struct ping *p)
{
    struct plait_ctx_opts co = PLAIT_CTX_OPTS_INIT;
    struct plait_session_opts so = PLAIT_SESSION_OPTS_INIT;
    struct plait_conn_info info = { .size = sizeof(info) };

    if (plait_ctx_create(&p->ctx, &co) < 0)
        return cli_plait_error("no context");
    if (plait_watch_create(&p->watch, p->ctx, p->sig_fd, EPOLLIN, on_signal, p) < 0)
        return cli_plait_error("signals cannot be watched");
    so.session_ops = &session_ops;
    so.arg = p;
    so.open_timeout_ms = p->timeout_s < 0.001 ? 1 : (uint32_t)(p->timeout_s * 1000);
    if (plait_session_open(&p->session, p->ctx, p->uri, &so) < 0 || plait_session_wait(p->session, -1) < 0)
        return p->interrupted ? cli_error("interrupted") : cli_plait_error("%s", p->uri);
    p->conn = plait_session_conn(p->session, 0);
    if (plait_conn_get_info(p->conn, &info) == 0)
        snprintf(p->transport, sizeof(p->transport), "%s", info.transport);
    snprintf(p->wire, sizeof(p->wire), "%s", info.wire ? info.wire : "none");
    return CLI_OK;
}

static int record(struct ping *p, double us)
{
    if (p->received == p->cap) {
        unsigned long cap = p->cap ? 2 * p->cap : 1024;
        double *v = realloc(p->rtt_us, cap * sizeof(*v));

        if (!v)
            return cli_error("no memory for more than %lu round trips", p->cap);
        p->rtt_us = v;
        p->cap = cap;
    }
    p->rtt_us[p->received++] = us;
    return CLI_OK;
}

static void tell(const struct ping *p, double us)
{
    struct json_object *o;

    if (!p->json) {
        printf("%zu bytes back from %s: seq=%lu time=%.1f us\n", p->size, p->uri, p->sent, us);
        return;
    }
    o = json_object_new_object();
    json_object_object_add(o, "seq", json_object_new_int64((int64_t)p->sent));
    json_object_object_add(o, "transport", json_object_new_string(p->transport));
    json_object_object_add(o, "size", json_object_new_int64((int64_t)p->size));
    json_object_object_add(o, "rtt_us", figure_number(us, 1));
    figure_print_json(o);
}

static int once(struct ping *p)
{
    struct plait_msg *reply = NULL;
    double t0 = now_us(), us;
    int rc, status = CLI_OK;

    p->sent++;
    p->calling = true;
    rc = plait_call(p->conn, p->data, p->size, &reply, (int64_t)(p->timeout_s * 1e6));
    p->calling = false;
    us = now_us() - t0;
    if (rc < 0 && p->interrupted) { /* given up on purpose: not counted as unanswered */
        p->sent--;
        return CLI_OK;
    }
    if (rc < 0)
        return cli_plait_error("seq=%lu", p->sent);
    if (rc > 0)
        return cli_error("seq=%lu: the service answered with its own error code %d", p->sent, rc);
    if (reply->len != p->size || (p->size && memcmp(reply->data, p->data, p->size)))
        status = cli_error("seq=%lu: the reply (%zu bytes) is not the request: %s is no echo service",
                           p->sent, reply->len, p->uri);
    plait_msg_release(reply);
    if (status == CLI_OK) {
        tell(p, us);
        status = record(p, us);
    }
    return status;
}

static int rounds(struct ping *p)
{
    int status = CLI_OK;

    while (status == CLI_OK && !p->interrupted && (p->count == 0 || p->sent < p->count)) {
        for (size_t i = 0; i < p->size; i++)
            p->data[i] = (unsigned char)(p->sent + i);
        status = once(p);
        if (status == CLI_OK && p->sent != p->count && p->interval_s > 0)
            plait_ctx_run(p->ctx, (int64_t)(p->interval_s * 1e6));
        else if (status == CLI_OK)
            plait_ctx_poll(p->ctx); /* signals */
        if (status == CLI_OK && p->closed && !p->interrupted)
            status = cli_error("the service has ended the session");
    }
    return status;
}

static void summary(struct ping *p)
{
    struct stats s = stats_of(p->rtt_us, p->received);
    struct json_object *o;

    if (!p->json) {
        printf("%lu sent, %lu answered, transport %s (%s)", p->sent, p->received, p->transport, p->wire);
        if (p->received)
            printf("; round trip in us: min %.1f, avg %.1f, p50 %.1f, p99 %.1f, max %.1f", s.min, s.avg,
                   s.p50, s.p99, s.max);
        putchar('\n');
        return;
    }
    o = json_object_new_object();
    json_object_object_add(o, "sent", json_object_new_int64((int64_t)p->sent));
    json_object_object_add(o, "answered", json_object_new_int64((int64_t)p->received));
    json_object_object_add(o, "transport", json_object_new_string(p->transport));
    json_object_object_add(o, "wire", json_object_new_string(p->wire));
    json_object_object_add(o, "size", json_object_new_int64((int64_t)p->size));
    json_object_object_add(o, "rtt_us", figure_stats(&s, 1));
    figure_print_json(o);
}

static void close_session(struct ping *p)
{
    if (p->session && !p->closed && plait_session_close(p->session) == 0)
        while (!p->closed && plait_ctx_run(p->ctx, 2000000) == 1)
            ;
    plait_session_release(p->session);
    if (p->ctx)
        plait_ctx_destroy(p->ctx);
}

int cmd_ping(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "URI", doc, NULL, NULL, NULL };
    struct ping p = { .count = 5, .interval_s = 1, .timeout_s = 5, .size = 8 };
    int status;

    setvbuf(stdout, NULL, _IOLBF, 0);
    argp_parse(&argp, argc, argv, 0, NULL, &p);
    p.data = malloc(p.size ? p.size : 1);
    if (!p.data)
        return cli_error("no memory for %zu bytes", p.size);
    p.sig_fd = cli_signal_fd();
    status = p.sig_fd < 0 ? CLI_FAILED : open_session(&p);
    if (status == CLI_OK) {
        status = rounds(&p);
        summary(&p);
    }
    close_session(&p);
    if (p.sig_fd >= 0)
        close(p.sig_fd);
    free(p.rtt_us);
    free(p.data);
    return status;
}
