/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad peers inside the shared memory: records, cursors and numbers that no honest peer writes. */
#include "test/fault/hostile.h"

TestSuite(fault_ring, .timeout = 120);

/* ---- records that are whole, but wrong ---- */

struct bad_record {
    const char *what, *word;
    uint32_t type, flags, hdr_len;
    uint32_t len, credit;
    int chan; /* -1: the right one */
    uint64_t cookie;
};

#define F(total) ((uint64_t)(total) << 32)

static const struct bad_record records[] = {
    { "an unknown type", "a record of type", PLI_REC_LAST + 1, 0, 0, 0, 0, 1000, 0 },
    { "an unknown type", "unknown type", PLI_REC_LAST + 1, 0, 0, 0, 0, -1, 0 },
    { "an unknown type", "unknown type", 0xef, 0, 0, 0, 0, -1, 0 },
    { "unknown flags", "flags", PLI_REC_ONEWAY, 0x80, 0, 8, 0, -1, 0 },
    { "unknown flags", "flags", PLI_REC_REQUEST, 0x81, 0, 8, 0, -1, 0 },
    { "eight records in a slot", "shared slot", PLI_REC_ONEWAY, 0x70, 0, 8, 0, -1, 0 },
    { "four requests in a slot", "shared slot", PLI_REC_REQUEST, 0x31, 0, 8, 0, -1, 0 },
    { "two long records in a slot", "shared slot", PLI_REC_ONEWAY, 0x10, 0, 48, 0, -1, 0 },
    { "a header in a shared slot", "shared slot", PLI_REC_ONEWAY, 0x10, 8, 8, 0, -1, 0 },
    { "unknown records in a shared slot", "unknown type", PLI_REC_LAST + 1, 0x10, 0, 8, 0, -1, 0 },
    { "a channel that is none", "which is no connection", PLI_REC_ONEWAY, 0, 0, 8, 0, 4711, 0 },
    { "the link's channel", "which is no connection", PLI_REC_ONEWAY, 0, 0, 8, 0, PLI_CHAN_LINK, 0 },
    { "credit", "credit for messages that were never sent", PLI_REC_CREDIT, 0, 0, 0, 1, -1, 0 },
    { "credit", "credit for messages that were never sent", PLI_REC_ONEWAY, 0, 0, 0, 0xffff, -1, 0 },
    { "a header part over the maximum", "maximum", PLI_REC_ONEWAY, 0, PLAIT_HDR_MAX + 1, 8, 0, -1, 0 },
    { "a reply to nothing", "not outstanding", PLI_REC_REPLY, PLI_RF_COOKIE, 0, 8, 0, -1, 0 },
    { "a reply to nothing", "not outstanding", PLI_REC_REPLY, PLI_RF_COOKIE, 0, 8, 0, -1, 0xffffffffu },
    { "a reply without a number", "", PLI_REC_REPLY, 0, 0, 8, 0, -1, 0 },
    { "a request without a number", "", PLI_REC_REQUEST, 0, 0, 8, 0, -1, 0 },
    { "a request with a receipt", "", PLI_REC_REQUEST, PLI_RF_COOKIE | PLI_RF_RECEIPT, 0, 8, 0, -1, 0 },
    { "a receipt without a number", "", PLI_REC_ONEWAY, PLI_RF_RECEIPT, 0, 8, 0, -1, 0 },
    { "a receipt for nothing", "not outstanding", PLI_REC_RECEIPT, PLI_RF_COOKIE, 0, 0, 0, -1, 3 },
    { "a receipt without a number", "number", PLI_REC_RECEIPT, 0, 0, 0, 0, -1, 0 },
    { "a part without a beginning", "part without", PLI_REC_FRAG, 0, 0, 8, 0, -1, 0 },
    { "a long message of length 0", "total length", PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG, 0, 8, 0, -1, F(0) },
    { "a long message that is short", "total length", PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG, 0, 8, 0, -1, F(8) },
    { "a long message over the maximum", "total length", PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG, 0, 8, 0, -1, F(PLAIT_EAGER_MAX + 1) },
    { "a long message of 4 GiB", "total length", PLI_REC_REQUEST, PLI_RF_COOKIE | PLI_RF_FRAG, 0, 8, 0, -1, F(0xffffffffu) },
    { "a long message without a number", "long message", PLI_REC_ONEWAY, PLI_RF_FRAG, 0, 8, 0, -1, 0 },
    { "a long FIN", "long message", PLI_REC_FIN, PLI_RF_COOKIE | PLI_RF_FRAG, 0, 8, 0, -1, F(100) },
    { "DONE without FIN", "FIN, DONE or ABORT", PLI_REC_DONE, 0, 0, 0, 0, -1, 0 },
    { "no frame in a LINK record", "link record", PLI_REC_LINK, 0, 0, 8, 0, PLI_CHAN_LINK, 0 },
    { "an empty LINK record", "link record", PLI_REC_LINK, 0, 0, 0, 0, PLI_CHAN_LINK, 0 },
    { "a large LINK record", "link record", PLI_REC_LINK, 0, 0, 600, 0, PLI_CHAN_LINK, 0 },
    { "a LINK record with a header", "", PLI_REC_LINK, 0, 8, 8, 0, PLI_CHAN_LINK, 0 },
    { "a LINK record on a channel", "", PLI_REC_LINK, 0, 0, 8, 0, -1, 0 },
    { "an unknown record of the transport", "shm: a record of unknown type", 0xfe, 0, 0, 0, 0, 0, 0 },
};

