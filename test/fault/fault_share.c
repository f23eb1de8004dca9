/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad peers that show regions, and name them in messages. */
#include "runtime/mem.h"
#include "runtime/offer.h"
#include "test/fault/share_util.h"

TestSuite(fault_share, .timeout = 120);

Test(fault_share, shared_and_revoked)
{
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct plait_mem *mem = region();
    struct innocent in;

    innocent_start(w, &in);
    hostile_open(h);
    share_good(h, 3, mem);
    cr_assert_eq(mapped(w), LEN);
    share_good(h, 7, mem);
    cr_assert_eq(mapped(w), 2 * LEN);
    send_mem(h, PLI_MEM_REVOKE, 3, 0, -1);
    send_mem(h, PLI_MEM_REVOKE, 7, 0, -1);
    share_good(h, 8, mem); /* the answer comes after these */
    cr_assert_eq(mapped(w), LEN);
    send_mem(h, PLI_MEM_REVOKE, 7, 0, -1);
    expect_link_end(h, &in, "revoked twice", PLAIT_E_PROTO, "REVOKE of the key 7");
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

Test(fault_share, bad_regions)
{
    struct {
        const char *what, *word;
        size_t real, told;
        int seals;
        bool reserved;
    } bad[] = {
        { "no seals", "lacks seals", LEN, LEN, 0, true },
        { "not sealed against shrinking", "lacks seals", LEN, LEN, F_SEAL_GROW | F_SEAL_FUTURE_WRITE, true },
        { "not sealed against growing", "lacks seals", LEN, LEN, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE, true },
        { "writable", "lacks seals", LEN, LEN, F_SEAL_SHRINK | F_SEAL_GROW, true },
        { "shorter than told", "its message says", LEN, 2 * LEN, GOOD_SEALS, true },
        { "longer than told", "its message says", 2 * LEN, LEN, GOOD_SEALS, true },
        { "not reserved", "not been reserved", LEN, LEN, GOOD_SEALS, false },
        { "no whole pages", "not whole pages", LEN + 1, LEN + 1, GOOD_SEALS, true },
        { "of length 0", "not whole pages", LEN, 0, GOOD_SEALS, true },
    };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hostile *h = new_hostile(w);
        int fd = memfd(bad[i].real, bad[i].seals, bad[i].reserved);

        hostile_open(h);
        send_mem(h, PLI_MEM_SHARE, 1, bad[i].told, fd);
        close(fd);
        expect_link_end(h, &in, bad[i].what, PLAIT_E_BADPEER, bad[i].word);
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_share, not_a_memfd)
{
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct innocent in;
    int fd;

    innocent_start(w, &in);
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    hostile_open(h);
    send_mem(h, PLI_MEM_SHARE, 1, LEN, fd);
    close(fd);
    expect_link_end(h, &in, "/dev/null", PLAIT_E_BADPEER, "not a memfd");
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_share, frames_that_do_not_fit)
{
    struct {
        const char *what, *word;
        enum pli_mem_op op;
        uint32_t key;
        bool fd;
    } bad[] = {
        { "the same key twice", "SHARE with the key 5", PLI_MEM_SHARE, 5, true },
        { "a lower key", "SHARE with the key 4", PLI_MEM_SHARE, 4, true },
        { "no memory", "SHARE with 0 descriptors", PLI_MEM_SHARE, 6, false },
        { "SHARED for nothing", "SHARED for the key 1", PLI_MEM_SHARED, 1, false },
        { "SHARED with memory", "with descriptors", PLI_MEM_SHARED, 1, true },
        { "REVOKE of an unknown key", "REVOKE of the key 6", PLI_MEM_REVOKE, 6, false },
        { "REVOKE of key 0", "REVOKE of the key 0", PLI_MEM_REVOKE, 0, false },
        { "REVOKE with memory", "with descriptors", PLI_MEM_REVOKE, 5, true },
    };
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hostile *h = new_hostile(w);

        hostile_open(h);
        share_good(h, 5, mem);
        send_mem(h, bad[i].op, bad[i].key, LEN, bad[i].fd ? mem->fd : -1);
        expect_link_end(h, &in, bad[i].what, PLAIT_E_PROTO, bad[i].word);
    }
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

Test(fault_share, more_than_may_be_mapped)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct innocent in;

    setenv("PLAIT_MAPPED_MAX", "200000", 1);
    innocent_start(w, &in);
    hostile_open(h);
    for (uint32_t key = 1; key <= 3; key++)
        share_good(h, key, mem);
    send_mem(h, PLI_MEM_SHARE, 4, LEN, mem->fd);
    expect_shared(h, 4, PLAIT_E_NOMEM, "PLAIT_MAPPED_MAX");
    send_mem(h, PLI_MEM_REVOKE, 1, 0, -1);
    share_good(h, 5, mem);
    cr_assert_eq(mapped(w), 3 * LEN);
    /* one that was refused is none */
    send_mem(h, PLI_MEM_REVOKE, 4, 0, -1);
    expect_link_end(h, &in, "refused", PLAIT_E_PROTO, "REVOKE of the key 4");
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

Test(fault_share, more_regions_than_there_may_be)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct innocent in;

    innocent_start(w, &in);
    hostile_open(h);
    for (uint32_t key = 1; key <= PLI_SHARES_MAX; key++)
        share_good(h, key, mem);
    send_mem(h, PLI_MEM_SHARE, 5000, LEN, mem->fd);
    expect_shared(h, 5000, PLAIT_E_NOMEM, "1024 regions");
    hostile_close(h);
    innocent_check(w, &in);
    cr_assert_eq(mapped(w), 0);
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

/* ---- references in messages ---- */

/* A record with these references, as the words say. */
static void send_refs(struct hostile *h, enum pli_rec_type type, uint32_t flags, uint64_t cookie, uint32_t receipt, uint32_t count, uint32_t len,
                      const struct pli_ref *refs)
{
    struct {
        struct pli_ref_head head;
        struct pli_ref refs[PLAIT_IOV_MAX];
    } rec = { .head = { receipt, count } };

    if (refs)
        memcpy(rec.refs, refs, (count < PLAIT_IOV_MAX ? count : PLAIT_IOV_MAX) * sizeof *refs);
    hostile_record(h, pli_rec_meta(type, flags | PLI_RF_REF, 0), pli_rec_w1(len, h->chan, 0), cookie, &rec);
}

static uint32_t rec_len(uint32_t count)
{
    return (uint32_t)(sizeof(struct pli_ref_head) + count * sizeof(struct pli_ref));
}

/* A good one arrives: the link has not been harmed. */
static void expect_good(struct hostile *h)
{
    struct pli_ref ref = { 1, LEN, 0 };
    unsigned before = came;

    send_refs(h, PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_RECEIPT, 7, 0, 1, rec_len(1), &ref);
    HOSTILE_WAIT(h, came == before + 1);
}

struct bad_refs {
    const char *what, *word;
    uint32_t type, flags, receipt, count, len; /* len 0: as count says */
    struct pli_ref ref;
    uint64_t cookie;
};

#define ONE PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_RECEIPT
#define REQ PLI_REC_REQUEST, PLI_RF_COOKIE

static const struct bad_refs bad_refs[] = {
    { "a key never shared", "the key of a region", ONE, 0, 1, 0, { 2, 10, 0 }, 7 },
    { "the largest key", "the key of a region", REQ, 0, 1, 0, { UINT32_MAX, 10, 0 }, 7 },
    { "an address", "address", ONE, 0, 1, 0, { PLI_REF_ADDRESS, 10, 4096 }, 7 },
    { "an offset beyond the end", "offset and length", ONE, 0, 1, 0, { 1, 0, LEN + 1 }, 7 },
    { "a length beyond the end", "offset and length", REQ, 0, 1, 0, { 1, LEN, 1 }, 7 },
    { "an offset that overflows", "offset and length", ONE, 0, 1, 0, { 1, 16, UINT64_MAX - 7 }, 7 },
    { "an offset that overflows", "offset and length", ONE, 0, 1, 0, { 1, UINT32_MAX, UINT64_MAX }, 7 },
    { "more references than there may be", "more references", ONE, 0, PLAIT_IOV_MAX + 1, 100, { 1, 1, 0 }, 7 },
    { "4 G references", "more references", ONE, 0, UINT32_MAX, 24, { 1, 1, 0 }, 7 },
    { "less references than told", "length does not fit", ONE, 0, 2, 24, { 1, 1, 0 }, 7 },
    { "more references than told", "length does not fit", ONE, 0, 1, 40, { 1, 1, 0 }, 7 },
    { "half a reference", "length does not fit", ONE, 0, 1, 25, { 1, 1, 0 }, 7 },
    { "no head", "shorter", ONE, 0, 0, 7, { 1, 1, 0 }, 7 },
    { "nothing", "shorter", ONE, 0, 0, 1, { 1, 1, 0 }, 7 },
    { "a receipt for a request", "receipt", REQ, 3, 1, 0, { 1, 10, 0 }, 7 },
    { "a receipt for a one-way message", "receipt", ONE, 3, 1, 0, { 1, 10, 0 }, 7 },
    { "a reply to nothing", "not outstanding", PLI_REC_REPLY, PLI_RF_COOKIE, 3, 1, 0, { 1, 10, 0 }, 7 },
    { "a reply with a status", "status", PLI_REC_REPLY, PLI_RF_COOKIE, 3, 1, 0, { 1, 10, 0 }, (uint64_t)5 << 32 },
    { "no number", "type and flags", PLI_REC_ONEWAY, 0, 0, 1, 0, { 1, 10, 0 }, 0 },
    { "a part", "type and flags", PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG, 0, 1, 0, { 1, 10, 0 }, (uint64_t)100 << 32 },
    { "FIN", "type and flags", PLI_REC_FIN, PLI_RF_COOKIE, 0, 1, 0, { 1, 10, 0 }, 0 },
};

/* Each ends its connection and nothing else: the link goes on, and so does another connection of it. */
Test(fault_share, bad_references)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct pli_ref refs[PLAIT_IOV_MAX];
    struct innocent in;

    innocent_start(w, &in);
    w->on_msg = count_them;
    for (size_t i = 0; i < sizeof bad_refs / sizeof bad_refs[0]; i++) {
        const struct bad_refs *b = &bad_refs[i];
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg msg;
        struct log *srv;
        bool breach = strcmp(b->what, "a reply to nothing") == 0; /* as without references: the link ends */

        hostile_open(h);
        srv = &w->srv[w->nsrv - 1];
        share_good(h, 1, mem);
        expect_good(h);
        for (uint32_t k = 0; k < PLAIT_IOV_MAX; k++)
            refs[k] = b->ref;
        send_refs(h, b->type, b->flags, b->cookie, b->receipt, b->count, b->len ? b->len : rec_len(b->count), refs);
        WAIT(w, srv->c_closed, 1);
        cr_assert_eq(srv->c_code, PLAIT_E_PROTO, "%s: %s %s", b->what, plait_status_name(srv->c_code), srv->c_text);
        cr_assert_not_null(strstr(srv->c_text, b->word), "%s: no '%s' in: %s", b->what, b->word, srv->c_text);
        cr_assert_not_null(strstr(srv->c_text, "peer process"), "%s: the peer is not named: %s", b->what, srv->c_text);
        if (!breach) {
            /* another session on the same link */
            h->sid[0]++;
            h->answers = 0;
            hostile_session_open(h, &msg);
            hostile_conn_msg(h, &msg, PLI_WIRE_CONN_OPEN);
            hostile_link_record(h, &msg);
            HOSTILE_WAIT(h, h->answers == 1);
            cr_assert_eq(h->answer.type, PLI_WIRE_CONN_ACCEPT);
            h->chan = h->answer.conn.chan;
            expect_good(h);
            cr_assert_eq(mapped(w), LEN);
        }
        hostile_close(h);
        innocent_check(w, &in);
        cr_assert_eq(mapped(w), 0);
        w->nsrv = 1; /* their logs have been looked at */
    }
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

Test(fault_share, reference_to_what_was_revoked)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct pli_ref ref = { 1, 10, 0 };
    struct innocent in;

    innocent_start(w, &in);
    w->on_msg = count_them;
    hostile_open(h);
    share_good(h, 1, mem);
    expect_good(h);
    send_mem(h, PLI_MEM_REVOKE, 1, 0, -1);
    share_good(h, 2, mem);
    send_refs(h, ONE, 7, 0, 1, rec_len(1), &ref);
    expect_conn_end(h, &in, "a revoked one", PLAIT_E_ABORTED, "revoked");
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

/* Together over max_msg, and one after the other below 2^32 and above. */
Test(fault_share, references_that_are_too_long)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct pli_ref refs[PLAIT_IOV_MAX];
    struct innocent in;

    innocent_start(w, &in);
    w->on_msg = count_them;
    for (uint32_t i = 0; i < PLAIT_IOV_MAX; i++)
        refs[i] = (struct pli_ref){ 1, LEN, 0 };
    for (uint32_t count = 4; count <= PLAIT_IOV_MAX; count += PLAIT_IOV_MAX - 5) {
        struct hostile *h = new_hostile(w);

        hostile_open(h);
        share_good(h, 1, mem);
        came = 0;
        send_refs(h, ONE, 7, 0, 4, rec_len(4), refs); /* 256 KiB: all right */
        HOSTILE_WAIT(h, came == 1);
        expect_good(h);
        send_refs(h, ONE, 7, 0, count + 1, rec_len(count + 1), refs);
        expect_conn_end(h, &in, "longer together than the greatest message", PLAIT_E_PROTO, "total length");
    }
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

Test(fault_share, reference_inside_a_long_message)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct pli_ref ref = { 1, 10, 0 };
    struct innocent in;

    innocent_start(w, &in);
    hostile_open(h);
    share_good(h, 1, mem);
    hostile_record(h, pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG, 0), pli_rec_w1(100, h->chan, 0), (uint64_t)200 << 32, NULL);
    send_refs(h, ONE, 7, 0, 1, rec_len(1), &ref);
    WAIT(w, w->srv[1].c_closed, 1);
    cr_assert_eq(w->srv[1].c_code, PLAIT_E_PROTO);
    cr_assert_not_null(strstr(w->srv[1].c_text, "inside a long one"), "%s", w->srv[1].c_text);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

