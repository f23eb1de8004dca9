/* SPDX-License-Identifier: BSD-3-Clause */
#include "machine.h"

#include <string.h>

#define MAX 1024

struct result {
    int n;
    struct pli_place at[MAX];
};

static void place(const struct pli_topo *t, const struct pli_place_opts *opts, struct result *r)
{
    r->n = pli_topo_place(t, opts, r->at, MAX);
    cr_assert_geq(r->n, 1, "%s", plait_error_text());
    cr_assert_eq(pli_topo_place(t, opts, NULL, 0), r->n, "counting gives the same");
    for (int i = 0; i < r->n; i++) {
        const struct pli_topo_pu *pu = pli_topo_find_pu(t, r->at[i].pu);

        cr_assert_not_null(pu);
        cr_assert(pu->allowed, "PU %d is not allowed", pu->os);
        cr_assert_eq(r->at[i].core, pu->core);
        cr_assert_eq(r->at[i].node, pli_topo_core(t, pu->core)->node);
        cr_assert_eq(r->at[i].mem_node, pli_topo_mem_node(t, r->at[i].node));
        cr_assert_eq(r->at[i].oversubscribed, r->at[0].oversubscribed);
    }
}

/* Places all ranks of a job, and checks that no core (with use_smt: no PU) is given twice. Returns how many
 * contexts do not have the node of their rank's first one. */
static int place_disjoint(const struct pli_topo *t, int ranks, int contexts, int use_smt)
{
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    static struct result r;
    char used[MAX] = { 0 };
    int strays = 0;

    opts.local_size = ranks;
    opts.contexts = contexts;
    opts.use_smt = use_smt;
    for (opts.local_rank = 0; opts.local_rank < ranks; opts.local_rank++) {
        place(t, &opts, &r);
        if (contexts)
            cr_assert_eq(r.n, contexts);
        for (int i = 0; i < r.n; i++) {
            int id = use_smt ? r.at[i].pu : r.at[i].core;

            cr_assert_eq(r.at[i].oversubscribed, 0, "%d ranks x %d", ranks, contexts);
            cr_assert_not(used[id], "%d ranks x %d: rank %d gets %d again", ranks, contexts, opts.local_rank,
                          id);
            used[id] = 1;
            strays += r.at[i].node != r.at[0].node;
        }
    }
    return strays;
}

static struct result *place_rank(const struct pli_topo *t, int rank, int ranks, int contexts)
{
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    static struct result r;

    opts.local_rank = rank;
    opts.local_size = ranks;
    opts.contexts = contexts;
    place(t, &opts, &r);
    return &r;
}

Test(place, one_context_for_each_core)
{
    struct pli_topo *t = load_synthetic(BIG);
    struct result *r = place_rank(t, 0, 1, 0);

    cr_assert_eq(r->n, 128);
    for (int i = 0; i < 128; i++) {
        cr_assert_eq(r->at[i].pu, i);
        cr_assert_eq(r->at[i].oversubscribed, 0);
    }
    pli_topo_destroy(t);
}

Test(place, hyperthreads_only_on_request)
{
    struct pli_topo *t = load_synthetic(BIG);
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    static struct result r;

    opts.contexts = 129;
    place(t, &opts, &r);
    cr_assert_eq(r.at[128].pu, 0);
    cr_assert_eq(r.at[128].oversubscribed, 1);
    opts.use_smt = 1;
    place(t, &opts, &r);
    cr_assert_eq(r.at[127].pu, 127, "cores first");
    cr_assert_eq(r.at[128].pu, 128);
    cr_assert_eq(r.at[128].oversubscribed, 0);
    opts.contexts = 0;
    place(t, &opts, &r);
    cr_assert_eq(r.n, 256);
    cr_assert_eq(r.at[0].oversubscribed, 0);
    opts.contexts = 257;
    place(t, &opts, &r);
    cr_assert_eq(r.at[256].oversubscribed, 1);
    pli_topo_destroy(t);
}

