/* SPDX-License-Identifier: BSD-3-Clause */
/* Devices: what is opened once for a NIC and a context, and the buffers for its packets. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>
#include "fabric/ofi.h"
#include "util/err.h"

enum {
    CHUNK = 65536,       /* bytes of a chunk of small buffers */
    BIG_CHUNK = 1048576,
    CQ_SIZE = 8192,      /* completions */
};

/* A piece of registered memory and the buffers in it. */
struct chunk {
    struct pli_list node;
    struct fid_mr *mr;
    uint8_t *mem;
    struct pli_ofi_buf bufs[];
};

/* ---- buffers ---- */

static int reserve_ids(struct pli_ofi_hub *hub, uint32_t more)
{
    uint32_t cap = hub->bufs_cap ? hub->bufs_cap : 64;
    struct pli_ofi_buf **bufs;

    while (cap < hub->nbufs + more)
        cap *= 2;
    if (cap == hub->bufs_cap)
        return 0;
    bufs = realloc(hub->bufs, cap * sizeof *bufs);
    if (!bufs)
        return PLAIT_E_NOMEM;
    hub->bufs = bufs;
    hub->bufs_cap = cap;
    return 0;
}

/* What has failed is pli_err_text(). An ordinary user may lock little memory, often 64 KiB; then the cause is named with the way out. */
static int fail_locked(int rc)
{
    int code = rc == -FI_ENOMEM ? PLAIT_E_NOMEM : PLAIT_E_SYSTEM;
    struct rlimit limit;

    if ((rc != -FI_ENOMEM && rc != -FI_EPERM && rc != -FI_EAGAIN) || getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return pli_fail(code, "%.300s", pli_err_text());
    return pli_fail(PLAIT_E_NOMEM, "%.300s; this process may lock %llu KiB of memory: raise the limit ('ulimit -l unlimited', or memlock in limits.conf)",
                    pli_err_text(), (unsigned long long)limit.rlim_cur / 1024);
}

static int add_chunk(struct pli_ofi_dev *dev, struct pli_ofi_pool *pool)
{
    uint32_t bytes = pool->size == PLI_OFI_SMALL ? CHUNK : BIG_CHUNK, n = bytes / pool->size;
    struct chunk *c = calloc(1, sizeof *c + n * sizeof c->bufs[0]);
    int rc;

    if (!c || reserve_ids(dev->hub, n) < 0 || posix_memalign((void **)&c->mem, 4096, bytes) != 0) {
        free(c);
        return pli_fail(PLAIT_E_NOMEM, "%s: no memory for packets", dev->name);
    }
    if (dev->info->domain_attr->mr_mode & FI_MR_LOCAL) {
        rc = fi_mr_reg(dev->domain, c->mem, bytes, FI_SEND | FI_RECV, 0, 0, 0, &c->mr, NULL);
        if (rc < 0) {
            free(c->mem);
            free(c);
            pli_ofi_fail(dev->name, "registering memory for packets", rc);
            return fail_locked(rc);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        struct pli_ofi_buf *b = &c->bufs[i];

        b->mem = c->mem + i * pool->size;
        b->desc = c->mr ? fi_mr_desc(c->mr) : NULL;
        b->size = pool->size;
        b->id = dev->hub->nbufs;
        dev->hub->bufs[dev->hub->nbufs++] = b;
        pli_list_init(&b->node);
        pli_list_push_back(&pool->free, &b->node);
    }
    pli_list_init(&c->node);
    pli_list_push_back(&pool->chunks, &c->node);
    return 0;
}

struct pli_ofi_buf *pli_ofi_buf_get(struct pli_ofi_dev *dev, bool big)
{
    struct pli_ofi_pool *pool = big ? &dev->big : &dev->small;

    if (pli_list_is_empty(&pool->free) && add_chunk(dev, pool) < 0)
        return NULL;
    return pli_container_of(pli_list_pop_front(&pool->free), struct pli_ofi_buf, node);
}

void pli_ofi_buf_put(struct pli_ofi_dev *dev, struct pli_ofi_buf *buf)
{
    buf->link = NULL;
    buf->op = PLI_OFI_IDLE;
    buf->holds = 0;
    pli_list_remove(&buf->node);
    pli_list_push_front(buf->size == PLI_OFI_SMALL ? &dev->small.free : &dev->big.free, &buf->node);
}

static void free_pool(struct pli_ofi_pool *pool, bool forked)
{
    struct pli_list *node;

    while ((node = pli_list_pop_front(&pool->chunks)) != NULL) {
        struct chunk *c = pli_container_of(node, struct chunk, node);

        if (c->mr && !forked)
            fi_close(&c->mr->fid);
        free(c->mem);
        free(c);
    }
}

static void init_pool(struct pli_ofi_pool *pool, uint32_t size)
{
    pool->size = size;
    pli_list_init(&pool->free);
    pli_list_init(&pool->chunks);
}

/* ---- the sockets of a quiet device ---- */

enum { PFDS_KEEP = 16 }; /* so many sockets are not put into the epoll, and taken out of it, at each sleep */

static int fetch_pfds(struct pli_ofi_dev *dev)
{
    for (;;) {
        struct fi_wait_pollfd w = { .nfds = dev->pfds_cap, .fd = dev->pfds };
        int rc = fi_control(&dev->cq->fid, FI_GETWAIT, &w);
        struct pollfd *more;

        if (rc == 0) {
            dev->npfds = (uint32_t)w.nfds;
            dev->pfds_version = w.change_index;
            return 0;
        }
        if (rc != -FI_ETOOSMALL || w.nfds <= dev->pfds_cap)
            return pli_ofi_fail(dev->name, "the sockets to sleep on", rc);
        more = realloc(dev->pfds, 2 * w.nfds * sizeof *more);
        if (!more)
            return pli_fail(PLAIT_E_NOMEM, "%s: no memory for the sockets to sleep on", dev->name);
        dev->pfds = more;
        dev->pfds_cap = (uint32_t)(2 * w.nfds);
    }
}

static void forget_pfds(struct pli_ofi_dev *dev)
{
    for (uint32_t i = 0; i < dev->npfds; i++)
        epoll_ctl(dev->hub->epfd, EPOLL_CTL_DEL, dev->pfds[i].fd, NULL);
    dev->npfds = 0;
    dev->watched = false;
}

static bool same_pfds(const struct pli_ofi_dev *dev)
{
    struct fi_wait_pollfd w = { .nfds = 0 };

    fi_control(&dev->cq->fid, FI_GETWAIT, &w);
    return w.nfds == dev->npfds && w.change_index == dev->pfds_version;
}

/* Among the descriptors are those by which the provider tells of entries in its queues. Only this thread's progress makes any, and
 * fi_trywait() looks for them; they are readable long after they have been read. */
static bool is_own_signal(int fd)
{
    int domain = 0;
    socklen_t len = sizeof domain;

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

int pli_ofi_dev_watch(struct pli_ofi_dev *dev)
{
    int rc;

    if (dev->watched && same_pfds(dev))
        return 0;
    forget_pfds(dev);
    rc = fetch_pfds(dev);
    if (rc < 0)
        return rc;
    dev->watched = true;
    for (uint32_t i = 0; i < dev->npfds; i++) {
        struct epoll_event ev = { .events = (uint32_t)dev->pfds[i].events };

        if (is_own_signal(dev->pfds[i].fd))
            continue;
        if (epoll_ctl(dev->hub->epfd, EPOLL_CTL_ADD, dev->pfds[i].fd, &ev) < 0 && errno != EEXIST)
            return pli_fail_errno("%s: epoll_ctl for a socket", dev->name);
    }
    return 0;
}

void pli_ofi_dev_unwatch(struct pli_ofi_dev *dev)
{
    if (dev->watched && dev->npfds <= PFDS_KEEP)
        forget_pfds(dev);
}

/* ---- opening ---- */

/* Returns the descriptor. */
static int watch(struct pli_ofi_dev *dev, struct fid *fid, const char *what)
{
    struct epoll_event ev = { .events = EPOLLIN };
    int fd, rc = fi_control(fid, FI_GETWAIT, &fd);

    if (rc < 0)
        return pli_ofi_fail(dev->name, what, rc);
    if (epoll_ctl(dev->hub->epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
        return pli_fail_errno("%s: epoll_ctl for %s", dev->name, what);
    return fd;
}

static int open_queues(struct pli_ofi_dev *dev)
{
    struct fi_cq_attr cq = { .size = CQ_SIZE, .format = FI_CQ_FORMAT_MSG, .wait_obj = dev->quiet ? FI_WAIT_POLLFD : FI_WAIT_FD };
    struct fi_eq_attr eq = { .wait_obj = FI_WAIT_FD };
    int rc = fi_cq_open(dev->domain, &cq, &dev->cq, NULL);

    if (rc < 0)
        return pli_ofi_fail(dev->name, "opening a completion queue", rc);
    dev->cq_size = cq.size < CQ_SIZE ? CQ_SIZE : (uint32_t)cq.size;
    rc = dev->quiet ? 0 : watch(dev, &dev->cq->fid, "the descriptor of a completion queue");
    if (rc < 0 || dev->kind != PLI_OFI_MSG) {
        dev->cq_fd = rc;
        return rc < 0 ? rc : 0;
    }
    rc = fi_eq_open(dev->fabric, &eq, &dev->eq, NULL);
    if (rc < 0)
        return pli_ofi_fail(dev->name, "opening an event queue", rc);
    rc = watch(dev, &dev->eq->fid, "the descriptor of an event queue");
    return rc < 0 ? rc : 0;
}

static int open_all(struct pli_ofi_dev *dev)
{
    int rc = pli_fi_lib()->fabric(dev->info->fabric_attr, &dev->fabric, NULL);

    if (rc < 0)
        return pli_ofi_fail(dev->name, "opening the fabric", rc);
    rc = fi_domain(dev->fabric, dev->info, &dev->domain, NULL);
    if (rc < 0)
        return pli_ofi_fail(dev->name, "opening the domain", rc);
    rc = open_queues(dev);
    if (rc < 0 || dev->kind == PLI_OFI_MSG)
        return rc;
    rc = pli_ofi_rdm_open(dev);
    if (rc == 0)
        pli_ofi_sockets_hurry(dev);
    return rc;
}

static bool serves(const struct pli_ofi_dev *dev, const struct fi_info *info)
{
    const struct fi_info *d = dev->info;

    return strcmp(d->fabric_attr->prov_name, info->fabric_attr->prov_name) == 0 &&
           strcmp(d->domain_attr->name, info->domain_attr->name) == 0 && d->ep_attr->type == info->ep_attr->type &&
           d->addr_format == info->addr_format;
}

/* What was found for listening has the own address, as the passive endpoint needs it; what was found for a peer has the peer's. An endpoint
 * of reliable datagrams is open, as its info says. */
static void keep_better_info(struct pli_ofi_dev *dev, struct fi_info *info)
{
    struct fi_info *worse = dev->info->dest_addr && !info->dest_addr && dev->kind == PLI_OFI_MSG ? dev->info : info;

    if (worse == dev->info)
        dev->info = info;
    pli_fi_lib()->freeinfo(worse);
}

int pli_ofi_dev_get(struct pli_ofi_dev **out, struct pli_ofi_hub *hub, struct fi_info *info)
{
    struct pli_ofi_dev *dev;
    struct pli_list *node;
    int rc;

    pli_list_foreach(node, &hub->devs) {
        dev = pli_container_of(node, struct pli_ofi_dev, node);
        if (serves(dev, info)) {
            keep_better_info(dev, info);
            *out = dev;
            return 0;
        }
    }
    dev = calloc(1, sizeof *dev);
    if (!dev) {
        pli_fi_lib()->freeinfo(info);
        return pli_fail(PLAIT_E_NOMEM, "no memory for a device of libfabric");
    }
    dev->hub = hub;
    dev->info = info;
    dev->kind = info->ep_attr->type == FI_EP_MSG ? PLI_OFI_MSG : PLI_OFI_RDM;
    dev->quiet = dev->kind == PLI_OFI_MSG && pli_ofi_is_old_tcp(info);
    init_pool(&dev->small, PLI_OFI_SMALL);
    init_pool(&dev->big, PLI_OFI_BIG);
    pli_list_init(&dev->node);
    pli_list_init(&dev->peers);
    snprintf(dev->name, sizeof dev->name, "libfabric provider %.40s, %.30s", info->fabric_attr->prov_name, info->domain_attr->name);
    rc = open_all(dev);
    if (rc < 0) {
        pli_ofi_dev_close(dev, false);
        return rc;
    }
    pli_list_push_back(&hub->devs, &dev->node);
    *out = dev;
    return 0;
}

int pli_ofi_dev_listen(struct pli_ofi_dev *dev)
{
    size_t len = sizeof dev->addr;
    struct fid_pep *pep;
    int rc;

    if (dev->pep)
        return 0;
    rc = fi_passive_ep(dev->fabric, dev->info, &pep, dev);
    if (rc < 0)
        return pli_ofi_fail(dev->name, "opening a passive endpoint", rc);
    rc = fi_pep_bind(pep, &dev->eq->fid, 0);
    if (rc == 0)
        rc = fi_listen(pep);
    if (rc == 0)
        rc = fi_getname(&pep->fid, dev->addr, &len);
    if (rc < 0) {
        fi_close(&pep->fid);
        return pli_ofi_fail(dev->name, "listening", rc);
    }
    dev->addr_len = (uint32_t)len;
    dev->pep = pep;
    pli_ofi_sockets_hurry(dev);
    return 0;
}

static void close_fid(struct fid *fid)
{
    if (fid)
        fi_close(fid);
}

void pli_ofi_dev_close(struct pli_ofi_dev *dev, bool forked)
{
    struct pli_ofi_socket *sockets = forked ? NULL : pli_ofi_sockets_note(dev);

    pli_list_remove(&dev->node);
    if (!forked) {
        close_fid(dev->pep ? &dev->pep->fid : NULL);
        pli_ofi_rdm_close(dev);
    }
    free_pool(&dev->small, forked);
    free_pool(&dev->big, forked);
    if (!forked) {
        close_fid(dev->cq ? &dev->cq->fid : NULL);
        close_fid(dev->av ? &dev->av->fid : NULL);
        close_fid(dev->eq ? &dev->eq->fid : NULL);
        close_fid(dev->domain ? &dev->domain->fid : NULL);
        close_fid(dev->fabric ? &dev->fabric->fid : NULL);
        pli_fi_lib()->freeinfo(dev->info);
    }
    pli_ofi_sockets_close(sockets);
    free(dev->pfds);
    free(dev);
}