static void hold_it(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    if (msg->len == 5)
        echo(log, c, msg);
    else
        hold_all(log, c, msg);
}

Test(fault_share, more_references_than_the_window_allows)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct pli_ref ref = { 1, 64, 0 };
    struct innocent in;
    struct log *srv;

    innocent_start(w, &in);
    w->on_msg = hold_it;
    w->accept.window = 10;
    hostile_open(h);
    srv = &w->srv[w->nsrv - 1];
    share_good(h, 1, mem);
    for (int i = 0; i < 11; i++)
        send_refs(h, ONE, 7, 0, 1, rec_len(1), &ref);
    WAIT(w, srv->c_closed, 1);
    cr_assert_eq(srv->nheld, 10);
    expect_conn_end(h, &in, "one more than the window", PLAIT_E_PROTO, "window");
    while (srv->nheld) {
        cr_assert_eq(((const char *)srv->held[srv->nheld - 1]->data)[0], 0);
        plait_msg_release(srv->held[--srv->nheld]);
    }
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

/* What it holds is mapped, revoked or not: the cap cannot be passed by that. */
Test(fault_share, held_and_revoked_counts)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct innocent in;
    struct log *srv;

    setenv("PLAIT_MAPPED_MAX", "200000", 1);
    innocent_start(w, &in);
    w->on_msg = hold_it;
    hostile_open(h);
    srv = &w->srv[w->nsrv - 1];
    for (uint32_t key = 1; key <= 3; key++) {
        struct pli_ref ref = { key, 64, 0 };

        share_good(h, key, mem);
        send_refs(h, ONE, 7, 0, 1, rec_len(1), &ref);
        WAIT(w, srv->nheld, key);
        send_mem(h, PLI_MEM_REVOKE, key, 0, -1);
    }
    send_mem(h, PLI_MEM_SHARE, 4, LEN, mem->fd);
    expect_shared(h, 4, PLAIT_E_NOMEM, "PLAIT_MAPPED_MAX");
    cr_assert_eq(mapped(w), 3 * LEN);
    plait_msg_release(srv->held[--srv->nheld]);
    share_good(h, 5, mem);
    hostile_close(h);
    WAIT(w, srv->closed, 1);
    while (srv->nheld)
        plait_msg_release(srv->held[--srv->nheld]);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

