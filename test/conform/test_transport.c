/* SPDX-License-Identifier: BSD-3-Clause */
/* The contract of transport.h, operation by operation, both ends polled in turn. */
#include "each.h"

#include <sys/epoll.h>

TestSuite(transport, .timeout = 60);

EACH(ops, create_and_destroy)
{
    cr_assert_not_null(ops->name);
    cr_assert_eq(ops->probe(), 0);
    cr_assert_eq(ops->poll(a.tr, 10), 0);
    cr_assert_geq(ops->wake_fd(a.tr), 0);
}

EACH(ops, order_both_ways)
{
    (void)ops;
    for (int i = 0; i < 3000; i++) {
        while (end_send(&a, i % 3 == 0) == PLAIT_E_AGAIN) {
            drain(&b);
            end_poll(&a);
        }
        while (end_send(&b, i % 5 == 0) == PLAIT_E_AGAIN) {
            drain(&a);
            end_poll(&b);
        }
        if (i % 7 == 0) {
            end_poll(&a);
            end_poll(&b);
        }
    }
    arrive(&a, b.sent);
    arrive(&b, a.sent);
}

static uint32_t last_len;
static int check_len(struct end *e, uint32_t meta, uint64_t w1, const uint8_t *p)
{
    (void)meta;
    last_len = pli_w1_len(w1);
    e->got++;
    for (uint32_t i = 0; i < last_len; i++)
        if (p[i] != (uint8_t)(i + last_len))
            e->trouble = "data differ";
    return 0;
}

EACH(ops, every_size)
{
    static uint8_t data[MAX_BYTES];
    uint32_t max = ops->max_payload(a.tr);

    cr_assert_geq(max, SAMPLE_MAX);
    b.on_rx = check_len;
    for (uint32_t len = 0; len <= max; len = len < 300 || len > max - 70 ? len + 1 : len + 13) {
        for (uint32_t i = 0; i < len; i++)
            data[i] = (uint8_t)(i + len);
        cr_assert_eq(ops->send(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(len, 1, 2), 0, data, NULL, false), 0);
        arrive(&b, b.got + 1);
        cr_assert_eq(last_len, len);
        drain(&a);
    }
    max = ops->max_payload(a.tr); /* it may have grown */
    cr_assert_eq(ops->send(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(max + 1, 1, 2), 0, data, NULL, false),
                 PLAIT_E_TOOBIG);
    cr_assert_eq(ops->send(a.tr, pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE, 0), pli_rec_w1(max - 7, 1, 2), 0, data, NULL,
                           false), PLAIT_E_TOOBIG);
    cr_assert_eq(ops->send(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 9), pli_rec_w1(UINT32_MAX, 1, 2), 0, data, data, false),
                 PLAIT_E_TOOBIG);
}

EACH(ops, more_waits_for_flush)
{
    for (int i = 0; i < 5; i++)
        cr_assert_eq(end_send(&a, true), 0);
    ops->flush(a.tr);
    arrive(&b, 5);
    cr_assert_eq(end_send(&a, true), 0);
    cr_assert_eq(end_send(&a, false), 0); /* takes the other with it */
    arrive(&b, 7);
    cr_assert_eq(end_send(&a, true), 0);
    end_poll(&a); /* the end of a poll is a flush */
    arrive(&b, 8);
}

/* Fills the link while the other end does not poll. What that one granted earlier may come late, also on this host; but whoever is told
 * that there is space finds some. */
static void fill_to_the_end(bool more)
{
    uint64_t told;

    fill(more);
    for (told = a.writable; end_poll(&a), a.writable != told; told = a.writable) {
        cr_assert_eq(a.writable, told + 1);
        cr_assert_eq(end_send(&a, more), 0, "writable while full");
        fill(more);
    }
}

