/* SPDX-License-Identifier: BSD-3-Clause */
/* plait serve: an echo service. */
#include <argp.h>
#include <stdio.h>
#include "cli.h"
#include "service.h"

enum { OPT_ANY_USER = 256, OPT_CPU };

static const struct argp_option options[] = {
    { "any-user", OPT_ANY_USER, NULL, 0, "Serve every user of this host, not only your own processes", 0 },
    { "cpu", OPT_CPU, "N", 0, "Pin the service to this CPU", 0 },
    { "verbose", 'v', NULL, 0, "Tell of sessions that come and go", 0 },
    { 0 }
};

static const char doc[] =
    "An echo service: a request is answered with its own bytes, a one-way message is sent back.\n"
    "It prints the URI that it listens on, and runs until Ctrl-C (SIGINT) or SIGTERM; then it closes its "
    "sessions in order, and ends at once when it is asked a second time."
    "\v"
    "URI is plait://HOST[:PORT][/RESOURCE]. Without a port it takes a free one; the host * means every "
    "address of this machine.\n\n"
    "Examples:\n"
    "  plait serve plait://127.0.0.1               any free port, for this machine only\n"
    "  plait serve -v plait://127.0.0.1:7000/echo  a fixed port; tell who comes\n"
    "  plait ping plait://127.0.0.1:7000/echo      in another terminal";

static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    (void)conn;
    service_echo(arg, msg);
}

static const struct plait_conn_ops conn_ops = { .on_message = on_message };

static void listening(struct service *sv, const char *uri)
{
    (void)sv;
    printf("listening on %s\n", uri);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct service *sv = state->input;
    const char *why;
    int cpus[2];

    switch (key) {
    case OPT_ANY_USER:
        sv->any_uid = true;
        break;
    case OPT_CPU:
        if (cli_parse_cpus(arg, cpus, &why) || cpus[1] >= 0)
            argp_error(state, "--cpu: '%s' is not the number of a CPU", arg);
        sv->ctx.cpu = cpus[0];
        break;
    case 'v':
        sv->verbose = true;
        break;
    case ARGP_KEY_ARG:
        if (sv->uri)
            argp_error(state, "one URI is enough: '%s' is too much", arg);
        sv->uri = arg;
        break;
    case ARGP_KEY_END:
        if (!sv->uri)
            argp_error(state, "the URI to listen on is missing, as plait://127.0.0.1");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int cmd_serve(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "URI", doc, NULL, NULL, NULL };
    struct service sv = { .ctx = PLAIT_CTX_OPTS_INIT, .conn_ops = &conn_ops, .window = 1024,
                          .listening = listening };

    setvbuf(stdout, NULL, _IOLBF, 0); /* what happens is told when it happens, in a pipe, too */
    argp_parse(&argp, argc, argv, 0, NULL, &sv);
    return service_run(&sv);
}