Test(fault_ring, bad_records)
{
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) {
        const struct bad_record *r = &records[i];
        struct hostile *h = new_hostile(w);

        hostile_open(h);
        hostile_record(h, pli_rec_meta(r->type, r->flags, r->hdr_len),
                       pli_rec_w1(r->len, r->chan < 0 ? h->chan : (uint32_t)r->chan, r->credit), r->cookie, NULL);
        expect_session_end(h, &in, r->what, PLAIT_E_PROTO, r->word);
    }
    innocent_end(w, &in);
    end_world(w);
}

/* What may only come in a certain state. */
static void after_fin(struct hostile *h, const struct bad_record *r)
{
    hostile_record(h, pli_rec_meta(PLI_REC_FIN, 0, 0), pli_rec_w1(0, h->chan, 0), 0, NULL);
    hostile_record(h, pli_rec_meta(r->type, r->flags, r->hdr_len), pli_rec_w1(r->len, h->chan, r->credit), r->cookie, NULL);
}

Test(fault_ring, bad_records_while_closing)
{
    static const struct bad_record late[] = {
        { "a message after FIN", "after FIN", PLI_REC_ONEWAY, 0, 0, 8, 0, -1, 0 },
        { "a request after FIN", "after FIN", PLI_REC_REQUEST, PLI_RF_COOKIE, 0, 8, 0, -1, 0 },
        { "FIN twice", "FIN, DONE or ABORT", PLI_REC_FIN, 0, 0, 0, 0, -1, 0 },
        { "a reply to nothing", "not outstanding", PLI_REC_REPLY, PLI_RF_COOKIE, 0, 8, 0, -1, 9 },
        { "a reply without a number", "flags", PLI_REC_REPLY, 0, 0, 8, 0, -1, 0 },
        { "a long message after FIN", "after FIN", PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG, 0, 8, 0, -1, F(100) },
    };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof late / sizeof late[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct outcome o = { 0 };
        struct log *srv;

        hostile_open(h);
        srv = &w->srv[w->nsrv - 1];
        WAIT(w, srv->c_opened, 1);
        /* an outstanding request keeps the connection from closing */
        FAILS(plait_request(srv->conn[0], "x", 1, 0, on_reply, &o), 0);
        after_fin(h, &late[i]);
        expect_session_end(h, &in, late[i].what, PLAIT_E_PROTO, late[i].word);
        cr_assert_eq(o.n, 1);
        cr_assert_eq(o.status, PLAIT_E_PROTO);
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_ring, a_long_message_that_goes_wrong)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h;

    innocent_start(w, &in);
    for (int i = 0; i < 4; i++) {
        static const char *const words[] = { "inside", "inside", "longer than it", "longer than it" };
        uint32_t frag = pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG, 0);

        h = new_hostile(w);
        hostile_open(h);
        hostile_record(h, frag, pli_rec_w1(100, h->chan, 0), F(200), NULL);
        if (i == 0)
            hostile_record(h, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(8, h->chan, 0), 0, NULL);
        else if (i == 1)
            hostile_record(h, frag, pli_rec_w1(100, h->chan, 0), F(200), NULL);
        else
            hostile_record(h, pli_rec_meta(PLI_REC_FRAG, 0, 0), pli_rec_w1(i == 2 ? 101 : 0, h->chan, 0), 0, NULL);
        expect_session_end(h, &in, "a long message", PLAIT_E_PROTO, words[i]);
    }
    innocent_end(w, &in);
    end_world(w);
}

static void keep_everything(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    if (plait_conn_index(c) == 0 && log->nheld < 4096)
        hold_all(log, c, msg);
}

