/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/sock.h"
#include "util/err.h"

#define IN_CAP (PLI_WIRE_HEAD + PLI_WIRE_MAX)
#define READS_PER_EVENT 4 /* a busy peer cannot keep the context here; epoll is level-triggered */

/* A frame, or the rest of one, that the socket did not take. */
struct frame {
    struct pli_list node;
    size_t len, off;
    int fds[PLI_TR_FDS_MAX];
    int nfds;
    uint8_t data[];
};

void pli_fds_close(const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

static void frame_free(struct frame *f)
{
    pli_fds_close(f->fds, f->nfds);
    free(f);
}

/* ---- sending ---- */

/* One sendmsg. Bytes sent, or -1 with errno. */
static ssize_t send_some(int fd, const void *data, size_t len, const int *fds, int nfds)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};
    union {
        char buf[CMSG_SPACE(PLI_TR_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (nfds > 0) {
        struct cmsghdr *c = &control.align;

        memset(&control, 0, sizeof control);
        mh.msg_control = control.buf;
        mh.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t)nfds * sizeof(int));
    }
    do {
        n = sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* errno of a failed read or write as a code with a sentence. */
static int fail_io(struct pli_channel *ch, const char *what)
{
    switch (errno) {
    case EPIPE:
    case ECONNRESET:
        return pli_fail(PLAIT_E_PEERDIED, "the peer process ended or closed its control channel (%s: %s)",
                        what, strerror(errno));
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
        ch->silent = true;
        return pli_fail(PLAIT_E_PEERDIED, "the peer's machine does not answer any more (%s: %s)", what,
                        strerror(errno));
    case ETOOMANYREFS:
        return pli_fail(PLAIT_E_NOFILE,
                        "%s: too many file descriptors are on their way to peers that have not "
                        "received them; raise the limit with 'ulimit -n'",
                        what);
    default:
        return pli_fail_errno("control channel: %s", what);
    }
}

static void drop_output(struct pli_channel *ch)
{
    struct pli_list *node;

    while ((node = pli_list_pop_front(&ch->out)) != NULL)
        frame_free(pli_container_of(node, struct frame, node));
    ch->out_bytes = 0;
}

/* 0: all sent, or the socket is full. */
static int flush(struct pli_channel *ch)
{
    struct pli_list *node;

    while ((node = pli_list_first(&ch->out)) != NULL) {
        struct frame *f = pli_container_of(node, struct frame, node);
        ssize_t n = send_some(ch->src.fd, f->data + f->off, f->len - f->off, f->fds, f->nfds);

        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : fail_io(ch, "sendmsg");
        /* descriptors travel with the first byte */
        pli_fds_close(f->fds, f->nfds);
        f->nfds = 0;
        f->off += (size_t)n;
        ch->out_bytes -= (size_t)n;
        if (f->off < f->len)
            return 0;
        pli_list_remove(node);
        frame_free(f);
    }
    return 0;
}

static uint32_t wanted(const struct pli_channel *ch)
{
    return (ch->ended ? 0u : (uint32_t)EPOLLIN) | (pli_list_is_empty(&ch->out) ? 0u : (uint32_t)EPOLLOUT);
}

static int enqueue(struct pli_channel *ch, const void *data, size_t len, const int *fds, int nfds)
{
    bool first = pli_list_is_empty(&ch->out);
    struct frame *f;
    int rc;

    if (ch->out_bytes + len > PLI_CHANNEL_OUT_MAX)
        return pli_fail(PLAIT_E_PEERDIED, "the peer does not read its control channel: %u KiB wait for it",
                        PLI_CHANNEL_OUT_MAX / 1024);
    f = malloc(sizeof *f + len);
    if (!f)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a control message of %zu bytes", len);
    f->len = len;
    f->off = 0;
    f->nfds = 0;
    memcpy(f->data, data, len);
    for (int i = 0; i < nfds; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);

        if (fd < 0) {
            rc = pli_fail_errno("duplicating a descriptor for a control message");
            goto err_frame;
        }
        f->fds[f->nfds++] = fd;
    }
    pli_list_init(&f->node);
    pli_list_push_back(&ch->out, &f->node);
    ch->out_bytes += len;
    if (first) {
        rc = pli_src_mod(ch->ctx, &ch->src, wanted(ch));
        if (rc < 0)
            goto err_queued;
    }
    return 0;

err_queued:
    pli_list_remove(&f->node);
    ch->out_bytes -= len;
err_frame:
    frame_free(f);
    return rc;
}

int pli_channel_send(struct pli_channel *ch, const struct pli_wire_msg *msg, const int *fds)
{
    uint8_t buf[IN_CAP];
    int len, nfds = msg->nfds, rc;
    ssize_t n = 0;

    if (ch->src.fd < 0 || ch->broken)
        return pli_fail(PLAIT_E_PEERDIED, "the control channel is closed");
    len = pli_wire_encode(buf, sizeof buf, msg);
    if (len < 0)
        return len;
    if (nfds > 0 && !ch->is_unix)
        return pli_fail(PLAIT_E_INVAL,
                        "control message %s: descriptors cannot go over TCP, only to a process of the "
                        "same host",
                        pli_wire_type_name(msg->type));
    if (pli_list_is_empty(&ch->out)) {
        n = send_some(ch->src.fd, buf, (size_t)len, fds, nfds);
        if (n == len)
            return 0;
        if (n < 0 && errno == ETOOMANYREFS) /* nothing of it has gone: the caller may do without */
            return fail_io(ch, "sendmsg");
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            rc = fail_io(ch, "sendmsg");
            goto err_broken;
        }
        if (n < 0)
            n = 0;
        else
            nfds = 0;
    }
    rc = enqueue(ch, buf + n, (size_t)(len - n), fds, nfds);
    if (rc == PLAIT_E_NOFILE && n == 0)
        return rc;
    if (rc < 0)
        goto err_broken;
    return 0;

err_broken:
    /* a frame is lost: what would follow it makes no sense */
    ch->broken = true;
    return rc;
}

