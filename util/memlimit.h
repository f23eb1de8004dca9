/* SPDX-License-Identifier: BSD-3-Clause */
/* Is there memory? Asked before it is reserved, because past a memory cgroup's limit the kernel kills instead of refusing. */
#ifndef PLI_UTIL_MEMLIMIT_H
#define PLI_UTIL_MEMLIMIT_H

#include <stddef.h>
#include <stdint.h>

/* What the tightest memory cgroup of this process still allows, in bytes; UINT64_MAX if there is no limit. *limit gets that cgroup's limit,
 * path (cap bytes) its folder. Reads a few files of /proc and /sys/fs/cgroup. Any thread. */
uint64_t pli_memlimit_cgroup_room(uint64_t *limit, char *path, size_t cap);

/* 0 if a file of shared memory may have size bytes (beyond the limit the kernel sends SIGXFSZ), or PLAIT_E_NOMEM with a sentence that names
 * RLIMIT_FSIZE. Any thread. */
int pli_memlimit_check_file_size(const char *what, size_t size);

/* After mmap() of size bytes failed: the code for errno, with a sentence that names RLIMIT_AS where that is set. Any thread. */
int pli_memlimit_map_failed(const char *what, size_t size);

/* 0 if the page tables for mapping `pages` pages that exist already fit in the memory cgroup, or PLAIT_E_NOMEM with a sentence that names it. The
 * kernel makes them at the first touch, charges them to who touches, and kills where they do not fit. Any thread. */
int pli_memlimit_check_tables(const char *what, uint64_t pages);

/* 0 if size bytes of shared memory can be reserved, or PLAIT_E_NOMEM with a sentence that names the cgroup or RLIMIT_FSIZE. Any thread. */
int pli_memlimit_check(const char *what, size_t size);

#endif
