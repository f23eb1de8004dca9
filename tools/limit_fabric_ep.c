/* SPDX-License-Identifier: BSD-3-Clause */
/* A bare libfabric program: the library, loaded at run time, and its endpoints. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include <plait/plait.h>
#include "limit_priv.h"

#ifdef HAVE_LIBFABRIC

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "limit_fabric_priv.h"

#define STILL_NS 20000000000u /* a connection that takes longer, or an operation, is given up */
#define API FI_VERSION(1, 11)
#define KEY(p) ((p)->is_peer ? 2 : 1)

static struct {
    bool tried;
    char why[256]; /* not empty: it cannot be used */
    char name[200];
    struct fi_info *info;
    bool rdm;
    int (*getinfo)(uint32_t version, const char *node, const char *service, uint64_t flags,
                   const struct fi_info *hints, struct fi_info **info);
    void (*freeinfo)(struct fi_info *info);
    struct fi_info *(*dupinfo)(const struct fi_info *info);
    int (*fabric)(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context);
    const char *(*strerror)(int errnum);
    uint32_t (*version)(void);
} lib;

int fabric_fail(const char *what, long rc)
{
    return limit_fail(rc == -FI_ENOMEM ? PLAIT_E_NOMEM : PLAIT_E_SYSTEM, "measuring bare libfabric (%s): %s: %s",
                      lib.name, what, lib.strerror((int)-rc));
}

/* ---- the library ---- */

static const char *provider(void)
{
    const char *p = getenv("PLAIT_PROVIDER");

    return p && *p ? p : "tcp";
}

static bool is_layered(const char *name)
{
    return strstr(name, "ofi_rxm") || strstr(name, "ofi_rxd");
}

static struct fi_info *hints(bool rdm)
{
    struct fi_info *h = lib.dupinfo(NULL);

    if (!h)
        return NULL;
    h->caps = FI_MSG | FI_RMA;
    h->mode = FI_CONTEXT | FI_CONTEXT2;
    h->ep_attr->type = rdm ? FI_EP_RDM : FI_EP_MSG;
    h->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    h->domain_attr->threading = FI_THREAD_DOMAIN;
    h->domain_attr->control_progress = h->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    h->tx_attr->msg_order = FI_ORDER_SAS;
    h->fabric_attr->prov_name = strdup(provider());
    return h;
}

/* Over loopback where the provider does that, otherwise wherever it likes (RDMA has no loopback interface). */
static int look_for(bool rdm)
{
    struct fi_info *h = hints(rdm);
    int rc = -FI_ENOMEM;

    if (h && h->fabric_attr->prov_name) {
        rc = lib.getinfo(API, "127.0.0.1", NULL, FI_SOURCE, h, &lib.info);
        if (rc)
            rc = lib.getinfo(API, NULL, NULL, 0, h, &lib.info);
    }
    if (h)
        lib.freeinfo(h);
    lib.rdm = rdm;
    return rc;
}

static void *find(void *handle, const char *name)
{
    void *f = dlsym(handle, name);

    if (!f)
        snprintf(lib.why, sizeof(lib.why), "libfabric.so.1 has no %s", name);
    return f;
}

static int resolve(void)
{
    void *h = dlopen("libfabric.so.1", RTLD_NOW | RTLD_LOCAL);

    if (!h) {
        snprintf(lib.why, sizeof(lib.why), "libfabric cannot be loaded: %s", dlerror());
        return -1;
    }
    lib.getinfo = (__typeof__(lib.getinfo))find(h, "fi_getinfo");
    lib.freeinfo = (__typeof__(lib.freeinfo))find(h, "fi_freeinfo");
    lib.dupinfo = (__typeof__(lib.dupinfo))find(h, "fi_dupinfo");
    lib.fabric = (__typeof__(lib.fabric))find(h, "fi_fabric");
    lib.strerror = (__typeof__(lib.strerror))find(h, "fi_strerror");
    lib.version = (__typeof__(lib.version))find(h, "fi_version");
    return lib.why[0] ? -1 : 0;
}

static void choose(void)
{
    bool layered = is_layered(provider());
    int rc = look_for(layered);

    if (rc == -FI_ENODATA && !layered)
        rc = look_for(true);
    if (rc) {
        snprintf(lib.why, sizeof(lib.why), "libfabric %u.%u has no provider '%s' that can be used here for messages "
                 "and remote memory: %s; PLAIT_PROVIDER chooses another", FI_MAJOR(lib.version()),
                 FI_MINOR(lib.version()), provider(), lib.strerror(-rc));
        return;
    }
    snprintf(lib.name, sizeof(lib.name), "%s, %s, libfabric %u.%u", lib.info->fabric_attr->prov_name,
             lib.rdm ? "FI_EP_RDM" : "FI_EP_MSG", FI_MAJOR(lib.version()), FI_MINOR(lib.version()));
}

