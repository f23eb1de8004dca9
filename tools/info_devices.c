/* SPDX-License-Identifier: BSD-3-Clause */
/* plait info: the providers of libfabric and their NICs. */
#include "info.h"

#include <stdio.h>
#include <string.h>
#include "cli.h"

static bool device(const struct info *i, unsigned n, struct plait_device_info *d)
{
    *d = (struct plait_device_info)PLAIT_DEVICE_INFO_INIT;
    return plait_devices_get(i->devices, n, d) == 0;
}

static struct json_object *text_or_null(const char *s)
{
    return s ? json_object_new_string(s) : NULL;
}

static struct json_object *nic_json(const struct plait_device_info *d)
{
    struct json_object *o = json_object_new_object();

    json_object_object_add(o, "name", text_or_null(d->nic));
    json_object_object_add(o, "address", text_or_null(d->address));
    json_object_object_add(o, "node", d->node < 0 ? NULL : json_object_new_int(d->node));
    json_object_object_add(o, "cpus", text_or_null(d->cpus));
    return o;
}

static struct json_object *provider_json(const struct plait_device_info *d, struct json_object *nics)
{
    struct json_object *o = json_object_new_object();

    json_object_object_add(o, "name", json_object_new_string(d->provider));
    json_object_object_add(o, "kind", json_object_new_string(d->kind));
    json_object_object_add(o, "usable", json_object_new_boolean(d->usable));
    json_object_object_add(o, "chosen", json_object_new_boolean(d->chosen));
    json_object_object_add(o, "why", json_object_new_string(d->why));
    json_object_object_add(o, "nics", nics);
    return o;
}

void info_devices_json(const struct info *i, const char *transport, struct json_object *o)
{
    struct json_object *providers = json_object_new_array(), *nics = NULL;
    const char *library = NULL, *last = "";
    struct plait_device_info d;

    for (unsigned n = 0; device(i, n, &d); n++) {
        if (strcmp(d.transport, transport) != 0)
            continue;
        library = d.library;
        if (strcmp(last, d.provider) != 0) {
            nics = json_object_new_array();
            json_object_array_add(providers, provider_json(&d, nics));
            last = d.provider;
        }
        if (d.nic)
            json_object_array_add(nics, nic_json(&d));
    }
    if (library) {
        json_object_object_add(o, "library", json_object_new_string(library));
        json_object_object_add(o, "providers", providers);
    } else {
        json_object_put(providers);
    }
}

/* Addresses of one NIC share a line. */
static void print_nic(const struct plait_device_info *d, const char *last)
{
    if (strcmp(last, d->nic) == 0) {
        printf("%s%s", d->address ? ", " : "", d->address ? d->address : "");
        return;
    }
    printf("%s    %-10s ", *last ? "\n" : "", d->nic);
    if (d->node >= 0)
        printf("NUMA node %d, CPUs %s", d->node, d->cpus ? d->cpus : "not known");
    else
        printf("NUMA node not known");
    printf("%s%s", d->address ? "; " : "", d->address ? d->address : "");
}

void info_print_devices(const struct info *i)
{
    const char *last = "", *nic = "";
    struct plait_device_info d;

    for (unsigned n = 0; device(i, n, &d); n++) {
        if (!*last)
            printf("\nproviders of %s, the best first (PLAIT_PROVIDER or provider=NAME in a URI choose another one)\n", d.library);
        if (strcmp(last, d.provider) != 0) {
            printf("%s", *nic ? "\n" : "");
            nic = "";
            printf("  %-15s%-5s%-10s%s\n", d.provider, d.kind, d.chosen ? "chosen" : d.usable ? "usable" : "no", d.why);
        }
        last = d.provider;
        if (d.nic) {
            print_nic(&d, nic);
            nic = d.nic;
        }
    }
    printf("%s", *nic ? "\n" : "");
}
