/* SPDX-License-Identifier: BSD-3-Clause */
/* What the system refuses: descriptors, address space, file size, memory, other users, a topology that is not there. Each time the error
 * says what and which limit, nothing is left behind, and once the limit is gone everything works. */
#include <grp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "test/proc/session_util.h"
#include "test/unit/runtime/cgroup.h"
#include "test/unit/runtime/session_util.h"

TestSuite(fault_limits, .timeout = 120);

/* Until the links of both sides have left the cache, and only so many descriptors are left. */
static void until_idle(struct world *w, int fds)
{
    uint64_t end = pli_clock_now() + PATIENCE_NS;

    while ((ctx_stats(w->ctx[0]).links || ctx_stats(w->ctx[1]).links || count_fds() > fds) && pli_clock_now() < end)
        poll_all(w);
    cr_assert_leq(count_fds(), fds, "descriptors are left");
}

/* ---- descriptors ---- */

static void restore_fds(const struct rlimit *rl)
{
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, rl), 0);
}

Test(fault_limits, no_descriptors_at_the_client)
{
    struct world *w = new_world();
    struct rlimit rl;
    struct peer p;
    int fds, failed = 0, opened = 0;

    getrlimit(RLIMIT_NOFILE, &rl);
    peer_start(&p, "serve", "0", NULL);
    peer_line(&p, w->uri, sizeof w->uri);
    for (int more = 0; opened < 2 && more < 20; more++) {
        struct log cli;

        fds = count_fds();
        cr_assert_eq(limit_fds(more), 0);
        start_open(w, &cli, NULL);
        while (!cli.closed && !cli.opened)
            poll_all(w);
        restore_fds(&rl);
        if (cli.closed) {
            cr_assert_eq(cli.code, PLAIT_E_NOFILE, "with %d: %s %s", more, plait_status_name(cli.code), cli.text);
            cr_assert_not_null(strstr(cli.text, "limit"), "%s", cli.text);
            plait_session_release(cli.s);
            failed++;
        } else {
            opened++;
            end_session(w, &cli);
        }
        until_idle(w, fds); /* a link in the cache would need no descriptors the next time */
    }
    cr_assert_gt(failed, 0);
    cr_assert_gt(opened, 0);
    end_world(w);
    cr_assert_eq(peer_end(&p), 0);
}

Test(fault_limits, no_descriptors_at_the_server)
{
    struct world *w = listening_world();
    struct rlimit rl;
    struct peer p[12];

    getrlimit(RLIMIT_NOFILE, &rl);
    for (int more = 0; more < 12; more++) {
        unsigned asked = w->nsrv;
        uint64_t end = pli_clock_now() + PATIENCE_NS;
        int fds, status;
        pid_t ended = 0;

        peer_start(&p[more], "idle", w->uri, NULL);
        fds = count_fds();
        cr_assert_eq(limit_fds(more), 0);
        for (int i = 0; i < 3000 && !ended && (w->nsrv == asked || !w->srv[asked].c_opened); i++) {
            plait_ctx_run(w->ctx[0], 100);
            ended = waitpid(p[more].pid, &status, WNOHANG);
        }
        restore_fds(&rl);
        /* who was refused has ended; who was kept waiting comes in now */
        while (!ended && (w->nsrv == asked || !w->srv[asked].c_opened) && pli_clock_now() < end) {
            poll_all(w);
            ended = waitpid(p[more].pid, &status, WNOHANG);
        }
        if (!ended) {
            cr_assert_eq(w->srv[asked].c_opened, 1, "with %d descriptors", more);
            kill(p[more].pid, SIGKILL);
            WAIT(w, w->srv[asked].closed, 1);
        } else {
            cr_assert_neq(status, 0);
        }
        if (!ended)
            waitpid(p[more].pid, &status, 0);
        for (end = pli_clock_now() + PATIENCE_NS; (count_fds() > fds || ctx_stats(w->ctx[0]).links) && pli_clock_now() < end;)
            poll_all(w);
        cr_assert_eq(count_fds(), fds, "with %d: descriptors are left", more);
        close(p[more].in);
        close(p[more].out);
    }
    end_world(w);
}