/* Some of what libfabric loads takes over signals and writes files when they come: it must not. */
static int load(void)
{
    struct sigaction saved[NSIG];
    bool have[NSIG];
    int s;

    if (lib.tried)
        return lib.why[0] ? -1 : 0;
    lib.tried = true;
    setenv("IPATH_NO_BACKTRACE", "1", 0);
    setenv("HFI_NO_BACKTRACE", "1", 0);
    setenv("FI_UNIVERSE_SIZE", "64", 0); /* layered on RDMA, it asks for queues of the default's size, which fails */
    for (s = 1; s < NSIG; s++)
        have[s] = sigaction(s, NULL, &saved[s]) == 0;
    if (resolve() == 0)
        choose();
    for (s = 1; s < NSIG; s++)
        if (have[s])
            sigaction(s, &saved[s], NULL);
    return lib.why[0] ? -1 : 0;
}

const char *limit_fabric_missing(void)
{
    return load() ? lib.why : NULL;
}

const char *limit_fabric_name(void)
{
    return lib.name;
}

/* ---- waiting ---- */

int fabric_slow(struct fabric *f)
{
    const struct limit_shm *m = f->p->shm;
    uint64_t moved = f->received + f->done + f->turns + limit_load(&m->line_a) + limit_load(&m->line_b);
    uint64_t now = limit_now_ns();

    f->left = limit_calls(f->p);
    if (limit_wait_slow(f->p))
        return -1;
    if (moved != f->moved || !f->deadline)
        f->deadline = now + STILL_NS;
    f->moved = moved;
    if (now > f->deadline)
        return limit_fail(PLAIT_E_TIMEDOUT, "measuring bare libfabric (%s): nothing has moved for %u s%s", lib.name,
                          (unsigned)(STILL_NS / 1000000000u), moved ? "" : "; there may be no connection");
    return 0;
}

/* While there may be no queue yet. */
static int idle(struct fabric *f)
{
    if (f->cq)
        return fabric_idle(f);
    return --f->left ? 0 : fabric_slow(f);
}

int fabric_meet(struct fabric *f, uint64_t phase)
{
    struct limit_shm *m = f->p->shm;
    uint64_t *mine = f->p->is_peer ? &m->head_back : &m->head, *theirs = f->p->is_peer ? &m->head : &m->head_back;
    int rc = 0;

    limit_store(mine, phase);
    while (limit_load(theirs) < phase && rc == 0)
        rc = idle(f);
    return rc;
}

/* Waits for one event of the connection. */
static int event(struct fabric *f, uint32_t wanted, struct fi_info **info)
{
    union {
        struct fi_eq_cm_entry cm;
        unsigned char room[sizeof(struct fi_eq_cm_entry) + 256];
    } e;
    struct fi_eq_err_entry err = {0};
    uint32_t kind = 0;
    ssize_t n;
    int rc;

    while ((n = fi_eq_read(f->eq, &kind, &e, sizeof(e), 0)) == -FI_EAGAIN) {
        rc = idle(f);
        if (rc)
            return rc;
    }
    if (n == -FI_EAVAIL && fi_eq_readerr(f->eq, &err, 0) > 0)
        return fabric_fail("connecting", -(long)err.err);
    if (n < 0 || kind != wanted)
        return fabric_fail("connecting", n < 0 ? n : -FI_ECONNABORTED);
    if (info)
        *info = e.cm.info;
    return 0;
}

/* ---- what the two tell each other ---- */

struct card {
    uint64_t len;
    unsigned char addr[256];
    uint64_t mem, key;
};

static struct card *card_of(struct limit_pair *p, bool peer)
{
    return (struct card *)(void *)(peer ? p->shm->ring_back : p->shm->ring);
}

static int tell_name(struct fabric *f, struct fid *fid)
{
    struct card *c = card_of(f->p, f->p->is_peer);
    size_t len = sizeof(c->addr);
    int rc = fi_getname(fid, c->addr, &len);

    c->len = len;
    return rc ? fabric_fail("fi_getname", rc) : 0;
}

/* ---- opening ---- */

