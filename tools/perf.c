/* SPDX-License-Identifier: BSD-3-Clause */
/* plait perf: its command line. */
#include "perf.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_SERVE = 256, OPT_CONNECT, OPT_CPUS, OPT_JSON, OPT_ROUNDS, OPT_BATCH,
       OPT_TAKE, OPT_TOUCH, OPT_DUPLEX, OPT_BESIDE, OPT_BESIDE_SIZE, OPT_PEER };

static const struct argp_option options[] = {
    { "size", 's', "LIST", 0, "Bytes of a message, as 8,64,1k,4k,64k (each test has its own)", 0 },
    { "window", 'w', "LIST", 0, "Messages or requests in flight (rate 4096, rpc 64, bw 64)", 0 },
    { "iterations", 'n', "N", 0, "Messages or round trips in each round", 0 },
    { "rounds", OPT_ROUNDS, "N", 0, "Rounds, of which the median is taken (5)", 0 },
    { "batch", OPT_BATCH, "N", 0, "rate: messages that go out together, with PLAIT_MORE (16)", 0 },
    { "duplex", OPT_DUPLEX, NULL, 0, "bw: both sides stream at once; the figure is the sum", 0 },
    { "take", OPT_TAKE, "HOW", 0, "How long messages are taken: auto, place, copy, cma or ring (auto)", 0 },
    { "touch", OPT_TOUCH, "HOW", 0, "lat: what receivers do with the bytes: none or copy (none)", 0 },
    { "beside", OPT_BESIDE, "HOW", 0,
      "lat: a stream of long messages, taken as --take says, on another connection of the same link", 0 },
    { "beside-size", OPT_BESIDE_SIZE, "SIZE", 0, "Bytes of each message of that stream (1M)", 0 },
    { "transport", 't', "NAME", 0, "auto, shm or ofi (auto)", 0 },
    { "cpus", OPT_CPUS, "A,B", 0, "CPUs of the two sides (the first two cores that may be used)", 0 },
    { "json", OPT_JSON, NULL, 0, "One JSON object per line and figure", 0 },
    { "serve", OPT_SERVE, "URI", 0, "Be the peer of others, for every test, until Ctrl-C", 0 },
    { "connect", OPT_CONNECT, "URI", 0, "Measure with the peer that was started there with --serve", 0 },
    { "peer", OPT_PEER, NULL, OPTION_HIDDEN, NULL, 0 },
    { 0 }
};

static const char args_doc[] = "TEST...\n--serve URI";

