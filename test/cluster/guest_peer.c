/* SPDX-License-Identifier: BSD-3-Clause */
/* Two unrelated processes in a guest, each pinned to a CPU:
 *   guest_peer serve NAME CPU                         prints its URI, answers one session, and ends with it
 *   guest_peer call NAME CPU URI allowed|refused      sends and receives large messages
 * The caller reads the server's memory with process_vm_readv(2), which the kernel is expected to allow or to
 * refuse; messages must pass whatever it does. On a machine with two NUMA nodes both look where the shared
 * memory of their link is: what a process polls belongs on its own node. Both print their counters. */
#include <limits.h>
#include <plait/plait.h>
#include <stdlib.h>
#include <sys/uio.h>
#include "test/cluster/guest_util.h"

#define LONGEST ((size_t)4 << 20)
#define WAIT_US (60 * 1000000ll)

/* the header part of every request and reply */
struct head {
    int32_t node;  /* of the sender's context */
    int32_t pid;   /* of the server */
    uint64_t addr; /* of its pattern */
    uint64_t sum;  /* of the message's data */
};

static struct plait_ctx *ctx;
static struct plait_mem *mem;
static const char *self;
static uint64_t pattern[512];
static unsigned wrong;
static int peer_node = -1;
static bool ended;

static bool tell(const char *what, bool good, const char *why)
{
    char name[128];

    snprintf(name, sizeof name, "guest_%s::%s", self, what);
    return verdict(name, good, "%s", why);
}

static uint64_t sum_of(const void *data, size_t len)
{
    const unsigned char *p = data;
    uint64_t sum = len, word;
    size_t i = 0;

    for (; i + sizeof word <= len; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u + (sum >> 29);
    }
    for (; i < len; i++)
        sum = (sum ^ p[i]) * 0x100000001b3u;
    return sum;
}

static void fill(void *data, size_t len, uint64_t seed)
{
    unsigned char *p = data;

    for (size_t i = 0; i < len; i += sizeof seed) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        memcpy(p + i, &seed, len - i < sizeof seed ? len - i : sizeof seed);
    }
}

static struct head head_for(const void *data, size_t len)
{
    return (struct head){ .node = plait_ctx_node(ctx), .pid = getpid(), .addr = (uintptr_t)pattern,
                          .sum = sum_of(data, len) };
}

/* Is a message whole? */
static bool take(const struct plait_msg *m, struct head *h)
{
    if (m->hdr_len != sizeof *h)
        return false;
    memcpy(h, m->hdr, sizeof *h);
    peer_node = h->node;
    return sum_of(m->data, m->len) == h->sum;
}

/* READ_MEMORY in the environment: may the server read what the caller offers it by its addresses (PLAIT_TAKE=cma)? */
static void check_cma(const struct plait_ctx_stats *st)
{
    const char *expected = getenv("READ_MEMORY");

    if (!expected || !strstr(self, "server"))
        return;
    if (strcmp(expected, "allowed") == 0)
        tell("long_messages_are_read", st->offers_cma > 0 && st->cma_refused == 0, "offers_cma is 0, or cma_refused is not");
    else
        tell("the_refusal_is_counted", st->offers_cma == 0 && st->cma_refused == 1, "offers_cma is not 0, or cma_refused is not 1");
}

static void print_stats(void)
{
    struct plait_ctx_stats st = { .size = sizeof st };

    if (plait_ctx_get_stats(ctx, &st) < 0)
        tell("counters", false, plait_error_text());
    printf("%s: node %d, msgs_sent %llu, msgs_received %llu, again %llu, shm_bytes %llu, "
           "bind_failures %llu, offers_cma %llu, cma_refused %llu\n",
           self, plait_ctx_node(ctx), (unsigned long long)st.msgs_sent,
           (unsigned long long)st.msgs_received, (unsigned long long)st.again, (unsigned long long)st.shm_bytes,
           (unsigned long long)st.bind_failures, (unsigned long long)st.offers_cma,
           (unsigned long long)st.cma_refused);
    tell("nothing_failed_to_bind", st.bind_failures == 0, "bind_failures is not 0");
    check_cma(&st);
}