static int open_domain(struct fabric *f, struct fi_info *info, struct fi_info *own)
{
    struct fi_cq_attr ca = {.format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_NONE,
                            .size = 2 * FABRIC_DEPTH_MAX + 64};
    int rc = fi_domain(f->fabric, info, &f->domain, NULL);

    if (rc)
        return fabric_fail("fi_domain", rc);
    rc = fi_cq_open(f->domain, &ca, &f->cq, NULL);
    if (rc)
        return fabric_fail("fi_cq_open", rc);
    rc = fi_endpoint(f->domain, info, &f->ep, NULL);
    if (rc)
        return fabric_fail("fi_endpoint", rc);
    f->inject = f->size <= own->tx_attr->inject_size;
    return 0;
}

static int bind_all(struct fabric *f)
{
    struct fi_av_attr aa = {.type = FI_AV_UNSPEC};
    int rc = 0;

    if (f->rdm) {
        rc = fi_av_open(f->domain, &aa, &f->av, NULL);
        if (rc == 0)
            rc = fi_ep_bind(f->ep, &f->av->fid, 0);
    } else {
        rc = fi_ep_bind(f->ep, &f->eq->fid, 0);
    }
    if (rc == 0 && f->quiet)
        rc = fi_ep_bind(f->ep, &f->cq->fid, FI_SEND);
    if (rc == 0)
        rc = fi_ep_bind(f->ep, &f->cq->fid, f->quiet ? FI_RECV | FI_SELECTIVE_COMPLETION : FI_SEND | FI_RECV);
    if (rc == 0)
        rc = fi_enable(f->ep);
    return rc ? fabric_fail("fi_enable", rc) : 0;
}

static int open_memory(struct fabric *f, const struct fi_info *info)
{
    uint64_t access = FI_SEND | FI_RECV | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
    struct card *mine = card_of(f->p, f->p->is_peer);
    size_t len = f->stride * (f->depth + 1);
    int rc;

    f->mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (f->mem == MAP_FAILED) {
        f->mem = NULL;
        return limit_fail_errno("memory for the messages");
    }
    rc = fi_mr_reg(f->domain, f->mem, len, access, 0, KEY(f->p), 0, &f->mr, NULL);
    if (rc)
        return fabric_fail("fi_mr_reg", rc);
    if (info->domain_attr->mr_mode & FI_MR_LOCAL)
        f->desc = fi_mr_desc(f->mr);
    mine->mem = info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)f->mem : 0;
    mine->key = fi_mr_key(f->mr);
    return 0;
}

/* An endpoint and what belongs to it, ready to be connected; receives are posted. */
static int open_ep(struct fabric *f, struct fi_info *info)
{
    int rc = open_domain(f, info, lib.info);

    if (rc == 0)
        rc = bind_all(f);
    if (rc == 0)
        rc = open_memory(f, lib.info);
    for (unsigned k = 0; k < f->depth && rc == 0; k++)
        rc = fabric_post(f, k);
    return rc;
}

static int open_listener(struct fabric *f)
{
    int rc = fi_passive_ep(f->fabric, lib.info, &f->pep, NULL);

    if (rc == 0)
        rc = fi_pep_bind(f->pep, &f->eq->fid, 0);
    if (rc == 0)
        rc = fi_listen(f->pep);
    return rc ? fabric_fail("fi_listen", rc) : tell_name(f, &f->pep->fid);
}

static int accept_msg(struct fabric *f)
{
    int rc = open_listener(f);

    if (rc == 0)
        rc = fabric_meet(f, 1);
    if (rc == 0)
        rc = event(f, FI_CONNREQ, &f->info);
    if (rc == 0)
        rc = open_ep(f, f->info);
    if (rc)
        return rc;
    rc = fi_accept(f->ep, NULL, 0);
    return rc ? fabric_fail("fi_accept", rc) : event(f, FI_CONNECTED, NULL);
}

static int connect_msg(struct fabric *f)
{
    struct card theirs;
    struct fi_info *h;
    int rc = fabric_meet(f, 1);

    if (rc)
        return rc;
    memcpy(&theirs, card_of(f->p, true), sizeof(theirs));
    h = hints(false);
    rc = -FI_ENOMEM;
    if (h && theirs.len <= sizeof(theirs.addr) && (h->dest_addr = malloc(sizeof(theirs.addr)))) {
        memcpy(h->dest_addr, theirs.addr, sizeof(theirs.addr));
        h->dest_addrlen = theirs.len;
        h->addr_format = lib.info->addr_format;
        rc = lib.getinfo(API, NULL, NULL, 0, h, &f->info);
    }
    if (h)
        lib.freeinfo(h);
    if (rc)
        return fabric_fail("fi_getinfo for the other end's address", rc);
    rc = open_ep(f, f->info);
    if (rc)
        return rc;
    rc = fi_connect(f->ep, theirs.addr, NULL, 0);
    return rc ? fabric_fail("fi_connect", rc) : event(f, FI_CONNECTED, NULL);
}

