/* SPDX-License-Identifier: BSD-3-Clause */
/* The job: what the launcher started, as contexts and sessions. The launcher's own protocols are in boot*.c. */
#include "plait/job.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/boot.h"
#include "runtime/conn.h"
#include "runtime/job.h"
#include "runtime/jobaddr.h"
#include "runtime/peeraddr.h"
#include "runtime/place.h"
#include "runtime/transports.h"
#include "util/err.h"
#include "util/log.h"

/* What ranks tell each other before they have contexts. */
struct fact {
    uint64_t cpus; /* pli_topo_mask_id(); 0: it takes no core */
    uint8_t host[PLI_HOST_LEN];
};

/* And once they listen. */
struct card {
    char uri[PLI_JOB_ADDR_TEXT + 16]; /* "plait://[address]:port" */
    char name[44];                    /* of the host, for messages; what is longer is cut off */
    int32_t code;                     /* negative: it failed, and there is no URI */
};

struct plait_job {
    struct plait_ctx *ctx;
    bool own_ctx;
    struct pli_boot *boot;
    struct plait_listener *listener;
    struct fact *facts;      /* by rank; NULL once the job is open */
    struct card *cards;      /* by rank */
    uint8_t *local;          /* by rank: on this node? */
    int timeout_ms;
};

/* The job of this process, for sessions: which rank is the peer? Set before the listener opens. */
static pthread_mutex_t current_mutex = PTHREAD_MUTEX_INITIALIZER;
static char current_id[256];
static int current_rank = -1;
static bool current_taken;

const char *pli_job_id(void)
{
    return current_id;
}

int pli_job_own_rank(void)
{
    return current_rank;
}

bool pli_job_is_own(const void *id, size_t len)
{
    return len > 0 && len == strlen(current_id) && memcmp(id, current_id, len) == 0;
}

static int take_current(const struct pli_boot *b)
{
    int rc = 0;

    pthread_mutex_lock(&current_mutex);
    if (current_taken) {
        rc = pli_fail(PLAIT_E_BUSY, "this process is in a job already: close that plait_job first");
    } else {
        current_taken = true;
        current_rank = (int)b->rank;
        snprintf(current_id, sizeof current_id, "%.255s", b->job_id);
    }
    pthread_mutex_unlock(&current_mutex);
    return rc;
}

static void give_current(void)
{
    pthread_mutex_lock(&current_mutex);
    current_taken = false;
    current_rank = -1;
    current_id[0] = '\0';
    pthread_mutex_unlock(&current_mutex);
}

/* ---- what the ranks are told of each other's hosts ---- */

/* Every rank takes part, also one that has a context or cannot read its topology. */
static int exchange_facts(struct plait_job *job)
{
    const struct pli_topo *topo = job->ctx ? NULL : pli_place_topo();
    struct fact mine = { .cpus = topo ? pli_topo_mask_id(topo) : 0 };

    memcpy(mine.host, pli_host_id(), PLI_HOST_LEN);
    job->facts = calloc(job->boot->size, sizeof *job->facts);
    job->local = calloc(job->boot->size, 1);
    if (!job->facts || !job->local)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a job of %u ranks", job->boot->size);
    for (uint32_t i = 0; i < job->boot->local_size; i++)
        job->local[job->boot->local_ranks[i]] = 1;
    return pli_boot_allgather(job->boot, &mine, sizeof mine, job->facts, job->timeout_ms);
}

/* ---- the context: a core that no other rank of the node gets ---- */

/* The ranks of this machine: what a launcher takes for several nodes may be containers on the same cores.
 * Those with the same CPUs as this one share them out among themselves. */
static void count_sharers(const struct plait_job *job, struct pli_place_opts *po)
{
    const struct fact *mine = &job->facts[job->boot->rank];

    po->local_size = 0;
    for (uint32_t i = 0; i < job->boot->size; i++) {
        const struct fact *f = &job->facts[i];

        if (!job->local[i] && !pli_host_same_machine(f->host, mine->host))
            continue;
        po->local_rank += i < job->boot->rank;
        po->local_size++;
        if (f->cpus != mine->cpus)
            continue;
        po->share_rank += i < job->boot->rank;
        po->share_size++;
    }
}

static int make_ctx(struct plait_job *job)
{
    struct plait_ctx_opts co = PLAIT_CTX_OPTS_INIT;
    struct pli_place_opts po = PLI_PLACE_OPTS_INIT;
    const struct pli_topo *topo = pli_place_topo();
    struct pli_place place;
    char name[32];
    int rc;

    count_sharers(job, &po);
    snprintf(name, sizeof name, "rank%u", job->boot->rank);
    co.name = name;
    po.contexts = 1;
    if (topo && pli_topo_place(topo, &po, &place, 1) >= 1) {
        co.cpu = place.pu;
        if (place.oversubscribed)
            co.spin_us = 0;
    } else {
        pli_warn("rank %u is not pinned: %s", job->boot->rank, pli_err_text());
    }
    rc = plait_ctx_create(&job->ctx, &co);
    job->own_ctx = rc == 0;
    return rc;
}

