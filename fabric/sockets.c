/* SPDX-License-Identifier: BSD-3-Clause */
/* What libfabric 1.17's provider tcp, also below ofi_rxm, does wrong with the socket at which a device listens, and with those that it accepts
 * there. All of them have the device's address, by which they are found among the process's descriptors. */
#include <dirent.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include "fabric/ofi.h"

struct pli_ofi_socket {
    int fd;
    ino_t inode; /* the same descriptor may be another file later */
};

bool pli_ofi_is_old_tcp(const struct fi_info *info)
{
    /* later versions have another provider under this name */
    return pli_fi_lib()->version() < FI_VERSION(1, 18) && strncmp(info->fabric_attr->prov_name, "tcp", 3) == 0;
}

static bool is_there(const struct pli_ofi_dev *dev, int fd, bool *listens)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof at, int_len = sizeof(int);
    int accepts = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &int_len) < 0)
        return false;
    *listens = accepts;
    return getsockname(fd, (struct sockaddr *)&at, &len) == 0 && len == dev->addr_len && memcmp(&at, dev->addr, len) == 0;
}

/* The next one of the device's sockets, or -1. */
static int next_socket(const struct pli_ofi_dev *dev, DIR *dir, bool *listens)
{
    struct dirent *e;

    while ((e = readdir(dir)) != NULL) {
        int fd = atoi(e->d_name);

        if (fd > 0 && is_there(dev, fd, listens))
            return fd;
    }
    return -1;
}

static DIR *open_all(const struct pli_ofi_dev *dev)
{
    return dev->addr_len && pli_ofi_is_old_tcp(dev->info) ? opendir("/proc/self/fd") : NULL;
}

void pli_ofi_sockets_hurry(const struct pli_ofi_dev *dev)
{
    struct timeval patience = { .tv_usec = 1000 };
    DIR *dir = open_all(dev);
    bool listens;
    int fd;

    if (!dir)
        return;
    while ((fd = next_socket(dev, dir, &listens)) >= 0)
        if (listens)
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    closedir(dir);
}

struct pli_ofi_socket *pli_ofi_sockets_note(const struct pli_ofi_dev *dev)
{
    struct pli_ofi_socket *noted = NULL, *more;
    DIR *dir = open_all(dev);
    struct stat st;
    bool listens;
    size_t n = 0;
    int fd;

    if (!dir)
        return NULL;
    while ((fd = next_socket(dev, dir, &listens)) >= 0) {
        more = fstat(fd, &st) == 0 ? realloc(noted, (n + 2) * sizeof *more) : NULL;
        if (!more)
            break;
        noted = more;
        noted[n++] = (struct pli_ofi_socket){ fd, st.st_ino };
        noted[n].fd = -1;
    }
    closedir(dir);
    return noted;
}

void pli_ofi_sockets_close(struct pli_ofi_socket *noted)
{
    struct stat st;

    for (size_t i = 0; noted && noted[i].fd >= 0; i++)
        if (fstat(noted[i].fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == noted[i].inode)
            close(noted[i].fd);
    free(noted);
}
