/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions that are shown, or exported, to a process without room for them: messages come by another way, an access says which limit it
 * was, and the session goes on. */
#include <sys/mman.h>
#include <sys/wait.h>
#include "test/unit/catch_log.h"
#include "test/unit/runtime/cgroup.h"
#include "test/unit/runtime/offer_util.h"
#include "test/unit/runtime/rma_util.h"
#include "util/memlimit.h"

TestSuite(fault_regions, .timeout = 120);

#define MIB (1024u * KIB)
#define LEN 20000u

static void check_bytes(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)c;
    if (log->user && msg->len == LEN)
        cr_assert(msg_has(msg, LEN, log->nheld++));
}

/* n messages out of the region arrive whole, none of them in place; then one more session's worth of small talk. */
static void send_and_check(struct world *w, struct log *cli, struct log *srv, struct plait_mem *mem, unsigned n)
{
    srv->user = srv;
    srv->nheld = 0;
    for (unsigned i = 0; i < n; i++) {
        struct outcome o = { 0 };
        struct plait_out out = nocopy(plait_mem_addr(mem), LEN, &o);

        fill_bytes(plait_mem_addr(mem), LEN, i);
        FAILS(plait_sendx(cli->conn[0], &out), 0);
        WAIT(w, o.n, 1);
        cr_assert_eq(o.status, 0, "%s", plait_status_name(o.status));
        WAIT(w, srv->nheld, i + 1);
    }
    cr_assert_eq(cli->c_closed + srv->c_closed, 0);
    srv->user = NULL;
}

/* ---- address space ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* Leaves room for so many bytes more. */
static void limit_space(struct rlimit *old, size_t more)
{
    unsigned long pages = 0;
    struct rlimit rl;
    FILE *f = fopen("/proc/self/statm", "re");

    cr_assert_eq(fscanf(f, "%lu", &pages), 1);
    fclose(f);
    cr_assert_eq(getrlimit(RLIMIT_AS, old), 0);
    rl = *old;
    rl.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + more;
    cr_assert_eq(setrlimit(RLIMIT_AS, &rl), 0);
}

/* Both sides are in this process: the region is there, and there is no space to map it once more. */
Test(fault_regions, no_address_space_for_what_is_shown)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(64 * MIB), *small = new_region(64 * KIB);
    struct rlimit old;
    struct log cli, *srv;
    uint64_t pushed;

    catch_log();
    w->on_msg = check_bytes;
    srv = open_session(w, &cli, NULL);
    pushed = ctx_stats(w->ctx[1]).long_pushed;
    limit_space(&old, 32 * MIB);
    send_and_check(w, &cli, srv, mem, 50);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_placed + ctx_stats(w->ctx[0]).offers_copied, 0);
    cr_assert_eq(ctx_stats(w->ctx[1]).long_pushed, pushed + 50);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    cr_assert_eq(ctx_stats(w->ctx[0]).regions_refused, 1);
    cr_assert_eq(count_in_log("ulimit -v"), 1, "the owner hears why, once");
    /* what fits is mapped all the same */
    make_known(w, 1, cli.conn[0], small);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 64 * KIB);
    cr_assert_eq(setrlimit(RLIMIT_AS, &old), 0);
    plait_mem_release(mem);
    mem = new_region(64 * MIB);
    make_known(w, 1, cli.conn[0], mem);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 64 * MIB + 64 * KIB);
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
    plait_mem_release(mem);
    plait_mem_release(small);
}

