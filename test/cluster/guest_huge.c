/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs as root in a guest with one page of 1 GiB: it is taken, a peer maps it, and once it is in use the next region has normal pages. */
#include <plait/plait.h>
#include <stdlib.h>
#include "test/cluster/guest_util.h"

#define GIB ((size_t)1 << 30)
#define LEN ((size_t)1 << 20)
#define WAIT_US 60000000

static struct plait_ctx *ctx;
static unsigned in_place;
static int done_status = 1, rma_status = 1;

static struct plait_mem *get(size_t len, struct plait_mem_info *info)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem *m = NULL;

    *info = (struct plait_mem_info)PLAIT_MEM_INFO_INIT;
    o.node = 0;
    o.page_size = PLAIT_MEM_PAGE_1G;
    o.flags = PLAIT_MEM_WRITABLE * (len > LEN);
    if (plait_mem_alloc(&m, len, &o) < 0)
        printf("plait_mem_alloc: %s\n", plait_error_text());
    else if (plait_mem_get_info(m, info) < 0)
        printf("plait_mem_get_info: %s\n", plait_error_text());
    return m;
}

static long pages(const char *file)
{
    char path[128];
    long n = -1;
    FILE *f;

    snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-1048576kB/%s", file);
    f = fopen(path, "re");
    if (!f)
        return -1;
    if (fscanf(f, "%ld", &n) != 1)
        n = -1;
    fclose(f);
    return n;
}

static void taken(const struct plait_mem *m, const struct plait_mem_info *info, size_t len)
{
    volatile char *p = info->addr;

    verdict("guest_huge::a_page_of_1_gib", m && info->page_size == GIB && info->page_size_asked == GIB && info->reserved == GIB &&
            info->len == len, "page size %zu, reserved %zu", info->page_size, info->reserved);
    verdict("guest_huge::it_is_the_systems_only_one", pages("nr_hugepages") == 1 && pages("free_hugepages") == 0, "%ld of %ld are free",
            pages("free_hugepages"), pages("nr_hugepages"));
    if (!m)
        return;
    verdict("guest_huge::it_is_verified", info->node_verified, "node %d", info->node);
    p[0] = p[info->reserved - 1] = 1;
    verdict("guest_huge::it_is_on_the_node", page_node(info->addr) == 0 && page_node((char *)info->addr + GIB / 2) == 0, "node %d",
            page_node(info->addr));
}

/* ---- a session of the context with itself ---- */

static void on_session(struct plait_session *s, const struct plait_session_request *req, void *arg)
{
    (void)req;
    (void)arg;
    plait_session_accept(s, NULL);
}

static void on_message(struct plait_conn *c, struct plait_msg *msg, void *arg)
{
    const char *p = msg->data;
    struct plait_ctx_stats st = { .size = sizeof st };

    (void)c;
    (void)arg;
    plait_ctx_get_stats(ctx, &st);
    in_place += st.offers_placed > 0 && st.mapped_bytes == GIB && msg->len == LEN && p && p[0] == 'a' && p[LEN - 1] == 'z';
}

static void on_done(int status, void *arg)
{
    *(int *)arg = status;
    plait_ctx_stop(ctx);
}

/* The first messages come before the region is mapped. */
static void send_from(struct plait_conn *conn, const struct plait_mem_info *info)
{
    char *p = info->addr;
    struct plait_ctx_stats st = { .size = sizeof st };
    struct plait_out out = PLAIT_OUT_INIT;

    p[0] = 'a';
    p[LEN - 1] = 'z';
    out.flags = PLAIT_NOCOPY;
    out.data = p;
    out.len = LEN;
    out.on_done = on_done;
    out.arg = &done_status;
    for (int i = 0; i < 50 && in_place == 0; i++) {
        done_status = 1;
        if (plait_sendx(conn, &out) < 0 || plait_ctx_run(ctx, WAIT_US) < 0 || done_status)
            break;
    }
    plait_ctx_get_stats(ctx, &st);
    verdict("guest_huge::a_peer_maps_it", in_place && st.offers_placed > 0, "status %d, %llu bytes mapped, %llu messages in place, %s", done_status,
            (unsigned long long)st.mapped_bytes, (unsigned long long)st.offers_placed, plait_error_text());
}

static void export_it(struct plait_session *s, struct plait_mem *m)
{
    struct plait_conn *conn = plait_session_conn(s, 0);
    struct plait_key key;
    int rc = plait_mem_export(m, conn, PLAIT_ACCESS_READ | PLAIT_ACCESS_WRITE, &key);

    verdict("guest_huge::it_is_exported", rc == 0, "%s", plait_error_text());
    if (rc == 0)
        rc = plait_mem_withdraw(&key, on_done, &rma_status);
    while (rc == 0 && rma_status == 1 && plait_ctx_run(ctx, WAIT_US) >= 0)
        continue;
    verdict("guest_huge::it_is_mapped_and_withdrawn", rc == 0 && rma_status == 0, "status %d", rma_status);
}

static void use(struct plait_mem *shown, const struct plait_mem_info *info, struct plait_mem *exported)
{
    static const struct plait_conn_ops ops = { .on_message = on_message };
    struct plait_session_opts so = PLAIT_SESSION_OPTS_INIT;
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *l;
    struct plait_session *s;

    lo.on_session = on_session;
    lo.session.conn_ops = &ops;
    so.max_msg = lo.session.max_msg = 2 * LEN;
    if (!verdict("guest_huge::session", plait_ctx_create(&ctx, NULL) == 0 && plait_listen(&l, ctx, "plait://127.0.0.1:0/huge", &lo) == 0 &&
                 plait_session_open(&s, ctx, plait_listener_uri(l), &so) == 0 && plait_session_wait(s, -1) == 0, "%s", plait_error_text()))
        return;
    if (shown)
        send_from(plait_session_conn(s, 0), info);
    if (exported)
        export_it(s, exported);
    plait_session_release(s);
    plait_ctx_destroy(ctx);
}

int main(void)
{
    struct plait_mem_info info, second;
    struct plait_mem *m = get(LEN, &info), *next;

    taken(m, &info, LEN);
    next = get(1, &second);
    verdict("guest_huge::the_next_one_has_normal_pages", next && second.page_size == 4096 && second.page_size_asked == GIB, "page size %zu",
            second.page_size);
    plait_mem_release(next);
    if (m && info.page_size == GIB)
        use(m, &info, NULL);
    plait_mem_release(m);
    verdict("guest_huge::it_is_given_back", pages("free_hugepages") == 1, "%ld are free", pages("free_hugepages"));
    m = get(GIB, &info); /* all of it, writable */
    taken(m, &info, GIB);
    if (m && info.page_size == GIB)
        use(NULL, &info, m);
    plait_mem_release(m);
    return guest_failed != 0;
}