Test(fault_ring, more_messages_than_the_window_allows)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    struct log *srv;

    innocent_start(w, &in);
    w->on_msg = keep_everything;
    w->accept.window = 10;
    hostile_open(h);
    srv = &w->srv[w->nsrv - 1];
    for (int i = 0; i < 11; i++)
        hostile_record(h, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(8, h->chan, 0), 0, NULL);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(srv->nheld, 10);
    while (srv->nheld) /* held in place, they keep the memory of the link */
        plait_msg_release(srv->held[--srv->nheld]);
    expect_session_end(h, &in, "the window", PLAIT_E_PROTO, "window");
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_ring, a_message_longer_than_was_agreed)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);

    innocent_start(w, &in);
    w->accept.max_msg = 100;
    hostile_open(h);
    hostile_record(h, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(101, h->chan, 0), 0, NULL);
    expect_session_end(h, &in, "101 bytes", PLAIT_E_PROTO, "maximum");
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_ring, a_reply_that_comes_twice)
{
    struct world *w = listening_world();
    struct innocent in;
    struct outcome o = { 0 };
    struct hostile *h = new_hostile(w);
    struct log *srv;

    innocent_start(w, &in);
    hostile_open(h);
    srv = &w->srv[w->nsrv - 1];
    WAIT(w, srv->c_opened, 1);
    FAILS(plait_request(srv->conn[0], "x", 1, 0, on_reply, &o), 0);
    HOSTILE_WAIT(h, h->records == 1);
    for (int i = 0; i < 2; i++)
        hostile_record(h, pli_rec_meta(PLI_REC_REPLY, PLI_RF_COOKIE, 0), pli_rec_w1(8, h->chan, 0), h->last_cookie, NULL);
    expect_session_end(h, &in, "twice", PLAIT_E_PROTO, "not outstanding");
    cr_assert_eq(o.n, 1);
    cr_assert_eq(o.status, 0);
    innocent_end(w, &in);
    end_world(w);
}

/* A one-way message's receipt answered as if it were a request, and the other way round. */
Test(fault_ring, the_wrong_kind_of_answer)
{
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (int i = 0; i < 2; i++) {
        struct hostile *h = new_hostile(w);
        struct plait_out out = PLAIT_OUT_INIT;
        struct outcome o = { 0 };
        struct log *srv;

        hostile_open(h);
        srv = &w->srv[w->nsrv - 1];
        WAIT(w, srv->c_opened, 1);
        out.arg = &o;
        if (i)
            out.on_done = on_done;
        else
            out.on_reply = on_reply;
        FAILS(plait_sendx(srv->conn[0], &out), 0);
        HOSTILE_WAIT(h, h->records == 1);
        hostile_record(h, pli_rec_meta(i ? PLI_REC_REPLY : PLI_REC_RECEIPT, PLI_RF_COOKIE, 0), pli_rec_w1(0, h->chan, 0),
                       h->last_cookie, NULL);
        expect_session_end(h, &in, "the wrong kind", PLAIT_E_PROTO, "not outstanding");
        cr_assert_eq(o.n, 1);
        cr_assert_eq(o.status, PLAIT_E_PROTO);
    }
    innocent_end(w, &in);
    end_world(w);
}

/* ---- the ring itself ---- */

/* Writes a header where the victim looks next. */
static void raw_header(struct hostile *h, uint32_t meta, uint64_t w1)
{
    struct pli_ring_tx *tx = &pli_shm_of(h->tr)->tx;
    struct pli_shm_slot *slot = &tx->slots[tx->at->pos & tx->mask];

    slot->word1 = w1;
    atomic_store_explicit(&slot->word0, (uint64_t)meta << 32 | (uint32_t)tx->at->pos, memory_order_release);
}

Test(fault_ring, lengths_beyond_the_ring)
{
    static const struct {
        uint32_t hdr_len, len;
    } cases[] = { { 0, 0xffffffffu }, { 0xffff, 0xffffffffu }, { 0xffff, 0 },          { 0, 0x7fffffff },
                  { 0, 16384 },       { 0, 16369 },            { 0xffff, 0xffff0000u } };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hostile *h = new_hostile(w);

        hostile_open(h);
        raw_header(h, pli_rec_meta(PLI_REC_ONEWAY, 0, cases[i].hdr_len), pli_rec_w1(cases[i].len, h->chan, 0));
        expect_session_end(h, &in, "a length", PLAIT_E_PROTO, "end of the ring");
    }
    innocent_end(w, &in);
    end_world(w);
}