Test(fault_regions, no_address_space_for_what_is_exported)
{
    struct pair *p = new_pair(64 * KIB);
    struct plait_mem *mem = writable(64 * MIB);
    struct outcome o = { 0 }, gone = { 0 };
    struct plait_key key;
    struct rlimit old;
    char buf[64];

    FAILS(plait_put(p->user, &p->key, 0, "before", 6, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    limit_space(&old, 32 * MIB);
    FAILS(plait_mem_export(mem, p->owner, RW, &key), 0);
    FAILS(plait_put(p->user, &key, 0, "x", 1, on_done, &o), 0); /* it waits for the region, which does not come */
    WAIT(p->w, o.n, 1);
    cr_assert_eq(o.status, PLAIT_E_NOMEM, "%s", plait_status_name(o.status));
    SAYS(plait_get(p->user, &key, 0, buf, 1, NULL, NULL), PLAIT_E_NOMEM, "ulimit -v");
    SAYS(plait_atomic_add(p->user, &key, 0, 1, NULL, NULL, NULL), PLAIT_E_NOMEM, "67108864");
    SAYS(plait_atomic_add(p->user, &key, 0, 1, NULL, NULL, NULL), PLAIT_E_NOMEM, "'window'");
    cr_assert_eq(ctx_stats(p->w->ctx[1]).regions_refused, 1);
    cr_assert_eq(ctx_stats(p->w->ctx[1]).rma_failed, 4);
    /* the other region and the session are as before */
    FAILS(plait_put(p->user, &p->key, 0, "after!", 6, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    cr_assert_eq(memcmp(p->addr, "after!", 6), 0);
    FAILS(plait_mem_withdraw(&key, on_done, &gone), 0);
    WAIT(p->w, gone.n, 1);
    cr_assert_eq(gone.status, 0);
    cr_assert_eq(setrlimit(RLIMIT_AS, &old), 0);
    FAILS(plait_mem_export(mem, p->owner, RW, &key), 0);
    FAILS(plait_put(p->user, &key, 64 * MIB - 1, "x", 1, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    cr_assert_eq(((char *)plait_mem_addr(mem))[64 * MIB - 1], 'x');
    plait_mem_release(mem);
    end_pair(p);
}
#endif

/* ---- descriptors ---- */

Test(fault_regions, no_descriptor_for_what_is_shown)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(64 * KIB), *later = new_region(64 * KIB);
    struct log cli, *srv;
    struct rlimit rl;

    catch_log();
    w->on_msg = check_bytes;
    srv = open_session(w, &cli, NULL);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_assert_eq(limit_fds(0), 0);
    send_and_check(w, &cli, srv, mem, 50);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_placed, 0);
    cr_assert_eq(ctx_stats(w->ctx[0]).regions_refused, 1);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_assert_eq(count_in_log("ulimit -n"), 1, "the owner hears why, once");
    make_known(w, 1, cli.conn[0], later);
    send_and_check(w, &cli, srv, mem, 1); /* as before: it stays refused on this link */
    cr_assert_eq(ctx_stats(w->ctx[0]).regions_refused, 1);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 64 * KIB);
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
    plait_mem_release(mem);
    plait_mem_release(later);
}

/* There are two, of the region and of the page of keys: none fits, or one. */
Test(fault_regions, no_descriptors_for_what_is_exported)
{
    struct pair *p = new_pair(64 * KIB);
    struct outcome gone = { 0 };
    struct plait_key key;
    struct rlimit rl;
    char buf[8];
    int fds;

    cr_assert_eq(flush(p), 0);
    settle(p->w);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    fds = count_fds();
    for (unsigned more = 0; more < 2; more++) {
        cr_assert_eq(limit_fds((int)more), 0);
        FAILS(plait_mem_export(p->mem, p->owner, RW, &key), 0);
        settle(p->w);
        SAYS(plait_get(p->user, &key, 0, buf, 8, NULL, NULL), PLAIT_E_NOFILE, "ulimit -n");
        FAILS(plait_get(p->user, &p->key, 0, buf, 8, NULL, NULL), 0);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
        FAILS(plait_get(p->user, &key, 0, buf, 8, NULL, NULL), PLAIT_E_NOFILE);
        cr_assert_eq(count_fds(), fds);
        FAILS(plait_mem_withdraw(&key, on_done, &gone), 0);
        WAIT(p->w, gone.n, more + 1);
        cr_assert_eq(gone.status, 0);
    }
    cr_assert_eq(ctx_stats(p->w->ctx[1]).regions_refused, 2);
    FAILS(plait_mem_export(p->mem, p->owner, RW, &key), 0);
    settle(p->w);
    FAILS(plait_get(p->user, &key, 0, buf, 8, NULL, NULL), 0);
    end_pair(p);
}

/* The first export of all, whose page of keys is not there yet. */
Test(fault_regions, no_descriptor_for_the_first_export)
{
    struct pair *p = new_pair(64 * KIB);
    struct plait_key key;
    struct rlimit rl;
    char buf[8];

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_assert_eq(limit_fds(0), 0);
    settle(p->w);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
    SAYS(plait_get(p->user, &p->key, 0, buf, 8, NULL, NULL), PLAIT_E_NOFILE, "ulimit -n");
    SAYS(plait_atomic_add(p->user, &p->key, 0, 1, NULL, NULL, NULL), PLAIT_E_NOFILE, "'window'");
    FAILS(plait_mem_export(p->mem, p->owner, RW, &key), 0);
    settle(p->w);
    FAILS(plait_get(p->user, &key, 0, buf, 8, NULL, NULL), 0);
    end_pair(p);
}

/* ---- a memory cgroup ---- */

#define BIG ((size_t)512 * MIB) /* a little over 1 MiB of page tables */
#define ROOM (900u * KIB)        /* what is left in the cgroup: enough for everything else */

/* The process in the cgroup. It answers requests: "fill", "key" and a key, anything else. */
struct small_process {
    struct plait_ctx *ctx;
    unsigned good, bad;
    int filler;
    bool over;
    char answer[512];
};

static void fill_up(struct small_process *s)
{
    char path[512];
    uint64_t limit, room;
    off_t at = 0;

    s->filler = memfd_create("filler", MFD_CLOEXEC);
    while ((room = pli_memlimit_cgroup_room(&limit, path, sizeof path)) > ROOM && room < 64 * MIB) {
        off_t n = room - ROOM > MIB ? (off_t)(room - ROOM) / 2 & -65536 : 65536;

        if (fallocate(s->filler, 0, at, n) < 0)
            break;
        at += n;
    }
    snprintf(s->answer, sizeof s->answer, "%s", room <= ROOM ? "full" : "no limit");
}

static void use_key(struct small_process *s, struct plait_conn *c, const void *key)
{
    struct plait_key k;
    char byte;
    int rc;

    memcpy(&k, key, sizeof k);
    rc = plait_get(c, &k, 0, &byte, 1, NULL, NULL);
    snprintf(s->answer, sizeof s->answer, "%s: %s", plait_status_name(rc), rc < 0 ? plait_error_text() : "");
}

static void small_message(struct plait_conn *c, struct plait_msg *msg, void *arg)
{
    struct small_process *s = arg;
    struct plait_ctx_stats st = { .size = sizeof st };

    plait_ctx_get_stats(s->ctx, &st);
    if (msg->len == 4 && memcmp(msg->data, "fill", 4) == 0)
        fill_up(s);
    else if (msg->len == sizeof(struct plait_key))
        use_key(s, c, msg->data);
    else if (msg->len == 4 && memcmp(msg->data, "free", 4) == 0)
        close(s->filler);
    else if (msg->len == LEN)
        snprintf(s->answer, sizeof s->answer, "%s, %llu mapped", has_bytes(msg->data, LEN, 5) ? "good" : "bad",
                 (unsigned long long)st.mapped_bytes);
    plait_reply(msg, s->answer, strlen(s->answer) + 1, 0);
}

static void small_closed(struct plait_session *session, const struct plait_reason *why, void *arg)
{
    struct small_process *s = arg;

    (void)session;
    (void)why;
    s->over = true;
}

static void small_session(struct plait_session *s, const struct plait_session_request *req, void *arg)
{
    (void)req;
    (void)arg;
    plait_session_accept(s, NULL);
}

/* No assertions in here. */
static int be_small(const char *dir, int uri_fd)
{
    static const struct plait_session_ops session_ops = { .on_closed = small_closed };
    static const struct plait_conn_ops conn_ops = { .on_message = small_message };
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct small_process s = { .answer = "?" };
    struct plait_listener *l;
    char pid[16];

    snprintf(pid, sizeof pid, "%d", (int)getpid());
    if (write_file(dir, "cgroup.procs", pid) < 0)
        return 77;
    lo.on_session = small_session;
    lo.session.session_ops = &session_ops;
    lo.session.conn_ops = &conn_ops;
    lo.session.arg = &s;
    if (plait_ctx_create(&s.ctx, NULL) < 0 || plait_listen(&l, s.ctx, "plait://127.0.0.1:0", &lo) < 0)
        return 1;
    if (dprintf(uri_fd, "%s", plait_listener_uri(l)) < 0)
        return 2;
    close(uri_fd);
    while (!s.over)
        if (plait_ctx_run(s.ctx, 1000) < 0)
            return 3;
    return 0;
}

/* One request, and the text of the reply. */
static const char *ask_small(struct world *w, struct plait_conn *c, const void *data, size_t len, unsigned flags)
{
    static char text[512];
    struct outcome o = { .hold = true };
    struct plait_out out = PLAIT_OUT_INIT;

    out.data = data;
    out.len = len;
    out.flags = flags;
    out.on_reply = on_reply;
    out.arg = &o;
    FAILS(plait_sendx(c, &out), 0);
    WAIT(w, o.n, 1);
    cr_assert_eq(o.status, 0, "%s", plait_status_name(o.status));
    snprintf(text, sizeof text, "%s", (const char *)o.held->data);
    plait_msg_release(o.held);
    return text;
}

static void show_to_small(struct world *w, struct plait_conn *c)
{
    struct plait_mem *mem = new_region(BIG);
    struct plait_key key;
    const char *text;

    fill_bytes(plait_mem_addr(mem), LEN, 5);
    text = ask_small(w, c, "fill", 4, 0);
    if (strcmp(text, "full") != 0)
        cr_skip_test("the cgroup does not limit");
    for (int i = 0; i < 20; i++) {
        text = ask_small(w, c, plait_mem_addr(mem), LEN, PLAIT_NOCOPY);
        cr_assert_str_eq(text, "good, 0 mapped");
        settle(w);
    }
    cr_assert_eq(count_in_log("memory cgroup"), 1);
    FAILS(plait_mem_export(mem, c, PLAIT_ACCESS_READ, &key), 0);
    for (int i = 0; i < 1000 && count_in_log("is exported to") == 0; i++)
        settle(w); /* until it has answered */
    text = ask_small(w, c, &key, sizeof key, 0);
    cr_assert_not_null(strstr(text, "PLAIT_E_NOMEM"), "%s", text);
    cr_assert_not_null(strstr(text, "cgroup"), "%s", text);
    cr_assert_not_null(strstr(text, "67108864"), "%s", text);
    plait_mem_release(mem);
    /* with room again a new one is mapped */
    ask_small(w, c, "free", 4, 0);
    mem = new_region(BIG);
    fill_bytes(plait_mem_addr(mem), LEN, 5);
    for (int i = 0; i < 100 && !strstr(text, "good, 536870912 mapped"); i++) {
        settle(w);
        text = ask_small(w, c, plait_mem_addr(mem), LEN, PLAIT_NOCOPY);
    }
    cr_assert_str_eq(text, "good, 536870912 mapped");
    plait_mem_release(mem);
}

Test(fault_regions, a_memory_cgroup_without_room_for_page_tables)
{
    struct plait_mem *mem;
    struct world *w;
    struct log cli;
    char dir[512];
    int p[2], status;
    ssize_t n;
    pid_t pid;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("a sanitizer's own memory does not fit in the cgroup");
#endif
    if (plait_mem_alloc(&mem, BIG, NULL) < 0)
        cr_skip_test("there is not enough memory here: %s", plait_error_text());
    plait_mem_release(mem);
    if (make_cgroup(dir, sizeof dir) < 0)
        cr_skip_test("no memory cgroup can be made here");
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0)
        _exit(be_small(dir, p[1]));
    close(p[1]);
    catch_log();
    w = new_world();
    n = read(p[0], w->uri, sizeof w->uri - 1);
    close(p[0]);
    if (n > 0) {
        start_open(w, &cli, NULL);
        WAIT(w, cli.opened, 1);
        show_to_small(w, cli.conn[0]);
        end_session(w, &cli);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    for (uint64_t end = pli_clock_now() + 5 * PLI_NS_PER_S; rmdir(dir) < 0 && pli_clock_now() < end;)
        sched_yield();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        cr_skip_test("the cgroup cannot be used here");
    cr_assert(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "%d", WEXITSTATUS(status));
    end_world(w);
}