EACH(ops, full_then_writable)
{
    uint64_t told = 0;

    (void)ops;
    for (int round = 0; round < 40; round++) {
        fill_to_the_end(round % 2);
        told = a.writable;
        arrive(&b, a.sent);
        UNTIL(a.writable > told);
        drain(&a);
        cr_assert_eq(a.writable, told + 1, "told twice");
    }
    drain(&b);
    drain(&a);
    cr_assert_eq(a.writable, told + 1, "writable although nobody waits");
}

/* Told that there is space, a sender that finds none twice in a row is being kept busy for nothing. And it is told in the end. */
EACH(ops, writable_means_that_it_fits)
{
    static const uint8_t data[MAX_BYTES];
    uint32_t max = ops->max_payload(a.tr);
    uint32_t lens[] = { max, max - 1000, max * 5 / 6, max / 2, 300, 8 };

    b.on_rx = take_anything;
    for (unsigned i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        unsigned sent = 0, in_vain = 0;

        for (int round = 0; round < 500 && sent < 200; round++) {
            uint64_t before = a.writable;

            while (ops->send(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(lens[i], 1, 2), 0, data, NULL, false) == 0) {
                sent++;
                in_vain = 0;
            }
            for (int k = 0; k < 200000 && a.writable == before; k++) {
                end_poll(&a);
                if (a.writable == before)
                    ops->poll(b.tr, 1);
            }
            cr_assert_eq(a.writable, before + 1, "%u bytes: never told that there is space", lens[i]);
            cr_assert_leq(++in_vain, 2, "%u bytes: told that there is space, but there is none", lens[i]);
        }
        drain(&b);
        drain(&a);
        a.sent = b.got;
    }
    b.on_rx = NULL;
}

EACH(ops, grows_under_load)
{
    struct pli_tr_stats st;
    uint32_t first;

    ops->stats(a.tr, &st);
    first = st.ring_slots;
    for (int round = 0; round < 60; round++) {
        fill(false);
        drain(&b);
        drain(&a);
    }
    arrive(&b, a.sent);
    ops->stats(a.tr, &st);
    cr_assert(st.grows == 0 || st.ring_slots > first);
}

static uint8_t *reserve(const struct pli_tr_ops *ops, bool cookie, uint32_t len)
{
    void *data = NULL;

    cr_assert_eq(ops->reserve(a.tr, cookie, len, &data), 0, "%s", plait_error_text());
    return data;
}

EACH(ops, reserve_and_commit)
{
    uint8_t *p;

    b.on_rx = check_len;
    for (uint32_t len = 0; len < 1500; len += len < 130 ? 1 : 97)
        for (uint32_t used = 0; used <= len; used += used + 70 < len ? 50 : 1) {
            uint64_t before = b.got;

            p = reserve(ops, false, len);
            for (uint32_t i = 0; i < len; i++)
                p[i] = (uint8_t)(i + used);
            ops->commit(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(used, 1, 2), 0, false);
            arrive(&b, before + 1);
            cr_assert_eq(last_len, used);
            drain(&a);
        }
}

EACH(ops, reserved_is_busy)
{
    void *data;

    reserve(ops, true, 100);
    cr_assert_eq(end_send(&a, false), PLAIT_E_BUSY);
    cr_assert_eq(ops->reserve(a.tr, false, 1, &data), PLAIT_E_BUSY);
    cr_assert_geq(a.tr->room.pos, a.tr->room.limit, "the short way is open");
    end_poll(&a);
    ops->ready(a.tr);
    cr_assert_geq(a.tr->room.pos, a.tr->room.limit, "the short way is open after a poll");
    drain(&b);
    cr_assert_eq(b.got, 0);
    ops->abandon(a.tr);
    ops->abandon(a.tr); /* nothing */
    drain(&b);
    cr_assert_eq(b.got, 0);
    cr_assert_eq(ops->reserve(a.tr, false, ops->max_payload(a.tr) + 1, &data), PLAIT_E_TOOBIG);
    cr_assert_eq(end_send(&a, false), 0);
    arrive(&b, 1);
}

