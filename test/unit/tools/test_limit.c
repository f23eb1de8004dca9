/* SPDX-License-Identifier: BSD-3-Clause */
/* The measured limits: sane values, errors, and no process left behind. Nothing here depends on speed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <plait/plait.h>
#include "tools/limit.h"

static struct limit_pair *open_pair(int cpu_a, int cpu_b)
{
    struct limit_pair *p;

    cr_assert_eq(limit_pair_open(&p, cpu_a, cpu_b), 0, "%s", limit_error());
    return p;
}

static int first_cpu(void)
{
    cpu_set_t set;
    int cpu = 0;

    cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
    while (!CPU_ISSET(cpu, &set))
        cpu++;
    return cpu;
}

static void run_all(struct limit_pair *p, unsigned iters, size_t size)
{
    struct limit_lat lat;
    struct limit_rate rate;
    struct limit_bw bw;
    struct limit_wake wake;
    struct limit_atomic at;
    int i;

    cr_assert_eq(limit_lat_run(p, iters, &lat), 0, "%s", limit_error());
    cr_assert_gt(lat.half_rtt_ns, 0);
    cr_assert_gt(lat.physical_ns, 0);
    for (i = 0; i < LIMIT_LAT_FORMS; i++)
        cr_assert_geq(lat.form_ns[i], i < LIMIT_LAT_ONE ? lat.half_rtt_ns : lat.physical_ns);
    cr_assert_eq(limit_rate_run(p, size, iters, &rate), 0, "%s", limit_error());
    for (i = 0; i < LIMIT_RATE_FORMS; i++) {
        cr_assert_gt(rate.form[i], 0);
        cr_assert_leq(rate.form[i], rate.msgs_per_s);
    }
    cr_assert_eq(limit_bw_run(p, size, iters * size / 10, &bw), 0, "%s", limit_error());
    for (i = 0; i < LIMIT_BW_FORMS; i++) {
        cr_assert_gt(bw.form[i], 0);
        cr_assert_leq(bw.form[i], bw.bytes_per_s);
    }
    cr_assert_eq(limit_duplex_run(p, size, iters * size / 10, &bw), 0, "%s", limit_error());
    for (i = LIMIT_BW_MEMCPY + 1; i < LIMIT_BW_FORMS; i++) {
        cr_assert_gt(bw.form[i], 0);
        cr_assert_leq(bw.form[i], bw.bytes_per_s);
    }
    cr_assert_gt(bw.memcpy_bytes_per_s, 0);
    cr_assert_eq(bw.pipelined_bytes_per_s, bw.bytes_per_s);
    cr_assert_eq(limit_atomic_run(p, iters, &at), 0, "%s", limit_error());
    for (i = 0; i < LIMIT_ATOMIC_FORMS; i++)
        cr_assert_gt(at.form[i], 0);
    cr_assert_eq(at.ops_per_s, at.form[LIMIT_ATOMIC_ADD]);
    cr_assert_eq(limit_wake_run(p, iters / 100, &wake), 0, "%s", limit_error());
    cr_assert_gt(wake.eventfd_ns, 0);
    cr_assert_gt(wake.futex_ns, 0);
    cr_assert_gt(wake.eventfd_same_ns, 0);
    cr_assert_gt(wake.futex_same_ns, 0);
}

static void run_wire(struct limit_pair *p, unsigned iters, size_t size)
{
    double v = 0;

    cr_assert_eq(limit_tcp_lat(p, size, iters, false, &v), 0, "%s", limit_error());
    cr_assert_gt(v, 0);
    v = 0;
    cr_assert_eq(limit_tcp_lat(p, size, iters / 4, true, &v), 0, "%s", limit_error());
    cr_assert_gt(v, 0);
    v = 0;
    cr_assert_eq(limit_tcp_stream(p, size, iters, &v), 0, "%s", limit_error());
    cr_assert_gt(v, 0);
    v = 0;
    cr_assert_eq(limit_tcp_duplex(p, size, iters, &v), 0, "%s", limit_error());
    cr_assert_gt(v, 0);
}

static void run_fabric(struct limit_pair *p, unsigned iters, size_t size)
{
    struct limit_fabric_lat lat;
    struct limit_fabric_stream s;
    int i;

    cr_assert_eq(limit_fabric_lat(p, size, iters, &lat), 0, "%s", limit_error());
    for (i = 0; i < LIMIT_FABRIC_FORMS; i++)
        cr_assert(lat.form[i] >= lat.half_rtt_ns, "%s", limit_fabric_lat_name(i)); /* on tcp none is lacking */
    cr_assert_gt(lat.half_rtt_ns, 0);
    cr_assert_eq(limit_fabric_stream(p, size, iters, &s), 0, "%s", limit_error());
    for (i = 0; i < LIMIT_FABRIC_STREAMS; i++)
        cr_assert(s.form[i] > 0 && s.form[i] <= s.per_s, "%s", limit_fabric_stream_name(i));
}

