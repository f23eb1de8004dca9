/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions: sizes, seals, limits, huge pages, NUMA nodes, look-up, references, fork. */
#include "cgroup.h"
#include "mem_util.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>

TestSuite(mem, .timeout = 60);

static size_t page;

static struct plait_mem *alloc(size_t len)
{
    struct plait_mem *m;

    page = (size_t)sysconf(_SC_PAGESIZE);
    OK(plait_mem_alloc(&m, len, NULL));
    return m;
}

/* ---- what one gets ---- */

Test(mem, sizes)
{
    static const size_t sizes[] = {1, 4095, 4096, 4097, 65536, 1048577};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct plait_mem *m = alloc(sizes[i]);
        struct plait_mem_info info = info_of(m);
        char *p = plait_mem_addr(m);
        struct stat st;

        cr_assert_eq(info.kind, PLAIT_MEM_ALLOCATED);
        cr_assert_eq(info.addr, p);
        cr_assert_eq(info.len, sizes[i]);
        cr_assert_eq(info.reserved % page, 0);
        cr_assert(info.reserved >= sizes[i] && info.reserved < sizes[i] + page);
        cr_assert_eq(info.page_size, page);
        cr_assert_eq(info.page_size_asked, page);
        cr_assert_eq(info.node, PLAIT_MEM_NODE_ANY);
        cr_assert_eq(info.node_verified, 0);
        cr_assert_eq(info.in_use, 0);
        cr_assert_str_eq(info.name, "mem");
        cr_assert_eq((uintptr_t)p % page, 0);
        for (size_t k = 0; k < sizes[i]; k++)
            cr_assert_eq(p[k], 0);
        memset(p, 0x5a, sizes[i]);
        cr_assert_eq(fstat(m->fd, &st), 0);
        cr_assert_eq((size_t)st.st_size, info.reserved);
        cr_assert_eq((size_t)st.st_blocks * 512, info.reserved, "all pages are there");
        OK(plait_mem_release(m));
        cr_assert_not(is_mapped(p));
    }
}

/* Touching is not needed: the pages are there, and mapped, before. */
Test(mem, reserved_up_front)
{
    struct plait_mem *m = alloc(100 * 4096);
    unsigned char there[100];

    cr_assert_eq(mincore(m->addr, 100 * page, there), 0);
    for (int i = 0; i < 100; i++)
        cr_assert(there[i] & 1);
    OK(plait_mem_release(m));
}

Test(mem, bad_options)
{
    struct plait_mem_opts good = PLAIT_MEM_OPTS_INIT, o;
    struct plait_mem_info info = PLAIT_MEM_INFO_INIT;
    struct plait_mem *m = (void *)1;
    int fds = count_fds();

    FAILS(plait_mem_alloc(&m, 0, NULL), PLAIT_E_INVAL, "0 bytes");
    cr_assert_null(m);
    o = good, o.size = 4096;
    FAILS(plait_mem_alloc(&m, 1, &o), PLAIT_E_INVAL, "plait_mem_opts.size");
    o = good, o.page_size = 12345;
    FAILS(plait_mem_alloc(&m, 1, &o), PLAIT_E_INVAL, "12345");
    o = good, o.node = -2;
    FAILS(plait_mem_alloc(&m, 1, &o), PLAIT_E_INVAL, "-2");
    o = good, o.flags = 8;
    FAILS(plait_mem_alloc(&m, 1, &o), PLAIT_E_INVAL, "0x8");
    o = good, o.name = "0123456789012345678901234567890123456789012345678";
    FAILS(plait_mem_alloc(&m, 1, &o), PLAIT_E_INVAL, "47 characters");
    o = good, o.node = 999;
    FAILS(plait_mem_alloc(&m, 1, &o), PLAIT_E_INVAL, "NUMA node 999");
    cr_assert_eq(count_fds(), fds);
    m = alloc(1);
    info.size = 4000;
    FAILS(plait_mem_get_info(m, &info), PLAIT_E_INVAL, "plait_mem_info.size");
    FAILS(plait_mem_get_info(m, NULL), PLAIT_E_INVAL, "plait_mem_info.size");
    OK(plait_mem_release(m));
    OK(plait_mem_release(NULL));
}