/* A large record found no space, a small one was reserved, then space comes back: nothing may pass the reservation. */
EACH(ops, reserved_while_starved)
{
    static uint8_t big[MAX_BYTES];
    uint32_t len = ops->max_payload(a.tr) * 2 / 3;
    uint8_t *p;

    b.on_rx = check_len;
    for (uint32_t i = 0; i < len; i++)
        big[i] = (uint8_t)(i + len);
    while (ops->send(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(len, 1, 1), 0, big, NULL, false) == 0)
        ;
    p = reserve(ops, false, 8);
    memset(p, 0, 8);
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(i + 8);
    for (int i = 0; i < 3; i++) {
        ops->poll(b.tr, 64);
        ops->poll(a.tr, 64);
        ops->ready(a.tr);
    }
    cr_assert_geq(a.tr->room.pos, a.tr->room.limit, "the short way is open");
    cr_assert_eq(end_send(&a, false), PLAIT_E_BUSY);
    last_len = 0;
    ops->commit(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(8, 1, 1), 0, false);
    UNTIL(last_len == 8 && a.writable);
    drain(&a);
    cr_assert_eq(a.writable, 1);
}

EACH(ops, hold_and_release)
{
    uint32_t tokens[64], n = 0;
    const uint8_t *where[64];
    struct pli_tr_stats st;

    b.hold_next = true;
    b.on_rx = check_len;
    for (uint32_t i = 0; i < 64; i++) {
        uint8_t data[8];

        for (uint32_t j = 0; j < 8; j++)
            data[j] = (uint8_t)(j + 8);
        cr_assert_eq(ops->send(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(8, 1, 1), i, data, NULL, false), 0);
        UNTIL(b.got == i + 1);
        if (b.hold_rc != 0) {
            cr_assert_eq(b.hold_rc, PLAIT_E_AGAIN);
            break;
        }
        tokens[n] = b.token;
        where[n++] = b.held;
    }
    cr_assert(n >= 1 && n < 64, "a limit must stop it: %u", n);
    ops->stats(b.tr, &st);
    cr_assert_eq(st.held, n);
    b.hold_next = false;
    b.on_rx = NULL;
    fill(false);
    drain(&b);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = i % 2 ? i / 2 : n - 1 - i / 2; /* from both ends */

        for (uint32_t j = 0; j < 8; j++)
            cr_assert_eq(where[at][j], j + 8, "a held record changed");
        ops->release(b.tr, tokens[at]);
    }
    ops->stats(b.tr, &st);
    cr_assert_eq(st.held, 0);
    UNTIL(b.got == a.sent + n + (b.hold_rc != 0) && a.writable); /* whatever the fill sent */
    b.trouble = NULL;
    b.got = a.sent;
    cr_assert_eq(end_send(&a, false), 0);
    arrive(&b, a.sent);
}

EACH(ops, crowded_is_told)
{
    b.hold_next = true;
    cr_assert_eq(end_send(&a, false), 0);
    arrive(&b, 1);
    cr_assert_eq(b.hold_rc, 0);
    b.hold_next = false;
    fill(false);
    UNTIL(b.crowded >= 1);
    ops->release(b.tr, b.token);
    UNTIL(a.writable);
    drain(&a);
    cr_assert_eq(a.writable, 1);
    fill(false);
    arrive(&b, a.sent);
}

EACH(ops, budget)
{
    for (int i = 0; i < 10; i++)
        cr_assert_eq(end_send(&a, false), 0);
    cr_assert_leq(ops->poll(b.tr, 3), 3);
    cr_assert_leq(b.got, 3);
    cr_assert_eq(ops->poll(b.tr, 0), 0);
    arrive(&b, 10);
}

EACH(ops, rx_stops_the_poll)
{
    for (int i = 0; i < 5; i++)
        cr_assert_eq(end_send(&a, false), 0);
    b.rx_rc = PLAIT_E_PROTO;
    for (uint64_t until = pli_clock_now() + SOON_NS; !b.got; ops->poll(b.tr, 10)) {
        cr_assert_lt(pli_clock_now(), until);
        end_poll(&a);
    }
    cr_assert_eq(b.got, 1);
}

