/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad peers on the control channel: garbage, truncation, silence and wrong order at every step of the handshake, in both roles. */
#include "test/fault/hostile.h"

TestSuite(fault_channel, .timeout = 120);

/* ---- a bad client ---- */

enum step { DIALED, GREETED, LINKED, ASKED };

static void client_up_to(struct hostile *h, enum step step)
{
    struct pli_wire_msg msg;

    if (step == DIALED)
        hostile_dial(h);
    if (step == GREETED) {
        hostile_dial(h);
        hostile_hello(h, &msg);
    }
    if (step >= LINKED)
        hostile_link(h);
    if (step == ASKED)
        hostile_session_open(h, &msg);
}

static const enum step steps[] = { DIALED, GREETED, LINKED, ASKED };
#define EACH_STEP(s) for (size_t i_ = 0; i_ < 4 && (s = steps[i_], true); i_++)

Test(fault_channel, garbage_from_a_client)
{
    struct world *w = listening_world();
    struct innocent in;
    enum step s;

    innocent_start(w, &in);
    EACH_STEP(s) {
        struct hostile *h = new_hostile(w);
        uint8_t garbage[64];

        memset(garbage, 0xd6, sizeof garbage);
        client_up_to(h, s);
        hostile_write(h, garbage, sizeof garbage, NULL, 0);
        if (s != DIALED) /* before HELLO nobody is worth an answer */
            hostile_refused(h, PLAIT_E_PROTO, "unknown type");
        else
            HOSTILE_WAIT(h, hostile_readable(h));
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, truncation_by_a_client)
{
    struct world *w = listening_world();
    struct innocent in;
    enum step s;

    innocent_start(w, &in);
    EACH_STEP(s) {
        for (size_t n = 0; n < 12; n++) {
            struct hostile *h = new_hostile(w);
            static const uint8_t head[12] = { 100, 0, 0, 0, PLI_WIRE_SESSION_OPEN, 0, 0, 0, 1, 2, 3, 4 };

            client_up_to(h, s);
            if (n)
                hostile_write(h, head, n, NULL, 0);
            hostile_close(h);
            innocent_check(w, &in);
        }
    }
    innocent_end(w, &in);
    end_world(w);
}

/* The clock is moved by hand: nobody waits 5 s. */
Test(fault_channel, silence_of_a_client)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    struct pli_wire_msg msg;

    innocent_start(w, &in);
    hostile_dial(h);
    hostile_hello(h, &msg);
    while (h->nfds)
        close(h->fds[--h->nfds]);
    pli_clock_fake_start(pli_clock_now());
    for (int i = 0; i < 100; i++) {
        poll_all(w);
        pli_clock_fake_advance(100 * PLI_NS_PER_MS);
    }
    pli_clock_fake_stop();
    hostile_refused(h, PLAIT_E_TIMEDOUT, "did not finish the handshake within 5000 ms");
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, wrong_order_from_a_client)
{
    static const struct {
        enum step step;
        enum pli_wire_type type;
    } cases[] = {
        { DIALED, PLI_WIRE_SESSION_CLOSE }, { DIALED, PLI_WIRE_TR_UP },       { GREETED, PLI_WIRE_TR_UP },
        { GREETED, PLI_WIRE_SESSION_OPEN }, { GREETED, PLI_WIRE_TR_CONTROL }, { GREETED, PLI_WIRE_HELLO },
        { GREETED, PLI_WIRE_HELLO_ACK },    { LINKED, PLI_WIRE_HELLO },       { LINKED, PLI_WIRE_HELLO_ACK },
        { LINKED, PLI_WIRE_TR_CONNECT },    { LINKED, PLI_WIRE_TR_UP },       { LINKED, PLI_WIRE_CONN_OPEN },
        { LINKED, PLI_WIRE_GREETING },      { ASKED, PLI_WIRE_SESSION_OPEN }, { ASKED, PLI_WIRE_CONN_ACCEPT },
    };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg msg;

        client_up_to(h, cases[i].step);
        hostile_conn_msg(h, &msg, cases[i].type);
        switch (cases[i].type) {
        case PLI_WIRE_HELLO:
        case PLI_WIRE_HELLO_ACK:
            hostile_self(&msg.hello.peer);
            break;
        case PLI_WIRE_SESSION_OPEN:
            memset(&msg.open, 0, sizeof msg.open);
            memcpy(msg.open.sid, h->sid, PLI_ID_LEN);
            msg.open.nconns = 1;
            msg.open.listener = 1;
            break;
        case PLI_WIRE_GREETING:
            memset(&msg.greeting, 0, sizeof msg.greeting);
            msg.greeting.unix_name.p = "x";
            msg.greeting.unix_name.len = 1;
            break;
        case PLI_WIRE_TR_CONNECT:
        case PLI_WIRE_TR_CONTROL:
            memset(&msg.tr, 0, sizeof msg.tr);
            break;
        default:
            break;
        }
        hostile_send(h, &msg, NULL);
        if (cases[i].step != DIALED)
            hostile_refused(h, PLAIT_E_PROTO, cases[i].type == PLI_WIRE_SESSION_OPEN && cases[i].step == ASKED ? "second" : pli_wire_type_name(cases[i].type));
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

/* Descriptors that nobody asked for are closed, however many. */
Test(fault_channel, too_many_descriptors_from_a_client)
{
    struct world *w = listening_world();
    struct innocent in;
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), fds[20];

    for (int i = 0; i < 20; i++)
        fds[i] = zero;
    innocent_start(w, &in);
    for (int n = 1; n <= 20; n += 5) {
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg msg = { .type = PLI_WIRE_SESSION_CLOSE };
        uint8_t buf[256];
        int len = pli_wire_encode(buf, sizeof buf, &msg);

        hostile_link(h);
        hostile_write(h, buf, (size_t)len, fds, n); /* the frame announces none */
        hostile_refused(h, PLAIT_E_PROTO, "descriptors");
        hostile_close(h);
        innocent_check(w, &in);
    }
    for (int n = 1; n <= 20; n += 5) { /* before HELLO */
        struct hostile *h = new_hostile(w);

        hostile_dial(h);
        hostile_write(h, "\1", 1, fds, n);
        hostile_close(h);
        innocent_check(w, &in);
    }
    close(zero);
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, another_version_from_a_client)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    struct pli_wire_msg msg = { .type = PLI_WIRE_HELLO };
    uint8_t buf[512];
    int n;

    innocent_start(w, &in);
    hostile_dial(h);
    hostile_self(&msg.hello.peer);
    n = pli_wire_encode(buf, sizeof buf, &msg);
    buf[PLI_WIRE_HEAD + 4] = 99;
    hostile_write(h, buf, (size_t)n, NULL, 0);
    hostile_refused(h, PLAIT_E_VERSION, "version 99");
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, a_context_that_is_not_there)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    struct pli_wire_msg msg = { .type = PLI_WIRE_HELLO };

    innocent_start(w, &in);
    hostile_dial(h);
    hostile_self(&msg.hello.peer);
    msg.hello.peer.target = 4711;
    hostile_send(h, &msg, NULL);
    hostile_refused(h, PLAIT_E_NOTFOUND, "context");
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, no_transport_in_common)
{
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (int other_host = 0; other_host < 2; other_host++) {
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg msg = { .type = PLI_WIRE_HELLO };

        hostile_dial(h);
        hostile_self(&msg.hello.peer);
        if (other_host)
            msg.hello.peer.host[0] ^= 1; /* it says that it is elsewhere: no shared memory */
        msg.hello.peer.transports = other_host ? PLI_TRANSPORT_SHM : 0x80u;
        hostile_send(h, &msg, NULL);
        hostile_refused(h, PLAIT_E_NOTRANSPORT, "transport");
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

/* A channel that is never read: what waits for it is limited, and the link goes. */
Test(fault_channel, a_client_that_does_not_read)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h = new_hostile(w);
    uint64_t end = pli_clock_now() + PATIENCE_NS;

    innocent_start(w, &in);
    hostile_link(h);
    fcntl(h->fd, F_SETFL, O_NONBLOCK);
    while (ctx_stats(w->ctx[0]).links > in.links && pli_clock_now() < end) {
        struct pli_wire_msg msg = { .type = PLI_WIRE_SESSION_OPEN };
        uint8_t buf[512];
        int n;

        memcpy(msg.open.sid, h->sid, PLI_ID_LEN);
        msg.open.nconns = 1;
        msg.open.listener = 12345; /* each one is rejected */
        n = pli_wire_encode(buf, sizeof buf, &msg);
        for (int i = 0; i < 100 && send(h->fd, buf, (size_t)n, MSG_NOSIGNAL) == n; i++)
            continue;
        poll_all(w);
    }
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

/* ---- a bad server ---- */

enum serving { ACCEPTED, MET, ACKED, UP };

static void serve_up_to(struct hostile *h, struct log *cli, enum serving step)
{
    struct pli_wire_msg msg;

    hostile_listen(h);
    start_open(h->w, cli, NULL);
    if (step == ACCEPTED)
        h->fd = hostile_accept(h, h->tcp);
    if (step == MET)
        hostile_greet(h);
    if (step == ACKED) {
        hostile_greet(h);
        hostile_ack(h);
        hostile_expect(h, &msg, PLI_WIRE_TR_CONNECT);
    }
    if (step == UP)
        hostile_serve_link(h);
}

static const enum serving servings[] = { ACCEPTED, MET, ACKED, UP };
#define EACH_SERVING(s) for (size_t i_ = 0; i_ < 4 && (s = servings[i_], true); i_++)

static void expect_failure(struct hostile *h, struct log *cli, int code, const char *word)
{
    WAIT(h->w, cli->closed, 1);
    cr_assert_eq(cli->opened, 0);
    cr_assert_eq(cli->code, code, "%s %s", plait_status_name(cli->code), cli->text);
    cr_assert_not_null(strstr(cli->text, word), "no '%s' in: %s", word, cli->text);
    cr_assert_eq(cli->misuse, 0);
    plait_session_release(cli->s);
    hostile_close(h);
}

Test(fault_channel, garbage_from_a_server)
{
    struct world *w = listening_world();
    struct innocent in;
    enum serving s;

    innocent_start(w, &in);
    EACH_SERVING(s) {
        struct hostile *h = new_hostile(w);
        uint8_t garbage[64];
        struct log cli;

        memset(garbage, 0xd6, sizeof garbage);
        serve_up_to(h, &cli, s);
        hostile_write(h, garbage, sizeof garbage, NULL, 0);
        expect_failure(h, &cli, PLAIT_E_PROTO, "unknown type");
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, truncation_by_a_server)
{
    struct world *w = listening_world();
    struct innocent in;
    enum serving s;

    innocent_start(w, &in);
    EACH_SERVING(s) {
        struct hostile *h = new_hostile(w);
        static const uint8_t head[8] = { 60, 0, 0, 0, PLI_WIRE_SESSION_ACCEPT, 0, 0, 0 };
        struct log cli;

        serve_up_to(h, &cli, s);
        hostile_write(h, head, s == ACCEPTED ? 3 : 8, NULL, 0);
        close(h->fd);
        h->fd = -1;
        if (s == ACCEPTED)
            expect_failure(h, &cli, PLAIT_E_PROTO, "after 3 bytes");
        else
            expect_failure(h, &cli, PLAIT_E_PEERDIED, "ended");
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, silence_of_a_server)
{
    struct world *w = listening_world();
    struct innocent in;
    enum serving s;

    innocent_start(w, &in);
    EACH_SERVING(s) {
        struct hostile *h = new_hostile(w);
        struct plait_session_opts o = session_opts(NULL);
        struct log cli;

        o.open_timeout_ms = 50;
        hostile_listen(h);
        start_open(w, &cli, &o);
        if (s == MET || s == ACKED)
            hostile_greet(h);
        if (s == ACKED)
            hostile_ack(h);
        if (s == UP)
            hostile_serve_link(h);
        WAIT(w, cli.closed, 1);
        cr_assert_eq(cli.code, PLAIT_E_TIMEDOUT, "%s", cli.text);
        cr_assert_not_null(strstr(cli.text, "50"), "%s", cli.text);
        plait_session_release(cli.s);
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, a_server_answers_what_was_not_asked)
{
    static const enum pli_wire_type types[] = {
        PLI_WIRE_HELLO, PLI_WIRE_HELLO_ACK, PLI_WIRE_TR_CONNECT, PLI_WIRE_TR_UP, PLI_WIRE_GREETING, PLI_WIRE_CONN_OPEN,
    };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg msg;
        struct log cli;

        serve_up_to(h, &cli, UP);
        hostile_conn_msg(h, &msg, types[i]);
        if (types[i] == PLI_WIRE_HELLO || types[i] == PLI_WIRE_HELLO_ACK)
            hostile_self(&msg.hello.peer);
        if (types[i] == PLI_WIRE_TR_CONNECT)
            memset(&msg.tr, 0, sizeof msg.tr);
        if (types[i] == PLI_WIRE_GREETING) {
            memset(&msg.greeting, 0, sizeof msg.greeting);
            msg.greeting.unix_name.p = "x";
            msg.greeting.unix_name.len = 1;
        }
        hostile_send(h, &msg, NULL);
        expect_failure(h, &cli, PLAIT_E_PROTO, pli_wire_type_name(types[i]));
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, a_server_chooses_what_was_not_offered)
{
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct pli_wire_msg ack = { .type = PLI_WIRE_HELLO_ACK };
    struct innocent in;
    struct log cli;

    innocent_start(w, &in);
    serve_up_to(h, &cli, MET);
    hostile_self(&ack.hello.peer);
    ack.hello.peer.transports = 0x80u;
    hostile_send(h, &ack, NULL);
    expect_failure(h, &cli, PLAIT_E_NOTRANSPORT, "cannot use");
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, a_server_of_another_version)
{
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct pli_wire_msg msg = { .type = PLI_WIRE_GREETING };
    struct innocent in;
    struct log cli;
    uint8_t buf[256];
    int n;

    innocent_start(w, &in);
    serve_up_to(h, &cli, ACCEPTED);
    msg.greeting.unix_name.p = "x";
    msg.greeting.unix_name.len = 1;
    n = pli_wire_encode(buf, sizeof buf, &msg);
    buf[PLI_WIRE_HEAD + 4] = 99;
    hostile_write(h, buf, (size_t)n, NULL, 0);
    expect_failure(h, &cli, PLAIT_E_VERSION, "version 99");
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

/* Answers for sessions and connections that are not there, or not theirs. */
Test(fault_channel, a_server_accepts_twice)
{
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct innocent in;
    struct log cli;

    innocent_start(w, &in);
    hostile_listen(h);
    start_open(w, &cli, NULL);
    hostile_serve(h);
    WAIT(w, cli.opened, 1);
    hostile_accept_session(h);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_PROTO, "%s", cli.text);
    plait_session_release(cli.s);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_channel, answers_for_strangers_are_ignored)
{
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct pli_wire_msg msg = { .type = PLI_WIRE_SESSION_REJECT };
    struct outcome o = { 0 };
    struct innocent in;
    struct log cli;

    innocent_start(w, &in);
    hostile_listen(h);
    start_open(w, &cli, NULL);
    hostile_serve(h);
    WAIT(w, cli.opened, 1);
    memset(msg.reject.sid, 1, PLI_ID_LEN);
    msg.reject.code = PLAIT_E_REJECTED;
    hostile_send(h, &msg, NULL);
    msg.type = PLI_WIRE_SESSION_CLOSE;
    hostile_send(h, &msg, NULL);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &o), 0);
    HOSTILE_WAIT(h, h->records == 1);
    cr_assert_eq(cli.c_closed, 0);
    hostile_close(h);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_PEERDIED);
    cr_assert_eq(o.n, 1);
    plait_session_release(cli.s);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}
