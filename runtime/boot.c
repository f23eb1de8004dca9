/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/boot.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plait/status.h"
#include "runtime/boot_priv.h"
#include "util/err.h"

/* Kept for reading one's own values, which launchers do not all offer, and to refuse a key put twice, which
 * they treat differently. */
struct pli_boot_kv {
    struct pli_boot_kv *next;
    size_t len;
    char key[PLI_BOOT_KEY_MAX + 1];
    unsigned char data[];
};

/* The launcher knows a process once, whatever objects exist in it. */
static atomic_int joined_pid;    /* the process that has joined, ever */
static atomic_uint joined_count; /* how often; part of every key */
static atomic_flag is_open = ATOMIC_FLAG_INIT;

/* ---- arguments ---- */

static uint64_t deadline_of(int timeout_ms)
{
    return timeout_ms < 0 ? PLI_CLOCK_NEVER
                          : pli_clock_after(pli_clock_now(), (uint64_t)timeout_ms * PLI_NS_PER_MS);
}

static int check_process(const struct pli_boot *b)
{
    if (b->pid != getpid())
        return pli_fail(PLAIT_E_FORKED,
                        "the job belongs to process %d, and this is a child of it; only that process may"
                        " use it",
                        b->pid);
    return 0;
}

static int check_key(const char *key)
{
    size_t n = strlen(key);

    if (n == 0 || n > PLI_BOOT_KEY_MAX)
        return pli_fail(PLAIT_E_INVAL, "job key '%.64s' has %zu characters; 1 to %d are allowed", key, n,
                        PLI_BOOT_KEY_MAX);
    for (size_t i = 0; i < n; i++) {
        char c = key[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._-", c)))
            return pli_fail(PLAIT_E_INVAL,
                            "job key '%s' has a character that is not a letter, digit, '.', '_' or '-'", key);
    }
    return 0;
}

static void wire_key(const struct pli_boot *b, const char *key, char wire[PLI_BOOT_WIRE_KEY_MAX + 1])
{
    snprintf(wire, PLI_BOOT_WIRE_KEY_MAX + 1, "plait-%u-%s", b->epoch, key);
}

/* ---- ranks of this node ---- */

int pli_boot_set_locals(struct pli_boot *b, uint32_t *ranks, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ranks[i] == b->rank) {
            b->local_ranks = ranks;
            b->local_size = n;
            b->local_rank = i;
            return 0;
        }
    free(ranks);
    return pli_fail(PLAIT_E_LAUNCHER,
                    "%s: the launcher's list of the ranks on this node lacks this one, rank %u", b->ops->name,
                    b->rank);
}

/* Hosts that are network namespaces of one machine share a boot id. */
static void host_identity(char id[128])
{
    ssize_t n = 0, m;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    memset(id, 0, 128);
    if (fd >= 0) {
        n = read(fd, id, 36);
        close(fd);
    }
    if (n != 36)
        n = gethostname(id, 63) == 0 ? (ssize_t)strlen(id) : 0;
    m = readlink("/proc/self/ns/net", id + n, 127 - (size_t)n);
    if (m < 0)
        id[n] = '\0';
}

/* Where the launcher does not say who shares the node, the ranks tell each other. */
static int exchange_locals(struct pli_boot *b, int timeout_ms)
{
    char mine[128], *all = malloc((size_t)b->size * sizeof mine);
    uint32_t *ranks = malloc(b->size * sizeof *ranks), n = 0;
    int rc;

    if (!all || !ranks) {
        rc = pli_fail(PLAIT_E_NOMEM, "no memory for the hosts of %u ranks", b->size);
        goto err_free;
    }
    host_identity(mine);
    rc = pli_boot_allgather(b, mine, sizeof mine, all, timeout_ms);
    if (rc < 0)
        goto err_free;
    for (uint32_t r = 0; r < b->size; r++)
        if (memcmp(all + (size_t)r * sizeof mine, mine, sizeof mine) == 0)
            ranks[n++] = r;
    free(all);
    return pli_boot_set_locals(b, ranks, n);

err_free:
    free(all);
    free(ranks);
    return rc;
}

/* ---- backend none ---- */