static int answer(struct end *e, uint32_t meta, uint64_t w1, const uint8_t *p)
{
    (void)meta;
    (void)w1;
    (void)p;
    e->got++;
    return end_send(e, false) < 0 ? PLAIT_E_SYSTEM : 0;
}

EACH(ops, sends_in_rx)
{
    (void)ops;
    b.on_rx = answer;
    for (int i = 0; i < 500; i++) {
        cr_assert_eq(end_send(&a, false), 0);
        UNTIL(a.got == (uint64_t)i + 1);
    }
}

/* ---- waiting ---- */

static bool kicked(int ep)
{
    struct epoll_event ev;

    return epoll_wait(ep, &ev, 1, 0) == 1;
}

/* The same for what must come, now or soon. */
static bool is_kicked(int ep)
{
    struct epoll_event ev;

    return epoll_wait(ep, &ev, 1, SOON_NS / PLI_NS_PER_MS) == 1;
}

static int watch(const struct pli_tr_ops *ops, const struct end *e)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
    int ep = epoll_create1(EPOLL_CLOEXEC);

    cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, ops->wake_fd(e->tr), &ev), 0);
    kicked(ep);
    return ep;
}

static void park(const struct pli_tr_ops *ops, struct end *e)
{
    ops->park(e->tr);
    pli_sleeper_barrier();
}

/* Nothing is to be done at this end, and it sleeps. */
static void park_quiet(const struct pli_tr_ops *ops, struct end *e)
{
    for (uint64_t until = pli_clock_now() + SOON_NS; park(ops, e), ops->ready(e->tr); drain(e)) {
        cr_assert_lt(pli_clock_now(), until, "always something to do");
        ops->unpark(e->tr);
    }
}

EACH(ops, parked_is_woken)
{
    int ep = watch(ops, &b);

    for (int i = 0; i < 5; i++) {
        park_quiet(ops, &b);
        kicked(ep);
        cr_assert_eq(end_send(&a, false), 0);
        cr_assert(is_kicked(ep));
        cr_assert_eq(end_send(&a, false), 0);
        cr_assert(!ops->kicks_once || !kicked(ep), "one wake-up is enough");
        cr_assert(ops->ready(b.tr));
        ops->unpark(b.tr);
        arrive(&b, a.sent);
        cr_assert_eq(end_send(&a, false), 0);
        cr_assert(!ops->kicks_once || !kicked(ep), "awake, it needs none");
        arrive(&b, a.sent);
        drain(&a);
    }
    park_quiet(ops, &b);
    kicked(ep);
    cr_assert_eq(end_send(&a, true), 0);
    ops->flush(a.tr);
    cr_assert(is_kicked(ep));
    ops->unpark(b.tr);
    arrive(&b, a.sent);
    drain(&a);
    park_quiet(ops, &b);
    kicked(ep);
    reserve(ops, false, 3);
    b.on_rx = check_len;
    ops->commit(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(0, 0, 0), 0, false);
    cr_assert(is_kicked(ep));
    ops->unpark(b.tr);
    arrive(&b, a.sent + 1);
    close(ep);
}

EACH(ops, park_flushes)
{
    cr_assert_eq(end_send(&a, true), 0);
    park(ops, &a);
    ops->unpark(a.tr);
    for (uint64_t until = pli_clock_now() + SOON_NS; !ops->ready(b.tr);)
        cr_assert_lt(pli_clock_now(), until);
    arrive(&b, 1);
}

