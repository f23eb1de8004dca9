/* SPDX-License-Identifier: BSD-3-Clause */
/* The command plait: finds the subcommand. */
#include <argp.h>
#include <stdio.h>
#include <string.h>
#include <plait/plait.h>
#include "cli.h"

static const struct {
    const char *name, *full, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "info", "plait info", "the version, this machine, and the limits that matter", cmd_info },
    { "perf", "plait perf", "measure latency, rates and bandwidth beside the machine's limits", cmd_perf },
    { "serve", "plait serve", "an echo service", cmd_serve },
    { "ping", "plait ping", "round trips to an echo service", cmd_ping },
};

enum { NCOMMANDS = sizeof(commands) / sizeof(commands[0]) };

static int help(void)
{
    printf("Usage: plait SUBCOMMAND [OPTION...]\n"
           "       plait --help | --version\n\n"
           "plait moves messages between the processes of a parallel job.\n\n"
           "Subcommands:\n");
    for (int i = 0; i < NCOMMANDS; i++)
        printf("  %-8s%s\n", commands[i].name, commands[i].what);
    printf("\nExamples:\n"
           "  plait info                     what plait sees of this machine\n"
           "  plait perf lat                 how long a message takes between two cores\n"
           "  plait perf all --json          everything that it can measure, for programs\n"
           "  plait serve plait://127.0.0.1  in one terminal, and in another, with what it printed:\n"
           "  plait ping plait://127.0.0.1:PORT\n\n"
           "plait SUBCOMMAND --help tells more. Exit status: 0, 1 if something failed, 2 for a mistake in\n"
           "the command line.\n");
    return CLI_OK;
}

static int find(const char *name)
{
    for (int i = 0; i < NCOMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return i;
    return -1;
}

static int usage_error(const char *what, const char *name)
{
    cli_error("unknown %s '%s'; there are info, perf, serve and ping (try 'plait --help')", what, name);
    return CLI_USAGE;
}

static int run(int argc, char **argv)
{
    static char help_option[] = "--help", *help_argv[3];
    int i;

    if (strcmp(argv[1], "help") == 0 && argc > 2) { /* plait help perf */
        i = find(argv[2]);
        if (i < 0)
            return usage_error("subcommand", argv[2]);
        help_argv[1] = help_option;
        argv = help_argv;
        argc = 2;
    } else if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        return help();
    } else if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("plait %s\n", plait_version());
        return CLI_OK;
    } else if (argv[1][0] == '-') {
        return usage_error("option", argv[1]);
    } else {
        i = find(argv[1]);
        if (i < 0)
            return usage_error("subcommand", argv[1]);
        argv++;
        argc--;
    }
    cli_set_name(commands[i].full);
    /* argp and getopt name themselves by it, and only read it */
    argv[0] = (char *)(uintptr_t)commands[i].full;
    return commands[i].run(argc, argv);
}

int main(int argc, char **argv)
{
    argp_err_exit_status = CLI_USAGE;
    if (argc < 2) {
        cli_error("a subcommand is missing: info, perf, serve or ping (try 'plait --help')");
        return CLI_USAGE;
    }
    return cli_finish(run(argc, argv));
}