static int none_fence(struct pli_boot *b, bool with_data, uint64_t deadline)
{
    (void)b, (void)with_data, (void)deadline;
    return 0;
}

static int none_put(struct pli_boot *b, const char *key, const void *data, size_t len)
{
    (void)b, (void)key, (void)data, (void)len; /* boot.c has kept it */
    return 0;
}

static int none_leave(struct pli_boot *b)
{
    (void)b;
    return 0;
}

static const struct pli_boot_ops none_ops = { "no launcher", none_put, none_fence, NULL, none_leave };

static int none_join(struct pli_boot *b)
{
    b->ops = &none_ops;
    b->size = 1;
    snprintf(b->job_id, sizeof b->job_id, "single-%d-%llx", b->pid, (unsigned long long)pli_clock_now());
    return 0;
}

/* ---- joining and leaving ---- */

static int join(struct pli_boot *b, uint64_t deadline)
{
    int rc = pli_boot_choose(&b->kind);

    if (rc < 0)
        return rc;
    switch (b->kind) {
    case PLI_BOOT_PMI1:
        return pli_boot_pmi1_join(b, deadline);
    case PLI_BOOT_PMIX:
        return pli_boot_pmix_join(b, deadline);
    default:
        return none_join(b);
    }
}

static int claim_process(int pid)
{
    int before = atomic_load(&joined_pid);

    if (before && before != pid)
        return pli_fail(PLAIT_E_FORKED,
                        "the job was joined by process %d, of which this is a child; a child after fork()"
                        " cannot join it",
                        before);
    if (atomic_flag_test_and_set(&is_open))
        return pli_fail(PLAIT_E_BUSY, "this process has joined its job already; close that one first");
    return 0;
}

int pli_boot_init(struct pli_boot **out, int timeout_ms)
{
    struct pli_boot *b;
    int pid = getpid(), rc = claim_process(pid);

    *out = NULL;
    if (rc < 0)
        return rc;
    b = calloc(1, sizeof *b);
    if (!b) {
        rc = pli_fail(PLAIT_E_NOMEM, "no memory for the job's description");
        goto err_flag;
    }
    b->pid = pid;
    b->epoch = atomic_load(&joined_count);
    rc = join(b, deadline_of(timeout_ms));
    if (rc < 0)
        goto err_free;
    atomic_store(&joined_pid, pid);
    atomic_fetch_add(&joined_count, 1);
    if (!b->local_ranks)
        rc = exchange_locals(b, timeout_ms);
    if (rc < 0)
        goto err_leave;
    *out = b;
    return 0;

err_leave:
    b->ops->leave(b);
err_free:
    free(b);
err_flag:
    atomic_flag_clear(&is_open);
    return rc;
}

int pli_boot_finalize(struct pli_boot *b)
{
    struct pli_boot_kv *kv;
    int rc = 0;

    if (!b)
        return 0;
    if (b->pid == getpid()) {
        rc = b->ops->leave(b);
        atomic_flag_clear(&is_open);
    }
    while ((kv = b->own)) {
        b->own = kv->next;
        free(kv);
    }
    free((void *)b->local_ranks);
    free(b);
    return rc;
}

/* ---- keys ---- */

static struct pli_boot_kv *find_own(const struct pli_boot *b, const char *key)
{
    for (struct pli_boot_kv *kv = b->own; kv; kv = kv->next)
        if (strcmp(kv->key, key) == 0)
            return kv;
    return NULL;
}

int pli_boot_put(struct pli_boot *b, const char *key, const void *data, size_t len)
{
    char wire[PLI_BOOT_WIRE_KEY_MAX + 1];
    struct pli_boot_kv *kv;
    int rc = check_process(b);

    if (rc < 0 || (rc = check_key(key)) < 0)
        return rc;
    if (len > PLI_BOOT_VALUE_MAX)
        return pli_fail(PLAIT_E_TOOBIG, "the value of job key '%s' has %zu bytes; the limit is %d", key, len,
                        PLI_BOOT_VALUE_MAX);
    if (find_own(b, key))
        return pli_fail(PLAIT_E_INVAL, "job key '%s' has been put already; a key is put once", key);
    kv = malloc(sizeof *kv + len);
    if (!kv)
        return pli_fail(PLAIT_E_NOMEM, "no memory for %zu bytes of job key '%s'", len, key);
    wire_key(b, key, wire);
    rc = b->ops->put(b, wire, data, len);
    if (rc < 0) {
        free(kv);
        return rc;
    }
    strcpy(kv->key, key);
    kv->len = len;
    if (len)
        memcpy(kv->data, data, len);
    kv->next = b->own;
    b->own = kv;
    return 0;
}