/* The sender waits for space and sleeps; the receiver sleeps, too: each is woken for what it waits for. */
EACH(ops, space_wakes_the_sender)
{
    int ep_a = watch(ops, &a), ep_b = watch(ops, &b);

    for (int i = 0; i < 30; i++) {
        park_quiet(ops, &b);
        kicked(ep_b);
        fill(true);
        cr_assert(is_kicked(ep_b), "the receiver sleeps before a full ring");
        park(ops, &a);
        if (!ops->ready(a.tr)) {
            ops->unpark(b.tr);
            drain(&b);
            park(ops, &b);
            ops->ready(b.tr);
            cr_assert(is_kicked(ep_a), "the sender sleeps before an empty ring, round %d", i);
            for (uint64_t until = pli_clock_now() + SOON_NS; !ops->ready(a.tr);)
                cr_assert_lt(pli_clock_now(), until);
        }
        ops->unpark(a.tr);
        ops->unpark(b.tr);
        kicked(ep_b);
        UNTIL(a.writable > (uint64_t)i);
        arrive(&b, a.sent);
        cr_assert_eq(a.writable, (uint64_t)i + 1);
        kicked(ep_a);
        kicked(ep_b);
    }
    cr_assert_eq(b.got, a.sent);
    close(ep_a);
    close(ep_b);
}

/* ---- the end ---- */

/* Destroyed with everything open: batches, a reservation, holds, control messages on their way. */
EACH(ops, destroyed_at_any_time)
{
    void *data;

    b.hold_next = true;
    cr_assert_eq(end_send(&a, false), 0);
    ops->poll(b.tr, 10);
    for (int round = 0; round < 20; round++) {
        fill(true);
        ops->poll(b.tr, 1000);
        ops->poll(a.tr, 10);
    }
    ops->reserve(a.tr, false, 5, &data); /* what has come back of the space may not suffice */
    park(ops, &b);
}

Test(transport, destroyed_unconnected)
{
    struct kind kinds[MAX_KINDS];
    size_t n = find_kinds(kinds);

    for (size_t i = 0; i < n; i++) {
        int fds = count_fds();

        setenv("PLAIT_PROVIDER", kinds[i].provider, 1);
        end_create(&a, kinds[i].ops, true);
        end_destroy(&a);
        cr_assert_eq(count_fds(), fds);
    }
}

static unsigned count_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];
    unsigned n = 0;

    while (f && fgets(line, sizeof line, f))
        n += strstr(line, "memfd:") != NULL;
    if (f)
        fclose(f);
    return n;
}

Test(transport, leaves_no_mapping)
{
    struct kind kinds[MAX_KINDS];
    size_t n = find_kinds(kinds);
    unsigned before = count_maps();

    for (size_t i = 0; i < n; i++)
        for (int again = 0; again < 3; again++) {
            setenv("PLAIT_PROVIDER", kinds[i].provider, 1);
            ends_open(&a, &b, kinds[i].ops, true);
            for (int round = 0; round < 40; round++) {
                fill(false);
                drain(&b);
                drain(&a);
            }
            ends_close(&a, &b);
        }
    cr_assert_eq(count_maps(), before);
}

EACH(ops, garbage_is_refused)
{
    uint8_t blob[PLI_TR_BLOB_MAX];
    int fds = count_fds(), fd[2] = { dup(0), dup(0) };
    struct end c;

    memset(blob, 0x5a, sizeof blob);
    cr_assert_lt(ops->control(a.tr, blob, 8, fd, 1), 0);
    cr_assert_lt(ops->control(a.tr, blob, sizeof blob, NULL, 0), 0);
    end_create(&c, ops, true);
    cr_assert_lt(ops->connect(c.tr, blob, 24, fd + 1, 1), 0);
    cr_assert(*plait_error_text());
    cr_assert_lt(ops->connect(c.tr, blob, 0, NULL, 0), 0);
    end_destroy(&c);
    cr_assert_eq(count_fds(), fds, "descriptors leak");
}

/* Growing is given up when the control channel is lost; the link still works until it is taken down. */
EACH(ops, control_lost)
{
    (void)ops;
    a.ctl_lost = true;
    for (int round = 0; round < 40; round++) {
        fill(false);
        drain(&b);
        drain(&a);
    }
    arrive(&b, a.sent);
}
