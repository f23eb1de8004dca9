/* SPDX-License-Identifier: BSD-3-Clause */
/* One rank of a job on several nodes, for netns.sh: netns_prog SIZE LAUNCHER ADDRESSES [apart].
 * It checks what plait_job_* tell, connects to every rank, and says where it is: "rank 2 on n2 at 10.77.0.2 is
 * with 2 3". ADDRESSES: what the address of every rank begins with. Ranks share a node if their host names are
 * the same; apart: the launcher takes all for neighbours, and only the names tell who shares memory. */
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RANKS_MAX 64
#define PATIENCE_MS 60000 /* the ranks of all nodes share the cores of one machine, which may have other work */

struct rank {
    struct plait_ctx *ctx;
    int accepted, closed;
};

struct host {
    char name[64];
};

static int own_rank;
static struct host hosts[RANKS_MAX];

static void ok(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "netns_prog: rank %d: wrong: %s (last error: %s)\n", own_rank, what,
                plait_error_text());
        exit(1);
    }
}

/* As in job_prog.c: the asked rank times 1000, plus the one that asks. */
static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    int answer = own_rank * 1000 + *(const int *)msg->data;

    (void)arg;
    ok(*(const int *)msg->data == plait_session_peer_rank(plait_conn_session(conn)), "the rank of the peer");
    ok(plait_reply(msg, &answer, sizeof answer, 0) == 0, "plait_reply");
}

static void on_open(struct plait_conn *conn, void *arg)
{
    (void)conn;
    ((struct rank *)arg)->accepted++;
}

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct rank *r = arg;

    (void)s, (void)why;
    r->closed++;
    plait_ctx_stop(r->ctx);
}

static int has_transport(const char *name)
{
    struct plait_transport_info t;

    for (unsigned i = 0; plait_transport_info(i, &t) == 0; i++)
        if (strcmp(t.name, name) == 0)
            return t.available;
    return 0;
}

static int is_near(int rank)
{
    return strcmp(hosts[rank].name, hosts[own_rank].name) == 0;
}

/* The address in "plait://10.77.0.2:4711" or "plait://[fd77::2]:4711". */
static void get_address(const char *uri, char *addr, size_t len)
{
    const char *begin = uri + strlen("plait://"), *end;

    begin += *begin == '[';
    end = begin[-1] == '[' ? strchr(begin, ']') : strchr(begin, ':');
    ok(end && (size_t)(end - begin) < len, "the address in the URI");
    memcpy(addr, begin, (size_t)(end - begin));
    addr[end - begin] = '\0';
}

static void check_nodes(struct plait_job *job, int size, int apart)
{
    struct host mine;
    int near = 0;

    memset(&mine, 0, sizeof mine);
    ok(gethostname(mine.name, sizeof mine.name - 1) == 0, "gethostname");
    for (int i = 0; i < 3; i++)
        ok(plait_job_barrier(job) == 0, "plait_job_barrier");
    ok(plait_job_allgather(job, &mine, sizeof mine, hosts) == 0, "plait_job_allgather");
    for (int i = 0; i < size; i++) {
        if (i == own_rank)
            ok(plait_job_local_rank(job) == near, "plait_job_local_rank");
        ok(plait_job_is_local(job, i) == (apart || is_near(i)), "plait_job_is_local");
        near += plait_job_is_local(job, i);
    }
    ok(plait_job_local_size(job) == near, "plait_job_local_size");
}

static void check_call(struct plait_session *s, int rank, const char *transport)
{
    struct plait_conn_info info = { .size = sizeof info };
    struct plait_conn *c = plait_session_conn(s, 0);
    struct plait_msg *reply;

    ok(plait_conn_get_info(c, &info) == 0 && strcmp(info.transport, transport) == 0, "the transport");
    ok(plait_call(c, &own_rank, sizeof own_rank, &reply, -1) == 0, "plait_call");
    ok(*(const int *)reply->data == rank * 1000 + own_rank, "the right rank has answered");
    plait_msg_release(reply);
}

/* Without a transport between hosts: the text says which rank that is, and where. */
static void check_refused(struct plait_session *s, int rank)
{
    char words[160], addr[64];

    ok(plait_session_wait(s, -1) == PLAIT_E_NOTRANSPORT, "no transport serves both sides");
    get_address(plait_session_uri(s), addr, sizeof addr);
    snprintf(words, sizeof words, "rank %d on %.30s, %s:", rank, hosts[rank].name, addr);
    ok(strstr(plait_error_text(), words) != NULL, words);
    ok(strstr(plait_error_text(), "another host") != NULL, "the text says why");
}