/* A record that would end just behind the ring. */
Test(fault_ring, a_record_across_the_end_of_the_ring)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    struct pli_ring_tx *tx;

    innocent_start(w, &in);
    hostile_open(h);
    tx = &pli_shm_of(h->tr)->tx;
    for (unsigned n = w->srv[w->nsrv - 1].msgs; ((tx->at->pos + 1) & tx->mask) != 0; n = w->srv[w->nsrv - 1].msgs) {
        hostile_record(h, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(8, h->chan, 0), 0, NULL);
        WAIT(w, w->srv[w->nsrv - 1].msgs, n + 1);
    }
    raw_header(h, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(49, h->chan, 0));
    expect_session_end(h, &in, "over the end", PLAIT_E_PROTO, "end of the ring");
    innocent_end(w, &in);
    end_world(w);
}

/* Pads without end: each pass does a bounded amount of work, and others are served. */
Test(fault_ring, pads_without_end)
{
    struct world *w = listening_world();
    struct innocent in;
    struct outcome o = { 0 };
    struct hostile *h = new_hostile(w);
    struct pli_ring_tx *tx;

    innocent_start(w, &in);
    hostile_open(h);
    tx = &pli_shm_of(h->tr)->tx;
    for (int i = 0; i < 10000; i++) {
        raw_header(h, PLI_SHM_PAD, 0);
        tx->at->pos += tx->nslots - (tx->at->pos & tx->mask);
        plait_ctx_poll(w->ctx[0]);
    }
    FAILS(plait_request(in.log.conn[0], "x", 1, 0, on_reply, &o), 0);
    WAIT(w, o.n, 1);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

/* Nothing that a peer writes at random into its own memory harms more than itself. */
Test(fault_ring, noise)
{
    struct world *w = listening_world();
    struct innocent in;
    uint32_t x = 12345;

    innocent_start(w, &in);
    for (int round = 0; round < (getenv("PLAIT_TEST_QUICK") ? 20 : 60); round++) {
        struct hostile *h = new_hostile(w);
        struct log *srv;

        w->nsrv = 1;
        hostile_open(h);
        srv = &w->srv[1];
        WAIT(w, srv->c_opened, 1);
        for (int i = 0; i < 2000 && !srv->c_closed; i++) {
            struct pli_ring_tx *tx = &pli_shm_of(h->tr)->tx;

            x = x * 1664525u + 1013904223u;
            if (round % 2) { /* all of the words */
                raw_header(h, x, (uint64_t)x << 32 | (x * 7 & 0xffff));
                tx->at->pos++;
            } else if ((x >> 8) % 3 == 0) { /* well-formed records of random kinds */
                raw_header(h, pli_rec_meta(1 + (x >> 10) % 10, (x >> 14) % 8, 0), pli_rec_w1((x >> 17) % 40, h->chan, 0));
                tx->at->pos++;
            } else { /* any byte of the segment */
                ((uint8_t *)pli_shm_of(h->tr)->seg.addr)[(x >> 4) % (PLI_SHM_CTL_SIZE + PLI_SHM_FIRST_SLOTS * PLI_SHM_SLOT)] = (uint8_t)(x >> 24);
            }
            if (i % 3 == 0)
                plait_send(srv->conn[0], "12345678", 8, 0);
            poll_all(w);
        }
        hostile_close(h);
        WAIT(w, srv->closed, 1);
        cr_assert_eq(srv->misuse, 0);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

/* ---- the cursor ---- */

static void set_cursor(struct hostile *h, uint64_t value)
{
    atomic_store(&pli_shm_of(h->tr)->own->cursor, value);
}

/* The victim sends until it must look at the cursor. */
static void send_until_full(struct log *srv, struct hostile *h)
{
    for (int i = 0; i < 2000 && !srv->c_closed; i++) {
        plait_send(srv->conn[0], "12345678", 8, 0);
        if (i % 100 == 0)
            poll_all(h->w);
    }
}

Test(fault_ring, cursors_that_cannot_be)
{
    static const uint64_t cursors[] = { UINT64_MAX, 1u << 31, 0x100000000ull, 300, 257 };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof cursors / sizeof cursors[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct log *srv;

        hostile_open(h);
        srv = &w->srv[w->nsrv - 1];
        WAIT(w, srv->c_opened, 1);
        h->attached = false; /* it does not read any more */
        set_cursor(h, cursors[i]);
        send_until_full(srv, h);
        expect_session_end(h, &in, "beyond", PLAIT_E_BADPEER, "cursor");
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_ring, a_cursor_that_goes_back)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    struct log *srv;

    innocent_start(w, &in);
    hostile_open(h);
    srv = &w->srv[w->nsrv - 1];
    WAIT(w, srv->c_opened, 1);
    h->attached = false;
    send_until_full(srv, h);
    set_cursor(h, 200);
    WAIT(w, srv->writable, 1);
    set_cursor(h, 199);
    send_until_full(srv, h);
    expect_session_end(h, &in, "back", PLAIT_E_BADPEER, "cursor");
    innocent_end(w, &in);
    end_world(w);
}

/* It never reads: its own connection is stuck, nobody else's. */
Test(fault_ring, a_peer_that_does_not_read)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    struct log *srv;

    innocent_start(w, &in);
    hostile_open(h);
    srv = &w->srv[w->nsrv - 1];
    WAIT(w, srv->c_opened, 1);
    h->attached = false;
    send_until_full(srv, h);
    FAILS(plait_send(srv->conn[0], "x", 1, 0), PLAIT_E_AGAIN);
    settle(w);
    cr_assert_eq(srv->c_closed, 0);
    FAILS(plait_conn_abort(srv->conn[0]), 0);
    WAIT(w, srv->c_closed, 1);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

/* Parked words and eventfds: a peer that says it sleeps, and wakes us for nothing. */
Test(fault_ring, false_alarms)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    struct pli_shm *s;
    struct log *srv;
    uint64_t one = 1;

    innocent_start(w, &in);
    hostile_open(h);
    s = pli_shm_of(h->tr);
    srv = &w->srv[w->nsrv - 1];
    WAIT(w, srv->c_opened, 1);
    for (int i = 0; i < 1000; i++) {
        atomic_fetch_add(&s->own->parked, 1);
        atomic_store(&s->own->want_space, i & 1);
        cr_assert_eq(write(s->peer_wake_fd, &one, sizeof one), 8);
        plait_send(srv->conn[0], "12345678", 8, 0);
        poll_all(w);
        hostile_poll(h);
    }
    cr_assert_eq(srv->c_closed, 0);
    /* a counter that is full must not block the victim */
    one = UINT64_MAX - 1;
    fcntl(s->wake_fd, F_SETFL, O_NONBLOCK);
    while (write(s->wake_fd, &one, sizeof one) > 0)
        continue;
    for (int i = 0; i < 10; i++) {
        atomic_fetch_add(&s->own->parked, 1);
        plait_send(srv->conn[0], "12345678", 8, 0);
        hostile_poll(h);
    }
    cr_assert_eq(srv->c_closed, 0);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

/* ---- the connection's handshake in LINK records ---- */

Test(fault_ring, connections_of_sessions_that_are_not_there)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    struct pli_wire_msg msg;
    unsigned expected = 1;

    innocent_start(w, &in);
    hostile_open(h);
    for (int i = 0; i < 4; i++) {
        hostile_conn_msg(h, &msg, PLI_WIRE_CONN_OPEN);
        if (i == 0)
            memset(msg.conn.sid, 9, PLI_ID_LEN); /* no such session */
        if (i == 1)
            memcpy(msg.conn.sid, "\0", 1); /* nor this one */
        if (i == 2)
            msg.conn.index = 0; /* the place is taken */
        if (i == 3)
            msg.conn.index = 1; /* it has one only */
        msg.conn.chan = (uint16_t)(100 + i);
        hostile_link_record(h, &msg);
        expected++;
        HOSTILE_WAIT(h, h->answers == expected);
        cr_assert_eq(h->answer.type, PLI_WIRE_CONN_REFUSE, "%d", i);
        cr_assert_eq(h->answer.conn.peer_chan, 100 + i);
    }
    cr_assert_eq(w->srv[w->nsrv - 1].c_closed, 0);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_ring, answers_to_connections_that_nobody_opened)
{
    static const enum pli_wire_type types[] = { PLI_WIRE_CONN_ACCEPT, PLI_WIRE_CONN_REFUSE, PLI_WIRE_BYE, PLI_WIRE_TR_UP };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (int i = 0; i < 5; i++) {
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg msg;

        hostile_open(h);
        hostile_conn_msg(h, &msg, types[i % 4]);
        msg.conn.peer_chan = i == 4 ? h->chan : 4711;
        msg.conn.code = PLAIT_E_REJECTED;
        if (types[i % 4] == PLI_WIRE_BYE) {
            memset(&msg.end, 0, sizeof msg.end);
            msg.end.code = PLAIT_E_CLOSED;
        }
        hostile_link_record(h, &msg);
        expect_session_end(h, &in, "an answer", PLAIT_E_PROTO, pli_wire_type_name(types[i % 4]));
    }
    innocent_end(w, &in);
    end_world(w);
}