/* The owner's side: receipts that do not fit. */
Test(fault_share, bad_answers_to_the_owner)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct outcome o = { 0 };
    struct plait_out out = PLAIT_OUT_INIT;
    struct pli_wire_msg msg;
    struct innocent in;
    struct log *srv;

    innocent_start(w, &in);
    for (int i = 0; i < 3; i++) {
        h = new_hostile(w);
        memset(&o, 0, sizeof o);
        hostile_open(h);
        srv = &w->srv[w->nsrv - 1];
        WAIT(w, srv->c_opened, 1);
        out.flags = PLAIT_NOCOPY;
        out.data = plait_mem_addr(mem);
        out.len = LEN;
        out.on_done = on_done;
        out.arg = &o;
        FAILS(plait_sendx(srv->conn[0], &out), 0);
        hostile_expect(h, &msg, PLI_WIRE_MEM);
        cr_assert_eq(msg.mem.op, PLI_MEM_SHARE);
        cr_assert_eq(msg.mem.len, LEN);
        if (i == 0) { /* another key */
            send_mem(h, PLI_MEM_SHARED, msg.mem.key + 1, 0, -1);
            expect_link_end(h, &in, "another key", PLAIT_E_PROTO, "SHARED for the key 2");
        } else if (i == 1) { /* twice */
            send_mem(h, PLI_MEM_SHARED, msg.mem.key, 0, -1);
            send_mem(h, PLI_MEM_SHARED, msg.mem.key, 0, -1);
            expect_link_end(h, &in, "twice", PLAIT_E_PROTO, "SHARED for the key 1");
        } else { /* it does not revoke what is not its own */
            send_mem(h, PLI_MEM_SHARED, msg.mem.key, 0, -1);
            send_mem(h, PLI_MEM_REVOKE, msg.mem.key, 0, -1);
            expect_link_end(h, &in, "not its own", PLAIT_E_PROTO, "REVOKE of the key 1");
        }
        cr_assert_eq(o.n, 1);
        cr_assert_eq(o.status, PLAIT_E_PROTO);
    }
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}
