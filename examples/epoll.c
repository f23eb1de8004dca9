/* SPDX-License-Identifier: BSD-3-Clause */
/* A service in somebody else's event loop: one epoll waits for a plait context, a timer and the standard
 * input. Usage: epoll [URI]; try hello_client with the URI that it prints. A line of input becomes the answer
 * to those who ask from then on, the end of the input ends the program. */
#include <plait/plait.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct service {
    struct plait_ctx *ctx;
    char answer[256];
    unsigned requests, ticks;
    int done;
};

static void check(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "epoll: %s: %s\n", what, plait_error_text());
        exit(1);
    }
}

static void check_system(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "epoll: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct service *sv = arg;

    (void)conn;
    sv->requests++;
    if (msg->kind == PLAIT_REQUEST && plait_reply(msg, sv->answer, strlen(sv->answer), 0) < 0)
        fprintf(stderr, "epoll: plait_reply: %s\n", plait_error_text());
}

static void add(int epfd, int fd)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

    check_system(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev), "epoll_ctl");
}

/* Handles what the context has, and returns when nothing is left and it is armed: a peer's next message makes
 * its descriptor readable. Needed before every wait, also after calls that may leave the context work. */
static void run_and_arm(struct plait_ctx *ctx)
{
    int something;

    check(plait_ctx_poll(ctx), "plait_ctx_poll");
    while ((something = plait_ctx_arm(ctx)) > 0)
        check(plait_ctx_poll(ctx), "plait_ctx_poll");
    check(something, "plait_ctx_arm");
}

static void on_timer(struct service *sv, int fd)
{
    uint64_t expirations;

    if (read(fd, &expirations, sizeof expirations) == sizeof expirations)
        sv->ticks += (unsigned)expirations;
}

static void on_input(struct service *sv)
{
    char line[sizeof sv->answer];
    ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);

    check_system((int)n, "read");
    line[n] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (n == 0)
        sv->done = 1;
    else
        strcpy(sv->answer, line);
    printf(n ? "the answer is now: %s\n" : "end of the input\n", line);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const struct plait_conn_ops ops = { .on_message = on_message };
    const struct itimerspec period = { .it_interval.tv_nsec = 100000000, .it_value.tv_nsec = 100000000 };
    struct plait_listen_opts opts = PLAIT_LISTEN_OPTS_INIT;
    struct service sv = { .answer = "hello from epoll" };
    struct plait_listener *listener;
    struct epoll_event ev;
    int epfd, timer, n;

    opts.session.conn_ops = &ops;
    opts.session.arg = &sv;
    check(plait_ctx_create(&sv.ctx, NULL), "plait_ctx_create");
    check(plait_listen(&listener, sv.ctx, argc > 1 ? argv[1] : "plait://127.0.0.1/epoll", &opts),
          "plait_listen");
    check_system(epfd = epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    check_system(timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create");
    check_system(timerfd_settime(timer, 0, &period, NULL), "timerfd_settime");
    add(epfd, plait_ctx_fd(sv.ctx));
    add(epfd, timer);
    add(epfd, STDIN_FILENO);
    printf("listening on %s\n", plait_listener_uri(listener));
    fflush(stdout);

    while (!sv.done) {
        run_and_arm(sv.ctx);
        n = epoll_wait(epfd, &ev, 1, -1);
        if (n < 0 && errno != EINTR)
            check_system(n, "epoll_wait");
        if (n == 1 && ev.data.fd == timer)
            on_timer(&sv, timer);
        else if (n == 1 && ev.data.fd == STDIN_FILENO)
            on_input(&sv);
        /* else the context: run_and_arm() is next */
    }
    printf("%u requests, %u ticks of the timer\n", sv.requests, sv.ticks);
    check(plait_ctx_destroy(sv.ctx), "plait_ctx_destroy"); /* closes the listener, too */
    close(timer);
    close(epfd);
    return 0;
}