static void check_connect(struct plait_job *job, struct rank *r, int size, const char *addresses)
{
    static const struct plait_session_ops ops = { .on_closed = on_closed };
    struct plait_session_opts opts = PLAIT_SESSION_OPTS_INIT;
    struct plait_session *s[RANKS_MAX];
    int far = has_transport("ofi"), reachable = 0;
    char addr[64];

    opts.session_ops = &ops;
    opts.arg = r;
    opts.open_timeout_ms = PATIENCE_MS;
    for (int i = 0; i < size; i++) {
        ok(plait_job_connect(job, i, &opts, &s[i]) == 0, "plait_job_connect");
        get_address(plait_session_uri(s[i]), addr, sizeof addr);
        ok(strncmp(addr, addresses, strlen(addresses)) == 0, addr);
    }
    for (int i = 0; i < size; i++) {
        if (!far && !is_near(i)) {
            check_refused(s[i], i);
            continue;
        }
        ok(plait_session_wait(s[i], -1) == 0, "plait_session_wait");
        check_call(s[i], i, is_near(i) ? "shm" : "ofi");
        reachable++;
    }
    for (int i = 0; i < size; i++)
        if (far || is_near(i))
            ok(plait_session_close(s[i]) == 0, "plait_session_close");
    while (r->closed < size + reachable) /* the own ones, failed or not, and those of others to this one */
        ok(plait_ctx_run(r->ctx, -1) >= 0, "plait_ctx_run");
    ok(r->accepted == reachable, "who could, has connected to this one");
    for (int i = 0; i < size; i++)
        plait_session_release(s[i]);
}

/* In one piece: several ranks write to one pipe. */
static void tell(struct plait_job *job, int size, const char *addr)
{
    char line[1024];
    int n = snprintf(line, sizeof line, "rank %d on %s at %s is with", own_rank, hosts[own_rank].name, addr);

    for (int i = 0; i < size; i++)
        if (plait_job_is_local(job, i))
            n += snprintf(line + n, sizeof line - (size_t)n, " %d", i);
    line[n++] = '\n';
    ok(write(STDOUT_FILENO, line, (size_t)n) == n, "write");
}

static void own_address(struct plait_job *job, struct rank *r, char *addr, size_t len)
{
    static const struct plait_session_ops ops = { .on_closed = on_closed };
    struct plait_session_opts opts = PLAIT_SESSION_OPTS_INIT;
    struct plait_session *s;

    opts.session_ops = &ops;
    opts.arg = r;
    opts.open_timeout_ms = PATIENCE_MS;
    ok(plait_job_connect(job, own_rank, &opts, &s) == 0, "a session to itself");
    ok(plait_session_wait(s, -1) == 0, "and it opens");
    get_address(plait_session_uri(s), addr, len);
    ok(plait_session_close(s) == 0, "plait_session_close");
    while (r->closed < 2)
        ok(plait_ctx_run(r->ctx, -1) >= 0, "plait_ctx_run");
    plait_session_release(s);
    r->accepted = r->closed = 0;
}

int main(int argc, char **argv)
{
    static const struct plait_conn_ops conn_ops = { .on_open = on_open, .on_message = on_message };
    static const struct plait_session_ops session_ops = { .on_closed = on_closed };
    struct plait_job_opts opts = PLAIT_JOB_OPTS_INIT;
    struct rank r = { .accepted = 0 };
    int size = argc > 1 ? atoi(argv[1]) : 0;
    struct plait_job *job;
    char addr[64];

    ok(argc >= 4 && size > 0 && size <= RANKS_MAX, "usage: netns_prog SIZE LAUNCHER ADDRESSES [apart]");
    opts.session.conn_ops = &conn_ops;
    opts.session.session_ops = &session_ops;
    opts.session.arg = &r;
    ok(plait_job_open(&job, &r.ctx, &opts) == 0, "plait_job_open");
    own_rank = plait_job_rank(job);
    ok(plait_job_size(job) == size && own_rank >= 0 && own_rank < size, "rank and size");
    ok(strcmp(plait_job_launcher(job), argv[2]) == 0, "the launcher");
    own_address(job, &r, addr, sizeof addr);
    check_nodes(job, size, argc > 4); /* with barriers: nobody connects to one that is still alone */
    check_connect(job, &r, size, argv[3]);
    ok(plait_job_barrier(job) == 0, "the last barrier");
    tell(job, size, addr);
    ok(plait_job_close(job) == 0, "plait_job_close");
    ok(plait_ctx_destroy(r.ctx) == 0, "plait_ctx_destroy");
    return 0;
}
