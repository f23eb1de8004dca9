/* SPDX-License-Identifier: BSD-3-Clause */
/* One of two processes on different hosts, between which something breaks: cut_prog serve|call ENDING URI.
 * Both send numbered messages of all kinds and sizes, as many as they may, and check that those of the other side come whole, in
 * order, none twice. ENDING:
 *   through   the caller's standard input ends: both stop, each tells the other its last number, and all must have come
 *   lost      the connection must end with PLAIT_E_PEERDIED in time, with everything that was pending
 *   idle      the same, of a connection on which nothing is being sent
 * A line on standard input says that the cable is cut now. On standard output: a server's URI; "flowing" when messages
 * have come and gone; at the end what happened.
 * CUT_SLACK_MS: how much later than peer_timeout the end may be known (3000); CUT_PAUSE_MS: how long nothing must have come in
 * between, or else nothing was cut. */
#include <dirent.h>
#include <inttypes.h>
#include <plait/plait.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define IN_FLIGHT 24
#define FLOWING 100     /* messages */
#define LEN_MAX 60000u
#define LAST UINT64_C(1) /* no message follows */

struct head {
    uint64_t number, flags;
};

struct side {
    struct plait_ctx *ctx;
    struct plait_conn *conn;
    struct plait_session *s;
    struct plait_watch *watch;
    uint64_t sent, got;          /* numbers: the next one */
    uint64_t accepted, completed;
    unsigned in_flight, opened, closed;
    uint64_t heard;              /* messages and completions */
    uint64_t cut_at, heard_at, longest, closed_at; /* ms */
    bool quiet, said_last, peer_said_last;
    int code;
    char text[512];
};

static enum { THROUGH, LOST, IDLE } ending;
static bool serving;
static uint8_t data[LEN_MAX];

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *v = getenv(name);

    return v && *v ? strtoull(v, NULL, 10) : otherwise;
}

static void ok(int condition, const char *what)
{
    if (condition)
        return;
    printf("cut_prog: %s: wrong: %s (last error: %s)\n", serving ? "server" : "caller", what, plait_error_text());
    exit(1);
}

static void say(const char *text)
{
    printf("%s\n", text);
    fflush(stdout);
}

/* ---- messages ---- */

static void heard(struct side *p)
{
    uint64_t now = now_ms();

    if (p->heard_at && now - p->heard_at > p->longest)
        p->longest = now - p->heard_at;
    p->heard_at = now;
    if (++p->heard == (ending == IDLE ? 1 : FLOWING))
        say("flowing");
}

static uint32_t length_of(uint64_t number)
{
    uint32_t r = (uint32_t)(number * UINT64_C(2654435761) >> 7);

    return (uint32_t)sizeof(struct head) + (number % 40 == 0 ? r % (LEN_MAX - 64) : number % 7 == 0 ? r % 5000 : r % 120);
}

static uint8_t tail_of(uint64_t number)
{
    return (uint8_t)(number * 37 + 11);
}

static void fill(struct side *p);

static void completed(struct side *p, int status)
{
    p->completed++;
    p->in_flight--;
    ok(!p->closed, "nothing is completed after the end");
    ok(status == 0 || (ending != THROUGH && status == PLAIT_E_PEERDIED), "how a pending message ended");
    if (status)
        return;
    heard(p);
    if (p->in_flight < IN_FLIGHT / 2)
        fill(p);
}

static void on_reply(struct plait_msg *m, int status, void *arg)
{
    ok(status != 0 || m->len == sizeof(uint64_t), "the length of a reply");
    completed(arg, status);
}

static void on_done(int status, void *arg)
{
    completed(arg, status);
}

