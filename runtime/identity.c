/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/peeraddr.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/err.h"
#include "util/hash.h"
#include "util/log.h"
#include "util/rand.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

static pthread_once_t incarnation_once = PTHREAD_ONCE_INIT;
static uint8_t incarnation[PLI_ID_LEN];
static pthread_mutex_t host_mutex = PTHREAD_MUTEX_INITIALIZER;
static bool host_known;
static uint8_t host[PLI_HOST_LEN];

/* ---- the process ---- */

static void new_incarnation(void)
{
    uint64_t word[2];

    if (pli_rand_id(incarnation) == 0)
        return;
    /* no getrandom: unique is what matters most, and pid and time are that on one machine */
    word[0] = pli_hash_u64((uint64_t)getpid());
    word[1] = pli_hash_u64(pli_clock_now());
    memcpy(incarnation, word, sizeof word);
}

/* There is one thread, and getrandom is a plain system call. Another thread of the parent may have held the lock. */
static void in_child(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

    host_mutex = fresh;
    new_incarnation();
}

static void init_incarnation(void)
{
    new_incarnation();
    if (pthread_atfork(NULL, NULL, in_child) != 0)
        pli_warn("no memory for a fork handler: forked children will take themselves for their parent");
}

const uint8_t *pli_incarnation(void)
{
    pthread_once(&incarnation_once, init_incarnation);
    return incarnation;
}

/* ---- the host ---- */

/* "3fb6c3d1-...": 32 hexadecimal digits and dashes. */
static int read_boot_id(uint8_t id[16])
{
    char text[64];
    int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
    ssize_t len;
    unsigned n = 0;

    if (fd < 0)
        return pli_fail_errno("open " BOOT_ID);
    len = read(fd, text, sizeof text);
    close(fd);
    for (ssize_t i = 0; i < len && n < 32; i++) {
        int c = text[i], digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

        if (c == '-')
            continue;
        if (digit < 0)
            break;
        id[n / 2] = (uint8_t)(n % 2 ? id[n / 2] | digit : digit << 4);
        n++;
    }
    return n == 32 ? 0 : pli_fail(PLAIT_E_SYSTEM, BOOT_ID " does not have 32 hexadecimal digits");
}

/* A namespace as a number; 0 where the kernel has no such namespaces. */
static uint64_t namespace_id(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return 0;
    return pli_hash_u64(pli_hash_u64((uint64_t)st.st_dev) ^ (uint64_t)st.st_ino);
}

/* must: without the boot id, too. */
static int read_host(bool must)
{
    uint64_t ns[2] = {namespace_id("/proc/self/ns/net"), namespace_id("/proc/self/ns/user")};
    int rc = read_boot_id(host);

    if (rc == PLAIT_E_NOFILE && !must)
        return rc;
    if (rc < 0) {
        pli_warn("%s: processes of this host will not recognise each other, and not use shared memory",
                 pli_err_text());
        if (pli_rand_id(host) < 0)
            memcpy(host, pli_incarnation(), PLI_ID_LEN);
    }
    memcpy(host + 16, ns, sizeof ns);
    host_known = true;
    return 0;
}

static int know_host(bool must)
{
    int rc;

    pthread_mutex_lock(&host_mutex);
    rc = host_known ? 0 : read_host(must);
    pthread_mutex_unlock(&host_mutex);
    return rc;
}

int pli_host_id_load(void)
{
    return know_host(false);
}

const uint8_t *pli_host_id(void)
{
    know_host(true);
    return host;
}

bool pli_host_same_machine(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, 16) == 0;
}

bool pli_host_same_network(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, 16 + sizeof(uint64_t)) == 0;
}
