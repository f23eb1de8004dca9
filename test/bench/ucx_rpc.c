/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The peer program for UCX: requests and replies as UCP active messages, `window` requests in flight.
 * (Latency and rate come from ucx_perftest, which has no such test.) The reply is sent from inside the
 * receive callback, the shortest way that UCX offers.
 */
#include "peer.h"

#include <stdio.h>
#include <string.h>
#include <ucp/api/ucp.h>

#define WARM_UP_S 0.02
#define ADDRESS_MAX 4096

enum { ID_REQUEST = 1, ID_REPLY };
#define QUIT 1 /* first byte of the last request */

static ucp_context_h context;
static ucp_worker_h worker;
static ucp_ep_h ep;
static char out[PEER_SIZE_MAX], answer[PEER_SIZE_MAX];
static size_t msg_size;
static struct peer_samples samples;
static long replies;
static int quit;

static void check(ucs_status_t st, const char *what)
{
    if (st != UCS_OK)
        peer_die("%s: %s", what, ucs_status_string(st));
}

static void on_sent(void *request, ucs_status_t st, void *arg)
{
    (void)arg;
    check(st, "ucp_am_send_nbx");
    ucp_request_free(request);
}

static void send_am(unsigned id, const void *buf)
{
    ucp_request_param_t p = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK, .cb.send = on_sent};
    ucs_status_ptr_t r = ucp_am_send_nbx(ep, id, NULL, 0, buf, msg_size, &p);

    if (UCS_PTR_IS_ERR(r))
        check(UCS_PTR_STATUS(r), "ucp_am_send_nbx");
}

static ucs_status_t on_request(void *arg, const void *header, size_t header_len, void *data, size_t len,
                               const ucp_am_recv_param_t *param)
{
    (void)arg, (void)header, (void)header_len, (void)len, (void)param;
    if (*(char *)data == QUIT)
        quit = 1;
    else
        send_am(ID_REPLY, answer);
    return UCS_OK;
}

static ucs_status_t on_reply(void *arg, const void *header, size_t header_len, void *data, size_t len,
                             const ucp_am_recv_param_t *param)
{
    (void)arg, (void)header, (void)header_len, (void)data, (void)len, (void)param;
    replies++;
    return UCS_OK;
}

static void set_handler(unsigned id, ucp_am_recv_callback_t cb)
{
    ucp_am_handler_param_t p = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB, .id = id, .cb = cb};

    check(ucp_worker_set_am_recv_handler(worker, &p), "ucp_worker_set_am_recv_handler");
}

static void connect_peer(int sock)
{
    ucp_params_t cp = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM};
    ucp_worker_params_t wp = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                              .thread_mode = UCS_THREAD_MODE_SINGLE};
    ucp_ep_params_t ep_params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS};
    static char theirs[ADDRESS_MAX];
    ucp_address_t *mine;
    size_t len;

    check(ucp_init(&cp, NULL, &context), "ucp_init");
    check(ucp_worker_create(context, &wp, &worker), "ucp_worker_create");
    set_handler(ID_REQUEST, on_request);
    set_handler(ID_REPLY, on_reply);
    check(ucp_worker_get_address(worker, &mine, &len), "ucp_worker_get_address");
    peer_swap(sock, mine, len, theirs, sizeof theirs);
    ucp_worker_release_address(worker, mine);
    ep_params.address = (ucp_address_t *)theirs;
    check(ucp_ep_create(worker, &ep_params, &ep), "ucp_ep_create");
}

static void disconnect_peer(int sock)
{
    ucp_request_param_t p = {0};
    ucs_status_ptr_t r = ucp_ep_close_nbx(ep, &p);
    char done = 1;

    if (UCS_PTR_IS_PTR(r)) {
        while (ucp_request_check_status(r) == UCS_INPROGRESS)
            ucp_worker_progress(worker);
        ucp_request_free(r);
    }
    peer_swap(sock, &done, 1, &done, 1); /* nobody frees the memory that the other one still reads */
    ucp_worker_destroy(worker);
    ucp_cleanup(context);
}

static void rpc(int window, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;
    long sent = 0, counted = 0;

    replies = 0;
    do {
        while (replies - counted < PEER_SLICE) {
            for (; sent - replies < window; sent++)
                send_am(ID_REQUEST, out);
            ucp_worker_progress(worker);
        }
        t1 = peer_now();
        if (record && peer_add_rate(&samples, replies - counted, t1 - t0))
            break;
        counted = replies;
        t0 = t1;
    } while (t1 - start < seconds);
    while (replies < sent)
        ucp_worker_progress(worker);
}

int main(int argc, char **argv)
{
    struct peer_opts o;
    int sock, leader;

    peer_parse(argc, argv, &o);
    if (strcmp(o.test, "rpc"))
        peer_die("%s: only rpc; use ucx_perftest for %s", argv[0], o.test);
    msg_size = (size_t)o.sizes.v[0];
    leader = peer_fork(&o, &sock);
    connect_peer(sock);
    if (leader) {
        for (int i = 0; i < o.windows.n; i++) {
            rpc(o.windows.v[i], WARM_UP_S, 0);
            rpc(o.windows.v[i], o.seconds, 1);
            peer_print_rate(&samples, "rpc", "requests_per_s", "ucx", o.sizes.v[0], o.windows.v[i]);
        }
        out[0] = QUIT;
        send_am(ID_REQUEST, out);
    } else {
        while (!quit)
            ucp_worker_progress(worker);
    }
    disconnect_peer(sock);
    if (leader)
        peer_join();
    return 0;
}