/* One message; 0 if it was accepted. Every third is a request, every third wants a receipt. */
static int send_one(struct side *p, uint64_t flags)
{
    struct plait_out out = PLAIT_OUT_INIT;
    struct head h = { .number = p->sent, .flags = flags };
    int rc;

    out.len = length_of(h.number);
    memcpy(data, &h, sizeof h);
    data[out.len - 1] = out.len > sizeof h ? tail_of(h.number) : data[out.len - 1];
    out.data = data;
    out.arg = p;
    if (h.number % 3 == 0)
        out.on_reply = on_reply;
    else if (h.number % 3 == 1)
        out.on_done = on_done;
    rc = plait_sendx(p->conn, &out);
    if (rc == 0) {
        p->sent++;
        p->accepted += h.number % 3 != 2;
        p->in_flight += h.number % 3 != 2;
    }
    ok(rc == 0 || rc == PLAIT_E_AGAIN || rc == PLAIT_E_CLOSED, "plait_sendx");
    return rc;
}

static void fill(struct side *p)
{
    while (!p->quiet && p->in_flight < IN_FLIGHT && send_one(p, 0) == 0)
        ;
    if (p->quiet && ending == THROUGH && !p->said_last && p->in_flight == 0)
        p->said_last = send_one(p, LAST) == 0;
}

/* In the order of sending, and whole. */
static void on_message(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    struct side *p = arg;
    struct head h;

    (void)c;
    ok(m->len >= sizeof h, "a message has a number");
    memcpy(&h, m->data, sizeof h);
    if (h.number != p->got) {
        printf("cut_prog: message %" PRIu64 " came in place of %" PRIu64 "\n", h.number, p->got);
        ok(0, "messages come in order, each once");
    }
    ok(m->len == length_of(h.number), "the length of a message");
    ok(m->len == sizeof h || ((const uint8_t *)m->data)[m->len - 1] == tail_of(h.number), "the content of a message");
    p->got++;
    heard(p);
    if (m->kind == PLAIT_REQUEST)
        ok(plait_reply(m, &h.number, sizeof h.number, 0) == 0, "plait_reply");
    if (h.flags & LAST) {
        p->peer_said_last = true;
        p->quiet = true;
        fill(p);
    }
}

static void on_writable(struct plait_conn *c, void *arg)
{
    (void)c;
    fill(arg);
}

static void on_open(struct plait_conn *c, void *arg)
{
    struct side *p = arg;

    p->conn = c;
    p->opened++;
    p->quiet = p->quiet || ending == IDLE;
    if (ending == IDLE)
        send_one(p, 0);
    fill(p);
}

static void on_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    struct side *p = arg;

    (void)c;
    p->closed++;
    p->closed_at = now_ms();
    p->code = why->code;
    snprintf(p->text, sizeof p->text, "%s", why->text);
    ok(p->completed == p->accepted, "what was pending is completed before the end");
}

static void on_session_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    (void)s, (void)why;
    plait_ctx_stop(((struct side *)arg)->ctx);
}

static const struct plait_conn_ops conn_ops = {
    .on_open = on_open, .on_message = on_message, .on_writable = on_writable, .on_closed = on_closed,
};
static const struct plait_session_ops session_ops = { .on_closed = on_session_closed };

/* ---- the run ---- */

static void on_stdin(int fd, uint32_t events, void *arg)
{
    struct side *p = arg;
    char line[64];

    (void)events;
    if (read(fd, line, sizeof line) > 0) {
        p->cut_at = now_ms();
        return;
    }
    plait_watch_free(p->watch); /* it would tell the end again and again */
    p->watch = NULL;
    if (serving || ending != THROUGH)
        return;
    p->quiet = true;
    fill(p);
}

static struct plait_session_opts load_opts(struct side *p)
{
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;

    o.conn_ops = &conn_ops;
    o.session_ops = &session_ops;
    o.arg = p;
    o.open_timeout_ms = 60000;
    o.linger_ms = 60000;
    return o;
}

/* To the end of the connection, which in the end the caller of 'through' closes. */
static void run(struct side *p)
{
    bool closing = false;

    ok(plait_watch_create(&p->watch, p->ctx, STDIN_FILENO, EPOLLIN, on_stdin, p) == 0, "watching standard input");
    while (!p->closed) {
        ok(plait_ctx_run(p->ctx, 10000) >= 0, "plait_ctx_run");
        if (serving || closing || !p->said_last || !p->peer_said_last || p->in_flight > 0)
            continue;
        ok(plait_session_close(p->s) == 0, "plait_session_close");
        closing = true;
    }
    plait_watch_free(p->watch);
}

