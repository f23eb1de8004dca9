/* SPDX-License-Identifier: BSD-3-Clause */
/* The peer's side of plait perf: does what the control requests say. */
#include "perf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "service.h"

/* ---- what is sent ---- */

static void leaving(struct client *c)
{
    if (c->payload)
        perf_payload_close(c->payload);
    free(c->payload);
}

/* A client has a session for each size. 0, or -1 with a message. */
static int need_payload(struct client *c, uint64_t size, bool copy)
{
    if (size < 1 || size > LIMIT_BW_MAX_SIZE) {
        cli_error("a client asks for messages of %llu bytes", (unsigned long long)size);
        return -1;
    }
    if (!c->payload) {
        c->payload = calloc(1, sizeof(*c->payload));
        if (!c->payload || perf_payload_open(c->payload, size) < 0) {
            cli_plait_error("no memory for what is sent");
            return -1;
        }
    }
    if (copy && !c->payload->copy && perf_payload_open_copy(c->payload, c->payload->size) < 0) {
        cli_error("no memory for what is received");
        return -1;
    }
    return size <= c->payload->size ? 0 : -1;
}

static int start(struct client *c, const struct perf_cmd *cmd)
{
    bool sends = cmd->mode == PERF_ECHO || cmd->mode == PERF_ECHO_COPY || cmd->mode == PERF_DUPLEX ||
                 cmd->mode == PERF_BESIDE;

    if (sends && need_payload(c, cmd->size, cmd->mode == PERF_ECHO_COPY) < 0)
        return -1;
    c->count = c->bytes = 0;
    c->mode = cmd->mode;
    c->size = cmd->size;
    c->to_send = cmd->n;
    c->begun = false;
    service_spin(c, cmd->spin);
    return 0;
}

/* ---- messages ---- */

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
    if (cmd.op == PERF_START && start(c, &cmd) < 0) {
        plait_conn_abort(msg->conn);
        return;
    }
    if (cmd.op == PERF_STOP) {
        c->mode = PERF_IDLE;
        service_spin(c, false);
    }
    answer.count = c->count;
    answer.bytes = c->bytes;
    plait_reply(msg, &answer, sizeof(answer), 0);
}

/* Answers with a message of our own; the one that came is sent back only if there is no space just now. */
static void echo(struct client *c, struct plait_msg *msg)
{
    if (__builtin_expect(c->nheld > 0 || msg->len > c->payload->size ||
                         perf_send(msg->conn, c->payload->data, msg->len, 0) != 0, 0))
        service_echo(c, msg);
}

static void echo_copy(struct client *c, struct plait_msg *msg)
{
    if (__builtin_expect(msg->len <= c->payload->size, 1)) {
        memcpy(c->payload->copy, msg->data, msg->len);
        __asm__ volatile("" : : "r"(c->payload->copy) : "memory"); /* the copy is wanted, every time */
    }
    echo(c, msg);
}

/* As many as there is space for; what comes next, or writable(), goes on. */
static void stream(struct client *c, struct plait_conn *conn)
{
    int rc = 0;

    while (c->to_send > 0 && (rc = perf_send(conn, c->payload->data, c->size, 0)) == 0)
        c->to_send--;
    if (rc == 0 || rc == PLAIT_E_AGAIN)
        return;
    c->to_send = 0;
    if (rc != PLAIT_E_CLOSED) {
        cli_plait_error("a message cannot be sent, its connection is ended");
        plait_conn_abort(conn);
    }
}

static void writable(struct client *c)
{
    if (c->mode == PERF_DUPLEX && c->begun)
        stream(c, plait_session_conn(c->session, 0));
}

static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct client *c = arg;

    if (__builtin_expect(msg->hdr_len > 0, 0)) {
        control(c, msg);
        return;
    }
    switch (c->mode) {
    case PERF_ECHO:
        echo(c, msg);
        break;
    case PERF_ECHO_COPY:
        echo_copy(c, msg);
        break;
    case PERF_DUPLEX:
        c->count += msg->len > 0;
        c->bytes += msg->len;
        c->begun = true;
        stream(c, conn);
        break;
    case PERF_BESIDE:
        if (plait_conn_index(conn) == 0) {
            echo(c, msg);
            break;
        }
        c->count++;
        c->bytes += msg->len;
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
    char text[64] = "", take[16];
    const char *why;
    unsigned window;

    if (req->data_len < sizeof(text)) /* the rest of text is zeros */
        memcpy(text, req->data_len ? req->data : "", req->data_len);
    if (sscanf(text, PERF_HELLO " window=%u take=%15s", &window, take) != 2 || window < 1 ||
        window > PERF_WINDOW_MAX)
        return "this is a peer of plait perf; use plait perf TEST --connect of the same version";
    why = perf_take(opts, take);
    if (why)
        return why;
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
                          .until_eof = o->peer, .admit = admit, .listening = listening,
                          .writable = writable, .leaving = leaving };
    int cpus[2] = { -1, o->cpus[0] };

    perf_choose_cpus(cpus);
    sv.ctx.cpu = cpus[1];
    sv.ctx.spin_us = 0; /* it polls while a test runs, and sleeps at all other times */
    sv.ctx.name = "perf-peer";
    return service_run(&sv);
}
