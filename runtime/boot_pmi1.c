/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * PMI-1: text lines over the socket PMI_FD, one request, one answer.
 *
 * In a program that also calls MPI_Init, MPICH's library talks over the same socket. That works, because
 * both leave nothing behind between two requests: each reads exactly the answer to what it sent, and the
 * launcher answers a second cmd=init like the first. What cannot be shared is the end. After cmd=finalize
 * the launcher closes the connection; before it, a process that ends counts as failed, and Hydra kills the
 * job. So plait says finalize as late as possible, when the process exits, and only if MPI has not said it or
 * is about to. That also lets a process leave its job and join again.
 *
 * MPI_Finalize closes the descriptor, whose number may then be another file's. plait keeps a duplicate: it
 * is shut down with the original, and reads end-of-file.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plait/status.h"
#include "runtime/boot_parse.h"
#include "runtime/boot_priv.h"
#include "util/err.h"

#define LINE_MAX_IN  8192 /* PMI_process_mapping of a large irregular job */
#define LINE_MAX_OUT 1024 /* MPICH's own client never sends more */
#define KVS_MAX      256
#define PUT_WAIT_MS  60000 /* the launcher answers a put at once, whatever other ranks do */
#define EXIT_WAIT_MS 10000

/* One per process, as is the socket; it outlives the struct pli_boot. */
static struct connection {
    int fd; /* a duplicate of PMI_FD; -1: never joined */
    int pid;
    bool left;   /* joined and left in order */
    bool broken; /* answers can no longer be told apart */
    bool at_exit;
    size_t key_max, value_max;
    char kvs[KVS_MAX + 1];
    char in[LINE_MAX_IN + 1];
} conn = { .fd = -1 };

/* ---- requests and answers ---- */

static int fail_conn(int code, const char *call, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));

static int fail_conn(int code, const char *call, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    conn.broken = true;
    return pli_fail(code, "PMI-1 launcher, %s: %s", call, text);
}

static int fail_closed(const char *call)
{
    if (pli_boot_mpi_state() == PLI_BOOT_MPI_FINALIZED)
        return fail_conn(PLAIT_E_LAUNCHER, call,
                         "MPI_Finalize has ended this process's connection to the launcher;"
                         " finish with the job before MPI_Finalize");
    return fail_conn(PLAIT_E_LAUNCHER, call,
                     "the launcher closed the connection; did mpiexec or another rank end?");
}

static int wait_for(const char *call, short events, uint64_t deadline)
{
    struct pollfd p = { .fd = conn.fd, .events = events };
    int n;

    do
        n = poll(&p, 1, pli_clock_poll_timeout(pli_clock_now(), deadline));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return fail_conn(PLAIT_E_LAUNCHER, call, "poll: %s", strerror(errno));
    if (n == 0 && pli_clock_now() >= deadline)
        return fail_conn(PLAIT_E_TIMEDOUT, call,
                         "no answer in the time given; has every rank of the job made this call?");
    return 0;
}