static void check_lost(const struct side *p)
{
    uint64_t limit = number_of("PLAIT_PEER_TIMEOUT", 10000) + number_of("CUT_SLACK_MS", 3000);
    uint64_t from = ending == IDLE ? p->cut_at : p->heard_at;

    printf("%s: lost after %" PRIu64 " ms, %" PRIu64 " sent, %" PRIu64 " came: %s\n", serving ? "server" : "caller",
           from ? p->closed_at - from : 0, p->sent, p->got, p->text);
    ok(p->code == PLAIT_E_PEERDIED, "the code of the end");
    ok(strstr(p->text, "process ") && strstr(p->text, " at "), "the text names the peer");
    ok(!from || p->closed_at - from <= limit, "the end is known in time");
    ok(serving || plait_send(p->conn, "x", 1, 0) == PLAIT_E_CLOSED, "plait_send after the end");
}

static void check_through(const struct side *p)
{
    printf("%s: %" PRIu64 " sent, %" PRIu64 " came, all in order; longest pause %" PRIu64 " ms\n", serving ? "server" : "caller",
           p->sent, p->got, p->longest);
    ok(p->said_last && p->peer_said_last && p->code == 0, p->text);
    ok(p->longest >= number_of("CUT_PAUSE_MS", 0), "messages were held up");
}

static void finish(struct side *p)
{
    struct plait_ctx_stats st = { .size = sizeof st };

    ending == THROUGH ? check_through(p) : check_lost(p);
    if (p->s)
        plait_session_release(p->s);
    for (int i = 0; i < 100; i++)
        plait_ctx_poll(p->ctx);
    ok(plait_ctx_get_stats(p->ctx, &st) == 0 && st.conns == 0 && (ending == THROUGH || st.links == 0), "no link is left");
    ok(plait_ctx_destroy(p->ctx) == 0, "plait_ctx_destroy");
}

/* ---- the two ---- */

static int count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    ok(d != NULL, "/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* libfabric keeps some descriptors from its first use on. */
static void use_once(void)
{
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct plait_session_opts so = PLAIT_SESSION_OPTS_INIT;
    struct plait_listener *l;
    struct plait_session *s;
    struct plait_ctx *ctx;

    so.open_timeout_ms = 60000;
    ok(plait_ctx_create(&ctx, NULL) == 0 && plait_listen(&l, ctx, "plait://127.0.0.1:0/?transport=ofi", &lo) == 0, "listening");
    ok(plait_session_open(&s, ctx, plait_listener_uri(l), &so) == 0 && plait_session_wait(s, -1) == 0, "a session to itself");
    plait_session_release(s);
    ok(plait_ctx_destroy(ctx) == 0, "plait_ctx_destroy");
}

static void call(struct side *p, const char *uri)
{
    struct plait_session_opts o = load_opts(p);
    int before;

    use_once();
    before = count_fds();
    ok(plait_ctx_create(&p->ctx, NULL) == 0, "plait_ctx_create");
    ok(plait_session_open(&p->s, p->ctx, uri, &o) == 0 && plait_session_wait(p->s, -1) == 0, "opening the session");
    run(p);
    finish(p);
    ok(count_fds() == before, "no descriptor is left");
}

static void serve(struct side *p, const char *uri)
{
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *l;

    o.session = load_opts(p);
    ok(plait_ctx_create(&p->ctx, NULL) == 0 && plait_listen(&l, p->ctx, uri, &o) == 0, "listening");
    say(plait_listener_uri(l));
    run(p);
    finish(p);
}

int main(int argc, char **argv)
{
    static struct side side;

    ok(argc == 4, "usage: cut_prog serve|call through|lost|idle URI");
    serving = strcmp(argv[1], "serve") == 0;
    ending = strcmp(argv[2], "through") == 0 ? THROUGH : strcmp(argv[2], "lost") == 0 ? LOST : IDLE;
    serving ? serve(&side, argv[3]) : call(&side, argv[3]);
    return 0;
}
