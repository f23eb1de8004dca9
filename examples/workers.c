/* SPDX-License-Identifier: BSD-3-Clause */
/* A server with one worker per core, and a client that spreads its work over several connections.
 * Usage: workers                 both, in two processes
 *        workers server [URI]    until SIGINT or SIGTERM
 *        workers client URI
 * The server's workers are the portals of every session: its connections are spread over them. The client
 * opens one connection on each of its own workers. Every callback runs on its connection's worker. */
#include <plait/plait.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUESTS 20000 /* on each connection */
#define IN_FLIGHT 32
#define CONNS_MAX 64

static void check(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "workers: %s: %s\n", what, plait_error_text());
        exit(1);
    }
}

/* One worker for each core, at most CONNS_MAX. */
static struct plait_team *start_team(struct plait_ctx **ctxs, unsigned *count)
{
    struct plait_team_opts opts = PLAIT_TEAM_OPTS_INIT;
    struct plait_team *team;

    check(plait_team_create(&team, &opts), "plait_team_create");
    for (*count = 0; *count < plait_team_size(team) && *count < CONNS_MAX; ++*count)
        ctxs[*count] = plait_team_ctx(team, *count);
    return team;
}

/* ---- server ---- */

struct answer {
    uint64_t square;
    int cpu; /* the worker's */
};

static void on_request(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct answer answer = { .cpu = plait_ctx_cpu(plait_conn_ctx(conn)) };
    uint64_t n;

    (void)arg;
    if (msg->kind != PLAIT_REQUEST || msg->len != sizeof n)
        return; /* a request without a reply is answered with an error */
    memcpy(&n, msg->data, sizeof n);
    answer.square = n * n;
    if (plait_reply(msg, &answer, sizeof answer, 0) < 0)
        fprintf(stderr, "workers: plait_reply: %s\n", plait_error_text());
}

static void on_signal(int fd, uint32_t events, void *ctx)
{
    (void)fd, (void)events;
    plait_ctx_stop(ctx);
}

static int server(const char *uri, int announce_fd)
{
    static const struct plait_conn_ops ops = { .on_message = on_request };
    struct plait_listen_opts opts = PLAIT_LISTEN_OPTS_INIT;
    struct plait_ctx *lead, *ctxs[CONNS_MAX];
    struct plait_listener *listener;
    struct plait_watch *watch;
    struct plait_team *team;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before there are threads, which inherit it */
    check(plait_ctx_create(&lead, NULL), "plait_ctx_create");
    check(plait_watch_create(&watch, lead, signalfd(-1, &set, 0), EPOLLIN, on_signal, lead), "signalfd");
    team = start_team(ctxs, &opts.session.nctxs);
    opts.session.ctxs = ctxs;
    opts.session.conn_ops = &ops;
    check(plait_listen(&listener, lead, uri, &opts), "plait_listen");
    dprintf(announce_fd, "%u workers, listening on %s\n", opts.session.nctxs, plait_listener_uri(listener));
    check(plait_ctx_run(lead, -1), "plait_ctx_run"); /* the workers run by themselves */
    plait_listener_close(listener);
    check(plait_team_destroy(team), "plait_team_destroy");
    check(plait_ctx_destroy(lead), "plait_ctx_destroy");
    return 0;
}

/* ---- client ---- */

struct job {
    struct plait_ctx *lead;
    atomic_uint busy; /* connections that have work to do */
    int failed;
};

/* One connection's part; only its worker touches it, until the part is done. */
struct part {
    struct plait_conn *conn;
    struct job *job;
    uint64_t asked, answered;
    int cpu, server_cpu;
    int wrong;
};

static struct part parts[CONNS_MAX];

static void ask(struct part *part);

static void on_reply(struct plait_msg *reply, int status, void *arg)
{
    struct part *part = arg;
    struct answer answer;
    uint64_t n = part->answered; /* this server replies in the order of the requests */

    if (status < 0)
        return; /* the connection has ended: on_closed tells why */
    part->answered++;
    if (reply->len == sizeof answer) {
        memcpy(&answer, reply->data, sizeof answer);
        part->wrong += answer.square != n * n;
        part->server_cpu = answer.cpu;
    } else {
        part->wrong++;
    }
    if (part->answered == REQUESTS) {
        if (atomic_fetch_sub(&part->job->busy, 1) == 1)
            plait_ctx_stop(part->job->lead); /* from any thread */
    } else {
        ask(part);
    }
}

