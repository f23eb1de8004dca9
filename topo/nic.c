/* SPDX-License-Identifier: BSD-3-Clause */
/* Which NUMA node and which PUs a NIC is near to, as the kernel says in /sys. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "topo/topo.h"

/* The first line of a file; false: there is none. */
static bool read_line(char *buf, size_t size, const char *dir, const char *file)
{
    char path[PATH_MAX];
    FILE *f;
    bool ok;

    snprintf(path, sizeof path, "%.3000s/%.200s", dir, file);
    f = fopen(path, "re");
    if (!f)
        return false;
    ok = fgets(buf, (int)size, f) != NULL;
    fclose(f);
    if (ok)
        buf[strcspn(buf, "\n")] = '\0';
    return ok;
}

/* A list that has been cut off ends with its last whole entry. */
static void read_cpus(struct pli_topo_nic *nic, const char *dir)
{
    char line[4096], *comma;

    if (!read_line(line, sizeof line, dir, "local_cpulist"))
        return;
    if (strlen(line) >= sizeof nic->cpus) {
        line[sizeof nic->cpus - 4] = '\0';
        comma = strrchr(line, ',');
        strcpy(comma ? comma : line, ",...");
    }
    snprintf(nic->cpus, sizeof nic->cpus, "%s", line);
}

/* A network device is a child of the device that has the place: a virtio one, say, of its PCI function. */
static bool read_place(struct pli_topo_nic *nic, const char *root, char *dir)
{
    char line[32], *slash;
    size_t stop = strlen(root);

    while (strlen(dir) > stop && strncmp(dir, root, stop) == 0) {
        if (read_line(line, sizeof line, dir, "numa_node")) {
            nic->node = atoi(line);
            if (nic->node < 0) /* a machine of one node, or firmware that does not say */
                nic->node = -1;
            else
                read_cpus(nic, dir);
            return true;
        }
        slash = strrchr(dir, '/');
        *slash = '\0';
    }
    return false;
}

static bool look_in(struct pli_topo_nic *nic, const char *root, const char *where, const char *name, const char *rest)
{
    char path[PATH_MAX], *dir;
    bool found;

    snprintf(path, sizeof path, "%.3000s/%s/%.200s%s", root, where, name, rest);
    dir = realpath(path, NULL);
    if (!dir)
        return false;
    found = read_place(nic, root, dir);
    free(dir);
    return found;
}

void pli_topo_nic(const char *sysfs, const char *name, struct pli_topo_nic *nic)
{
    char *root = realpath(sysfs ? sysfs : "/sys", NULL), path[PATH_MAX], parent[256];

    nic->node = -1;
    nic->cpus[0] = '\0';
    if (!root || !*name || strchr(name, '/') || *name == '.')
        goto out;
    if (look_in(nic, root, "class/net", name, "/device") || look_in(nic, root, "class/infiniband", name, "/device") ||
        look_in(nic, root, "bus/pci/devices", name, ""))
        goto out;
    /* rxe and siw sit on a network device */
    snprintf(path, sizeof path, "%.3000s/class/infiniband/%.200s", root, name);
    if (read_line(parent, sizeof parent, path, "parent") && !strchr(parent, '/') && *parent != '.')
        look_in(nic, root, "class/net", parent, "/device");
out:
    free(root);
}
