/* SPDX-License-Identifier: BSD-3-Clause */
/* Two ends of a transport in one process, through runtime/transport.h alone: every transport in the table must pass. */
#ifndef PLI_TEST_CONFORM_ENDS_H
#define PLI_TEST_CONFORM_ENDS_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include "runtime/loop_priv.h"
#include "runtime/transport.h"
#include "util/clock.h"
#include "util/rand.h"
#include <plait/plait.h>

/* What is tested: shm, and ofi over each provider of PLAIT_TEST_PROVIDERS, separated by spaces; if there is none, over endpoints of both kinds. */
struct kind {
    const struct pli_tr_ops *ops;
    char provider[32];
};
#define MAX_KINDS 8

static inline size_t name_kinds(struct kind *kinds)
{
    size_t n = 0;

    kinds[n++] = (struct kind){ &pli_shm_ops, "" };
#ifdef HAVE_LIBFABRIC
    const char *env = getenv("PLAIT_TEST_PROVIDERS");
    char list[200], *word, *rest = list;

    snprintf(list, sizeof list, "%s", env ? env : "tcp tcp;ofi_rxm");
    while (n < MAX_KINDS && (word = strsep(&rest, " ")) != NULL) {
        if (!*word)
            continue;
        kinds[n].ops = &pli_ofi_ops;
        snprintf(kinds[n].provider, sizeof kinds[n].provider, "%s", word);
        n++;
    }
#endif
    return n;
}

/* The same, and each of them can be used. */
static inline size_t find_kinds(struct kind *kinds)
{
    size_t n = name_kinds(kinds);

    for (size_t i = 0; i < n; i++) {
        setenv("PLAIT_PROVIDER", kinds[i].provider, 1);
        cr_assert_eq(kinds[i].ops->probe(), 0, "%s", plait_error_text());
    }
    return n;
}

#define SOON_NS (20 * PLI_NS_PER_S) /* what has not happened by then never will */
#define MAX_CTL 8
#define MAX_BYTES 16384u

struct end {
    struct pli_tr *tr;
    struct end *peer;
    uint64_t shm_bytes, kicks, bind_failures;
    /* what came */
    uint64_t got;          /* records, which carry their number */
    uint64_t sent;         /* numbers given to records sent */
    uint64_t writable, failed, crowded, wants_poll;
    int fail_code;
    char fail_text[256];
    const char *trouble;   /* first thing that went wrong in rx, for threads where assertions do not work */
    bool hold_next;        /* hold the next record */
    int hold_rc;
    uint32_t token;
    const uint8_t *held;
    int rx_rc;
    int (*on_rx)(struct end *e, uint32_t meta, uint64_t w1, const uint8_t *payload); /* instead of the check */
    int sock;              /* >= 0: control goes through it to another process */
    /* control messages on their way to this end */
    struct {
        uint8_t blob[PLI_TR_BLOB_MAX];
        size_t len;
        int fds[PLI_TR_FDS_MAX], nfds;
    } ctl[MAX_CTL];
    unsigned nctl;
    bool ctl_lost; /* send_control fails */
    struct pli_tr *hub;
};

/* The record with number n: sizes, cookie and header lengths follow from it. */
struct sample {
    uint32_t meta, chan, credit, hdr_len, len;
    uint64_t w1, cookie;
    uint8_t hdr[256], data[MAX_BYTES];
};

static inline void sample_make(struct sample *s, uint64_t n, uint32_t max)
{
    struct pli_rand rnd;
    uint32_t flags;

    pli_rand_seed(&rnd, n);
    flags = pli_rand_below(&rnd, 3) == 0 ? PLI_RF_COOKIE : 0;
    s->hdr_len = pli_rand_below(&rnd, 4) == 0 ? (uint32_t)pli_rand_below(&rnd, 100) : 0;
    s->len = (uint32_t)pli_rand_below(&rnd, pli_rand_below(&rnd, 4) == 0 ? max - 108 : 60);
    s->meta = pli_rec_meta(PLI_REC_ONEWAY, flags, s->hdr_len);
    s->w1 = pli_rec_w1(s->len, (uint32_t)n, (uint32_t)(n >> 3));
    s->cookie = pli_rand_next(&rnd);
    memset(s->hdr, (int)(n * 3), sizeof s->hdr);
    for (uint32_t i = 0; i < s->len; i++)
        s->data[i] = (uint8_t)(n + i * 7);
}

static inline const char *sample_check(const struct sample *s, uint32_t meta, uint64_t w1, const uint8_t *p)
{
    if (meta != s->meta || w1 != s->w1)
        return "meta or w1 differ: order or contents are lost";
    if ((uintptr_t)p % 8 != 0)
        return "a payload is not aligned";
    if (pli_meta_flags(meta) & PLI_RF_COOKIE) {
        if (memcmp(p, &s->cookie, 8) != 0)
            return "the cookie differs";
        p += 8;
    }
    if (memcmp(p, s->hdr, s->hdr_len) != 0)
        return "the header part differs";
    return memcmp(p + s->hdr_len, s->data, s->len) == 0 ? NULL : "the data differ";
}

#define SAMPLE_MAX 3000u /* data of samples, less than every transport's max_payload */

static inline int end_rx(void *owner, uint32_t meta, uint64_t w1, const void *payload)
{
    static __thread struct sample s;
    struct end *e = owner;
    const char *bad;

    if (e->hold_next) {
        e->hold_rc = e->tr->ops->hold(e->tr, &e->token);
        e->held = e->hold_rc == 0 ? payload : NULL;
    }
    if (e->on_rx)
        return e->on_rx(e, meta, w1, payload);
    sample_make(&s, e->got++, SAMPLE_MAX);
    bad = sample_check(&s, meta, w1, payload);
    if (bad && !e->trouble)
        e->trouble = bad;
    return e->rx_rc;
}

