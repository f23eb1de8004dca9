/* SPDX-License-Identifier: BSD-3-Clause */
/* What links cost that are there and do nothing, and what a fork leaves of them. */
#include <sys/wait.h>
#include "ofi_util.h"

TestSuite(ofi_cost, .timeout = 120);

#define MOST 16384u /* bytes of an idle link beside what the provider takes for it */

static size_t list_bytes(const struct pli_list *list)
{
    struct pli_list *node;
    size_t n = 0;

    pli_list_foreach(node, list) {
        const struct pli_ofi_buf *b = pli_container_of(node, struct pli_ofi_buf, node);

        n += sizeof *b + sizeof b + b->size; /* with its place in hub->bufs */
    }
    return n;
}

static size_t link_bytes(struct side *s)
{
    const struct pli_ofi_link *l = side_link(s);

    return sizeof *l + list_bytes(&l->ops) + list_bytes(&l->posted) + list_bytes(&l->rxq) + list_bytes(&l->heldq) + list_bytes(&l->spare) +
           (l->fill ? sizeof *l->fill + l->fill->size : 0);
}

static void settle(struct side *a, struct side *b)
{
    for (uint64_t end = pli_clock_now() + 20 * PLI_NS_PER_MS; pli_clock_now() < end;) {
        side_poll(a);
        side_poll(b);
    }
}

Test(ofi_cost, an_idle_link_takes_little_memory)
{
    struct side a, b;

    side_create(&a, NULL);
    side_create(&b, NULL);
    sides_meet(&a, &b);
    settle(&a, &b);
    cr_assert_leq(link_bytes(&a), MOST, "%zu bytes", link_bytes(&a));
    cr_assert_leq(link_bytes(&b), MOST, "%zu bytes", link_bytes(&b));
    sides_talk(&a, &b);
    settle(&a, &b);
    cr_assert_leq(link_bytes(&a), MOST, "%zu bytes after records", link_bytes(&a));
    cr_assert_leq(link_bytes(&b), MOST, "%zu bytes after records", link_bytes(&b));
    side_destroy(&a);
    side_destroy(&b);
    side_close_hub(&a);
    side_close_hub(&b);
}

/* 256 of them between two contexts; each works. */
Test(ofi_cost, links_in_number)
{
    enum { N = 256 };
    static struct side a[N], b[N];

    for (int i = 0; i < N; i++) {
        side_create(&a[i], i ? &a[0] : NULL);
        side_create(&b[i], i ? &b[0] : NULL);
        sides_meet(&a[i], &b[i]);
    }
    for (int i = 0; i < N; i += 17)
        sides_talk(&a[i], &b[i]);
    for (int i = 0; i < N; i++)
        side_destroy(&a[i]);
    SIDES_UNTIL(&b[0], &b[0], b[0].failed && b[N - 1].failed);
    for (int i = 0; i < N; i++)
        side_destroy(&b[i]);
    side_close_hub(&a[0]);
    side_close_hub(&b[0]);
}

/* The child gives up what it has, and the link of the parent goes on. */
Test(ofi_cost, a_fork)
{
    struct side a, b;
    int status = -1;
    pid_t child;

    side_create(&a, NULL);
    side_create(&b, NULL);
    sides_meet(&a, &b);
    sides_talk(&a, &b);
    child = fork();
    if (child == 0) {
        pli_ofi_ops.destroy(a.tr, true);
        pli_ofi_ops.destroy(b.tr, true);
        a.hub->ops->destroy(a.hub, true);
        b.hub->ops->destroy(b.hub, true);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    sides_talk(&a, &b);
    settle(&a, &b);
    cr_assert_eq(a.failed + b.failed, 0, "%s%s", a.text, b.text);
    side_destroy(&a);
    side_destroy(&b);
    side_close_hub(&a);
    side_close_hub(&b);
}
