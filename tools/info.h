/* SPDX-License-Identifier: BSD-3-Clause */
/* plait info: what its files share. */
#ifndef TOOLS_INFO_H
#define TOOLS_INFO_H

#include <stdbool.h>
#include <stdint.h>
#include <json-c/json.h>
#include <plait/plait.h>

struct info_rlimit {
    uint64_t soft, hard; /* UINT64_MAX: unlimited */
};

/* The limits that plait runs into. */
struct info_limits {
    struct info_rlimit memlock, nofile, as, fsize;
    uint64_t shm_total, shm_free; /* of /dev/shm */
    bool has_shm;
    char cgroup[512];             /* the memory cgroup with the lowest limit, "" if none limits */
    uint64_t cgroup_limit, cgroup_usage;
    bool membarrier;              /* the kernel has what a sleeping context needs of it */
    char membarrier_why[128];
};

/* Reads them; what cannot be read is left unlimited or marked as missing. */
void info_read_limits(struct info_limits *l);

/* Shared memory of one side of a link, measured with a link of this process to itself. */
struct info_link {
    uint64_t quiet, busy; /* bytes */
    char why[300];        /* not "": why there are none */
};

/* Blocks for some milliseconds. */
void info_measure_link(struct info_link *link);

struct info_topo {
    struct plait_topo *topo; /* NULL: could not be read, see why */
    struct plait_topo_info info;
    struct plait_topo_place *places;
    int nplaces;
    char why[300];
};

struct info {
    struct info_topo topo;
    struct info_limits limits;
    struct info_link link;
    struct plait_devices *devices; /* NULL: none, or no memory for them */
};

/* Adds what libfabric has for a transport to its object; nothing if it has none. */
void info_devices_json(const struct info *i, const char *transport, struct json_object *o);
void info_print_devices(const struct info *i);
void info_print_text(const struct info *i);

#endif
