/* SPDX-License-Identifier: BSD-3-Clause */
/* The peer's side of plait perf: does what the control requests say. */
#include "perf.h"

#include <stdio.h>
#include <string.h>
#include "service.h"

static void control(struct client *c, struct plait_msg *msg)
{
    struct perf_answer answer;
    struct perf_cmd cmd;

    if (msg->hdr_len != sizeof(cmd) || msg->kind != PLAIT_REQUEST) {
        plait_conn_abort(msg->conn);
        return;
    }
    memcpy(&cmd, msg->hdr, sizeof(cmd));
    if (cmd.op == PERF_EXPORT) {
        perf_export(&c->window, &c->window_key, msg);
        return;
    }
    if (cmd.op == PERF_START) {
        c->count = c->bytes = 0;
        c->mode = cmd.mode;
        service_spin(c, cmd.spin);
    } else if (cmd.op == PERF_STOP) {
        c->mode = PERF_IDLE;
        service_spin(c, false);
    }
    answer.count = c->count;
    answer.bytes = c->bytes;
    plait_reply(msg, &answer, sizeof(answer), 0);
}

static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct client *c = arg;

    (void)conn;
    if (__builtin_expect(msg->hdr_len > 0, 0)) {
        control(c, msg);
        return;
    }
    switch (c->mode) {
    case PERF_ECHO:
        service_echo(c, msg);
        break;
    case PERF_REPLY:
        /* replies of one poll go out together, at its end */
        plait_reply(msg, msg->data, msg->len, PLAIT_MORE);
        break;
    default:
        c->count++;
        c->bytes += msg->len;
    }
}

static const struct plait_conn_ops conn_ops = { .on_message = on_message };

static const char *admit(struct client *c, const struct plait_session_request *req,
                         struct plait_session_opts *opts)
{
    static char data[64];
    char text[64] = "";
    unsigned window;

    if (req->data_len < sizeof(text)) /* the rest of text is zeros */
        memcpy(text, req->data_len ? req->data : "", req->data_len);
    if (sscanf(text, PERF_HELLO " window=%u", &window) != 1 || window < 1 || window > PERF_WINDOW_MAX)
        return "this is a peer of plait perf; use plait perf TEST --connect of the same version";
    snprintf(data, sizeof(data), PERF_HELLO " cpu=%d", plait_ctx_cpu(c->sv->pctx));
    opts->data = data;
    opts->data_len = strlen(data);
    opts->window = window;
    opts->max_msg = LIMIT_BW_MAX_SIZE;
    return NULL;
}

static void listening(struct service *sv, const char *uri)
{
    if (sv->until_eof)
        printf("%s\n", uri);
    else
        printf("listening on %s (CPU %d)\nin another terminal: plait perf lat --connect %s\n", uri,
               plait_ctx_cpu(sv->pctx), uri);
}

int perf_serve(const struct perf_opts *o)
{
    struct service sv = { .uri = o->serve, .ctx = PLAIT_CTX_OPTS_INIT, .conn_ops = &conn_ops, .window = 1024,
                          .until_eof = o->peer, .admit = admit, .listening = listening };
    int cpus[2] = { -1, o->cpus[0] };

    perf_choose_cpus(cpus);
    sv.ctx.cpu = cpus[1];
    sv.ctx.spin_us = 0; /* it polls while a test runs, and sleeps at all other times */
    sv.ctx.name = "perf-peer";
    return service_run(&sv);
}