/* ---- addresses ---- */

/* Has every rank the loopback of this one? */
static bool is_one_network(const struct plait_job *job)
{
    for (uint32_t i = 0; i < job->boot->size; i++)
        if (!pli_host_same_network(job->facts[i].host, job->facts[job->boot->rank].host))
            return false;
    return true;
}

/* Ranks on other hosts will be met over the fabric: what that needs is loaded before anybody waits for this rank. */
static void load_fabric(const struct plait_job *job)
{
    for (uint32_t i = 0; i < job->boot->size; i++) {
        if (memcmp(job->facts[i].host, job->facts[job->boot->rank].host, PLI_HOST_LEN) == 0)
            continue;
        pli_transport_load(PLI_TRANSPORT_OFI);
        return;
    }
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

/* A job within one node need not be seen from outside. */
static int choose_address(const struct plait_job *job, char host[PLI_JOB_ADDR_TEXT])
{
    bool one_network = is_one_network(job), one_node = job->boot->local_size == job->boot->size;
    int rc;

    snprintf(host, PLI_JOB_ADDR_TEXT, "127.0.0.1");
    if (one_network && one_node && !pli_job_addr_is_set())
        return 0;
    rc = pli_job_addr(host);
    /* the launcher takes one host for several nodes, and it has no network */
    if (rc == PLAIT_E_UNREACHABLE && one_network && !pli_job_addr_is_set())
        return 0;
    if (rc == 0 && !one_network && is_loopback(host))
        rc = pli_fail(PLAIT_E_INVAL,
                      PLI_JOB_ADDR_ENV " leads to the loopback, %s, and the job has ranks that are not in this "
                                       "network namespace",
                      host);
    return rc < 0 ? pli_fail_prefix(rc, "rank %u", job->boot->rank) : 0;
}

static int listen_here(struct plait_job *job, const struct plait_job_opts *opts)
{
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    char host[PLI_JOB_ADDR_TEXT], uri[PLI_JOB_ADDR_TEXT + 16];
    int rc = choose_address(job, host);

    if (rc < 0)
        return rc;
    lo.session = opts->session;
    lo.on_session = opts->on_session;
    snprintf(uri, sizeof uri, strchr(host, ':') ? "plait://[%s]:0" : "plait://%s:0", host);
    return plait_listen(&job->listener, job->ctx, uri, &lo);
}

static void write_card(const struct plait_job *job, int code, struct card *card)
{
    char name[256] = "";

    memset(card, 0, sizeof *card);
    card->code = code;
    if (code == 0)
        snprintf(card->uri, sizeof card->uri, "%s", plait_listener_uri(job->listener));
    gethostname(name, sizeof name - 1);
    snprintf(card->name, sizeof card->name, "%.*s", (int)sizeof card->name - 1, name[0] ? name : "?");
}

static int read_cards(struct plait_job *job)
{
    for (uint32_t i = 0; i < job->boot->size; i++) {
        struct card *c = &job->cards[i];

        c->uri[sizeof c->uri - 1] = '\0';
        c->name[sizeof c->name - 1] = '\0';
        if (c->code < 0)
            return pli_fail(c->code, "rank %u on %s could not open the job: %s", i, c->name,
                            plait_strerror(c->code));
    }
    return 0;
}

/* code: how this rank has fared until now. One that failed tells the others, which would wait for it. */
static int exchange_cards(struct plait_job *job, int code)
{
    char why[512];
    struct card mine;
    int rc;

    snprintf(why, sizeof why, "%s", pli_err_text());
    write_card(job, code, &mine);
    job->cards = calloc(job->boot->size, sizeof *job->cards);
    if (!job->cards)
        return pli_fail(PLAIT_E_NOMEM, "no memory for the addresses of %u ranks", job->boot->size);
    rc = pli_boot_allgather(job->boot, &mine, sizeof mine, job->cards, job->timeout_ms);
    free(job->facts);
    job->facts = NULL;
    if (code < 0)
        return pli_fail(code, "%s", why);
    return rc < 0 ? rc : read_cards(job);
}

static void job_free(struct plait_job *job)
{
    free(job->facts);
    free(job->cards);
    free(job->local);
    free(job);
}

int plait_job_open(struct plait_job **out, struct plait_ctx **ctx, const struct plait_job_opts *opts)
{
    static const struct plait_job_opts defaults = PLAIT_JOB_OPTS_INIT;
    struct plait_job *job;
    int rc;

    if (!opts)
        opts = &defaults;
    if (opts->size != sizeof *opts)
        return pli_fail(PLAIT_E_INVAL, "struct plait_job_opts has size %zu, not %zu: begin with PLAIT_JOB_OPTS_INIT", opts->size, sizeof *opts);
    rc = *ctx ? pli_ctx_check(*ctx) : 0;
    if (rc < 0)
        return rc;
    job = calloc(1, sizeof *job);
    if (!job)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a job");
    job->timeout_ms = (int)opts->timeout_ms;
    job->ctx = *ctx;
    rc = pli_boot_init(&job->boot, job->timeout_ms);
    if (rc < 0)
        goto err_free;
    rc = take_current(job->boot);
    if (rc < 0)
        goto err_boot;
    rc = exchange_facts(job);
    if (rc < 0)
        goto err_current;
    if (!job->ctx)
        rc = make_ctx(job);
    if (rc == 0)
        load_fabric(job);
    if (rc == 0)
        rc = listen_here(job, opts);
    rc = exchange_cards(job, rc);
    if (rc < 0)
        goto err_current;
    *out = job;
    *ctx = job->ctx;
    return 0;

err_current:
    plait_listener_close(job->listener);
    if (job->own_ctx)
        plait_ctx_destroy(job->ctx);
    give_current();
err_boot:
    pli_boot_finalize(job->boot);
err_free:
    job_free(job);
    return rc;
}

int plait_job_close(struct plait_job *job)
{
    int rc;

    if (!job)
        return 0;
    plait_listener_close(job->listener);
    rc = pli_boot_finalize(job->boot);
    give_current();
    job_free(job);
    return rc;
}

/* ---- who is there ---- */

int plait_job_rank(const struct plait_job *job)
{
    return (int)job->boot->rank;
}

int plait_job_size(const struct plait_job *job)
{
    return (int)job->boot->size;
}

int plait_job_local_rank(const struct plait_job *job)
{
    return (int)job->boot->local_rank;
}

int plait_job_local_size(const struct plait_job *job)
{
    return (int)job->boot->local_size;
}

int plait_job_is_local(const struct plait_job *job, int rank)
{
    return rank >= 0 && rank < plait_job_size(job) && job->local[rank];
}

const char *plait_job_launcher(const struct plait_job *job)
{
    static const char *const names[] = { "none", "pmi1", "pmix" };

    return names[job->boot->kind];
}

int plait_job_connect(struct plait_job *job, int rank, const struct plait_session_opts *opts, struct plait_session **s)
{
    if (rank < 0 || rank >= plait_job_size(job))
        return pli_fail(PLAIT_E_NOTFOUND, "rank %d is not in this job of %d ranks", rank, plait_job_size(job));
    return pli_session_open_rank(s, job->ctx, job->cards[rank].uri, opts, rank, job->cards[rank].name);
}

/* ---- collective calls: the launcher's part blocks on a helper thread, the context goes on meanwhile, since another rank may need an
 * answer from this one before it gets there ---- */

struct collective {
    struct plait_job *job;
    const void *in;
    void *out;
    size_t len;
    int rc;
    bool done;
    char text[512];
};

static void collective_run(void *arg)
{
    struct collective *c = arg;

    if (c->out)
        c->rc = pli_boot_allgather(c->job->boot, c->in, c->len, c->out, c->job->timeout_ms);
    else
        c->rc = pli_boot_barrier(c->job->boot, c->job->timeout_ms);
    snprintf(c->text, sizeof c->text, "%s", pli_err_text());
}

static void collective_done(void *arg)
{
    ((struct collective *)arg)->done = true;
}

static bool is_done(void *arg)
{
    return ((struct collective *)arg)->done;
}

static int collective(struct collective *c)
{
    int rc = pli_ctx_check_blocking(c->job->ctx);

    if (rc == 0)
        rc = pli_helper_run(c->job->ctx, collective_run, collective_done, c);
    if (rc < 0)
        return rc;
    /* the helper writes into c: there is no leaving before it is done; the launcher's own time-out bounds it */
    while (!c->done) {
        rc = pli_ctx_wait(c->job->ctx, is_done, c, PLI_CLOCK_NEVER);
        if (rc < 0)
            return rc;
    }
    return c->rc < 0 ? pli_fail(c->rc, "%s", c->text) : 0;
}

int plait_job_barrier(struct plait_job *job)
{
    struct collective c = { .job = job };

    return plait_job_size(job) == 1 ? 0 : collective(&c);
}

int plait_job_allgather(struct plait_job *job, const void *in, size_t len, void *out)
{
    struct collective c = { .job = job, .in = in, .len = len, .out = out };

    if (!len || len > PLI_BOOT_GATHER_MAX || !in || !out)
        return pli_fail(PLAIT_E_INVAL, "an allgather of %zu bytes from each rank: 1 to %d are possible", len, PLI_BOOT_GATHER_MAX);
    return collective(&c);
}
