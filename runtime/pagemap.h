/* SPDX-License-Identifier: BSD-3-Clause */
/* From any address to what was entered for its page: three levels of 4096 pointers. A look-up takes no lock
 * and may be made with any number, be it an address or not. The tables are never freed: what they cost is 32
 * KiB for each 16 MiB that has ever been in use. */
#ifndef PLI_RUNTIME_PAGEMAP_H
#define PLI_RUNTIME_PAGEMAP_H

#include <stddef.h>

/* Enters value for all pages of [addr, addr + len), whole pages of 4 KiB. PLAIT_E_NOMEM: then nothing is
 * entered. The caller serialises the calls. */
int pli_pagemap_set(const void *addr, size_t len, void *value);
/* Takes out those that are still value: in the child of a fork the addresses of the parent's regions are used
 * again. The same. */
void pli_pagemap_clear(const void *addr, size_t len, const void *value);
/* What was entered for the page of addr, or NULL. Any thread; never blocks. Who has a buffer of a pool finds
 * its slab: the entry was made before the buffer was given out. */
void *pli_pagemap_get(const void *addr);

#endif