static const char doc[] =
    "Measures messages between two processes, each pinned to a core, beside what the machine can do.\n\n"
    "TEST is one or more of\n"
    "  limit  the machine's own limits, without plait: ping-pong, ring, copy, locked add, wake-up\n"
    "  lat    half a round trip: a one-way message each way, sent from the receiver's callback\n"
    "  rate   one-way messages a second; the peer counts them, and confirms the last\n"
    "  rpc    requests a second, each answered, some in flight\n"
    "  bw     bytes a second in one-way messages\n"
    "  wake   half a round trip when both sides sleep: what waking a context costs\n"
    "  put    bytes a second written into the peer's memory, one-sided\n"
    "  get    bytes a second read from there\n"
    "  atomic additions a second to 8 bytes there\n"
    "  all    all of these"
    "\v"
    "A peer process is started for the tests, and ended with them. Rounds of plait alternate with rounds of "
    "the limit, and who is not measured sleeps meanwhile. A figure is the median of the rounds, the ratio is "
    "the median of each round's figure to the limit just before and after it (the lower the better for lat "
    "and wake, the higher for the others).\n\n"
    "lat: the clock is read once in 32 round trips, which costs less than a ns each; so min ... max are of "
    "means of 32, and p99 hides what is shorter than that. The limit is the best raw ping-pong of 8 bytes "
    "over two cache lines with one writer each, whatever the size; `physical' is the best over one line "
    "that both write. Every round trip of wake is timed by itself; its limit is a raw eventfd.\n\n"
    "lat --touch none measures what the API gives: a message is received where it lies, nobody reads its "
    "bytes, and each side writes a whole new one; so does ucp_am_lat of UCX. With --touch copy each side "
    "first copies what it got into memory of its own, as a tagged receive or MPI_Recv does.\n\n"
    "lat --beside measures what a stream of long messages costs short ones on the same link: without it and with "
    "it in every round. `alone' is p50 without the stream; p50 to mean are with it, and GB/s is what it carried meanwhile, "
    "4 messages in flight. The ratio is that of p50 with the stream to p50 without it, of each round; beside it that "
    "of the means, which counts the few that wait long.\n\n"
    "lat, rate and bw send messages of 8 KiB and more from memory of plait_mem_alloc() with PLAIT_NOCOPY, "
    "shorter ones with plait_send(). --take says what both sides do with those that stay with their sender: "
    "in place, copied from there, read with process_vm_readv (cma), or through the ring like shorter ones; "
    "auto leaves it to plait.\n\n"
    "rate, rpc, bw: a round's figure is the median of its ten parts, so that one interruption does not "
    "count; short rounds are one part. The limit of rate is the best bare ring with one producer and one "
    "consumer; of rpc half of that, or window by the raw round trip, whichever is less; of bw the best of "
    "memcpy in one process and a pipelined copy between two; with --duplex the best of pipelined copies in "
    "both directions at once.\n\n"
    "put, get, atomic: the peer's program takes no part. The limit of put and get is memcpy in one process, "
    "of atomic a locked add to a line that nobody else touches, in shared memory.\n\n"
    "Between nodes, or with --transport ofi, the limits are another pair of programs, both on this node, polling "
    "without sleep: raw TCP over loopback, and bare libfabric on the provider that PLAIT_PROVIDER names (tcp if "
    "unset) in whichever of its forms is the fastest; `fabric' is the latter. The limit of lat is the raw ping-pong of "
    "that size; of rate raw messages with a send() each, which a transport that gathers them passes; of rpc that or "
    "window by the raw round trip, whichever is less; of bw the better of raw TCP and libfabric; of put and get that or "
    "8 bytes one way and the message the other; of atomic a round trip; of wake a raw ping-pong that sleeps. `limit "
    "--transport ofi' shows them alone. libfabric is loaded when it is needed; where it is missing, `fabric' is too.\n\n"
    "With one core only, both sides share it and sleep instead of polling; the figures then mean little.\n\n"
    "Examples:\n"
    "  plait perf lat --size 8\n"
    "  plait perf limit --transport ofi\n"
    "  plait perf lat rate rpc --json | jq '{test, size, ratio}'\n"
    "  plait perf rpc --window 1,16,64 --cpus 2,3\n"
    "  plait perf bw --size 64k,1M,64M --duplex\n"
    "  plait perf lat --size 1k,4k --touch copy\n"
    "  plait perf lat --beside copy --beside-size 4M\n"
    "  plait perf --serve plait://127.0.0.1:7001        in one terminal, and in another:\n"
    "  plait perf lat --connect plait://127.0.0.1:7001";

static unsigned test_bits(const char *name)
{
    if (strcmp(name, "all") == 0)
        return (1u << PERF_TESTS) - 1;
    for (int t = 0; t < PERF_TESTS; t++)
        if (strcmp(name, perf_test_name(t)) == 0)
            return 1u << t;
    return 0;
}

static void parse_list(struct argp_state *state, const char *name, const char *arg, struct cli_list *l)
{
    const char *why;

    if (cli_parse_sizes(arg, l, &why))
        argp_error(state, "%s: '%s': %s", name, arg, why);
}

static unsigned long parse_number(struct argp_state *state, const char *name, const char *arg,
                                  unsigned long max)
{
    unsigned long v = 0;
    const char *why;

    if (cli_parse_count(arg, &v, &why))
        argp_error(state, "%s: '%s': %s", name, arg, why);
    if (v < 1 || v > max)
        argp_error(state, "%s: '%s' is not from 1 to %lu", name, arg, max);
    return v;
}

static void check(struct perf_opts *o, struct argp_state *state)
{
    size_t max = 0;

    for (unsigned i = 0; i < o->windows.n; i++)
        if (o->windows.v[i] > PERF_WINDOW_MAX)
            argp_error(state, "--window: %zu is more than %u", o->windows.v[i], PERF_WINDOW_MAX);
    for (unsigned i = 0; i < o->sizes.n; i++)
        if (o->sizes.v[i] > max)
            max = o->sizes.v[i];
    if (max > LIMIT_BW_MAX_SIZE)
        argp_error(state, "--size: %zu bytes are more than %uM", max, LIMIT_BW_MAX_SIZE >> 20);
    if (o->serve && (o->tests || o->connect))
        argp_error(state, "--serve serves all tests of others: name no test, and no --connect, beside it");
    if (o->duplex && !(o->tests & 1u << PERF_BW))
        argp_error(state, "--duplex is for the test bw");
    if (o->beside && o->tests != 1u << PERF_LAT)
        argp_error(state, "--beside is for the test lat, alone");
    if (o->beside && o->touch)
        argp_error(state, "--beside measures with --touch none only");
    if (o->beside && strcmp(o->take, "auto") != 0 && strcmp(o->take, o->beside) != 0)
        argp_error(state, "--beside %s says how long messages are taken, and --take %s something else", o->beside,
                   o->take);
    if (o->beside)
        o->take = o->beside;
    else if (o->beside_size)
        argp_error(state, "--beside-size is for --beside");
    if (!o->beside_size)
        o->beside_size = 1u << 20;
    if (o->touch && !(o->tests & 1u << PERF_LAT))
        argp_error(state, "--touch is for the test lat");
    if (!o->serve && !o->tests)
        argp_error(state, "a test is missing: limit, lat, rate, rpc, bw, wake, put, get, atomic or all");
}

