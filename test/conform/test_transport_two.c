/* SPDX-License-Identifier: BSD-3-Clause */
/* The two ends of a transport in two threads, and in two processes: both send, receive, sleep and are woken. What the control channel
 * carries goes through a socket pair, descriptors included. */
#include "ends.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define RECORDS 4000u
#define LOST_MS 20000 /* who sleeps so long has not been woken */

TestSuite(transport_two, .timeout = 120);

union cmsg {
    struct cmsghdr head;
    char space[CMSG_SPACE(PLI_TR_FDS_MAX * sizeof(int))];
};

int sock_send_control(int sock, const void *blob, size_t len, const int *fds, int nfds)
{
    struct iovec iov = { (void *)(uintptr_t)blob, len };
    union cmsg u;
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (nfds) {
        memset(&u, 0, sizeof u);
        msg.msg_control = &u;
        msg.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
        u.head.cmsg_level = SOL_SOCKET;
        u.head.cmsg_type = SCM_RIGHTS;
        u.head.cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
        memcpy(CMSG_DATA(&u.head), fds, (size_t)nfds * sizeof(int));
    }
    return sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)len ? 0 : PLAIT_E_SYSTEM;
}

/* Bytes of the next message; 0: the end, -1: none now. */
static ssize_t recv_control(int sock, void *blob, int *fds, int *nfds, int flags)
{
    struct iovec iov = { blob, PLI_TR_BLOB_MAX };
    union cmsg u;
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof u };
    ssize_t n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

    *nfds = 0;
    if (c) {
        *nfds = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), (size_t)*nfds * sizeof(int));
    }
    return n;
}

static const char *take_control(struct end *e)
{
    uint8_t blob[PLI_TR_BLOB_MAX];
    int fds[PLI_TR_FDS_MAX], nfds;
    ssize_t n;

    while ((n = recv_control(e->sock, blob, fds, &nfds, MSG_DONTWAIT)) > 0)
        if (e->tr->ops->control(e->tr, blob, (size_t)n, fds, nfds) < 0)
            return "control() failed";
    return NULL;
}

static const char *tell(struct end *e)
{
    uint8_t blob[PLI_TR_BLOB_MAX];
    int fds[PLI_TR_FDS_MAX], nfds;
    size_t len;

    e->tr->ops->describe(e->tr, blob, &len, fds, &nfds);
    return sock_send_control(e->sock, blob, len, fds, nfds) < 0 ? "the description was not sent" : NULL;
}

static const char *hear(struct end *e)
{
    uint8_t blob[PLI_TR_BLOB_MAX];
    int fds[PLI_TR_FDS_MAX], nfds;
    ssize_t n = recv_control(e->sock, blob, fds, &nfds, 0);

    if (n <= 0)
        return "no description came";
    return e->tr->ops->connect(e->tr, blob, (size_t)n, fds, nfds) < 0 ? "connect() failed" : NULL;
}

/* The active side is told first. */
static const char *meet(struct end *e, bool active)
{
    const char *bad = active ? hear(e) : tell(e);

    return bad ? bad : active ? tell(e) : hear(e);
}

static const char *doze(struct end *e, int ep)
{
    const struct pli_tr_ops *ops = e->tr->ops;
    struct epoll_event ev;
    int n = 1;

    ops->park(e->tr);
    pli_sleeper_barrier();
    if (!ops->ready(e->tr))
        do
            n = epoll_wait(ep, &ev, 1, LOST_MS);
        while (n < 0 && errno == EINTR);
    ops->unpark(e->tr);
    return n == 1 ? NULL : "a wake-up was lost";
}

static void send_some(struct end *e, struct pli_rand *rnd)
{
    uint64_t n = pli_rand_below(rnd, 40);

    while (n-- && e->sent < RECORDS && end_send(e, pli_rand_below(rnd, 3) == 0) == 0)
        ;
}

/* What the transport still has to send is polled out of it, until the other side has all, too. */
static const char *linger(struct end *e)
{
    struct pollfd p = { .fd = e->sock, .events = POLLIN };
    uint64_t until = pli_clock_now() + SOON_NS;
    const char *bad = NULL;

    shutdown(e->sock, SHUT_WR);
    while (!bad && !e->trouble && poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP)) {
        bad = pli_clock_now() > until ? "the other side does not end" : take_control(e);
        e->tr->ops->poll(e->tr, 64);
    }
    return bad;
}