static const size_t wire_sizes[] = {1, 8, 63, 64, 65, 9000, 65536, 1000003, 3};
#define WIRE_SIZES (sizeof(wire_sizes) / sizeof(wire_sizes[0]))

Test(limit, tcp, .timeout = 120)
{
    struct limit_pair *p = open_pair(-1, -1);
    size_t i;

    for (i = 0; i < WIRE_SIZES; i++)
        run_wire(p, 200, wire_sizes[i]);
    limit_pair_close(p);
}

/* What a program that loads libfabric must not notice: handlers of signals, which some of its providers take over. */
Test(limit, fabric, .timeout = 120)
{
    struct limit_pair *p = open_pair(-1, -1);
    struct sigaction before[NSIG], after;
    size_t i;
    int s;

    for (s = 1; s < NSIG; s++)
        sigaction(s, NULL, &before[s]);
    if (limit_fabric_missing())
        cr_skip_test("%s", limit_fabric_missing());
    cr_assert_not_null(strstr(limit_fabric_name(), "tcp, FI_EP_MSG"));
    for (i = 0; i < WIRE_SIZES; i++)
        run_fabric(p, 100, wire_sizes[i]);
    run_wire(p, 100, 8);
    for (s = 1; s < NSIG; s++)
        if (sigaction(s, NULL, &after) == 0)
            cr_assert_eq(before[s].sa_handler, after.sa_handler, "signal %d", s);
    limit_pair_close(p);
}

Test(limit, fabric_layered, .timeout = 120)
{
    struct limit_pair *p;

    setenv("PLAIT_PROVIDER", "tcp;ofi_rxm", 1);
    p = open_pair(-1, -1);
    if (limit_fabric_missing())
        cr_skip_test("%s", limit_fabric_missing());
    cr_assert_not_null(strstr(limit_fabric_name(), "FI_EP_RDM"));
    run_fabric(p, 100, 8);
    run_fabric(p, 100, 70000);
    limit_pair_close(p);
}

Test(limit, fabric_without_a_provider, .timeout = 60)
{
    struct limit_pair *p = open_pair(-1, -1);
    struct limit_fabric_lat lat;
    struct limit_fabric_stream s;

    setenv("PLAIT_PROVIDER", "nosuch", 1);
    cr_assert_not_null(limit_fabric_missing());
    cr_assert_eq(limit_fabric_lat(p, 8, 100, &lat), PLAIT_E_UNSUPPORTED);
    cr_assert_eq(limit_fabric_stream(p, 8, 100, &s), PLAIT_E_UNSUPPORTED);
    cr_assert_str_eq(limit_error(), limit_fabric_missing());
    run_wire(p, 100, 8); /* the pair is as good as before */
    limit_pair_close(p);
}

Test(limit, wire_sizes_out_of_range, .timeout = 60)
{
    struct limit_pair *p = open_pair(-1, -1);
    struct limit_fabric_lat lat;
    double v;

    cr_assert_eq(limit_tcp_lat(p, 0, 100, false, &v), PLAIT_E_INVAL);
    cr_assert_eq(limit_tcp_stream(p, (size_t)LIMIT_BW_MAX_SIZE + 1, 100, &v), PLAIT_E_INVAL);
    if (!limit_fabric_missing())
        cr_assert_eq(limit_fabric_lat(p, 0, 100, &lat), PLAIT_E_INVAL);
    run_wire(p, 100, 8);
    limit_pair_close(p);
}