/* Every shared mapping of the link: what this side writes is on the peer's node, what it reads on its own. */
static void check_segments(void)
{
    int node = plait_ctx_node(ctx);
    unsigned own = 0, peers = 0;
    char line[512], why[256] = "";
    FILE *f = fopen("/proc/self/maps", "re");

    while (f && fgets(line, sizeof line, f)) {
        char *name = strstr(line, "memfd:plait-");
        unsigned long first, end;
        char perms[8];
        size_t off;
        int want;

        if (!name || strstr(name, "plait-mem-") || sscanf(line, "%lx-%lx %7s", &first, &end, perms) != 3)
            continue;
        own += perms[1] == 'w';
        peers += perms[1] != 'w';
        want = perms[1] == 'w' ? peer_node : node;
        off = pages_elsewhere((void *)first, end - first, want);
        name[strcspn(name, " \n")] = '\0';
        printf("%s: %s %s %zu KiB, pages elsewhere: %zu\n", self, perms, name, (end - first) >> 10, off);
        if (off)
            snprintf(why, sizeof why, "%zu pages of %s (%s) are not on node %d", off, name, perms, want);
    }
    if (f)
        fclose(f);
    if (!own || !peers)
        snprintf(why, sizeof why, "found %u own and %u of the peer", own, peers);
    tell("rings_are_on_the_reader's_node", !*why, why);
}

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    (void)s;
    (void)arg;
    ended = true;
    tell("session_closes_in_order", why->code == PLAIT_OK, why->text);
    plait_ctx_stop(ctx);
}

/* ---- the server ---- */

static void on_message(struct plait_conn *conn, struct plait_msg *m, void *arg)
{
    struct plait_out out = PLAIT_OUT_INIT;
    struct head h;
    char *reply = plait_mem_addr(mem);

    (void)conn;
    (void)arg;
    if (m->kind == PLAIT_ONEWAY && m->len == 0) {
        check_segments();
        return;
    }
    wrong += !take(m, &h);
    if (m->kind == PLAIT_ONEWAY)
        return;
    fill(reply, m->len, h.sum);
    h = head_for(reply, m->len);
    out.hdr = &h;
    out.hdr_len = sizeof h;
    out.data = reply;
    out.len = m->len;
    if (plait_replyx(m, &out) < 0)
        tell("replies", false, plait_error_text());
}

static struct plait_session_opts session_opts(void)
{
    static const struct plait_session_ops session_ops = { .on_closed = on_closed };
    static const struct plait_conn_ops conn_ops = { .on_message = on_message };
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;

    o.session_ops = &session_ops;
    o.conn_ops = &conn_ops;
    o.max_msg = LONGEST;
    o.open_timeout_ms = o.linger_ms = 30000;
    return o;
}

static void serve(void)
{
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *l = NULL;

    o.session = session_opts();
    if (plait_listen(&l, ctx, "plait://127.0.0.1:0/", &o) < 0) {
        tell("listens", false, plait_error_text());
        return;
    }
    printf("%s\n", plait_listener_uri(l));
    fflush(stdout);
    tell("session_ended_in_time", plait_ctx_run(ctx, 2 * WAIT_US) == 1 && ended, "it did not");
    tell("requests_were_whole", wrong == 0, "their sums were wrong");
    plait_listener_close(l);
}

/* ---- the caller ---- */

struct answer {
    bool here;
    int status;
    bool whole;
    struct head head;
};

static void on_reply(struct plait_msg *m, int status, void *arg)
{
    struct answer *a = arg;

    a->here = true;
    a->status = status;
    a->whole = m && take(m, &a->head);
    plait_ctx_stop(ctx);
}

/* One request and its reply, of len bytes each. */
static bool ask(struct plait_conn *conn, char *data, size_t len, unsigned flags, struct answer *a)
{
    struct plait_out out = PLAIT_OUT_INIT;
    struct head h;

    *a = (struct answer){ 0 };
    fill(data, len, len + flags);
    h = head_for(data, len);
    out.hdr = &h;
    out.hdr_len = sizeof h;
    out.data = data;
    out.len = len;
    out.flags = flags;
    out.on_reply = on_reply;
    out.arg = a;
    if (plait_sendx(conn, &out) < 0)
        return tell("sends", false, plait_error_text());
    while (!a->here)
        if (plait_ctx_run(ctx, WAIT_US) != 1 && !a->here)
            return tell("is_answered", false, "no reply came in time");
    return a->status == 0 && a->whole;
}