static const char *work(struct end *e, int ep, uint64_t seed)
{
    struct pli_rand rnd;
    const char *bad = NULL;

    pli_rand_seed(&rnd, seed);
    while (!bad && !e->trouble && !e->failed && (e->sent < RECORDS || e->got < RECORDS)) {
        uint64_t wanted = e->writable;
        bool full;

        send_some(e, &rnd);
        full = e->sent < RECORDS && e->tr->room.pos >= e->tr->room.limit;
        bad = take_control(e);
        if (!bad && e->tr->ops->poll(e->tr, 1 + (int)pli_rand_below(&rnd, 64)) == 0 && e->writable == wanted &&
            (full || e->sent == RECORDS) && pli_rand_below(&rnd, 2)) {
            /* a refused send, so that space wakes us */
            if (e->sent < RECORDS && end_send(e, false) == 0)
                continue;
            bad = doze(e, ep);
        }
    }
    e->tr->ops->park(e->tr); /* publishes everything */
    pli_sleeper_barrier();
    e->tr->ops->ready(e->tr);
    e->tr->ops->unpark(e->tr);
    if (!bad && !e->trouble && !e->failed)
        bad = linger(e);
    if (e->failed)
        return e->fail_text;
    return bad ? bad : e->trouble;
}

/* One end from its beginning to its end. NULL, or what went wrong. */
static const char *side(const struct pli_tr_ops *ops, int sock, uint64_t seed)
{
    struct end *e = calloc(1, sizeof *e);
    struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
    static __thread char text[400];
    const char *bad;
    int ep;

    end_create(e, ops, pli_membarrier_available());
    e->sock = sock;
    bad = meet(e, seed % 2);
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ctl(ep, EPOLL_CTL_ADD, ops->wake_fd(e->tr), &ev) < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, sock, &ev) < 0)
        bad = "epoll_ctl failed";
    if (!bad)
        bad = work(e, ep, seed);
    if (bad)
        snprintf(text, sizeof text, "%.255s (%llu sent, %llu received)", bad, (unsigned long long)e->sent, (unsigned long long)e->got);
    end_destroy(e);
    close(ep);
    close(sock);
    free(e);
    return bad ? text : NULL;
}

static void pair(int sv[2])
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
}

struct job {
    const struct pli_tr_ops *ops;
    int sock;
    char bad[400];
};

static void *thread_main(void *arg)
{
    struct job *job = arg;
    const char *bad = side(job->ops, job->sock, 2);

    snprintf(job->bad, sizeof job->bad, "%s", bad ? bad : "");
    return NULL;
}

static void two_threads(void)
{
    struct kind kinds[MAX_KINDS];
    size_t n = find_kinds(kinds);

    for (size_t i = 0; i < n; i++) {
        struct job job = { .ops = kinds[i].ops };
        pthread_t thread;
        const char *bad;
        int sv[2];

        setenv("PLAIT_PROVIDER", kinds[i].provider, 1);
        pair(sv);
        job.sock = sv[1];
        cr_assert_eq(pthread_create(&thread, NULL, thread_main, &job), 0);
        bad = side(kinds[i].ops, sv[0], 1);
        pthread_join(thread, NULL);
        cr_assert_null(bad, "%s", bad);
        cr_assert_eq(*job.bad, '\0', "the other side: %s", job.bad);
    }
}

/* A process for one side. libfabric is loaded in it: what it has opened of an RDMA device is of no use in a child. */
static pid_t start_side(const struct kind *kind, int sock, int other, uint64_t seed)
{
    pid_t pid = fork();
    const char *bad;

    if (pid)
        return pid;
    close(other);
    setenv("PLAIT_PROVIDER", kind->provider, 1);
    pli_membarrier_forked();
    bad = side(kind->ops, sock, seed);
    if (bad)
        fprintf(stderr, "side %d: %s\n", (int)seed, bad);
    _exit(bad != NULL);
}

static void two_processes(void)
{
    struct kind kinds[MAX_KINDS];
    size_t n = name_kinds(kinds);

    for (size_t i = 0; i < n; i++) {
        pid_t pid[2];
        int sv[2], status[2] = { -1, -1 };

        pair(sv);
        for (int k = 0; k < 2; k++)
            pid[k] = start_side(&kinds[i], sv[k], sv[!k], 3 + (uint64_t)k);
        close(sv[0]);
        close(sv[1]);
        for (int k = 0; k < 2; k++)
            cr_assert_eq(waitpid(pid[k], &status[k], 0), pid[k]);
        cr_assert(WIFEXITED(status[0]) && WEXITSTATUS(status[0]) == 0, "side 3 has failed: %x", status[0]);
        cr_assert(WIFEXITED(status[1]) && WEXITSTATUS(status[1]) == 0, "side 4 has failed: %x", status[1]);
    }
}

Test(transport_two, threads)
{
    two_threads();
}

Test(transport_two, processes)
{
    two_processes();
}

Test(transport_two, threads_without_membarrier)
{
    setenv("PLAIT_NO_MEMBARRIER", "1", 1);
    cr_assert_not(pli_membarrier_available());
    two_threads();
}

Test(transport_two, processes_without_membarrier)
{
    setenv("PLAIT_NO_MEMBARRIER", "1", 1);
    two_processes();
}
