/* SPDX-License-Identifier: BSD-3-Clause */
/* The devices that transports have found, as a list that the user owns. */
#include "plait/version.h"

#include <stdlib.h>
#include <string.h>
#include "runtime/transports.h"
#include "util/err.h"

struct plait_devices {
    struct plait_device_info *infos; /* their strings are copies */
    unsigned count, cap;
    bool full;                       /* there was no memory for all of them */
};

static bool copy_text(const char **text)
{
    if (*text)
        *text = strdup(*text);
    return *text != NULL;
}

static void free_texts(struct plait_device_info *d)
{
    const char *texts[] = { d->transport, d->library, d->provider, d->kind, d->nic, d->address, d->cpus, d->why };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free((void *)texts[i]);
}

static bool copy_texts(struct plait_device_info *d)
{
    const char **texts[] = { &d->transport, &d->library, &d->provider, &d->kind, &d->nic, &d->address, &d->cpus, &d->why };
    bool ok = true;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        ok = (*texts[i] == NULL || copy_text(texts[i])) && ok;
    return ok;
}

static void add(const struct plait_device_info *info, void *arg)
{
    struct plait_devices *d = arg;

    if (d->count == d->cap) {
        unsigned cap = d->cap ? 2 * d->cap : 16;
        struct plait_device_info *more = realloc(d->infos, cap * sizeof *more);

        if (!more) {
            d->full = true;
            return;
        }
        d->infos = more;
        d->cap = cap;
    }
    d->infos[d->count] = *info;
    if (!copy_texts(&d->infos[d->count++]))
        d->full = true;
}

int plait_devices_open(struct plait_devices **out)
{
    const struct pli_transport *t;
    struct plait_devices *d;

    if (!out)
        return pli_fail(PLAIT_E_INVAL, "plait_devices_open: devices is NULL");
    *out = NULL;
    d = calloc(1, sizeof *d);
    if (!d)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a list of devices");
    for (unsigned i = 0; (t = pli_transport_at(i)) != NULL; i++)
        if (t->ops && t->ops->describe_devices)
            t->ops->describe_devices(add, d); /* one that cannot be used has none: plait_transport_info() says why */
    if (d->full) {
        plait_devices_close(d);
        return pli_fail(PLAIT_E_NOMEM, "no memory for a list of devices");
    }
    *out = d;
    return 0;
}

unsigned plait_devices_count(const struct plait_devices *d)
{
    return d ? d->count : 0;
}

int plait_devices_get(const struct plait_devices *d, unsigned i, struct plait_device_info *info)
{
    size_t size;

    if (!d || !info || info->size < sizeof info->size)
        return pli_fail(PLAIT_E_INVAL, "plait_devices_get: an argument is NULL, or size is not set: begin with PLAIT_DEVICE_INFO_INIT");
    if (i >= d->count)
        return pli_fail(PLAIT_E_NOTFOUND, "there is no device %u: %u were looked for", i, d->count);
    size = info->size;
    memcpy(info, &d->infos[i], size < sizeof *info ? size : sizeof *info);
    info->size = size;
    return 0;
}

void plait_devices_close(struct plait_devices *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < d->count; i++)
        free_texts(&d->infos[i]);
    free(d->infos);
    free(d);
}