Test(limit, wire_on_one_cpu, .timeout = 120)
{
    int cpu = first_cpu();
    struct limit_pair *p = open_pair(cpu, cpu);

    run_wire(p, 60, 8);
    if (!limit_fabric_missing())
        run_fabric(p, 60, 8);
    limit_pair_close(p);
}

Test(limit, all_figures, .timeout = 120)
{
    static const size_t sizes[] = {1, 8, 24, 56, 57, 4096, 65536, 30001, 57};
    struct limit_pair *p = open_pair(-1, -1);
    size_t i;

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        run_all(p, 1000, sizes[i]);
    limit_pair_close(p);
}

/* The ends take turns: slow, but it ends, and the user is told. */
Test(limit, one_cpu, .timeout = 120)
{
    int cpu = first_cpu();
    struct limit_pair *p = open_pair(cpu, cpu);

    cr_assert_not_null(limit_pair_note(p));
    cr_assert_not_null(strstr(limit_pair_note(p), "two cores"));
    run_all(p, 200, 8);
    limit_pair_close(p);
}

Test(limit, chosen_cpus_differ_where_they_can, .timeout = 60)
{
    cpu_set_t set;
    struct limit_pair *p = open_pair(-1, first_cpu());

    cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
    cr_assert_eq(limit_pair_cpu_b(p), first_cpu());
    cr_assert_eq(limit_pair_cpu_a(p) != limit_pair_cpu_b(p), CPU_COUNT(&set) > 1);
    cr_assert_eq(limit_pair_note(p) == NULL, CPU_COUNT(&set) > 1);
    limit_pair_close(p);
}

Test(limit, affinity_comes_back, .timeout = 60)
{
    struct limit_pair *p = open_pair(-1, -1);
    struct limit_lat lat;
    cpu_set_t before, after;

    cr_assert_eq(sched_getaffinity(0, sizeof(before), &before), 0);
    cr_assert_eq(limit_lat_run(p, 100, &lat), 0, "%s", limit_error());
    cr_assert_eq(sched_getaffinity(0, sizeof(after), &after), 0);
    cr_assert(CPU_EQUAL(&before, &after));
    limit_pair_close(p);
}

Test(limit, cpu_that_is_not_there)
{
    struct limit_pair *p;

    cr_assert_eq(limit_pair_open(&p, -1, 1023), PLAIT_E_INVAL);
    cr_assert_null(p);
    cr_assert_not_null(strstr(limit_error(), "CPU 1023"));
    cr_assert_eq(limit_pair_open(&p, -2, 0), PLAIT_E_INVAL);
}

Test(limit, sizes_out_of_range, .timeout = 60)
{
    struct limit_pair *p = open_pair(-1, -1);
    struct limit_rate rate;
    struct limit_bw bw;

    cr_assert_eq(limit_rate_run(p, 0, 10, &rate), PLAIT_E_INVAL);
    cr_assert_eq(limit_rate_run(p, LIMIT_RATE_MAX_SIZE + 1, 10, &rate), PLAIT_E_INVAL);
    cr_assert_eq(limit_bw_run(p, 0, 10, &bw), PLAIT_E_INVAL);
    cr_assert_eq(limit_bw_run(p, (size_t)LIMIT_BW_MAX_SIZE + 1, 10, &bw), PLAIT_E_INVAL);
    cr_assert_not_null(strstr(limit_error(), "268435456"));
    limit_pair_close(p);
}

/* Killed while it sleeps, and killed in the middle of a round. */
Test(limit, peer_killed_while_idle, .timeout = 60)
{
    struct limit_pair *p = open_pair(-1, -1);
    struct limit_lat lat;

    kill(limit_pair_pid(p), SIGKILL);
    cr_assert_eq(limit_lat_run(p, 100, &lat), PLAIT_E_PEERDIED);
    cr_assert_not_null(strstr(limit_error(), "died"));
    cr_assert_eq(limit_lat_run(p, 100, &lat), PLAIT_E_PEERDIED);
    limit_pair_close(p);
}

/* Kills it once it has worked for a while: idle it sleeps. Then any moment must do, and the round is far longer. */
static void kill_in_round(int pid)
{
    struct timespec begin, now;
    clockid_t clock;

    cr_assert_eq(clock_getcpuclockid(pid, &clock), 0);
    cr_assert_eq(clock_gettime(clock, &begin), 0);
    if (fork() == 0) {
        do {
            sched_yield();
            if (clock_gettime(clock, &now) != 0)
                _exit(1);
        } while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < 2000000);
        kill(pid, SIGKILL);
        _exit(0);
    }
}

