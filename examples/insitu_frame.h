/* SPDX-License-Identifier: BSD-3-Clause */
/* What insitu_view makes of a field: statistics and a picture. No plait in here. */
#ifndef INSITU_FRAME_H
#define INSITU_FRAME_H

#include <stddef.h>
#include <stdint.h>

struct frame {
    uint32_t cells;    /* along each side */
    size_t have;       /* cells that have been added */
    float min, max;
    double mean;
    uint64_t checksum; /* FNV-1a over the bits of every cell */
    unsigned char *rgb;

    uint64_t count; /* frames so far; what follows is over all of them */
    float all_min, all_max;
    double all_means;
    uint64_t all_checksum;
};

/* 0, or -1: not enough memory. */
int frame_create(struct frame *f, uint32_t cells);
void frame_destroy(struct frame *f);
void frame_begin(struct frame *f);
/* The next rows, from the top. The result does not depend on how the rows are divided. */
void frame_add(struct frame *f, const float *cells, uint32_t rows);
void frame_end(struct frame *f);
/* Writes a PNG. NULL, or why it failed: valid until the next call. */
const char *frame_write(const struct frame *f, const char *file);

#endif