Test(place, ranks_get_disjoint_cores)
{
    struct pli_topo *t = load_synthetic(BIG);

    for (int ranks = 1; ranks <= 128; ranks += ranks < 20 ? 1 : 9) {
        place_disjoint(t, ranks, 0, 0);
        place_disjoint(t, ranks, 128 / ranks, 0);
        place_disjoint(t, ranks, 1, 0);
    }
    cr_assert_eq(place_disjoint(t, 128, 1, 0), 0);
    cr_assert_eq(place_disjoint(t, 8, 16, 0), 0);
    cr_assert_eq(place_disjoint(t, 16, 5, 0), 0, "3 x 5 cores of 16 fit on a node");
    cr_assert_eq(place_disjoint(t, 24, 5, 0), 0);
    cr_assert_leq(place_disjoint(t, 25, 5, 0), 4, "only the last rank is left the remnants");
    cr_assert_eq(place_disjoint(t, 8, 32, 1), 0);
    cr_assert_eq(place_disjoint(t, 8, 20, 1), 0);
    cr_assert_eq(place_disjoint(t, 16, 0, 1), 0);
    pli_topo_destroy(t);
}

Test(place, neighbours_are_close)
{
    struct pli_topo *t = load_synthetic(BIG);

    cr_assert_eq(place_rank(t, 0, 2, 1)->at[0].pu, 0);
    cr_assert_eq(place_rank(t, 1, 2, 1)->at[0].pu, 1);
    for (int rank = 0; rank < 128; rank++)
        cr_assert_eq(place_rank(t, rank, 128, 1)->at[0].core, rank);
    /* 6 of the 8 cores around a cache: the next rank takes the next cache */
    cr_assert_eq(place_rank(t, 1, 2, 6)->at[0].pu, 8);
    cr_assert_eq(place_rank(t, 1, 2, 6)->at[5].pu, 13);
    pli_topo_destroy(t);
}

Test(place, four_nodes)
{
    struct pli_topo *t = load_synthetic("numa:4 core:2 pu:1");

    for (int rank = 0; rank < 4; rank++) {
        struct result *r = place_rank(t, rank, 4, 0);

        cr_assert_eq(r->n, 2);
        cr_assert_eq(r->at[0].node, rank);
        cr_assert_eq(r->at[1].node, rank);
    }
    cr_assert_eq(place_disjoint(t, 3, 2, 0), 0);
    cr_assert_eq(place_disjoint(t, 8, 1, 0), 0);
    cr_assert_eq(place_rank(t, 0, 9, 0)->at[0].oversubscribed, 1);
    pli_topo_destroy(t);
}

Test(place, three_ranks_on_two_cores)
{
    struct pli_topo *t = load_synthetic("core:2 pu:1");
    static const int pu[] = { 0, 1, 0 };

    for (int rank = 0; rank < 3; rank++)
        for (int contexts = 0; contexts < 2; contexts++) {
            struct result *r = place_rank(t, rank, 3, contexts);

            cr_assert_eq(r->n, 1);
            cr_assert_eq(r->at[0].pu, pu[rank]);
            cr_assert_eq(r->at[0].oversubscribed, 1, "also in the rank that is alone on its core");
        }
    for (int rank = 0; rank < 2; rank++)
        cr_assert_eq(place_rank(t, rank, 2, 1)->at[0].oversubscribed, 0);
    cr_assert_eq(place_rank(t, 0, 2, 2)->at[1].oversubscribed, 1);
    pli_topo_destroy(t);
}

Test(place, three_ranks_on_two_cores_with_smt)
{
    struct pli_topo *t = load_synthetic("core:2 pu:2");

    cr_assert_eq(place_disjoint(t, 3, 1, 1), 0);
    cr_assert_eq(place_disjoint(t, 4, 1, 1), 0);
    cr_assert_eq(place_disjoint(t, 4, 0, 1), 0);
    cr_assert_eq(place_disjoint(t, 2, 2, 1), 0);
    pli_topo_destroy(t);
    t = load_synthetic("numa:4 core:2 pu:2");
    cr_assert_eq(place_disjoint(t, 3, 3, 1), 0, "two cores with two threads each, not three cores");
    pli_topo_destroy(t);
    t = load_synthetic("core:2 pu:2");
    cr_assert_eq(place_rank(t, 0, 3, 1)->at[0].oversubscribed, 1, "not on request, so not used");
    pli_topo_destroy(t);
}