/* ---- receiving ---- */

static void end(struct pli_channel *ch, int code)
{
    ch->ended = true;
    pli_src_mod(ch->ctx, &ch->src, 0);
    ch->ops->on_end(ch, code);
}

static int no_descriptors(void)
{
    errno = EMFILE;
    return pli_fail_errno("receiving the descriptors of a control message");
}

/* The system had descriptors for us, and this process no room for all of them. They travel with the first byte of their frame, and the
 * system never gives those of two frames at once: so they are of the last frame that announces some and begins in what was just read. */
static int lose_fds(struct pli_channel *ch, int before)
{
    if (ch->lost)
        return no_descriptors();
    pli_fds_close(ch->fds + before, ch->nfds - before);
    ch->nfds = before;
    ch->lost = true;
    ch->lost_at = ch->in_len;
    return 0;
}

/* Puts the descriptors of a received message at the end of ch->fds. 0 or a code. */
static int take_fds(struct pli_channel *ch, struct msghdr *mh)
{
    int before = ch->nfds;
    bool over = false;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
        size_t n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (ch->nfds < PLI_CHANNEL_FDS) {
                ch->fds[ch->nfds++] = fd;
            } else {
                close(fd);
                over = true;
            }
        }
    }
    if (over || ((mh->msg_flags & MSG_CTRUNC) && ch->nfds == PLI_CHANNEL_FDS))
        return pli_fail(PLAIT_E_PROTO,
                        "the peer sent more than %d descriptors that belong to no control message",
                        PLI_CHANNEL_FDS);
    return mh->msg_flags & MSG_CTRUNC ? lose_fds(ch, before) : 0;
}

/* How many bytes may be read now. Not beyond a frame whose descriptors were lost: those of the next one would pass for them. */
static size_t room(const struct pli_channel *ch)
{
    if (!ch->lost)
        return IN_CAP - ch->in_len;
    return (ch->in_len < PLI_WIRE_HEAD ? PLI_WIRE_HEAD : pli_wire_frame_len(ch->in)) - ch->in_len;
}

