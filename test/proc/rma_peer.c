/* SPDX-License-Identifier: BSD-3-Clause */
/* The other process of the tests of one-sided operations:
 *   rma_peer own [URI]      listens there, prints its URI, exports a region to whoever asks, until its standard input ends
 *   rma_peer use ID N URI   N rounds on the region of the owner there (0: for ever) */
#include "test/proc/rma_load.h"
#include "test/proc/peer.h"

static int own(const char *where)
{
    struct plait_listener *l;
    struct rma_owner o;

    if (rma_owner_start(&o, ctx, where, &l) < 0)
        return fail("listening");
    say(plait_listener_uri(l));
    if (peer_run() != 0)
        return 1;
    plait_mem_release(o.mem);
    return plait_ctx_destroy(ctx);
}

static int use(unsigned id, unsigned long n, const char *uri)
{
    struct rma_user u;
    uint64_t guess = 0;
    int rc = 0;

    if (rma_user_open(&u, ctx, uri) < 0 || rma_user_ask(&u) < 0)
        return fail("opening");
    say("open");
    for (unsigned long i = 0; rc == 0 && (n == 0 || i < n); i++)
        rc = rma_round(&u, id, (uint32_t)i, &guess);
    if (rc)
        return rc > 0 ? fail("other bytes came back than were put") : fail("a round");
    say("done");
    plait_session_close(u.s);
    while (!u.closed && plait_ctx_poll(ctx) >= 0)
        continue;
    plait_session_release(u.s);
    return plait_ctx_destroy(ctx);
}

int main(int argc, char **argv)
{
    if (argc < 2 || plait_ctx_create(&ctx, NULL) < 0)
        return fail("creating a context");
    if (argc == 5 && strcmp(argv[1], "use") == 0)
        return use((unsigned)atoi(argv[2]), strtoul(argv[3], NULL, 10), argv[4]);
    return own(argc > 2 ? argv[2] : "plait://127.0.0.1:0/");
}