/* When there is too much of everything, load is even, and every rank comes to the same verdict. */
Test(place, oversubscription_is_even)
{
    struct pli_topo *t = load_synthetic("numa:2 core:4 pu:2");

    for (int use_smt = 0; use_smt < 2; use_smt++)
        for (int ranks = 1; ranks < 40; ranks++)
            for (int contexts = 1; contexts < 12; contexts++) {
                struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
                int verdict = ranks * contexts > (use_smt ? 16 : 8);
                static struct result r;
                int load[16] = { 0 };

                opts.local_size = ranks;
                opts.contexts = contexts;
                opts.use_smt = use_smt;
                for (opts.local_rank = 0; opts.local_rank < ranks; opts.local_rank++) {
                    place(t, &opts, &r);
                    /* cores cannot always be cut so that the PUs suffice: 3 x 5 on 8 cores with two each */
                    if (verdict || ranks * contexts <= 8)
                        cr_assert_eq(r.at[0].oversubscribed, verdict, "%d x %d", ranks, contexts);
                    for (int i = 0; i < r.n; i++)
                        load[r.at[i].pu]++;
                }
                for (int i = 0; i < 16; i++)
                    cr_assert_leq(load[i], 1 + 2 * ranks * contexts / 8);
            }
    pli_topo_destroy(t);
}

Test(place, more_contexts_than_pus)
{
    struct pli_topo *t = load_synthetic("core:2 pu:2");
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    static struct result r;

    opts.contexts = 1000;
    opts.use_smt = 1;
    place(t, &opts, &r);
    cr_assert_eq(r.n, 1000);
    cr_assert_eq(r.at[999].oversubscribed, 1);
    opts.contexts = PLI_PLACE_MAX + 1;
    cr_assert_eq(pli_topo_place(t, &opts, r.at, MAX), PLAIT_E_INVAL);
    cr_assert(strstr(plait_error_text(), "65536"));
    pli_topo_destroy(t);
}

Test(place, offline_and_disallowed_cores_are_left_out)
{
    struct pli_topo *t = load_xml("offline.xml");
    struct result *r = place_rank(t, 0, 1, 0);

    cr_assert_eq(r->n, 107);
    cr_assert_eq(r->at[0].pu, 1);
    cr_assert_eq(r->at[106].pu, 111);
    for (int ranks = 1; ranks <= 107; ranks += 7)
        place_disjoint(t, ranks, 0, 0);
    cr_assert_eq(place_disjoint(t, 6, 13, 0), 0, "node 1 has 13 cores left, node 0 has 14");
    cr_assert_eq(place_rank(t, 0, 1, 16)->at[0].node, 2, "the first node that has 16 cores");
    cr_assert_eq(place_rank(t, 107, 108, 0)->at[0].oversubscribed, 1);
    pli_topo_destroy(t);
}

Test(place, cpuset_of_one_core)
{
    struct pli_topo *t = load_xml("onecore.xml");
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    static struct result r;

    place(t, &opts, &r);
    cr_assert_eq(r.n, 1);
    cr_assert_eq(r.at[0].pu, 9);
    cr_assert_eq(r.at[0].node, 2);
    cr_assert_eq(r.at[0].oversubscribed, 0);
    opts.use_smt = 1;
    place(t, &opts, &r);
    cr_assert_eq(r.n, 2);
    cr_assert_eq(r.at[1].pu, 25);
    cr_assert_eq(place_rank(t, 1, 2, 1)->at[0].oversubscribed, 1);
    pli_topo_destroy(t);
}

Test(place, asymmetric_nodes)
{
    struct pli_topo *t = load_xml("asym.xml");
    struct result *r;

    cr_assert_eq(place_disjoint(t, 6, 2, 0), 0);
    cr_assert_eq(place_disjoint(t, 3, 3, 0), 0);
    cr_assert_eq(place_disjoint(t, 2, 4, 0), 0);
    r = place_rank(t, 3, 6, 2);
    cr_assert_eq(r->at[0].node, 1);
    cr_assert_eq(r->at[0].mem_node, 0, "node 1 has no memory");
    pli_topo_destroy(t);
}

Test(place, near_a_pu_or_node)
{
    struct pli_topo *t = load_synthetic(BIG);
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    static struct result r;
    int first;

    opts.contexts = 20;
    opts.near_node = 5;
    place(t, &opts, &r);
    for (int i = 0; i < 16; i++)
        cr_assert_eq(r.at[i].node, 5);
    cr_assert_eq(r.at[16].node, 4, "then the same package");
    opts.contexts = 9;
    opts.near_pu = 128 + 77;
    place(t, &opts, &r);
    cr_assert_eq(r.at[0].pu, 77);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(r.at[i].core / 8, 77 / 8);
    cr_assert_eq(r.at[8].node, 77 / 16);
    opts.near_pu = 9999;
    opts.near_node = 9999;
    place(t, &opts, &r);
    cr_assert_eq(r.at[0].pu, 0);
    /* ranks of a job stay apart, whatever each of them wishes */
    opts.contexts = 1;
    opts.local_size = 2;
    opts.near_pu = 73;
    place(t, &opts, &r);
    first = r.at[0].pu;
    opts.local_rank = 1;
    opts.near_pu = 72;
    place(t, &opts, &r);
    cr_assert_neq(r.at[0].pu, first);
    pli_topo_destroy(t);
}