static void transfers(struct plait_conn *conn)
{
    static const size_t sizes[] = { 0, 8, 4000, 65536, 300001, 1 << 20, LONGEST };
    char *plain = malloc(LONGEST), *shared = plait_mem_addr(mem), why[80] = "";
    struct answer a;

    for (size_t i = 0; plain && i < sizeof sizes / sizeof *sizes; i++)
        for (int k = 0; k < 4; k++)
            if (!ask(conn, k & 1 ? shared : plain, sizes[i], k & 2 ? PLAIT_NOCOPY : 0, &a))
                snprintf(why, sizeof why, "%zu bytes from %s memory: status %d, %s", sizes[i],
                         k & 1 ? "plait's" : "other", a.status, a.whole ? "whole" : "not whole");
    tell("messages_of_all_sizes", !*why, why);
    for (int k = 0; k < 20 && !*why; k++)
        if (!ask(conn, shared, 1 << 20, PLAIT_NOCOPY, &a))
            snprintf(why, sizeof why, "message %d: status %d, %s", k, a.status,
                     a.whole ? "whole" : "not whole");
    tell("20_messages_of_1_mib", !*why, why);
    free(plain);
}

static uint64_t own_shm(void)
{
    struct plait_ctx_stats st = { .size = sizeof st };

    plait_ctx_get_stats(ctx, &st);
    return st.shm_bytes;
}

/* Faster than the server reads, until the ring is replaced by a larger one; and on, to use that. */
static void burst(struct plait_conn *conn)
{
    struct plait_out out = PLAIT_OUT_INIT;
    uint64_t before = own_shm();
    int rc = 0, more = 500;
    char data[1000];
    struct head h;

    fill(data, sizeof data, 5);
    h = head_for(data, sizeof data);
    out.hdr = &h;
    out.hdr_len = sizeof h;
    out.data = data;
    out.len = sizeof data;
    for (int i = 0; rc == 0 && i < 100000 && more > 0; i++) {
        while ((rc = plait_sendx(conn, &out)) == PLAIT_E_AGAIN)
            plait_ctx_poll(ctx);
        more -= own_shm() > before;
    }
    tell("burst_of_messages_of_1000_bytes", rc == 0, plait_error_text());
    tell("ring_grows", more == 0, "it did not, in 100000 messages");
}

/* Without plait: what does the kernel say to it? */
static void read_memory(const struct head *server, bool allowed)
{
    static uint64_t got[512];
    struct iovec to = { got, sizeof got }, from = { (void *)(uintptr_t)server->addr, sizeof got };
    ssize_t n = process_vm_readv(server->pid, &to, 1, &from, 1, 0);
    int err = n < 0 ? errno : 0;

    if (allowed)
        tell("process_vm_readv_is_allowed", n == sizeof got && memcmp(got, pattern, sizeof got) == 0,
             strerror(err));
    else
        tell("process_vm_readv_is_refused", n < 0 && err == EPERM, n < 0 ? strerror(err) : "it is allowed");
}

static void call(const char *uri, bool allowed)
{
    struct plait_session_opts o = session_opts();
    struct plait_session *s = NULL;
    struct plait_conn *conn;
    struct answer a;
    char none = 0;

    if (plait_session_open(&s, ctx, uri, &o) < 0 || plait_session_wait(s, -1) < 0) {
        tell("session_opens", false, plait_error_text());
        plait_session_release(s);
        return;
    }
    conn = plait_session_conn(s, 0);
    if (tell("server_answers", ask(conn, &none, 0, 0, &a), "it does not"))
        read_memory(&a.head, allowed);
    transfers(conn);
    burst(conn);
    if (peer_node != plait_ctx_node(ctx)) {
        check_segments();
        tell("asks_server_to_look", plait_send(conn, NULL, 0, 0) == 0, plait_error_text());
    }
    plait_session_close(s);
    while (!ended && plait_ctx_run(ctx, WAIT_US) == 1)
        ;
    tell("session_ended_in_time", ended, "it did not");
    plait_session_release(s);
}

int main(int argc, char **argv)
{
    struct plait_ctx_opts o = PLAIT_CTX_OPTS_INIT;
    bool caller = argc == 6 && strcmp(argv[1], "call") == 0;

    if (!caller && !(argc == 4 && strcmp(argv[1], "serve") == 0)) {
        fprintf(stderr, "usage: see the comment in guest_peer.c\n");
        return 2;
    }
    self = argv[2];
    o.cpu = atoi(argv[3]);
    fill(pattern, sizeof pattern, 1); /* the same in both processes */
    if (plait_mem_alloc(&mem, LONGEST, NULL) < 0 || plait_ctx_create(&ctx, &o) < 0) {
        tell("starts", false, plait_error_text());
        return 1;
    }
    if (caller)
        call(argv[4], strcmp(argv[5], "allowed") == 0);
    else
        serve();
    print_stats();
    plait_ctx_destroy(ctx);
    plait_mem_release(mem);
    return guest_failed != 0;
}