/* >0: that many bytes came; 0: nothing there; <0: the code with which the channel ends. */
static int receive(struct pli_channel *ch)
{
    struct iovec iov;
    union {
        char buf[CMSG_SPACE(PLI_CHANNEL_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;
    int rc;

    if (!ch->in) {
        ch->in = malloc(IN_CAP);
        if (!ch->in)
            return pli_fail(PLAIT_E_NOMEM, "no memory to receive a control message (%u bytes)", IN_CAP);
        ch->in_len = 0;
    }
    iov.iov_base = ch->in + ch->in_len;
    iov.iov_len = room(ch);
    mh.msg_control = control.buf;
    mh.msg_controllen = sizeof control.buf;
    do {
        n = recvmsg(ch->src.fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : fail_io(ch, "recvmsg");
    rc = take_fds(ch, &mh);
    if (rc < 0)
        return rc;
    if (n == 0)
        return ch->in_len == 0
                   ? pli_fail(PLAIT_E_PEERDIED, "the peer process ended or closed its control channel")
                   : pli_fail(PLAIT_E_PEERDIED,
                              "the peer process ended in the middle of a control "
                              "message (after %zu bytes of it)",
                              ch->in_len);
    ch->in_len += (size_t)n;
    return (int)n;
}

/* Hands one frame to the user. <0: the code with which the channel ends. *gone: the user has closed it, and
 * maybe freed the memory that it was in. */
static int deliver(struct pli_channel *ch, const struct pli_wire_msg *msg, bool *gone)
{
    int fds[PLI_TR_FDS_MAX];
    int rc;

    if (msg->nfds > ch->nfds)
        return pli_fail(PLAIT_E_PROTO, "control message %s: announces %u descriptors, %d came",
                        pli_wire_type_name(msg->type), msg->nfds, ch->nfds);
    memcpy(fds, ch->fds, msg->nfds * sizeof fds[0]);
    ch->nfds -= msg->nfds;
    memmove(ch->fds, ch->fds + msg->nfds, (size_t)ch->nfds * sizeof fds[0]);
    ch->gone = gone;
    rc = ch->ops->on_frame(ch, msg, fds);
    if (*gone)
        return 0;
    ch->gone = NULL;
    if (rc < 0) {
        ch->ended = true;
        pli_src_mod(ch->ctx, &ch->src, wanted(ch));
    }
    return 0;
}

/* The frame at off announces descriptors: were they lost? 0, or the code with which the channel ends: without these there is no link. */
static int check_lost(struct pli_channel *ch, size_t off, struct pli_wire_msg *msg)
{
    if (!ch->lost || msg->nfds == 0 || off < ch->lost_at)
        return 0;
    if (msg->type != PLI_WIRE_MEM && msg->type != PLI_WIRE_TR_CONTROL)
        return no_descriptors();
    ch->lost = false;
    msg->fds_lost = true;
    msg->nfds = 0;
    return 0;
}

/* Delivers every whole frame that is there; false: the channel reads no further. The buffer is this
 * function's while it runs, so that closing the channel in a callback does not take it away; ch->in_len then
 * counts what is beyond the present frame. */
static bool deliver_all(struct pli_channel *ch)
{
    uint8_t *buf = ch->in;
    size_t off = 0, len = ch->in_len;
    struct pli_wire_msg msg;
    bool gone = false;
    int n, rc = 0;

    ch->in = NULL;
    while ((n = pli_wire_parse(buf + off, len - off, &msg)) > 0) {
        rc = check_lost(ch, off, &msg);
        off += (size_t)n;
        ch->in_len = len - off;
        if (rc == 0)
            rc = deliver(ch, &msg, &gone);
        if (gone) {
            free(buf);
            return false;
        }
        if (rc < 0 || ch->ended)
            break;
    }
    if (n < 0)
        rc = n;
    else if (rc == 0 && off == len && (ch->nfds > 0 || ch->lost))
        rc = pli_fail(PLAIT_E_PROTO, "the peer sent %d descriptors that belong to no control message",
                      ch->nfds + ch->lost);
    if (rc == 0 && !ch->ended && off < len) {
        memmove(buf, buf + off, len - off);
        ch->lost_at -= ch->lost_at < off ? ch->lost_at : off;
        ch->in = buf;
        return true;
    }
    free(buf);
    ch->in_len = 0;
    if (rc < 0 && !ch->ended)
        end(ch, rc);
    else
        return !ch->ended;
    return false;
}

static void on_readable(struct pli_channel *ch)
{
    for (int i = 0; i < READS_PER_EVENT; i++) {
        int n = receive(ch);

        if (n < 0) {
            end(ch, n);
            return;
        }
        if (n == 0) {
            if (ch->in_len == 0) {
                free(ch->in);
                ch->in = NULL;
            }
            return;
        }
        if (!deliver_all(ch))
            return;
    }
}

/* Returns false if the channel has ended in it. */
static bool on_writable(struct pli_channel *ch)
{
    int rc = ch->broken ? PLAIT_E_PEERDIED : flush(ch);

    if (rc < 0) {
        ch->broken = true;
        drop_output(ch);
    }
    /* a dead peer is left to the read side: its last words may be there */
    if (rc < 0 && rc != PLAIT_E_PEERDIED && !ch->ended) {
        end(ch, rc);
        return false;
    }
    if (pli_list_is_empty(&ch->out))
        pli_src_mod(ch->ctx, &ch->src, wanted(ch));
    return true;
}

static void on_event(struct pli_src *src, uint32_t events)
{
    struct pli_channel *ch = pli_container_of(src, struct pli_channel, src);

    if ((events & EPOLLOUT) && !pli_list_is_empty(&ch->out) && !on_writable(ch))
        return;
    if (ch->ended && (events & (EPOLLERR | EPOLLHUP)))
        pli_src_del(ch->ctx, src); /* these come unasked, again and again, and nobody listens any more */
    else if (!ch->ended && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        on_readable(ch);
}

/* ---- life ---- */

int pli_channel_open(struct pli_channel *ch, struct plait_ctx *ctx, int fd, const struct pli_channel_ops *ops)
{
    int fl = fcntl(fd, F_GETFL), domain = AF_UNSPEC, rc;
    socklen_t len = sizeof domain;

    memset(ch, 0, sizeof *ch);
    ch->ctx = ctx;
    ch->ops = ops;
    ch->src.fd = fd;
    ch->src.fn = on_event;
    pli_list_init(&ch->out);
    if (fl < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0) {
        rc = pli_fail_errno("control channel: descriptor %d", fd);
        goto err_fd;
    }
    ch->is_unix = domain == AF_UNIX;
    if (domain == AF_INET || domain == AF_INET6)
        pli_sock_tune_tcp(fd, ctx->peer_timeout_ms);
    rc = pli_src_add(ctx, &ch->src, EPOLLIN);
    if (rc < 0)
        goto err_fd;
    return 0;

err_fd:
    if (fd >= 0)
        close(fd);
    ch->src.fd = -1;
    return rc;
}

/* Everything but the socket. */
static void release(struct pli_channel *ch)
{
    pli_src_del(ch->ctx, &ch->src);
    ch->src.fd = -1;
    pli_fds_close(ch->fds, ch->nfds);
    ch->nfds = 0;
    drop_output(ch);
    free(ch->in);
    ch->in = NULL;
    ch->in_len = 0;
    ch->lost = false;
    ch->ended = true;
    if (ch->gone)
        *ch->gone = true;
    ch->gone = NULL;
}

int pli_channel_detach(struct pli_channel *ch)
{
    int fd = ch->src.fd;

    if (fd < 0)
        return pli_fail(PLAIT_E_PEERDIED, "the control channel is closed");
    if (!pli_list_is_empty(&ch->out))
        return pli_fail(PLAIT_E_BUSY, "the control channel still has %zu bytes to send", ch->out_bytes);
    if (ch->in_len > 0 || ch->nfds > 0)
        return pli_fail(PLAIT_E_PROTO, "the peer sent %zu bytes and %d descriptors before it was answered",
                        ch->in_len, ch->nfds);
    release(ch);
    return fd;
}

void pli_channel_close(struct pli_channel *ch)
{
    int fd = ch->src.fd;

    if (!ch->ctx || !ch->out.next)
        return; /* never opened */
    if (fd >= 0 && !ch->ctx->forked && !ch->broken)
        flush(ch);
    release(ch);
    if (fd >= 0)
        close(fd);
}