/* Older programs have smaller structures. */
Test(mem, smaller_structures)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem_info info = PLAIT_MEM_INFO_INIT;
    struct plait_mem *m;

    o.size = offsetof(struct plait_mem_opts, node);
    o.node = 999;
    OK(plait_mem_alloc(&m, 1, &o));
    info.size = offsetof(struct plait_mem_info, len);
    info.len = 77;
    OK(plait_mem_get_info(m, &info));
    cr_assert_eq(info.addr, plait_mem_addr(m));
    cr_assert_eq(info.len, 77);
    OK(plait_mem_release(m));
}

static void check_seals(const struct plait_mem *m)
{
    char *p;

    errno = 0;
    cr_assert_eq(mmap(NULL, m->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0), MAP_FAILED);
    cr_assert_eq(errno, EPERM);
    cr_assert_lt(ftruncate(m->fd, 0), 0);
    cr_assert_lt(ftruncate(m->fd, (off_t)(2 * m->mapped)), 0);
    p = mmap(NULL, m->mapped, PROT_READ, MAP_SHARED, m->fd, 0);
    cr_assert_neq(p, MAP_FAILED);
    m->addr[1] = 42;
    cr_assert_eq(p[1], 42);
    cr_assert_lt(mprotect(p, m->mapped, PROT_READ | PROT_WRITE), 0);
    munmap(p, m->mapped);
}

Test(mem, a_peer_could_only_read)
{
    struct plait_mem *m = alloc(8192);

    check_seals(m);
    OK(plait_mem_release(m));
}

Test(mem, ids_are_not_used_again)
{
    uint64_t last = 0;

    for (int i = 0; i < 100; i++) {
        struct plait_mem *m = alloc(1);

        cr_assert_gt(m->id, last);
        last = m->id;
        OK(plait_mem_release(m));
    }
}

Test(mem, the_name_is_copied)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    char name[] = "field";
    struct plait_mem *m;

    o.name = name;
    OK(plait_mem_alloc(&m, 1, &o));
    name[0] = 'x';
    cr_assert_str_eq(info_of(m).name, "field");
    OK(plait_mem_release(m));
}

static void tick(int sig)
{
    (void)sig;
}

/* A signal undoes a fallocate() that it interrupts: reservation must come to an end all the same. */
Test(mem, signals_all_the_time)
{
    struct itimerval every = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    struct sigaction sa = {.sa_handler = tick};
    struct plait_mem *m;
    int rc;

    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    rc = plait_mem_alloc(&m, (size_t)48 << 20, NULL);
    setitimer(ITIMER_REAL, &never, NULL);
    OK(rc);
    OK(plait_mem_release(m));
}

/* ---- limits ---- */

Test(mem, limit_on_file_size)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct rlimit old = set_limit(RLIMIT_FSIZE, 65536);
    struct plait_mem *m;
    int fds = count_fds();

    FAILS(plait_mem_alloc(&m, 65537, NULL), PLAIT_E_NOMEM, "ulimit -f");
    cr_assert_not_null(strstr(plait_error_text(), "65536"));
    o.page_size = PLAIT_MEM_PAGE_2M; /* instead of SIGXFSZ */
    FAILS(plait_mem_alloc(&m, 65537, &o), PLAIT_E_NOMEM, "ulimit -f");
    cr_assert_eq(count_fds(), fds);
    OK(plait_mem_alloc(&m, 65536, NULL));
    OK(plait_mem_release(m));
    setrlimit(RLIMIT_FSIZE, &old);
}

Test(mem, limit_on_address_space)
{
    struct plait_mem *m;
    struct rlimit old;
    int fds = count_fds();

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("a sanitizer needs all of the address space");
#endif
    old = set_limit(RLIMIT_AS, (rlim_t)1 << 30);
    FAILS(plait_mem_alloc(&m, (size_t)1 << 30, NULL), PLAIT_E_NOMEM, "ulimit -v");
    cr_assert_not_null(strstr(plait_error_text(), "1073741824"));
    cr_assert_eq(count_fds(), fds);
    setrlimit(RLIMIT_AS, &old);
    m = alloc(4096);
    OK(plait_mem_release(m));
}

Test(mem, limit_on_descriptors)
{
    int lowest = open("/dev/null", O_RDONLY | O_CLOEXEC); /* that is free */
    struct rlimit old = set_limit(RLIMIT_NOFILE, (rlim_t)lowest);
    struct plait_mem *m;

    close(lowest);
    FAILS(plait_mem_alloc(&m, 1, NULL), PLAIT_E_NOFILE, "ulimit -n");
    setrlimit(RLIMIT_NOFILE, &old);
    m = alloc(1);
    OK(plait_mem_release(m));
}