/* An answer that lies there before the question belongs to somebody else, or to a call that timed out. */
static int expect_quiet(const char *call)
{
    char c;
    ssize_t n = recv(conn.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    if (n > 0)
        return fail_conn(PLAIT_E_LAUNCHER, call,
                         "an answer came that plait had not asked for; is another thread inside an"
                         " MPI call that talks to the launcher?");
    return fail_closed(call);
}

static int send_line(const char *call, const char *line, size_t len, uint64_t deadline)
{
    while (len > 0) {
        ssize_t n = send(conn.fd, line, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            int rc = wait_for(call, POLLOUT, deadline);

            if (rc < 0)
                return rc;
            continue;
        }
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return fail_closed(call);
        if (n < 0)
            return fail_conn(PLAIT_E_LAUNCHER, call, "send: %s", strerror(errno));
        line += n;
        len -= (size_t)n;
    }
    return 0;
}

static int recv_line(const char *call, size_t *len, uint64_t deadline)
{
    size_t have = 0;
    char *end;

    for (;;) {
        ssize_t n;
        int rc = wait_for(call, POLLIN, deadline);

        if (rc < 0)
            return rc;
        n = recv(conn.fd, conn.in + have, LINE_MAX_IN - have, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            continue;
        if (n == 0 && have > 0)
            return fail_conn(PLAIT_E_LAUNCHER, call, "the connection ended in the middle of an answer");
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return fail_closed(call);
        if (n < 0)
            return fail_conn(PLAIT_E_LAUNCHER, call, "recv: %s", strerror(errno));
        end = memchr(conn.in + have, '\n', (size_t)n);
        have += (size_t)n;
        if (end && end + 1 != conn.in + have)
            return fail_conn(PLAIT_E_LAUNCHER, call, "something follows the end of the answer");
        if (end)
            break;
        if (have == LINE_MAX_IN)
            return fail_conn(PLAIT_E_LAUNCHER, call, "the answer is longer than %d bytes", LINE_MAX_IN);
    }
    *len = have;
    return 0;
}

/* One request and its answer, which must be cmd=expect. The fields of msg live until the next request. */
static int ask(const char *line, const char *expect, struct pli_pmi1_msg *msg, uint64_t deadline)
{
    char call[32];
    const char *why;
    size_t len = 0;
    int rc;

    snprintf(call, sizeof call, "%.*s", (int)strcspn(line, " \n"), line);
    if (conn.broken)
        return pli_fail(PLAIT_E_LAUNCHER,
                        "PMI-1 launcher, %s: an earlier call failed, and what the launcher says can no"
                        " longer be trusted",
                        call);
    if ((rc = expect_quiet(call)) < 0 || (rc = send_line(call, line, strlen(line), deadline)) < 0 ||
        (rc = recv_line(call, &len, deadline)) < 0)
        return rc;
    if (pli_pmi1_parse(conn.in, len, msg, &why) < 0)
        return fail_conn(PLAIT_E_LAUNCHER, call, "the answer cannot be read: %s", why);
    if (strcmp(msg->field[0].val, expect) != 0)
        return fail_conn(PLAIT_E_LAUNCHER, call, "the answer is '%.40s' and not '%s'", msg->field[0].val,
                         expect);
    return 0;
}

static bool succeeded(const struct pli_pmi1_msg *msg)
{
    const char *rc = pli_pmi1_field(msg, "rc");

    return rc && strcmp(rc, "0") == 0;
}

static const char *reason(const struct pli_pmi1_msg *msg)
{
    const char *text = pli_pmi1_field(msg, "msg");

    return text ? text : "no reason given";
}

/* ---- joining ---- */

static int handshake(uint64_t deadline)
{
    struct pli_pmi1_msg msg;
    const char *version;
    int rc = ask("cmd=init pmi_version=1 pmi_subversion=1\n", "response_to_init", &msg, deadline);

    if (rc < 0)
        return rc;
    version = pli_pmi1_field(&msg, "pmi_version");
    if (!succeeded(&msg) || !version || strcmp(version, "1") != 0)
        return fail_conn(
            PLAIT_E_LAUNCHER, "cmd=init", "it does not speak PMI version 1 (rc=%.16s, version %.16s)",
            pli_pmi1_field(&msg, "rc") ? pli_pmi1_field(&msg, "rc") : "none", version ? version : "none");
    return 0;
}

static int read_maximum(const struct pli_pmi1_msg *msg, const char *name, uint32_t least, size_t *out)
{
    const char *text = pli_pmi1_field(msg, name);
    uint32_t n;

    if (!text || pli_boot_parse_uint(text, 1u << 30, &n) < 0 || n < least)
        return fail_conn(PLAIT_E_LAUNCHER, "cmd=get_maxes", "%s=%.32s is not a number of at least %u", name,
                         text ? text : "(none)", least);
    *out = n - 1; /* servers count the NUL */
    return 0;
}

static int read_limits(uint64_t deadline)
{
    struct pli_pmi1_msg msg;
    int rc = ask("cmd=get_maxes\n", "maxes", &msg, deadline);

    if (rc < 0 || (rc = read_maximum(&msg, "keylen_max", 64, &conn.key_max)) < 0)
        return rc;
    return read_maximum(&msg, "vallen_max", 64, &conn.value_max);
}

static int read_kvsname(uint64_t deadline)
{
    struct pli_pmi1_msg msg;
    const char *name;
    int rc = ask("cmd=get_my_kvsname\n", "my_kvsname", &msg, deadline);

    if (rc < 0)
        return rc;
    name = pli_pmi1_field(&msg, "kvsname");
    if (!name || !*name || strlen(name) > KVS_MAX)
        return fail_conn(PLAIT_E_LAUNCHER, "cmd=get_my_kvsname",
                         "the name is missing or longer than %d characters", KVS_MAX);
    strcpy(conn.kvs, name);
    return 0;
}

static int read_rank(struct pli_boot *b)
{
    const char *rank = getenv("PMI_RANK"), *size = getenv("PMI_SIZE");

    if (!size || pli_boot_parse_uint(size, PLI_BOOT_RANKS_MAX, &b->size) < 0 || b->size == 0)
        return pli_fail(PLAIT_E_LAUNCHER, "PMI-1 launcher: PMI_SIZE=%.32s is not a number from 1 to %u",
                        size ? size : "(unset)", PLI_BOOT_RANKS_MAX);
    if (!rank || pli_boot_parse_uint(rank, b->size - 1, &b->rank) < 0)
        return pli_fail(PLAIT_E_LAUNCHER, "PMI-1 launcher: PMI_RANK=%.32s is not a number below PMI_SIZE=%u",
                        rank ? rank : "(unset)", b->size);
    return 0;
}

static int locals_from_mapping(struct pli_boot *b, const char *text)
{
    uint32_t *node = malloc(b->size * sizeof *node), n = 0, mine;
    const char *why;

    if (!node)
        return pli_fail(PLAIT_E_NOMEM, "no memory for the nodes of %u ranks", b->size);
    if (pli_boot_parse_mapping(text, b->size, node, &why) < 0) {
        free(node);
        return pli_fail(PLAIT_E_LAUNCHER, "PMI-1 launcher: PMI_process_mapping cannot be read: %s", why);
    }
    mine = node[b->rank];
    for (uint32_t r = 0; r < b->size; r++)
        if (node[r] == mine)
            node[n++] = r; /* n <= r: what is overwritten has been read */
    return pli_boot_set_locals(b, node, n);
}

/* Without a mapping local_ranks stays NULL, and the ranks will tell each other. */
static int read_locals(struct pli_boot *b, uint64_t deadline)
{
    char line[LINE_MAX_OUT];
    struct pli_pmi1_msg msg;
    const char *value;
    int rc;

    snprintf(line, sizeof line, "cmd=get kvsname=%s key=PMI_process_mapping\n", conn.kvs);
    rc = ask(line, "get_result", &msg, deadline);
    if (rc < 0)
        return rc;
    value = pli_pmi1_field(&msg, "value");
    return succeeded(&msg) && value && *value ? locals_from_mapping(b, value) : 0;
}

/* ---- leaving ---- */

/* See the top of the file. A process that exits with its job open has failed: then nothing is said. */
static void say_finalize(void)
{
    struct pli_pmi1_msg msg;

    if (conn.fd < 0 || conn.pid != getpid() || !conn.left || conn.broken)
        return;
    if (pli_boot_mpi_state() == PLI_BOOT_MPI_ACTIVE)
        return;
    /* the answer is awaited: Hydra takes a socket that closes before it for a failure */
    ask("cmd=finalize\n", "finalize_ack", &msg,
        pli_clock_after(pli_clock_now(), EXIT_WAIT_MS * PLI_NS_PER_MS));
    close(conn.fd);
    conn.fd = -1;
}

static int open_connection(void)
{
    const char *why;
    int fd;

    if (conn.fd >= 0)
        return 0;
    if (pli_boot_mpi_state() == PLI_BOOT_MPI_FINALIZED)
        return pli_fail(PLAIT_E_LAUNCHER, "PMI-1 launcher: MPI_Finalize has ended this process's connection "
                                          "to it; join the"
                                          " job before MPI_Finalize");
    why = pli_boot_pmi_fd(&fd);
    if (why)
        return pli_fail(PLAIT_E_LAUNCHER, "PMI-1 launcher: %s", why);
    conn.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (conn.fd < 0)
        return pli_fail_errno("PMI-1 launcher: duplicating PMI_FD");
    conn.pid = getpid();
    if (!conn.at_exit && atexit(say_finalize) == 0)
        conn.at_exit = true;
    return 0;
}

static int pmi1_leave(struct pli_boot *b)
{
    (void)b;
    conn.left = true;
    return 0;
}

/* ---- keys ---- */

/* Every rank writes into one table. */
static int table_key(char out[PLI_BOOT_WIRE_KEY_MAX + 24], uint32_t rank, const char *key, unsigned part)
{
    int n = snprintf(out, PLI_BOOT_WIRE_KEY_MAX + 24, "%s-%u-%u", key, rank, part);

    if ((size_t)n > conn.key_max)
        return pli_fail(PLAIT_E_LAUNCHER,
                        "PMI-1 launcher: key '%s' is longer than its limit of %zu characters", out,
                        conn.key_max);
    return 0;
}

/* A value is "<length>:<base64>", continued under the next part's key until all bytes are there. */
static int pmi1_put(struct pli_boot *b, const char *key, const void *data, size_t len)
{
    uint64_t deadline = pli_clock_after(pli_clock_now(), PUT_WAIT_MS * PLI_NS_PER_MS);
    const char *d = data;
    size_t done = 0;
    unsigned part = 0;
    int rc;

    do {
        char name[PLI_BOOT_WIRE_KEY_MAX + 24], line[LINE_MAX_OUT];
        struct pli_pmi1_msg msg;
        size_t at, room, n;

        if ((rc = table_key(name, b->rank, key, part)) < 0)
            return rc;
        at = (size_t)snprintf(line, sizeof line, "cmd=put kvsname=%s key=%s value=", conn.kvs, name);
        room = sizeof line - at - 2 < conn.value_max ? sizeof line - at - 2 : conn.value_max;
        if (part == 0) {
            n = (size_t)snprintf(line + at, sizeof line - at, "%zu:", len);
            at += n;
            room -= n;
        }
        n = room / 4 * 3 < len - done ? room / 4 * 3 : len - done;
        pli_boot_b64_encode(d + done, n, line + at);
        strcat(line + at, "\n");
        if ((rc = ask(line, "put_result", &msg, deadline)) < 0)
            return rc;
        if (!succeeded(&msg))
            return pli_fail(PLAIT_E_LAUNCHER, "PMI-1 launcher, cmd=put: key '%s' was refused: %.100s", name,
                            reason(&msg));
        done += n;
        part++;
    } while (done < len);
    return 0;
}

static int bad_value(uint32_t rank, const char *key)
{
    return pli_fail(PLAIT_E_LAUNCHER, "PMI-1 launcher, cmd=get: the value of key '%s' of rank %u is damaged",
                    key, rank);
}

/* Splits "<length>:" off the first part. */
static int total_length(const char **text, size_t *total)
{
    const char *colon = strchr(*text, ':');
    char digits[16];
    uint32_t n;

    if (!colon || (size_t)(colon - *text) >= sizeof digits)
        return -1;
    snprintf(digits, sizeof digits, "%.*s", (int)(colon - *text), *text);
    if (pli_boot_parse_uint(digits, PLI_BOOT_VALUE_MAX, &n) < 0)
        return -1;
    *text = colon + 1;
    *total = n;
    return 0;
}

/* One part: *text lives until the next request. */
static int get_part(uint32_t rank, const char *key, unsigned part, const char **text, uint64_t deadline)
{
    char name[PLI_BOOT_WIRE_KEY_MAX + 24], line[LINE_MAX_OUT];
    struct pli_pmi1_msg msg;
    int rc = table_key(name, rank, key, part);

    if (rc < 0)
        return rc;
    snprintf(line, sizeof line, "cmd=get kvsname=%s key=%s\n", conn.kvs, name);
    if ((rc = ask(line, "get_result", &msg, deadline)) < 0)
        return rc;
    *text = pli_pmi1_field(&msg, "value");
    if (!succeeded(&msg) && part == 0)
        return pli_fail(PLAIT_E_NOTFOUND, "PMI-1 launcher, cmd=get: rank %u has no key '%s' (%.100s)", rank,
                        key, reason(&msg));
    return succeeded(&msg) && *text ? 0 : bad_value(rank, key);
}

static int pmi1_get(struct pli_boot *b, uint32_t rank, const char *key, void *buf, size_t cap, size_t *len,
                    uint64_t deadline)
{
    size_t total = 0, done = 0;
    const char *text = NULL;
    unsigned part = 0;
    int rc, n;

    (void)b;
    do {
        if ((rc = get_part(rank, key, part, &text, deadline)) < 0)
            return rc;
        if (part == 0 && total_length(&text, &total) < 0)
            return bad_value(rank, key);
        if (total > cap)
            return pli_fail(PLAIT_E_TOOBIG, "key '%s' of rank %u has %zu bytes, the buffer %zu", key, rank,
                            total, cap);
        n = pli_boot_b64_decode(text, (char *)buf + done, total - done);
        if (n < 0 || (n == 0 && total > 0))
            return bad_value(rank, key);
        done += (size_t)n;
        part++;
    } while (done < total);
    *len = total;
    return 0;
}

static int pmi1_fence(struct pli_boot *b, bool with_data, uint64_t deadline)
{
    struct pli_pmi1_msg msg;

    (void)b, (void)with_data; /* a PMI-1 barrier always publishes */
    return ask("cmd=barrier_in\n", "barrier_out", &msg, deadline);
}

static const struct pli_boot_ops pmi1_ops = { "PMI-1", pmi1_put, pmi1_fence, pmi1_get, pmi1_leave };

int pli_boot_pmi1_join(struct pli_boot *b, uint64_t deadline)
{
    int rc;

    b->ops = &pmi1_ops;
    if ((rc = read_rank(b)) < 0 || (rc = open_connection()) < 0)
        return rc;
    conn.left = false;
    if ((rc = handshake(deadline)) < 0 || (rc = read_limits(deadline)) < 0 ||
        (rc = read_kvsname(deadline)) < 0 || (rc = read_locals(b, deadline)) < 0)
        goto err_left;
    snprintf(b->job_id, sizeof b->job_id, "%s", conn.kvs);
    return 0;

err_left:
    conn.left = true;
    return rc;
}
