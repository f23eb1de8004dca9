/* SPDX-License-Identifier: BSD-3-Clause */
/* libfabric, loaded when the first link needs it.
 *
 * It is not linked: a process that only uses shared memory pays nothing for it, and some of what it pulls in does more
 * than a library should (Debian's libpsm takes over SIGSEGV and five other signals in its constructor). What libfabric
 * calls through its objects is inline in its headers, so only these functions have to be looked up. */
#ifndef PLI_FABRIC_LIB_H
#define PLI_FABRIC_LIB_H

#include <rdma/fabric.h>

struct pli_fi_lib {
    int (*getinfo)(uint32_t version, const char *node, const char *service, uint64_t flags, const struct fi_info *hints,
                   struct fi_info **info);
    void (*freeinfo)(struct fi_info *info);
    struct fi_info *(*dupinfo)(const struct fi_info *info);
    int (*fabric)(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context);
    const char *(*strerror)(int errnum);
    uint32_t (*version)(void);
};

/* The library, or NULL with PLAIT_E_UNSUPPORTED's sentence in pli_err_text(). Any thread; the first call loads it, which blocks for
 * some ms. Signal handlers are as they were afterwards. It is never unloaded. */
const struct pli_fi_lib *pli_fi_lib(void);

#endif