/* ---- memory ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static size_t address_space(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    cr_assert_eq(fscanf(f, "%lu", &pages), 1);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

Test(fault_limits, no_address_space_for_a_ring)
{
    struct world *w = listening_world();
    struct rlimit old, rl;
    int failed = 0, fds;

    getrlimit(RLIMIT_AS, &old);
    { /* what is allocated once: stacks of threads, arenas */
        struct log cli;

        open_session(w, &cli, NULL);
        end_session(w, &cli);
        until_idle(w, 1000);
    }
    fds = count_fds();
    for (int more = 0; more < 40 && failed < 3; more += 4) {
        struct log cli;

        /* the helper thread is there already or not: it may need address space first, and fail itself */
        start_open(w, &cli, NULL);
        rl = old;
        rl.rlim_cur = address_space() + (size_t)more * 1024;
        setrlimit(RLIMIT_AS, &rl);
        while (!cli.closed && !cli.opened)
            poll_all(w);
        setrlimit(RLIMIT_AS, &old);
        if (cli.closed) {
            cr_assert(cli.code == PLAIT_E_NOMEM, "%s %s", plait_status_name(cli.code), cli.text);
            failed += strstr(cli.text, "ulimit -v") != NULL;
            plait_session_release(cli.s);
        } else {
            end_session(w, &cli);
        }
        until_idle(w, fds);
    }
    cr_assert_gt(failed, 0, "no error named the limit");
    end_world(w);
}
#endif

Test(fault_limits, a_file_size_limit)
{
    struct world *w = listening_world();
    struct rlimit old, rl;
    struct log cli;

    getrlimit(RLIMIT_FSIZE, &old);
    rl = old;
    rl.rlim_cur = 4096;
    setrlimit(RLIMIT_FSIZE, &rl);
    start_open(w, &cli, NULL);
    WAIT(w, cli.closed, 1);
    setrlimit(RLIMIT_FSIZE, &old);
    cr_assert(cli.code == PLAIT_E_NOMEM || cli.code == PLAIT_E_NOTRANSPORT, "%s %s", plait_status_name(cli.code), cli.text);
    cr_assert_not_null(strstr(cli.text, "ulimit -f"), "%s", cli.text);
    plait_session_release(cli.s);
    open_session(w, &cli, NULL);
    end_session(w, &cli);
    end_world(w);
}

/* A limit that leaves room for the first ring, not for a larger one: the link stays as it is. */
Test(fault_limits, no_memory_to_grow)
{
    struct world *w = listening_world();
    struct rlimit old, rl;
    struct log cli, *srv = open_session(w, &cli, NULL);
    unsigned n = 0;

    getrlimit(RLIMIT_FSIZE, &old);
    rl = old;
    rl.rlim_cur = 65536;
    setrlimit(RLIMIT_FSIZE, &rl);
    while (n < 50000) {
        int rc = plait_send(cli.conn[0], "12345678", 8, 0);

        if (rc == PLAIT_E_AGAIN)
            poll_all(w);
        else
            n += rc == 0;
    }
    setrlimit(RLIMIT_FSIZE, &old);
    WAIT(w, srv->msgs, n);
    cr_assert_leq(ctx_stats(w->ctx[1]).shm_bytes, 64 * 1024);
    end_session(w, &cli);
    end_world(w);
}

/* Opens links until there is no memory. No assertions in here. 0: the error was as it should be. */
static int fill_cgroup(const char *dir, char *text, size_t cap)
{
    char pid[16];
    struct plait_ctx *server, *ctx[4000];
    struct plait_listener *l;
    struct plait_session *s;
    int rc = 0, n;

    snprintf(pid, sizeof pid, "%d", (int)getpid());
    if (write_file(dir, "cgroup.procs", pid) < 0)
        return 77;
    if (plait_ctx_create(&server, NULL) < 0 || plait_listen(&l, server, "plait://127.0.0.1:0", NULL) < 0)
        return 1;
    /* take most of it: every further link is small */
    n = memfd_create("filler", MFD_CLOEXEC);
    if (fallocate(n, 0, 0, 52 * 1024 * 1024) < 0)
        return 77;
    for (n = 0; n < 4000 && rc == 0; n++) {
        struct plait_ctx_opts co = PLAIT_CTX_OPTS_INIT;

        co.spin_us = 0;
        if (plait_ctx_create(&ctx[n], &co) < 0)
            return 2;
        rc = plait_session_open(&s, ctx[n], plait_listener_uri(l), NULL);
        while (rc == 0 && (rc = plait_session_wait(s, 0)) == PLAIT_E_TIMEDOUT)
            rc = plait_ctx_poll(server) < 0;
    }
    snprintf(text, cap, "%s: %s", plait_status_name(rc), plait_error_text());
    return rc == PLAIT_E_NOMEM || rc == PLAIT_E_NOTRANSPORT ? 0 : 3;
}

Test(fault_limits, a_memory_cgroup)
{
    char *text = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), dir[512];
    struct rlimit rl;
    int status;
    pid_t pid;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("a sanitizer's own memory does not fit in the cgroup");
#endif
    if (make_cgroup(dir, sizeof dir) < 0)
        cr_skip_test("no memory cgroup can be made here");
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    pid = fork();
    if (pid == 0)
        _exit(fill_cgroup(dir, text, 4096));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    for (uint64_t end = pli_clock_now() + 5 * PLI_NS_PER_S; rmdir(dir) < 0 && pli_clock_now() < end;)
        sched_yield();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        cr_skip_test("the cgroup cannot be used here");
    cr_assert(WIFEXITED(status), "killed by signal %d: %s", WTERMSIG(status), text);
    cr_assert_eq(WEXITSTATUS(status), 0, "%d: %s", WEXITSTATUS(status), text);
    cr_assert_not_null(strstr(text, "cgroup"), "%s", text);
    cr_assert_not_null(strstr(text, "67108864"), "%s", text);
}