/* After mlockall() everything that is mapped counts. Root may lock all it wants. */
static int lock_all(void *arg)
{
    struct plait_mem *m;

    (void)arg;
    set_limit(RLIMIT_MEMLOCK, 1 << 20);
    if ((geteuid() == 0 && (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)) ||
        mlockall(MCL_FUTURE) < 0)
        return 77;
    if (plait_mem_alloc(&m, 2 << 20, NULL) != PLAIT_E_NOMEM || !strstr(plait_error_text(), "ulimit -l"))
        return 1;
    if (plait_mem_alloc(&m, 64 << 10, NULL) < 0)
        return 2;
    return plait_mem_release(m);
}

Test(mem, limit_on_locked_memory)
{
    int status;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("a sanitizer makes nothing of mlockall()");
#endif
    status = in_child(lock_all, NULL);
    if (status == 77)
        cr_skip_test("memory cannot be locked here");
    cr_assert_eq(status, 0, "exit status %d", status);
}

Test(mem, more_than_there_is)
{
    struct plait_mem *m;

    FAILS(plait_mem_alloc(&m, (size_t)1 << 46, NULL), PLAIT_E_NOMEM, "bytes");
    FAILS(plait_mem_alloc(&m, SIZE_MAX, NULL), PLAIT_E_NOMEM, "address space");
    FAILS(plait_mem_alloc(&m, (size_t)PTRDIFF_MAX + 1, NULL), PLAIT_E_NOMEM, "address space");
}

/* Exit status 77: cannot be tested, 0: as it should be. */
static int fill_cgroup(void *arg)
{
    struct plait_mem *m[100];
    char pid[16];
    int n = 0, rc;

    snprintf(pid, sizeof pid, "%d", (int)getpid());
    if (write_file(arg, "cgroup.procs", pid) < 0)
        return 77;
    if (plait_mem_alloc(&m[0], (size_t)128 << 20, NULL) != PLAIT_E_NOMEM ||
        !strstr(plait_error_text(), "cgroup"))
        return 1;
    while ((rc = plait_mem_alloc(&m[n], (size_t)4 << 20, NULL)) == 0 && n < 99)
        memset(plait_mem_addr(m[n++]), 1, (size_t)4 << 20);
    if (rc != PLAIT_E_NOMEM || !strstr(plait_error_text(), "67108864") || n < 4)
        return 2;
    plait_mem_release(m[n - 1]);
    return plait_mem_alloc(&m[n - 1], (size_t)2 << 20, NULL) == 0 ? 0 : 3;
}

Test(mem, limit_of_a_memory_cgroup)
{
    char dir[300];
    int status;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("a sanitizer's own memory does not fit in the cgroup");
#endif
    if (make_cgroup(dir, sizeof dir) < 0)
        cr_skip_test("no memory cgroup can be made here");
    status = in_child(fill_cgroup, dir);
    for (int i = 0; rmdir(dir) < 0 && i < 1000000; i++) /* the kernel is not at once done with the child */
        sched_yield();
    if (status == 77)
        cr_skip_test("the cgroup cannot be used here");
    cr_assert_eq(status, 0, "exit status %d", status);
}

/* ---- huge pages ---- */

/* The number of huge pages is the system's, and these tests run at the same time. */
static int lock_huge_pages(void)
{
    int fd = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    cr_assert_geq(fd, 0);
    cr_assert_eq(flock(fd, LOCK_EX), 0);
    return fd;
}

static void falls_back(size_t page_size, size_t len)
{
    int lock = lock_huge_pages();
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem_info info;
    struct plait_mem *m;

    catch_log();
    o.page_size = page_size;
    o.name = "hopeful";
    OK(plait_mem_alloc(&m, len, &o));
    info = info_of(m);
    cr_assert_eq(info.page_size_asked, page_size);
    if (info.page_size == page_size) {
        OK(plait_mem_release(m));
        cr_skip_test("there are huge pages of %zu MiB", page_size >> 20);
    }
    cr_assert_eq(info.page_size, (size_t)sysconf(_SC_PAGESIZE));
    cr_assert_eq(count_in_log("normal pages, not huge ones"), 1);
    cr_assert_geq(count_in_log("'hopeful'"), 1);
    memset(info.addr, 1, info.reserved);
    OK(plait_mem_release(m));
    close(lock);
}

Test(mem, no_huge_pages_2m)
{
    falls_back(PLAIT_MEM_PAGE_2M, 3 << 20);
}

Test(mem, no_huge_pages_1g)
{
    falls_back(PLAIT_MEM_PAGE_1G, 100000);
}

