/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening a session, by the client; the options of both sides. */
#include "runtime/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/offer.h"
#include "runtime/transports.h"
#include "util/err.h"
#include "util/rand.h"

int pli_session_opts_check(const struct plait_session_opts *o)
{
    if (o->size != sizeof *o)
        return pli_fail(PLAIT_E_INVAL, "struct plait_session_opts has size %zu, not %zu: begin with PLAIT_SESSION_OPTS_INIT", o->size, sizeof *o);
    if (o->data_len > PLAIT_MAX_PRIVATE || (o->data_len && !o->data))
        return pli_fail(PLAIT_E_INVAL, "%zu bytes of private data: PLAIT_MAX_PRIVATE is %u", o->data_len, PLAIT_MAX_PRIVATE);
    if (o->nctxs > PLAIT_MAX_CONNS || (o->nctxs && !o->ctxs))
        return pli_fail(PLAIT_E_INVAL, "%u contexts: PLAIT_MAX_CONNS is %u", o->nctxs, PLAIT_MAX_CONNS);
    if (o->window < 1 || o->window > 16384)
        return pli_fail(PLAIT_E_INVAL, "a window of %u messages is not from 1 to 16384", o->window);
    if (o->max_msg < 64 || o->max_msg > PLAIT_MSG_MAX)
        return pli_fail(PLAIT_E_INVAL, "max_msg of %u bytes is not from 64 to PLAIT_MSG_MAX, %u", o->max_msg, PLAIT_MSG_MAX);
    if (o->take > PLAIT_TAKE_RING)
        return pli_fail(PLAIT_E_INVAL, "take is %u: enum plait_take goes up to %d", o->take, PLAIT_TAKE_RING);
    for (unsigned i = 0; i < o->nctxs; i++)
        if (!o->ctxs[i])
            return pli_fail(PLAIT_E_INVAL, "context %u of the session's is NULL", i);
    return pli_offer_env(NULL);
}

int pli_session_set_opts(struct plait_session *s, const struct plait_session_opts *o)
{
    s->ops = o->session_ops;
    s->conn_ops = o->conn_ops;
    s->arg = o->arg;
    s->window = o->window;
    s->max_msg = o->max_msg;
    s->open_timeout_ms = o->open_timeout_ms;
    s->linger_ms = o->linger_ms;
    s->offer_min = !o->offer_min ? PLAIT_OFFER_MIN : o->offer_min < 64 ? 64 : o->offer_min;
    s->take = o->take;
    pli_offer_env(&s->take); /* was checked with the options */
    if (o->data_len) {
        s->data = malloc(o->data_len);
        if (!s->data)
            return pli_fail(PLAIT_E_NOMEM, "no memory for a session's private data");
        memcpy(s->data, o->data, o->data_len);
        s->data_len = o->data_len;
    }
    return 0;
}

/* ---- opening ---- */

static int make_conns(struct plait_session *s, const struct plait_session_opts *opts)
{
    for (unsigned i = 0; i < s->nconns; i++) {
        struct plait_ctx *ctx = opts->nctxs ? opts->ctxs[i] : s->lead;

        s->conns[i] = pli_conn_new(s, ctx, i);
        if (!s->conns[i])
            return pli_fail(PLAIT_E_NOMEM, "no memory for connection %u of %u", i, s->nconns);
        atomic_fetch_add(&s->made, 1);
    }
    return 0;
}

static int set_address(struct plait_session *s, const char *text, const struct pli_uri *uri)
{
    snprintf(s->key.host, sizeof s->key.host, "%s", uri->host);
    s->key.port = uri->port;
    s->key.transports = uri->transports;
    snprintf(s->key.provider, sizeof s->key.provider, "%s", uri->provider);
    s->uri = strdup(text);
    s->resource = strdup(uri->resource);
    if (!s->uri || !s->resource)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a session");
    return 0;
}

static int check_uri(struct pli_uri *uri, const char *text)
{
    int rc = pli_uri_parse(uri, text);

    if (rc < 0)
        return rc;
    if (!uri->host[0] || strcmp(uri->host, "*") == 0 || !uri->port)
        return pli_fail(PLAIT_E_INVAL, "'%s' names no host and port to connect to: plait://host:port/resource", text);
    if (!pli_transport_mask(uri->transports)) {
        pli_transport_choose(uri->transports, true);
        return pli_fail_prefix(PLAIT_E_NOTRANSPORT, "'%s'", text);
    }
    return 0;
}

int pli_session_open_rank(struct plait_session **out, struct plait_ctx *ctx, const char *uri_text,
                          const struct plait_session_opts *opts, int rank, const char *host_name)
{
    static const struct plait_session_opts defaults = PLAIT_SESSION_OPTS_INIT;
    struct plait_session *s;
    struct pli_uri uri;
    int rc = pli_ctx_check(ctx);

    if (!opts)
        opts = &defaults;
    if (rc == 0)
        rc = pli_session_opts_check(opts);
    if (rc == 0)
        rc = check_uri(&uri, uri_text);
    if (rc < 0)
        return rc;
    if (!(uri.transports & PLI_TRANSPORT_SHM)) /* it would be done here, by this thread, all the same, but with the time running */
        pli_transport_load(uri.transports);
    s = pli_session_new(ctx, opts->nctxs ? opts->nctxs : 1);
    if (!s)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a session");
    s->rank = rank;
    s->state = PLI_SES_LINKING;
    rc = pli_rand_id(s->sid);
    if (rc == 0)
        rc = set_address(s, uri_text, &uri);
    if (rank >= 0)
        snprintf(s->key.name, sizeof s->key.name, "rank %d on %.30s, %.45s:%u", rank, host_name, uri.host, uri.port);
    if (rc == 0)
        rc = pli_session_set_opts(s, opts);
    if (rc == 0)
        rc = make_conns(s, opts);
    if (rc == 0)
        rc = pli_link_get(&s->link, ctx, &s->key, s->open_timeout_ms);
    if (rc < 0)
        goto err;
    s->waiting = true;
    pli_link_wait(s->link, &s->wait);
    pli_timer_start(ctx, &s->timer, pli_clock_now() + (uint64_t)s->open_timeout_ms * 1000000);
    pli_session_ref(s); /* the caller's */
    s->users = 1;
    *out = s;
    return 0;

err:
    pli_ctx_obj_del(&s->obj);
    pli_session_free(s);
    return rc;
}

int plait_session_open(struct plait_session **out, struct plait_ctx *ctx, const char *uri,
                       const struct plait_session_opts *opts)
{
    return pli_session_open_rank(out, ctx, uri, opts, -1, NULL);
}

static bool settled(void *arg)
{
    const struct plait_session *s = arg;

    return s->state == PLI_SES_OPEN || s->state == PLI_SES_CLOSED;
}

int plait_session_wait(struct plait_session *s, int64_t timeout_ms)
{
    uint64_t deadline = pli_deadline(timeout_ms, 1000 * PLI_NS_PER_US);
    int rc = 1;

    if (!settled(s))
        rc = pli_ctx_wait(s->lead, settled, s, deadline);
    if (rc < 0)
        return rc;
    if (s->state == PLI_SES_OPEN)
        return 0;
    if (s->state == PLI_SES_CLOSED)
        return pli_fail(s->why.code ? s->why.code : PLAIT_E_CLOSED, "%s", s->why.text);
    return pli_fail(PLAIT_E_TIMEDOUT, "%s is still %s after %lld ms", s->uri ? s->uri : "the session",
                    pli_session_state_name(s->state), (long long)timeout_ms);
}