/* A launcher gave each rank cores of its own: use them all, from the first. */
Test(place, bound_apart)
{
    for (int rank = 0; rank < 4; rank++) {
        struct pli_topo *t = load_synthetic("numa:4 core:2 pu:1");
        char list[16];
        struct result *r;

        snprintf(list, sizeof list, "%d-%d", 2 * rank, 2 * rank + 1);
        cr_assert_eq(pli_topo_limit(t, list), 0);
        r = place_rank(t, rank, 4, 0);
        cr_assert_eq(r->n, 2);
        cr_assert_eq(r->at[0].pu, 2 * rank);
        cr_assert_eq(r->at[1].pu, 2 * rank + 1);
        cr_assert_eq(r->at[0].oversubscribed, 0);
        cr_assert_eq(place_rank(t, rank, 4, 3)->at[0].oversubscribed, 1);
        pli_topo_destroy(t);
    }
}

/* A launcher gave several ranks the same cores (a socket each, say): those who share a mask divide it. */
Test(place, bound_together)
{
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    static struct result r;
    char used[128] = { 0 };

    opts.local_size = 4;
    opts.share_size = 2;
    for (int rank = 0; rank < 4; rank++) {
        struct pli_topo *t = load_synthetic(BIG);

        cr_assert_eq(pli_topo_limit(t, rank % 2 ? "64-127" : "0-63"), 0);
        opts.local_rank = rank;
        opts.share_rank = rank / 2;
        place(t, &opts, &r);
        cr_assert_eq(r.n, 32);
        for (int i = 0; i < r.n; i++) {
            cr_assert_eq(r.at[i].core / 64, rank % 2);
            cr_assert_not(used[r.at[i].core]);
            used[r.at[i].core] = 1;
            cr_assert_eq(r.at[i].oversubscribed, 0);
        }
        opts.share_size = 65;
        place(t, &opts, &r);
        cr_assert_eq(r.n, 1);
        cr_assert_eq(r.at[0].oversubscribed, 1, "65 ranks share 64 cores of 128");
        opts.share_size = 2;
        pli_topo_destroy(t);
    }
}

/* The same, and nobody told who shares what. */
Test(place, bound_together_unknown)
{
    struct pli_topo *t = load_synthetic(BIG);
    struct result *r;
    int first;

    cr_assert_eq(pli_topo_limit(t, "0-63"), 0);
    first = place_rank(t, 0, 4, 1)->at[0].pu;
    r = place_rank(t, 2, 4, 1);
    cr_assert_neq(r->at[0].pu, first);
    cr_assert_eq(r->at[0].oversubscribed, 0);
    r = place_rank(t, 0, 4, 0);
    cr_assert_eq(r->n, 32, "a fair part of the machine");
    cr_assert_eq(r->at[0].oversubscribed, 1, "may collide with others, so do not spin");
    cr_assert_eq(pli_topo_limit(t, "0"), 0);
    cr_assert_eq(place_rank(t, 0, 4, 1)->at[0].oversubscribed, 0);
    cr_assert_eq(place_rank(t, 0, 129, 1)->at[0].oversubscribed, 1, "more ranks than cores in the machine");
    pli_topo_destroy(t);
}

Test(place, bad_options)
{
    struct pli_topo *t = load_synthetic("core:2 pu:1");
    static const struct pli_place_opts bad[] = {
        { -1, 0, 0, 1, 0, 0, -1, -1 }, { 1, 0, 1, 1, 0, 0, -1, -1 },  { 1, 0, -1, 1, 0, 0, -1, -1 },
        { 1, 0, 0, -1, 0, 0, -1, -1 }, { 1, 0, 4, 4, 0, 0, -1, -1 },  { 1, 0, 0, 4, 2, 2, -1, -1 },
        { 1, 0, 0, 4, 0, -1, -1, -1 }, { 1, 0, 0, 4, -1, 2, -1, -1 }, { 1, 0, 1, 0, 0, 0, -1, -1 },
    };
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    struct pli_place out[1];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(pli_topo_place(t, &bad[i], out, 1), PLAIT_E_INVAL, "case %zu", i);
    opts.contexts = 2;
    cr_assert_eq(pli_topo_place(t, &opts, out, 1), PLAIT_E_INVAL, "no room");
    pli_topo_destroy(t);
}
