/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer target: packets that a peer could send over the fabric, as fabric/recv.c takes them.
 *
 * The input is a mode, then packets, each with its length: they are put where the provider would, are found by looking or by a completion, and
 * are read. What is delivered must lie within its packet. The sanitizers watch the rest. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/ofi.h"
#include "util/err.h"
#include "util/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define CHECK(what)                                                                                          \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "not true: %s\n", #what);                                                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

enum { TAG = 0x11223344, LINK = 7 };

static struct pli_ofi_hub hub;
static struct pli_ofi_dev dev;
static struct pli_ofi_link *link_now;
static unsigned failed, delivered;

/* ---- what recv.c calls ---- */

int pli_ofi_fail(const char *name, const char *what, long rc)
{
    (void)name;
    (void)what;
    (void)rc;
    return PLAIT_E_SYSTEM;
}

/* Each buffer in memory of its own. */
struct pli_ofi_buf *pli_ofi_buf_get(struct pli_ofi_dev *d, bool big)
{
    struct pli_ofi_buf *b = calloc(1, sizeof *b);

    (void)d;
    b->size = big ? PLI_OFI_BIG : PLI_OFI_SMALL;
    b->mem = malloc(b->size);
    memset(b->mem, 0xa5, b->size);
    pli_list_init(&b->node);
    return b;
}

void pli_ofi_buf_put(struct pli_ofi_dev *d, struct pli_ofi_buf *b)
{
    (void)d;
    pli_list_remove(&b->node);
    free(b->mem);
    free(b);
}

/* Endpoints of reliable datagrams are not fuzzed here. */
int pli_ofi_rdm_fill(struct pli_ofi_dev *d)
{
    (void)d;
    abort();
}

bool pli_ofi_rdm_is_next(const struct pli_ofi_link *l, const struct pli_ofi_buf *b)
{
    (void)l;
    (void)b;
    abort();
}

bool pli_ofi_link_widen(struct pli_ofi_link *l, uint32_t window)
{
    l->window = window;
    return true;
}

void pli_ofi_quiet(struct pli_tr *tr)
{
    pli_ofi_link_of(tr)->state = PLI_OFI_DEAD;
}

void pli_ofi_link_broke(struct pli_ofi_link *l, const char *why)
{
    (void)why;
    l->state = PLI_OFI_BROKEN;
}

static ssize_t take_buffer(struct fid_ep *ep, const struct fi_msg *msg, uint64_t flags)
{
    (void)ep;
    (void)msg;
    (void)flags;
    return 0;
}

/* ---- the owner ---- */

static int rx(void *owner, uint32_t meta, uint64_t w1, const void *payload)
{
    const struct pli_ofi_buf *b = pli_container_of(pli_list_first(&link_now->rxq), struct pli_ofi_buf, node);
    uint64_t n = pli_rec_payload(meta, w1);
    const uint8_t *p = payload, *end = b->mem + b->len - PLI_OFI_TAIL;
    uint32_t token;

    (void)owner;
    CHECK(p >= b->mem + sizeof(struct pli_ofi_head) + PLI_REC_HEAD && p <= end && n <= (uint64_t)(end - p));
    CHECK(b->len <= b->size);
    if (meta & 1 && pli_ofi_hold(&link_now->tr, &token) == 0)
        CHECK(link_now->held <= link_now->window);
    delivered++;
    return 0;
}

static void on_failed(void *owner, int code, const char *text)
{
    (void)owner;
    CHECK(code == PLAIT_E_PROTO && *text && !failed);
    failed++;
}

static const struct pli_tr_up up = { .rx = rx, .failed = on_failed };

static void put_all(struct pli_list *list)
{
    struct pli_list *node;

    while ((node = pli_list_first(list)) != NULL)
        pli_ofi_buf_put(&dev, pli_container_of(node, struct pli_ofi_buf, node));
}

/* Fields that a mutation seldom hits: a flag for each that makes it right. */
static void make_right(uint8_t *p, uint32_t size, uint32_t len, uint8_t which)
{
    struct pli_ofi_head h;
    uint64_t tail;

    memcpy(&h, p, sizeof h);
    if (which & 1)
        h.magic = PLI_OFI_MAGIC;
    if (which & 2)
        h.tag = TAG;
    if (which & 4)
        h.link = LINK;
    if (which & 8)
        h.number = link_now->rx_arrived;
    if (which & 16)
        h.len = len;
    if (which & 32)
        h.grant = link_now->tx_grant + h.grant % 8;
    if (which & 64)
        h.big_from = UINT32_MAX;
    memcpy(p, &h, sizeof h);
    tail = pli_ofi_tail(h.tag, h.number);
    if (which & 128 && h.len >= sizeof h + PLI_OFI_TAIL && h.len <= size)
        memcpy(p + h.len - PLI_OFI_TAIL, &tail, sizeof tail);
}

