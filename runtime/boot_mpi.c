/* SPDX-License-Identifier: BSD-3-Clause */
/* Is there an MPI library in this process, and how far is it? Never linked with one: an MPI that a program
 * brings is found through the dynamic linker, also one that was opened with RTLD_LOCAL (mpi4py). */
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

#include "runtime/boot_priv.h"

typedef int (*flag_fn)(int *flag);

/* Only takes the name: dlopen() must not be called under the lock that dl_iterate_phdr() holds. */
static int find_mpi(struct dl_phdr_info *info, size_t size, void *arg)
{
    const char *base = info->dlpi_name ? strrchr(info->dlpi_name, '/') : NULL;

    (void)size;
    base = base ? base + 1 : info->dlpi_name;
    if (!base || (strncmp(base, "libmpi.so", 9) != 0 && strncmp(base, "libmpich.so", 11) != 0))
        return 0;
    snprintf(arg, PATH_MAX, "%s", info->dlpi_name);
    return 1;
}

static flag_fn flag_function(void *handle, const char *name)
{
    flag_fn fn;
    void *sym = dlsym(handle, name);

    memcpy(&fn, &sym, sizeof fn); /* ISO C has no cast from an object pointer to a function pointer */
    return fn;
}

enum pli_boot_mpi pli_boot_mpi_state(void)
{
    char path[PATH_MAX];
    void *handle = NULL;
    flag_fn initialized = flag_function(RTLD_DEFAULT, "MPI_Initialized");
    flag_fn finalized = flag_function(RTLD_DEFAULT, "MPI_Finalized");
    enum pli_boot_mpi state = PLI_BOOT_MPI_IDLE;
    int yes = 0;

    if (!initialized && dl_iterate_phdr(find_mpi, path) == 1) {
        handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
        if (handle) {
            initialized = flag_function(handle, "MPI_Initialized");
            finalized = flag_function(handle, "MPI_Finalized");
        }
    }
    if (!initialized || !finalized)
        state = PLI_BOOT_MPI_ABSENT;
    else if (finalized(&yes) == 0 && yes)
        state = PLI_BOOT_MPI_FINALIZED;
    else if (initialized(&yes) == 0 && yes)
        state = PLI_BOOT_MPI_ACTIVE;
    if (handle)
        dlclose(handle);
    return state;
}