static inline void end_writable(void *owner)
{
    ((struct end *)owner)->writable++;
}

static inline void end_crowded(void *owner)
{
    ((struct end *)owner)->crowded++;
}

static inline void end_failed(void *owner, int code, const char *text)
{
    struct end *e = owner;

    e->failed++;
    e->fail_code = code;
    snprintf(e->fail_text, sizeof e->fail_text, "%s", text);
}

int sock_send_control(int sock, const void *blob, size_t len, const int *fds, int nfds);

static inline int end_send_control(void *owner, const void *blob, size_t len, const int *fds, int nfds)
{
    struct end *to = ((struct end *)owner)->peer;

    if (((struct end *)owner)->ctl_lost)
        return PLAIT_E_SYSTEM;
    if (!to)
        return sock_send_control(((struct end *)owner)->sock, blob, len, fds, nfds);
    if (to->nctl == MAX_CTL || len > PLI_TR_BLOB_MAX || nfds > PLI_TR_FDS_MAX)
        return PLAIT_E_NOMEM;
    memcpy(to->ctl[to->nctl].blob, blob, len);
    to->ctl[to->nctl].len = len;
    to->ctl[to->nctl].nfds = nfds;
    for (int i = 0; i < nfds; i++)
        to->ctl[to->nctl].fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
    to->nctl++;
    return 0;
}

static inline void end_wants_poll(void *owner)
{
    ((struct end *)owner)->wants_poll++;
}

static const struct pli_tr_up end_up = {
    .rx = end_rx,
    .writable = end_writable,
    .send_control = end_send_control,
    .failed = end_failed,
    .crowded = end_crowded,
    .wants_poll = end_wants_poll,
};

static inline void end_create(struct end *e, const struct pli_tr_ops *ops, bool membarrier)
{
    struct pli_tr_env env = { .local_node = -1, .peer_node = -1, .membarrier = membarrier, .peer_membarrier = membarrier };

    memset(e, 0, sizeof *e);
    e->sock = -1;
    env.shm_bytes = &e->shm_bytes;
    env.kicks = &e->kicks;
    env.bind_failures = &e->bind_failures;
    env.hub = &e->hub;
    cr_assert_eq(ops->create(&e->tr, &env, &end_up, e), 0, "%s", plait_error_text());
    if (e->hub && membarrier)
        e->hub->hot_index = 0; /* as the context says that it polls; else each end is one that sleeps until it is wanted */
    cr_assert_eq(e->tr->ops, ops);
    cr_assert_eq(e->tr->owner, e);
}

static inline void end_connect(struct end *e, struct end *to)
{
    uint8_t blob[PLI_TR_BLOB_MAX];
    int fds[PLI_TR_FDS_MAX], nfds;
    size_t len;

    to->tr->ops->describe(to->tr, blob, &len, fds, &nfds);
    cr_assert_leq(len, sizeof blob);
    cr_assert_leq(nfds, PLI_TR_FDS_MAX);
    for (int i = 0; i < nfds; i++)
        fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
    cr_assert_eq(e->tr->ops->connect(e->tr, blob, len, fds, nfds), 0, "%s", plait_error_text());
}

static inline bool end_connected(const struct end *e)
{
    struct pli_tr_stats st;

    e->tr->ops->stats(e->tr, &st);
    return st.connected;
}

static inline void ends_open(struct end *a, struct end *b, const struct pli_tr_ops *ops, bool membarrier)
{
    end_create(a, ops, membarrier);
    end_create(b, ops, membarrier);
    a->peer = b;
    b->peer = a;
    end_connect(a, b);
    end_connect(b, a);
    for (uint64_t until = pli_clock_now() + SOON_NS; !end_connected(a) || !end_connected(b);) {
        cr_assert_lt(pli_clock_now(), until, "the two ends do not connect");
        a->tr->ops->poll(a->tr, 1);
        b->tr->ops->poll(b->tr, 1);
        cr_assert_eq(a->failed + b->failed, 0, "%s%s", a->fail_text, b->fail_text);
    }
}

/* Delivers the control messages that wait. */
static inline int end_control(struct end *e)
{
    int rc = 0;

    for (unsigned i = 0; i < e->nctl && rc == 0; i++)
        rc = e->tr->ops->control(e->tr, e->ctl[i].blob, e->ctl[i].len, e->ctl[i].fds, e->ctl[i].nfds);
    e->nctl = 0;
    return rc;
}

static inline int end_poll(struct end *e)
{
    cr_assert_eq(end_control(e), 0, "%s", plait_error_text());
    return e->tr->ops->poll(e->tr, 64);
}

static inline void end_destroy(struct end *e)
{
    for (unsigned i = 0; i < e->nctl; i++)
        for (int j = 0; j < e->ctl[i].nfds; j++)
            close(e->ctl[i].fds[j]);
    e->tr->ops->destroy(e->tr, false);
    e->tr = NULL;
    if (e->hub)
        e->hub->ops->destroy(e->hub, false);
    e->hub = NULL;
}

static inline void ends_close(struct end *a, struct end *b)
{
    end_destroy(a);
    end_destroy(b);
    cr_assert_eq(a->shm_bytes, 0);
    cr_assert_eq(b->shm_bytes, 0);
}

/* Sends sample number e->sent. As send. */
static inline int end_send(struct end *e, bool more)
{
    static __thread struct sample s;
    int rc;

    sample_make(&s, e->sent, SAMPLE_MAX);
    rc = e->tr->ops->send(e->tr, s.meta, s.w1, s.cookie, s.data, s.hdr, more);
    if (rc == 0)
        e->sent++;
    return rc;
}

#endif