static void one_packet(struct pli_ofi_link *l, const uint8_t *data, uint32_t len, uint8_t which)
{
    struct pli_list *node = pli_list_first(&l->posted);
    struct pli_ofi_buf *b;

    if (!node)
        return;
    while (dev.quiet && ((struct pli_ofi_head *)(void *)pli_container_of(node, struct pli_ofi_buf, node)->mem)->magic) {
        node = pli_list_next(&l->posted, node);
        if (!node)
            return;
    }
    b = pli_container_of(node, struct pli_ofi_buf, node);
    if (len > b->size)
        len = b->size;
    memcpy(b->mem, data, len);
    if (len >= sizeof(struct pli_ofi_head))
        make_right(b->mem, b->size, len, which);
    if (dev.quiet) {
        pli_ofi_look(l);
    } else {
        pli_list_remove(&b->node);
        b->len = len;
        pli_ofi_arrived(l, b);
    }
    pli_ofi_deliver(l, 3);
    pli_ofi_deliver(l, 1 << 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fi_ops_msg msg = { .recvmsg = take_buffer };
    static struct fid_ep ep = { .msg = &msg };
    static struct fi_domain_attr domain;
    static struct fi_ep_attr ep_attr = { .max_msg_size = 1 << 20 };
    static struct fi_rx_attr rx_attr = { .size = 64 };
    static struct fi_info info = { .domain_attr = &domain, .ep_attr = &ep_attr, .rx_attr = &rx_attr };
    struct pli_ofi_link l = { .tr = { .up = &up }, .hub = &hub, .dev = &dev, .state = PLI_OFI_UP, .id = LINK, .tag = TAG, .ep = &ep,
                              .described = true, .window = PLI_OFI_WINDOW_MIN, .tx_grant = PLI_OFI_WINDOW_MIN,
                              .tx_big_from = UINT32_MAX, .rx_big_from = UINT32_MAX, .rx_told = PLI_OFI_WINDOW_MIN };

    if (size < 1)
        return 0;
    pli_list_init(&hub.ready);
    pli_list_init(&hub.dirty);
    memset(&dev, 0, sizeof dev);
    dev.hub = &hub;
    dev.info = &info;
    dev.cq_size = 8192;
    dev.quiet = data[0] & 1;
    pli_list_init(&l.ready_node);
    pli_list_init(&l.dirty_node);
    pli_list_init(&l.posted);
    pli_list_init(&l.rxq);
    pli_list_init(&l.heldq);
    pli_list_init(&l.spare);
    link_now = &l;
    failed = 0;
    CHECK(pli_ofi_post(&l) == 0);
    for (size_t at = 1; at + 3 <= size && l.state == PLI_OFI_UP;) {
        uint32_t len = (uint32_t)data[at] | (uint32_t)data[at + 1] << 8;
        uint8_t which = data[at + 2];

        at += 3;
        if (len > size - at)
            len = (uint32_t)(size - at);
        one_packet(&l, data + at, len, which);
        at += len;
    }
    CHECK(l.rx_read <= l.rx_arrived && l.rx_arrived <= l.rx_posted);
    CHECK(failed == (l.state == PLI_OFI_DEAD));
    pli_list_remove(&l.ready_node);
    pli_list_remove(&l.dirty_node);
    put_all(&l.posted);
    put_all(&l.rxq);
    put_all(&l.heldq);
    put_all(&l.spare);
    return 0;
}

/* fuzz_packet -corpus=DIR writes proper packets, found in both ways, and ends. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static uint8_t in[1 + 3 * (3 + 4096)];
    char path[4096];
    const char *dir;

    if (*argc != 2 || strncmp((*argv)[1], "-corpus=", 8) != 0)
        return 0;
    dir = (*argv)[1] + 8;
    for (unsigned k = 0; k < 6; k++) {
        uint32_t payload = k < 4 ? 24 * k : 3000, len = 32 + 2 * (16 + payload) + 8;
        size_t at = 1;
        FILE *f;

        if (len > 3584)
            len = 32 + 16 + payload + 8;
        memset(in, 0, sizeof in);
        in[0] = (uint8_t)(k & 1);
        for (unsigned i = 0; i < 3; i++) {
            uint64_t words[2] = { (uint64_t)pli_rec_meta(PLI_REC_ONEWAY, 0, 0) << 32, pli_rec_w1(payload, 1, 2) };
            struct pli_ofi_head h = { .records = (uint16_t)(k < 4 ? 2 : 1) };

            in[at++] = (uint8_t)len;
            in[at++] = (uint8_t)(len >> 8);
            in[at++] = 0xff;
            memcpy(in + at, &h, sizeof h);
            memcpy(in + at + 32, words, 16);
            if (k < 4)
                memcpy(in + at + 48 + payload, words, 16);
            at += len;
        }
        snprintf(path, sizeof path, "%s/packets%u", dir, k);
        f = fopen(path, "w");
        if (!f || fwrite(in, 1, at, f) != at || fclose(f) != 0) {
            fprintf(stderr, "cannot write %s\n", path);
            exit(1);
        }
        LLVMFuzzerTestOneInput(in, at);
        CHECK(failed == 0 && delivered == (k < 4 ? 6u : 3u));
        delivered = 0;
    }
    exit(0);
}
