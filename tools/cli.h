/* SPDX-License-Identifier: BSD-3-Clause */
/* What the subcommands of `plait` share: messages, numbers on the command line, numbers for people.
 *
 * Single thread. Nothing here blocks but cli_finish(), which writes out standard output. */
#ifndef TOOLS_CLI_H
#define TOOLS_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 }; /* exit statuses */

/* The subcommands; each gets its own argv, whose [0] is "plait NAME", and returns the exit status. */
int cmd_info(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_ping(int argc, char **argv);
int cmd_perf(int argc, char **argv);

/* ---- messages, on standard error ---- */

/* "plait NAME", for messages. */
void cli_set_name(const char *name);

/* Prints "plait NAME: ..." on a line of its own; returns CLI_FAILED. */
int cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same for a failed call of the library: adds the library's sentence. */
int cli_plait_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A remark that is no error. */
void cli_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A line that the next one replaces, if standard error is a terminal. NULL removes it. */
void cli_progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Flushes standard output. Returns `status`, or CLI_FAILED with a message if something was not written. */
int cli_finish(int status);

/* ---- numbers on the command line ---- */

#define CLI_LIST_MAX 32

struct cli_list {
    unsigned n;
    size_t v[CLI_LIST_MAX];
};

/* All parsers: 0, or -1 and *why is a static sentence. *out is written only on success. */
int cli_parse_size(const char *text, size_t *out, const char **why);          /* 8, 64k, 1M, 256KiB */
int cli_parse_sizes(const char *text, struct cli_list *out, const char **why);/* a list with commas, none 0 */
int cli_parse_count(const char *text, unsigned long *out, const char **why);  /* a whole number, 0 allowed */
int cli_parse_seconds(const char *text, double *out, const char **why);       /* 1, 0.2; not negative */

/* "0,1" or "1": cpus[1] is -1 if only one is given. */
int cli_parse_cpus(const char *text, int cpus[2], const char **why);

/* ---- numbers for people ---- */

#define CLI_TEXT 32

/* "64 KiB", "1.5 MiB", "8 B"; UINT64_MAX is "unlimited". Returns buf. */
const char *cli_bytes(char buf[CLI_TEXT], uint64_t bytes);

/* ---- signals ---- */

/* Blocks SIGINT and SIGTERM and returns a signalfd for them (close it), or -1 with a message. Call it before
 * the first context: the library's threads inherit the mask. */
int cli_signal_fd(void);

#endif
