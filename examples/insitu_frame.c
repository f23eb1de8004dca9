/* SPDX-License-Identifier: BSD-3-Clause */
#include "insitu_frame.h"
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>

#define FNV_START 14695981039346656037u
#define FNV_PRIME 1099511628211u

int frame_create(struct frame *f, uint32_t cells)
{
    *f = (struct frame){ .cells = cells, .all_checksum = FNV_START };
    f->all_min = INFINITY;
    f->all_max = -INFINITY;
    f->rgb = malloc((size_t)cells * cells * 3);
    return f->rgb ? 0 : -1;
}

void frame_destroy(struct frame *f)
{
    free(f->rgb);
}

void frame_begin(struct frame *f)
{
    f->have = 0;
    f->min = INFINITY;
    f->max = -INFINITY;
    f->mean = 0;
    f->checksum = FNV_START;
}

/* From blue over white to red. */
static void colour(float t, unsigned char *rgb)
{
    t = !(t > -1) ? -1 : t > 1 ? 1 : t; /* not a number: as -1 */
    rgb[0] = (unsigned char)(t < 0 ? 245 * (1 + t) : 245 - 40 * t);
    rgb[1] = (unsigned char)(245 - 225 * fabsf(t));
    rgb[2] = (unsigned char)(t > 0 ? 245 * (1 - t) : 245 + 60 * t);
}

void frame_add(struct frame *f, const float *cells, uint32_t rows)
{
    const unsigned char *bytes = (const unsigned char *)cells;
    size_t n = (size_t)rows * f->cells;

    for (size_t i = 0; i < n; i++) {
        f->min = cells[i] < f->min ? cells[i] : f->min;
        f->max = cells[i] > f->max ? cells[i] : f->max;
        f->mean += cells[i]; /* a sum as yet */
        colour(cells[i], f->rgb + 3 * f->have++);
    }
    for (size_t i = 0; i < n * sizeof *cells; i++)
        f->checksum = (f->checksum ^ bytes[i]) * FNV_PRIME;
}

void frame_end(struct frame *f)
{
    f->mean /= (double)f->have;
    f->count++;
    f->all_min = f->min < f->all_min ? f->min : f->all_min;
    f->all_max = f->max > f->all_max ? f->max : f->all_max;
    f->all_means += f->mean;
    f->all_checksum = (f->all_checksum ^ f->checksum) * FNV_PRIME;
}

const char *frame_write(const struct frame *f, const char *file)
{
    static png_image image;

    image = (png_image){ .version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_RGB };
    image.flags = PNG_IMAGE_FLAG_FAST;
    image.width = image.height = f->cells;
    return png_image_write_to_file(&image, file, 0, f->rgb, 0, NULL) ? NULL : image.message;
}
