/* SPDX-License-Identifier: BSD-3-Clause */
/* What a simulation says to insitu_view, and the simulation's side of it (insitu_publish.c). */
#ifndef INSITU_H
#define INSITU_H

#include <plait/plait.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INSITU_MAGIC 0x31756974u
#define INSITU_CELLS_MIN 8
#define INSITU_CELLS_MAX 8192 /* a part stays below PLAIT_MSG_MAX */
#define INSITU_BUFFERS 4      /* of each rank: at most so many of its parts are at the viewer */

/* A rank's private data when it opens its session. */
struct insitu_hello {
    uint32_t magic;
    uint32_t cells; /* along each side of the field */
    uint32_t ranks; /* of the simulation: the rows are divided among them */
    uint32_t rank;
};

/* A message: one rank's rows of the field at one step. */
struct insitu_part {
    uint64_t step;
    uint64_t unused[7]; /* the cells begin at a cache line */
    float cells[];
};

/* The first row of a rank; of rank ranks: the end of the field. */
static inline uint32_t insitu_first_row(uint32_t cells, uint32_t ranks, uint32_t rank)
{
    return (uint32_t)((uint64_t)cells * rank / ranks);
}

static inline uint32_t insitu_rows(uint32_t cells, uint32_t ranks, uint32_t rank)
{
    return insitu_first_row(cells, ranks, rank + 1) - insitu_first_row(cells, ranks, rank);
}

/* Bytes of a rank's message. */
static inline size_t insitu_part_len(uint32_t cells, uint32_t ranks, uint32_t rank)
{
    return sizeof(struct insitu_part) + (size_t)insitu_rows(cells, ranks, rank) * cells * sizeof(float);
}

/* ---- a rank's publisher: its buffers and its session to the viewer ---- */

enum insitu_state { INSITU_FREE, INSITU_COMPUTED, INSITU_SENT };

struct insitu_publisher;
struct insitu_buffer {
    struct insitu_publisher *p;
    struct insitu_part *part;
    enum insitu_state state;
};

struct insitu_publisher {
    struct plait_ctx *ctx;
    struct plait_session *viewer;
    struct plait_mem *mem;
    struct insitu_hello hello;
    int drop_oldest;
    struct insitu_buffer buffers[INSITU_BUFFERS];
    struct insitu_buffer *newest;                /* drop-oldest: not sent; the next step may replace it */
    struct insitu_buffer *queue[INSITU_BUFFERS]; /* to be sent, but there was no space yet */
    unsigned queued;
    uint64_t sent, done;   /* parts; done: of those sent, how many the viewer has released */
    uint64_t waits, drops; /* steps that had to wait for a buffer, and steps that were never sent */
    int gone;              /* the viewer has, and why */
    char why[256];
};

/* What all ranks must know alike before they publish a step. */
struct insitu_agreed {
    uint64_t done;  /* the least of all ranks */
    uint64_t waits; /* the sum */
    uint64_t gone;  /* nonzero: some rank has lost the viewer */
};

/* Members ctx, hello and drop_oldest must be set. Waits up to wait_s seconds for a viewer to listen at uri.
 * The functions end the program with a message if they fail. */
void insitu_open(struct insitu_publisher *p, const char *uri, int wait_s);
/* A buffer for the next step. Waits for one, except with drop_oldest. */
struct insitu_buffer *insitu_next_buffer(struct insitu_publisher *p);
/* The buffer has the next step in it. */
void insitu_publish(struct insitu_publisher *p, struct insitu_buffer *b, const struct insitu_agreed *all);
/* No step follows: waits until the viewer has released them all, or has gone. */
void insitu_finish(struct insitu_publisher *p, const struct insitu_agreed *all);
void insitu_close(struct insitu_publisher *p);

#endif
