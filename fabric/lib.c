/* SPDX-License-Identifier: BSD-3-Clause */
#include "fabric/lib.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "util/err.h"

#define SONAME "libfabric.so.1"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pli_fi_lib lib;
static bool loaded, failed;
static char why[256];

/* A function pointer out of dlsym(), which ISO C has no cast for. */
static bool look_up(void *handle, const char *name, void *to)
{
    void *p = dlsym(handle, name);

    if (!p) {
        snprintf(why, sizeof why, SONAME " has no function %s", name);
        return false;
    }
    memcpy(to, &p, sizeof p);
    return true;
}

static bool look_all_up(void *handle)
{
    return look_up(handle, "fi_getinfo", &lib.getinfo) && look_up(handle, "fi_freeinfo", &lib.freeinfo) &&
           look_up(handle, "fi_dupinfo", &lib.dupinfo) && look_up(handle, "fi_fabric", &lib.fabric) &&
           look_up(handle, "fi_strerror", &lib.strerror) && look_up(handle, "fi_version", &lib.version);
}

/* The handlers are saved and put back around what a constructor, or a provider's, may do to them. */
static bool load(void)
{
    struct sigaction old[NSIG];
    bool have[NSIG];
    struct fi_info *info = NULL;
    void *handle;
    bool ok;

    for (int i = 1; i < NSIG; i++)
        have[i] = sigaction(i, NULL, &old[i]) == 0;
    handle = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle)
        snprintf(why, sizeof why, "libfabric cannot be loaded: %s; install it (Debian: libfabric1)", dlerror());
    ok = handle && look_all_up(handle);
    /* the first question initialises the providers */
    if (ok && lib.getinfo(FI_VERSION(1, 11), NULL, NULL, FI_PROV_ATTR_ONLY, NULL, &info) == 0)
        lib.freeinfo(info);
    for (int i = 1; i < NSIG; i++)
        if (have[i])
            sigaction(i, &old[i], NULL);
    return ok;
}

const struct pli_fi_lib *pli_fi_lib(void)
{
    pthread_mutex_lock(&lock);
    if (!loaded && !failed) {
        loaded = load();
        failed = !loaded;
    }
    pthread_mutex_unlock(&lock);
    if (loaded)
        return &lib;
    pli_fail(PLAIT_E_UNSUPPORTED, "%s", why);
    return NULL;
}