static void parse_text(int key, char *arg, struct argp_state *state)
{
    struct perf_opts *o = state->input;
    const char *why;

    switch (key) {
    case 't':
        if (strcmp(arg, "auto") != 0 && strcmp(arg, "shm") != 0 && strcmp(arg, "ofi") != 0)
            argp_error(state, "--transport: there is no transport '%s', but auto, shm and ofi", arg);
        o->transport = arg;
        break;
    case OPT_TAKE:
        if (!perf_take_known(arg))
            argp_error(state, "--take: there is no way '%s', but auto, place, copy, cma and ring", arg);
        o->take = arg;
        break;
    case OPT_BESIDE:
        if (!perf_take_known(arg))
            argp_error(state, "--beside: there is no way '%s', but auto, place, copy, cma and ring", arg);
        o->beside = arg;
        break;
    case OPT_BESIDE_SIZE:
        if (cli_parse_size(arg, &o->beside_size, &why))
            argp_error(state, "--beside-size: '%s': %s", arg, why);
        if (o->beside_size < 1 || o->beside_size > LIMIT_BW_MAX_SIZE)
            argp_error(state, "--beside-size: '%s' is not from 1 to %uM", arg, LIMIT_BW_MAX_SIZE >> 20);
        break;
    case OPT_TOUCH:
        if (strcmp(arg, "none") != 0 && strcmp(arg, "copy") != 0)
            argp_error(state, "--touch: '%s' is neither none nor copy", arg);
        o->touch = strcmp(arg, "copy") == 0;
        break;
    case OPT_CPUS:
        if (cli_parse_cpus(arg, o->cpus, &why))
            argp_error(state, "--cpus: '%s': %s", arg, why);
        break;
    case OPT_SERVE:
        o->serve = arg;
        break;
    case OPT_CONNECT:
        o->connect = arg;
        break;
    default:
        if (!test_bits(arg))
            argp_error(state, "unknown test '%s'; there are limit, lat, rate, rpc, bw, wake, put, get, atomic and all", arg);
        o->tests |= test_bits(arg);
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct perf_opts *o = state->input;

    switch (key) {
    case 's':
        parse_list(state, "--size", arg, &o->sizes);
        break;
    case 'w':
        parse_list(state, "--window", arg, &o->windows);
        break;
    case 'n':
        o->iterations = parse_number(state, "--iterations", arg, 4000000000ul);
        break;
    case OPT_ROUNDS:
        o->rounds = parse_number(state, "--rounds", arg, PERF_ROUNDS_MAX);
        break;
    case OPT_BATCH:
        o->batch = parse_number(state, "--batch", arg, 4096);
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case OPT_DUPLEX:
        o->duplex = true;
        break;
    case OPT_PEER:
        o->peer = true;
        break;
    case 't':
    case OPT_TAKE:
    case OPT_TOUCH:
    case OPT_BESIDE:
    case OPT_BESIDE_SIZE:
    case OPT_CPUS:
    case OPT_SERVE:
    case OPT_CONNECT:
    case ARGP_KEY_ARG:
        parse_text(key, arg, state);
        break;
    case ARGP_KEY_END:
        check(o, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int cmd_perf(int argc, char **argv)
{
    static const struct argp argp = { options, parse, args_doc, doc, NULL, NULL, NULL };
    struct perf_opts o = { .rounds = 5, .batch = 16, .transport = "auto", .take = "auto",
                           .cpus = { -1, -1 } };

    setvbuf(stdout, NULL, _IOLBF, 0);
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    return o.serve ? perf_serve(&o) : perf_run(&o);
}