/* ---- other users ---- */

enum { STRANGER = 65534 };

/* A client of another user, forked before anything else; gets the URI through a pipe, and exits with minus its code. */
static pid_t start_stranger(int *to)
{
    int p[2];
    pid_t pid;

    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        struct plait_session *s;
        struct plait_ctx *ctx;
        char uri[256] = "";
        int rc;

        close(p[1]);
        if (setgroups(0, NULL) < 0 || setresgid(STRANGER, STRANGER, STRANGER) < 0 || setresuid(STRANGER, STRANGER, STRANGER) < 0 ||
            read(p[0], uri, sizeof uri - 1) <= 0 || plait_ctx_create(&ctx, NULL) < 0 || plait_session_open(&s, ctx, uri, NULL) < 0)
            _exit(200);
        rc = plait_session_wait(s, -1);
        if (rc == PLAIT_E_PERM && !strstr(plait_error_text(), "65534"))
            _exit(201);
        plait_session_release(s);
        plait_ctx_destroy(ctx);
        _exit(rc == 0 ? 0 : rc == PLAIT_E_PERM ? 1 : 2);
    }
    close(p[0]);
    *to = p[1];
    return pid;
}

Test(fault_limits, another_user)
{
    static const uid_t list[] = { 4711, STRANGER };
    struct plait_listen_opts opts[3] = { PLAIT_LISTEN_OPTS_INIT, PLAIT_LISTEN_OPTS_INIT, PLAIT_LISTEN_OPTS_INIT };
    pid_t pid[3];
    int to[3];

#ifdef __SANITIZE_THREAD__
    cr_skip_test("ThreadSanitizer allows no threads after a fork");
#endif
    if (geteuid() != 0)
        cr_skip_test("only root can become another user");
    opts[1].uids = list;
    opts[1].nuids = 2;
    opts[2].any_uid = 1;
    for (int i = 0; i < 3; i++)
        pid[i] = start_stranger(&to[i]);
    for (int i = 0; i < 3; i++) {
        struct world *w = new_world();
        pid_t ended = 0;
        int status = 0;

        world_listen(w, &opts[i]);
        cr_assert_gt(write(to[i], w->uri, strlen(w->uri)), 0);
        close(to[i]);
        for (uint64_t end = pli_clock_now() + PATIENCE_NS; !ended && pli_clock_now() < end;) {
            poll_all(w);
            ended = waitpid(pid[i], &status, WNOHANG);
        }
        cr_assert_eq(ended, pid[i]);
        cr_assert(WIFEXITED(status));
        cr_assert_eq(WEXITSTATUS(status), i == 0 ? 1 : 0, "%d: exit status %d", i, WEXITSTATUS(status));
        cr_assert_eq(w->nsrv, i == 0 ? 0 : 1);
        if (i > 0) {
            cr_assert_eq(w->req.uid, STRANGER);
            cr_assert_eq(w->req.gid, STRANGER);
            cr_assert_eq(w->req.pid, pid[i]);
            WAIT(w, w->srv[0].closed, 1);
        }
        end_world(w);
    }
}

/* ---- the topology ---- */

Test(fault_limits, a_topology_file_that_does_not_exist)
{
    struct plait_ctx_opts o = PLAIT_CTX_OPTS_INIT;
    struct plait_ctx *ctx;
    struct world *w;
    struct log cli;

    setenv("HWLOC_XMLFILE", "/nonexistent/machine.xml", 1);
    o.cpu = PLAIT_CPU_AUTO;
    FAILS(plait_ctx_create(&ctx, &o), PLAIT_E_TOPOLOGY);
    cr_assert_not_null(strstr(plait_error_text(), "/nonexistent/machine.xml"), "%s", plait_error_text());
    /* who does not ask for a place does not need it */
    w = listening_world();
    open_session(w, &cli, NULL);
    end_session(w, &cli);
    end_world(w);
}

Test(fault_limits, a_port_in_use)
{
    struct world *w = listening_world();
    struct plait_listener *l;
    int fds = count_fds();

    FAILS(plait_listen(&l, w->ctx[0], w->uri, NULL), PLAIT_E_ADDRINUSE);
    cr_assert_not_null(strstr(plait_error_text(), "in use"), "%s", plait_error_text());
    cr_assert_not_null(strstr(plait_error_text(), "choose another port"), "%s", plait_error_text());
    cr_assert_eq(count_fds(), fds);
    end_world(w);
}