static int get_own(struct pli_boot *b, const char *key, void *buf, size_t cap, size_t *len)
{
    const struct pli_boot_kv *kv = find_own(b, key);

    if (!kv)
        return pli_fail(PLAIT_E_NOTFOUND, "this rank (%u) has not put job key '%s'", b->rank, key);
    if (kv->len > cap)
        return pli_fail(PLAIT_E_TOOBIG, "job key '%s' of rank %u has %zu bytes, the buffer %zu", key, b->rank,
                        kv->len, cap);
    if (kv->len)
        memcpy(buf, kv->data, kv->len);
    *len = kv->len;
    return 0;
}

int pli_boot_get(struct pli_boot *b, uint32_t rank, const char *key, void *buf, size_t cap, size_t *len,
                 int timeout_ms)
{
    char wire[PLI_BOOT_WIRE_KEY_MAX + 1];
    size_t unused;
    int rc = check_process(b);

    if (rc < 0 || (rc = check_key(key)) < 0)
        return rc;
    if (rank >= b->size)
        return pli_fail(PLAIT_E_INVAL, "there is no rank %u in a job of %u", rank, b->size);
    len = len ? len : &unused;
    if (rank == b->rank)
        return get_own(b, key, buf, cap, len);
    wire_key(b, key, wire);
    return b->ops->get(b, rank, wire, buf, cap, len, deadline_of(timeout_ms));
}

/* ---- collectives ---- */

int pli_boot_fence(struct pli_boot *b, int timeout_ms)
{
    int rc = check_process(b);

    return rc < 0 ? rc : b->ops->fence(b, true, deadline_of(timeout_ms));
}

int pli_boot_barrier(struct pli_boot *b, int timeout_ms)
{
    int rc = check_process(b);

    return rc < 0 ? rc : b->ops->fence(b, false, deadline_of(timeout_ms));
}

static int gather_from(struct pli_boot *b, uint32_t rank, const char *wire, size_t len, void *to,
                       uint64_t deadline)
{
    size_t got = 0;
    int rc = b->ops->get(b, rank, wire, to, len, &got, deadline);

    if (rc == PLAIT_E_TOOBIG || (rc == 0 && got != len))
        return pli_fail(PLAIT_E_INVAL, "allgather: rank %u did not give %zu bytes as rank %u did", rank, len,
                        b->rank);
    return rc < 0 ? pli_fail_prefix(rc, "allgather") : 0;
}

int pli_boot_allgather(struct pli_boot *b, const void *mine, size_t len, void *all, int timeout_ms)
{
    char wire[PLI_BOOT_WIRE_KEY_MAX + 1];
    uint64_t deadline = deadline_of(timeout_ms);
    int rc = check_process(b);

    if (rc < 0)
        return rc;
    if (len > PLI_BOOT_GATHER_MAX)
        return pli_fail(PLAIT_E_TOOBIG, "allgather of %zu bytes from each rank; the limit is %d", len,
                        PLI_BOOT_GATHER_MAX);
    if (len == 0)
        return b->ops->fence(b, false, deadline);
    memmove((char *)all + b->rank * len, mine, len);
    if (b->size == 1)
        return 0;
    /* no caller's key has a '~' */
    snprintf(wire, sizeof wire, "plait-%u-~%u", b->epoch, b->gathers++);
    rc = b->ops->put(b, wire, (char *)all + b->rank * len, len);
    if (rc == 0)
        rc = b->ops->fence(b, true, deadline);
    if (rc < 0)
        return pli_fail_prefix(rc, "allgather");
    for (uint32_t r = 0; r < b->size; r++)
        if (r != b->rank && (rc = gather_from(b, r, wire, len, (char *)all + r * len, deadline)) < 0)
            return rc;
    return 0;
}
