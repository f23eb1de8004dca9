/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory without a name: its seals, its limits, and what is refused of a peer's. */
#include <criterion/criterion.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "test/unit/runtime/fds.h"
#include "runtime/transport.h"
#include "shm/segment.h"
#include <plait/plait.h>

#define SIZE 8192u

static uint64_t failures;

TestSuite(segment, .timeout = 60);

static void create(struct pli_segment *seg)
{
    cr_assert_eq(pli_segment_create(seg, "test-segment", SIZE, NULL, -1, &failures), 0, "%s", plait_error_text());
}

static void refused(int fd, size_t size, const char *why)
{
    struct pli_segment seg;
    int fds = count_fds();

    cr_assert_eq(pli_segment_attach(&seg, fd, size), PLAIT_E_BADPEER);
    cr_assert_not_null(strstr(plait_error_text(), why), "'%s' lacks '%s'", plait_error_text(), why);
    cr_assert_eq(count_fds(), fds - 1, "the descriptor is still open");
}

Test(segment, seals)
{
    struct pli_segment seg;
    int seals;

    create(&seg);
    seals = fcntl(seg.fd, F_GET_SEALS);
    cr_assert_eq(seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | 0x10), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | 0x10);
    cr_assert_lt(ftruncate(seg.fd, 0), 0);
    cr_assert_lt(ftruncate(seg.fd, 2 * SIZE), 0);
    cr_assert_eq(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, seg.fd, 0), MAP_FAILED);
    cr_assert_lt(write(seg.fd, "x", 1), 0);
    cr_assert(fcntl(seg.fd, F_GETFD) & FD_CLOEXEC);
    pli_segment_destroy(&seg, false);
}

Test(segment, shared_and_read_only_for_the_peer)
{
    struct pli_segment seg, peer;
    struct rlimit none = { 0, 0 };
    int status;
    pid_t pid;

    create(&seg);
    cr_assert_eq(pli_segment_attach(&peer, dup(seg.fd), SIZE), 0, "%s", plait_error_text());
    strcpy(seg.addr, "hello");
    cr_assert_str_eq(peer.addr, "hello");
    cr_assert_lt(mprotect(peer.addr, SIZE, PROT_READ | PROT_WRITE), 0);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        /* the mappings of the parent are not inherited; the child makes its own from the descriptor */
        signal(SIGSEGV, SIG_DFL);
        setrlimit(RLIMIT_CORE, &none);
        if (pli_segment_attach(&peer, dup(seg.fd), SIZE) < 0)
            _exit(1);
        *(volatile char *)peer.addr = 1;
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x", status);
    cr_assert_str_eq(seg.addr, "hello");
    pli_segment_destroy(&peer, false);
    pli_segment_destroy(&seg, false);
}

/* As a peer that plays by its own rules would make it. */
static int memfd(size_t size, unsigned seals)
{
    int fd = memfd_create("test-peer", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    cr_assert_geq(fd, 0);
    cr_assert(size == 0 || fallocate(fd, 0, 0, (off_t)size) == 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

Test(segment, peers_that_are_refused)
{
    char path[] = "/tmp/plait-test-XXXXXX";
    int p[2], file;

    refused(memfd(SIZE, 0), SIZE, "seals");
    refused(memfd(SIZE, F_SEAL_GROW | 0x10), SIZE, "seals");
    refused(memfd(SIZE, F_SEAL_SHRINK | 0x10), SIZE, "seals");
    refused(memfd(SIZE, F_SEAL_SHRINK | F_SEAL_GROW), SIZE, "seals");
    refused(memfd(SIZE - 4096, F_SEAL_SHRINK | F_SEAL_GROW | 0x10), SIZE, "bytes");
    refused(memfd(SIZE + 4096, F_SEAL_SHRINK | F_SEAL_GROW | 0x10), SIZE, "bytes");
    file = mkstemp(path);
    cr_assert_geq(file, 0);
    unlink(path);
    cr_assert_eq(ftruncate(file, SIZE), 0);
    refused(file, SIZE, "the peer's segment"); /* on a tmpfs it has a set of seals, but not these */
    refused(open("/dev/null", O_RDWR | O_CLOEXEC), SIZE, "memfd");
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    refused(p[0], SIZE, "memfd");
    close(p[1]);
}

/* A descriptor of a sealed memfd that may not be read. */
Test(segment, no_rights)
{
    struct pli_segment seg;
    char path[64];
    int fd = memfd(SIZE, F_SEAL_SHRINK | F_SEAL_GROW | 0x10), wo;

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    wo = open(path, O_WRONLY | O_CLOEXEC);
    close(fd);
    cr_assert_geq(wo, 0);
    cr_assert_lt(pli_segment_attach(&seg, wo, SIZE), 0);
    cr_assert_null(seg.addr);
    cr_assert_lt(fcntl(wo, F_GETFD), 0, "the descriptor is still open");
}

static void limited(int what, rlim_t value, int code, const char *name)
{
    struct rlimit old, rl;
    struct pli_segment seg;
    int rc, fds = count_fds();

    cr_assert_eq(getrlimit(what, &old), 0);
    rl = old;
    rl.rlim_cur = value;
    cr_assert_eq(setrlimit(what, &rl), 0);
    rc = pli_segment_create(&seg, "test-segment", 1u << 20, NULL, -1, &failures);
    cr_assert_eq(setrlimit(what, &old), 0);
    cr_assert_eq(rc, code, "%d: %s", rc, plait_error_text());
    cr_assert_not_null(strstr(plait_error_text(), name), "'%s' lacks '%s'", plait_error_text(), name);
    cr_assert_eq(count_fds(), fds, "descriptors leak");
}

Test(segment, file_size_limit)
{
    limited(RLIMIT_FSIZE, 4096, PLAIT_E_NOMEM, "ulimit -f");
}

Test(segment, descriptor_limit)
{
    limited(RLIMIT_NOFILE, 0, PLAIT_E_NOFILE, "ulimit -n");
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* which map terabytes */
Test(segment, address_space_limit)
{
    limited(RLIMIT_AS, 4096, PLAIT_E_NOMEM, "ulimit -v");
}
#endif

static bool named_like(const char *dir, const char *name)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    bool found = false;

    while (d && (e = readdir(d)) != NULL)
        found |= strstr(e->d_name, name) != NULL;
    if (d)
        closedir(d);
    return found;
}

Test(segment, has_no_name)
{
    struct pli_segment seg;

    create(&seg);
    cr_assert_not(named_like("/dev/shm", "test-segment"));
    cr_assert_not(named_like("/tmp", "test-segment"));
    pli_segment_destroy(&seg, false);
    pli_segment_destroy(&seg, false); /* nothing */
}

Test(segment, probe)
{
    int fds = count_fds();

    cr_assert_eq(pli_shm_ops.probe(), 0);
    cr_assert_eq(count_fds(), fds);
}