Test(limit, peer_killed_in_a_round, .timeout = 120)
{
    struct limit_fabric_stream fs;
    struct limit_fabric_lat fl;
    double v;
    struct limit_lat lat;
    struct limit_rate rate;
    struct limit_bw bw;
    struct limit_wake wake;
    int what, rc = 0;

    for (what = 0; what < 10; what++) {
        struct limit_pair *p = open_pair(-1, -1);

        kill_in_round(limit_pair_pid(p));
        switch (what) {
        case 0:
            rc = limit_lat_run(p, 1u << 31, &lat);
            break;
        case 1:
            rc = limit_rate_run(p, 8, 1ul << 40, &rate);
            break;
        case 2:
            rc = limit_bw_run(p, 1, 1ul << 34, &bw);
            break;
        case 3:
            rc = limit_wake_run(p, 100000000, &wake);
            break;
        case 4:
            rc = limit_duplex_run(p, 1, 1ul << 34, &bw);
            break;
        case 5:
            rc = limit_tcp_lat(p, 8, 1u << 31, false, &v);
            break;
        case 6:
            rc = limit_tcp_lat(p, 8, 1u << 31, true, &v);
            break;
        case 7:
            rc = limit_tcp_stream(p, 1000, 1ul << 40, &v);
            break;
        case 8:
            rc = limit_fabric_missing() ? PLAIT_E_PEERDIED : limit_fabric_lat(p, 8, 1u << 31, &fl);
            break;
        case 9:
            rc = limit_fabric_missing() ? PLAIT_E_PEERDIED : limit_fabric_stream(p, 8000, 1ul << 40, &fs);
            break;
        }
        cr_assert_eq(rc, PLAIT_E_PEERDIED, "round %d: %d %s", what, rc, limit_error());
        limit_pair_close(p);
        while (waitpid(-1, NULL, 0) > 0)
            ;
        cr_assert_eq(errno, ECHILD);
    }
}

/* kill -9 of the caller takes the peer along, in a round or not. */
static void parent_killed(bool in_round)
{
    int pipe_fd[2], fd, peer;
    struct limit_lat lat;
    struct pollfd pfd = {.events = POLLIN};
    pid_t pid;

    cr_assert_eq(pipe(pipe_fd), 0);
    pid = fork();
    if (pid == 0) {
        struct limit_pair *p = open_pair(-1, -1);

        peer = limit_pair_pid(p);
        if (write(pipe_fd[1], &peer, sizeof(peer)) != (ssize_t)sizeof(peer))
            _exit(1);
        if (in_round)
            limit_lat_run(p, 1u << 31, &lat);
        for (;;)
            pause();
    }
    cr_assert_eq(read(pipe_fd[0], &peer, sizeof(peer)), (ssize_t)sizeof(peer));
    fd = (int)syscall(SYS_pidfd_open, peer, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    pfd.fd = fd;
    cr_assert_eq(poll(&pfd, 1, 20000), 1, "the peer lives on");
    close(fd);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

Test(limit, parent_killed_while_idle, .timeout = 60)
{
    parent_killed(false);
}

Test(limit, parent_killed_in_a_round, .timeout = 60)
{
    parent_killed(true);
}

/* The peer sleeps while nobody asks it: it uses no CPU time that could disturb another measurement. */
Test(limit, idle_peer_sleeps, .timeout = 60)
{
    struct limit_pair *p = open_pair(-1, -1);
    struct limit_lat lat;
    struct timespec a, b;
    clockid_t clock;
    uint64_t i;
    volatile uint64_t work = 0;

    cr_assert_eq(limit_lat_run(p, 100, &lat), 0, "%s", limit_error());
    cr_assert_eq(clock_getcpuclockid(limit_pair_pid(p), &clock), 0);
    /* until it sleeps its clock may move; then it stands still while this process works */
    for (;;) {
        clock_gettime(clock, &a);
        for (i = 0; i < 20000000; i++)
            work += i;
        clock_gettime(clock, &b);
        if (a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec)
            break;
    }
    limit_pair_close(p);
}