static int open_rdm(struct fabric *f)
{
    int rc = open_ep(f, lib.info);

    if (rc == 0)
        rc = tell_name(f, &f->ep->fid);
    if (rc == 0)
        rc = fabric_meet(f, 1);
    if (rc == 0 && fi_av_insert(f->av, card_of(f->p, !f->p->is_peer)->addr, 1, &f->peer, 0, NULL) != 1)
        rc = fabric_fail("fi_av_insert", -FI_EADDRNOTAVAIL);
    return rc;
}

int fabric_open(struct fabric *f, struct limit_pair *p, size_t size, unsigned depth, bool quiet)
{
    struct fi_eq_attr ea = {.wait_obj = FI_WAIT_NONE};
    struct card *theirs = card_of(p, !p->is_peer);
    int rc;

    memset(f, 0, sizeof(*f));
    f->p = p;
    f->left = limit_calls(p);
    f->size = size;
    f->stride = (size + 63) / 64 * 64;
    f->depth = depth;
    f->quiet = quiet;
    if (load())
        return limit_fail(PLAIT_E_UNSUPPORTED, "%s", lib.why);
    f->rdm = lib.rdm;
    rc = lib.fabric(lib.info->fabric_attr, &f->fabric, NULL);
    if (rc)
        return fabric_fail("fi_fabric", rc);
    rc = fi_eq_open(f->fabric, &ea, &f->eq, NULL);
    if (rc)
        return fabric_fail("fi_eq_open", rc);
    rc = f->rdm ? open_rdm(f) : p->is_peer ? accept_msg(f) : connect_msg(f);
    if (rc == 0)
        rc = fabric_meet(f, 2); /* both have posted, and told of their memory */
    f->raddr = theirs->mem;
    f->rkey = theirs->key;
    return rc;
}

static void close_one(struct fid *fid)
{
    if (fid)
        fi_close(fid);
}

#define CLOSE(what) close_one((what) ? &(what)->fid : NULL)

void fabric_close(struct fabric *f)
{
    CLOSE(f->ep);
    CLOSE(f->pep);
    CLOSE(f->mr);
    CLOSE(f->av);
    CLOSE(f->cq);
    CLOSE(f->eq);
    CLOSE(f->domain);
    CLOSE(f->fabric);
    if (f->info)
        lib.freeinfo(f->info);
    if (f->mem)
        munmap(f->mem, f->stride * (f->depth + 1));
}

/* ---- the queue ---- */

int fabric_post(struct fabric *f, unsigned k)
{
    struct iovec iov = {.iov_base = fabric_slot(f, k), .iov_len = f->size};
    struct fi_msg msg = {.msg_iov = &iov, .desc = &f->desc, .iov_count = 1, .addr = FI_ADDR_UNSPEC,
                         .context = &f->rx[k]};
    ssize_t rc = fi_recvmsg(f->ep, &msg, f->quiet ? 0 : FI_COMPLETION);

    return rc ? fabric_fail("fi_recvmsg", rc) : 0;
}

static __attribute__((cold)) int queue_failed(struct fabric *f, ssize_t rc)
{
    struct fi_cq_err_entry e = {0};

    if (rc != -FI_EAVAIL)
        return fabric_fail("fi_cq_read", rc);
    if (fi_cq_readerr(f->cq, &e, 0) < 0 || e.err == FI_ECANCELED)
        return 0;
    return fabric_fail("an operation", -(long)e.err);
}

int fabric_poll(struct fabric *f)
{
    struct fi_cq_entry e[8];
    ssize_t n = fi_cq_read(f->cq, e, 8), i;
    int rc = 0;

    if (n == -FI_EAGAIN)
        return 0;
    if (__builtin_expect(n < 0, 0))
        return queue_failed(f, n);
    for (i = 0; i < n && rc == 0; i++) {
        struct fi_context2 *c = e[i].op_context;

        if (c < f->rx || c >= f->rx + FABRIC_DEPTH_MAX) {
            f->done++;
        } else if (!f->quiet) { /* else the one who looks at the slots posts it again */
            f->received++;
            rc = fabric_post(f, (unsigned)(c - f->rx));
        }
    }
    return rc;
}

#else

const char *limit_fabric_missing(void)
{
    return "this plait was built without libfabric";
}

const char *limit_fabric_name(void)
{
    return "none";
}

#endif
