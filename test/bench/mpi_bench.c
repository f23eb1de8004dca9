/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The peer program for MPI: rank 0 measures, rank 1 responds. One source, built once for each MPI:
 *   lat   blocking ping-pong
 *   rate  batches of 64 MPI_Isend/MPI_Irecv, an acknowledgement now and then to bound the unexpected queue
 *   rpc   `window` requests in flight, each answered by a message of the same size
 *   bw    a window of MPI_Isend/MPI_Irecv, then an acknowledgement; one buffer on each side, as osu_bw has
 * The last message of a phase says so in its first byte, so that the responder knows no times or counts.
 */
#include "peer.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64
#define ACK_EVERY 16 /* batches */
#define ACKS_OPEN 2
#define WARM_UP_S 0.02
#define WINDOW_MAX 64

enum { TAG_PING = 1, TAG_PONG, TAG_ACK };

static char out[PEER_SIZE_MAX];
static char in[WINDOW_MAX][PEER_SIZE_MAX];
static char *big;
static struct peer_samples samples;

static void lat_lead(int size, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;

    out[0] = 0;
    do {
        for (int i = 0; i < PEER_BATCH; i++) {
            MPI_Send(out, size, MPI_BYTE, 1, TAG_PING, MPI_COMM_WORLD);
            MPI_Recv(in[0], size, MPI_BYTE, 1, TAG_PONG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        }
        t1 = peer_now();
        if (record && peer_add_lat(&samples, t1 - t0))
            break;
        t0 = t1;
    } while (t1 - start < seconds);
    out[0] = 1;
    MPI_Send(out, size, MPI_BYTE, 1, TAG_PING, MPI_COMM_WORLD);
}

static void lat_follow(int size)
{
    for (;;) {
        MPI_Recv(in[0], size, MPI_BYTE, 0, TAG_PING, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        if (in[0][0])
            return;
        MPI_Send(out, size, MPI_BYTE, 0, TAG_PONG, MPI_COMM_WORLD);
    }
}

static void rate_lead(int size, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;
    long batches = 0, acks = 0;
    int last = 0;
    MPI_Request r[BATCH];

    while (!last) {
        batches++;
        if (batches % ACK_EVERY == 0) {
            t1 = peer_now();
            last = t1 - start >= seconds;
            if (record && batches > ACK_EVERY && peer_add_rate(&samples, ACK_EVERY * BATCH, t1 - t0))
                last = 1;
            t0 = t1;
        }
        out[0] = (char)last;
        for (int i = 0; i < BATCH; i++)
            MPI_Isend(out, size, MPI_BYTE, 1, TAG_PING, MPI_COMM_WORLD, &r[i]);
        MPI_Waitall(BATCH, r, MPI_STATUSES_IGNORE);
        for (; acks < batches / ACK_EVERY - (last ? 0 : ACKS_OPEN); acks++)
            MPI_Recv(in[0], 1, MPI_BYTE, 1, TAG_ACK, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
}

static void rate_follow(int size)
{
    MPI_Request r[BATCH];

    for (long batches = 1;; batches++) {
        for (int i = 0; i < BATCH; i++)
            MPI_Irecv(in[i], size, MPI_BYTE, 0, TAG_PING, MPI_COMM_WORLD, &r[i]);
        MPI_Waitall(BATCH, r, MPI_STATUSES_IGNORE);
        if (batches % ACK_EVERY == 0)
            MPI_Send(out, 1, MPI_BYTE, 0, TAG_ACK, MPI_COMM_WORLD);
        if (in[0][0])
            return;
    }
}

/* A sliding window: as the oldest reply comes, the next request goes. */
static void rpc_lead(int size, int window, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;
    int laps = (PEER_SLICE + window - 1) / window;
    MPI_Request r[WINDOW_MAX];

    out[0] = 0;
    for (int i = 0; i < window; i++) {
        MPI_Irecv(in[i], size, MPI_BYTE, 1, TAG_PONG, MPI_COMM_WORLD, &r[i]);
        MPI_Send(out, size, MPI_BYTE, 1, TAG_PING, MPI_COMM_WORLD);
    }
    do {
        for (int n = 0; n < laps; n++) {
            for (int i = 0; i < window; i++) {
                MPI_Wait(&r[i], MPI_STATUS_IGNORE);
                MPI_Irecv(in[i], size, MPI_BYTE, 1, TAG_PONG, MPI_COMM_WORLD, &r[i]);
                MPI_Send(out, size, MPI_BYTE, 1, TAG_PING, MPI_COMM_WORLD);
            }
        }
        t1 = peer_now();
        if (record && peer_add_rate(&samples, (long)laps * window, t1 - t0))
            break;
        t0 = t1;
    } while (t1 - start < seconds);
    MPI_Waitall(window, r, MPI_STATUSES_IGNORE);
    out[0] = 1;
    MPI_Send(out, size, MPI_BYTE, 1, TAG_PING, MPI_COMM_WORLD);
}

static void rpc_follow(int size, int window)
{
    MPI_Request r[WINDOW_MAX];
    int i;

    for (i = 0; i < window; i++)
        MPI_Irecv(in[i], size, MPI_BYTE, 0, TAG_PING, MPI_COMM_WORLD, &r[i]);
    for (i = 0;; i = i + 1 == window ? 0 : i + 1) {
        MPI_Wait(&r[i], MPI_STATUS_IGNORE);
        if (in[i][0])
            break;
        MPI_Irecv(in[i], size, MPI_BYTE, 0, TAG_PING, MPI_COMM_WORLD, &r[i]);
        MPI_Send(out, size, MPI_BYTE, 0, TAG_PONG, MPI_COMM_WORLD);
    }
    for (int k = 0; k < window; k++) {
        if (r[k] == MPI_REQUEST_NULL)
            continue;
        MPI_Cancel(&r[k]);
        MPI_Wait(&r[k], MPI_STATUS_IGNORE);
    }
}

static void bw_lead(int size, int window, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1 = start;
    int last = 0;
    MPI_Request r[WINDOW_MAX];

    while (!last) {
        last = t1 - start >= seconds;
        big[0] = (char)last; /* nothing is on its way */
        for (int i = 0; i < window; i++)
            MPI_Isend(big, size, MPI_BYTE, 1, TAG_PING, MPI_COMM_WORLD, &r[i]);
        MPI_Waitall(window, r, MPI_STATUSES_IGNORE);
        MPI_Recv(in[0], 1, MPI_BYTE, 1, TAG_ACK, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        t1 = peer_now();
        if (record && !last && peer_add_rate(&samples, (long)size * window, t1 - t0))
            seconds = 0;
        t0 = t1;
    }
}

static void bw_follow(int size, int window)
{
    MPI_Request r[WINDOW_MAX];

    do {
        for (int i = 0; i < window; i++)
            MPI_Irecv(big, size, MPI_BYTE, 0, TAG_PING, MPI_COMM_WORLD, &r[i]);
        MPI_Waitall(window, r, MPI_STATUSES_IGNORE);
        MPI_Send(out, 1, MPI_BYTE, 0, TAG_ACK, MPI_COMM_WORLD);
    } while (!big[0]);
}

static void run_bw(const struct peer_opts *o, int rank)
{
    for (int i = 0; i < o->sizes.n; i++) {
        int size = o->sizes.v[i], window = peer_bw_window(size);

        big = peer_memory((size_t)size);
        for (int record = 0; record < 2; record++) {
            MPI_Barrier(MPI_COMM_WORLD);
            if (rank)
                bw_follow(size, window);
            else
                bw_lead(size, window, record ? o->seconds : WARM_UP_S, record);
        }
        free(big);
        if (!rank)
            peer_print_rate(&samples, "bw", "bytes_per_s", "mpi", size, window);
    }
}

static void run_lat(const struct peer_opts *o, int rank)
{
    for (int i = 0; i < o->sizes.n; i++) {
        for (int record = 0; record < 2; record++) {
            MPI_Barrier(MPI_COMM_WORLD);
            if (rank)
                lat_follow(o->sizes.v[i]);
            else
                lat_lead(o->sizes.v[i], record ? o->seconds : WARM_UP_S, record);
        }
        if (!rank)
            peer_print_lat(&samples, "mpi", o->sizes.v[i]);
    }
}

static void run_rate(const struct peer_opts *o, int rank)
{
    for (int i = 0; i < o->sizes.n; i++) {
        for (int record = 0; record < 2; record++) {
            MPI_Barrier(MPI_COMM_WORLD);
            if (rank)
                rate_follow(o->sizes.v[i]);
            else
                rate_lead(o->sizes.v[i], record ? o->seconds : WARM_UP_S, record);
        }
        if (!rank)
            peer_print_rate(&samples, "rate", "msgs_per_s", "mpi", o->sizes.v[i], BATCH);
    }
}

static void run_rpc(const struct peer_opts *o, int rank)
{
    for (int i = 0; i < o->windows.n; i++) {
        for (int record = 0; record < 2; record++) {
            MPI_Barrier(MPI_COMM_WORLD);
            if (rank)
                rpc_follow(o->sizes.v[0], o->windows.v[i]);
            else
                rpc_lead(o->sizes.v[0], o->windows.v[i], record ? o->seconds : WARM_UP_S, record);
        }
        if (!rank)
            peer_print_rate(&samples, "rpc", "requests_per_s", "mpi", o->sizes.v[0], o->windows.v[i]);
    }
}

int main(int argc, char **argv)
{
    struct peer_opts o;
    int rank, size;

    peer_parse(argc, argv, &o);
    MPI_Init(NULL, NULL); /* its default error handler ends the job, so no return value is checked */
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size != 2)
        peer_die("start me with 2 ranks, not %d", size);
    peer_pin(o.cores.v[rank]);
    if (!strcmp(o.test, "lat"))
        run_lat(&o, rank);
    else if (!strcmp(o.test, "rate"))
        run_rate(&o, rank);
    else if (!strcmp(o.test, "bw"))
        run_bw(&o, rank);
    else
        run_rpc(&o, rank);
    MPI_Finalize();
    return 0;
}