#define NR_HUGE "/proc/sys/vm/nr_hugepages"

static long read_nr(void)
{
    FILE *f = fopen(NR_HUGE, "re");
    long n = -1;

    if (f) {
        if (fscanf(f, "%ld", &n) != 1)
            n = -1;
        fclose(f);
    }
    return n;
}

static int write_nr(long n)
{
    FILE *f = fopen(NR_HUGE, "we");
    int ok = f && fprintf(f, "%ld", n) > 0;

    return f && fclose(f) == 0 && ok ? 0 : -1;
}

/* In a child, so that nothing can keep the system's setting from being restored. */
static int use_huge_pages(void *arg)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem_info info = PLAIT_MEM_INFO_INIT;
    struct plait_mem *m, *all;

    (void)arg;
    o.page_size = PLAIT_MEM_PAGE_2M;
    if (plait_mem_alloc(&m, (3 << 20) + 1, &o) < 0 || plait_mem_get_info(m, &info) < 0)
        return 1;
    if (info.page_size != PLAIT_MEM_PAGE_2M)
        return 77;
    if (info.reserved != 4 << 20 || info.len != (3 << 20) + 1 || (uintptr_t)info.addr % (2 << 20))
        return 2;
    check_seals(m);
    memset(info.addr, 1, info.reserved);
    /* more than there are: all normal, not a mixture */
    if (plait_mem_alloc(&all, (size_t)256 << 20, &o) < 0 || plait_mem_get_info(all, &info) < 0)
        return 3;
    memset(info.addr, 1, info.reserved);
    plait_mem_release(all);
    plait_mem_release(m);
    return info.page_size == (size_t)sysconf(_SC_PAGESIZE) ? 0 : 4;
}

Test(mem, huge_pages)
{
    int lock, status = 77;
    long before;

    if (geteuid() != 0)
        cr_skip_test("only root can make huge pages");
    catch_log();
    lock = lock_huge_pages();
    before = read_nr();
    if (before >= 0 && write_nr(before + 4) == 0) {
        status = in_child(use_huge_pages, NULL);
        write_nr(before);
    }
    close(lock);
    if (status == 77)
        cr_skip_test("no huge pages can be had here");
    cr_assert_eq(status, 0, "exit status %d", status);
}

/* ---- NUMA nodes ---- */

Test(mem, a_node_is_verified)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem_info info;
    struct plait_mem *m;

    catch_log();
    o.node = 0;
    OK(plait_mem_alloc(&m, 1 << 20, &o));
    info = info_of(m);
    cr_assert_eq(info.node, 0);
    if (!info.node_verified && count_in_log("warning") == 0)
        cr_skip_test("the kernel does not let us look");
    cr_assert_eq(info.node_verified, 1);
    cr_assert_eq(count_in_log("warning"), 0);
    OK(plait_mem_release(m));
}

Test(mem, a_node_that_cannot_be_had_is_a_warning)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem_info info;
    struct plait_mem *m;

    pretend_two_nodes();
    catch_log();
    o.node = 1;
    o.name = "far";
    OK(plait_mem_alloc(&m, 1 << 20, &o));
    info = info_of(m);
    cr_assert_eq(info.node, 1);
    cr_assert_eq(info.node_verified, 0);
    cr_assert(m->bind_failed);
    cr_assert_eq(count_in_log("'far' of 1048576 bytes is not, or not all, on NUMA node 1"), 1);
    memset(info.addr, 1, info.len);
    OK(plait_mem_release(m));
}

Test(mem, another_machines_node_is_not_verified)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem *m;

    setenv("HWLOC_SYNTHETIC", "numa:4 core:2 pu:1", 1);
    catch_log();
    o.node = 3;
    OK(plait_mem_alloc(&m, 1, &o));
    cr_assert_eq(info_of(m).node_verified, 0);
    cr_assert_eq(count_in_log("warning"), 0);
    OK(plait_mem_release(m));
    o.node = 4;
    FAILS(plait_mem_alloc(&m, 1, &o), PLAIT_E_INVAL, "NUMA node 4");
}

Test(mem, a_node_without_a_topology)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem *m;

    setenv("HWLOC_XMLFILE", "/nonexistent/machine.xml", 1);
    o.node = 0;
    FAILS(plait_mem_alloc(&m, 1, &o), PLAIT_E_TOPOLOGY, "/nonexistent/machine.xml");
    m = alloc(1);
    OK(plait_mem_release(m));
}