static void ask(struct part *part)
{
    uint64_t n = part->asked;

    if (n == REQUESTS)
        return;
    /* IN_FLIGHT is less than the window, so there is always room */
    check(plait_request(part->conn, &n, sizeof n, 0, on_reply, part), "plait_request");
    part->asked++;
}

static void on_open(struct plait_conn *conn, void *arg)
{
    struct part *part = &parts[plait_conn_index(conn)];

    part->conn = conn;
    part->job = arg;
    part->cpu = plait_ctx_cpu(plait_conn_ctx(conn));
    for (int i = 0; i < IN_FLIGHT; i++)
        ask(part);
}

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct job *job = arg;

    (void)s;
    job->failed = why->code < 0;
    if (job->failed)
        fprintf(stderr, "workers: the session has ended: %s\n", why->text);
    atomic_store(&job->busy, 0);
    plait_ctx_stop(job->lead);
}

static int client(const char *uri)
{
    static const struct plait_conn_ops conn_ops = { .on_open = on_open };
    static const struct plait_session_ops session_ops = { .on_closed = on_closed };
    struct plait_session_opts opts = PLAIT_SESSION_OPTS_INIT;
    struct plait_ctx *ctxs[CONNS_MAX];
    struct plait_session *s;
    struct plait_team *team;
    struct job job = { .failed = 0 };

    check(plait_ctx_create(&job.lead, NULL), "plait_ctx_create");
    team = start_team(ctxs, &opts.nctxs);
    atomic_init(&job.busy, opts.nctxs);
    opts.ctxs = ctxs;
    opts.conn_ops = &conn_ops;
    opts.session_ops = &session_ops;
    opts.arg = &job;
    check(plait_session_open(&s, job.lead, uri, &opts), "plait_session_open");
    while (atomic_load(&job.busy) > 0)
        check(plait_ctx_run(job.lead, -1), "plait_ctx_run");
    for (unsigned i = 0; i < opts.nctxs && !job.failed; i++) {
        printf("connection %u, CPU %d to CPU %d: %llu replies\n", i, parts[i].cpu, parts[i].server_cpu,
               (unsigned long long)parts[i].answered);
        job.failed |= parts[i].wrong > 0;
    }
    if (plait_session_close(s) == 0) /* else it has ended already */
        check(plait_ctx_run(job.lead, -1), "plait_ctx_run"); /* until on_closed */
    plait_session_release(s);
    check(plait_team_destroy(team), "plait_team_destroy");
    check(plait_ctx_destroy(job.lead), "plait_ctx_destroy");
    return job.failed;
}

/* ---- both: the client is told the server's URI through a pipe ---- */

static int both(void)
{
    char line[512], *uri;
    int p[2], status, rc;
    FILE *from_server;
    pid_t pid;

    if (pipe(p) < 0 || (pid = fork()) < 0) { /* before there are contexts: they belong to one process */
        perror("workers");
        return 1;
    }
    if (pid == 0) {
        close(p[0]);
        exit(server("plait://127.0.0.1/workers", p[1]));
    }
    close(p[1]);
    from_server = fdopen(p[0], "r");
    if (!from_server || !fgets(line, sizeof line, from_server) || !(uri = strstr(line, "plait://"))) {
        fprintf(stderr, "workers: the server did not start\n");
        return 1;
    }
    printf("%s", line);
    line[strcspn(line, "\n")] = '\0';
    rc = client(uri);
    kill(pid, SIGTERM);
    if (waitpid(pid, &status, 0) < 0 || status != 0)
        rc = 1;
    fclose(from_server);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc == 1)
        return both();
    if (argc <= 3 && strcmp(argv[1], "server") == 0)
        return server(argc > 2 ? argv[2] : "plait://127.0.0.1/workers", STDOUT_FILENO);
    if (argc == 3 && strcmp(argv[1], "client") == 0)
        return client(argv[2]);
    fprintf(stderr, "usage: workers [server [URI] | client URI]\n");
    return 2;
}
