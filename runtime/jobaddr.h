/* SPDX-License-Identifier: BSD-3-Clause */
/* The address at which the other nodes of a job reach this one. */
#ifndef PLI_RUNTIME_JOBADDR_H
#define PLI_RUNTIME_JOBADDR_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLI_JOB_ADDR_ENV "PLAIT_JOB_ADDR"
#define PLI_JOB_ADDR_TEXT 64 /* bytes for a numeric address */

/* One address of one interface. */
struct pli_job_if {
    char name[IFNAMSIZ];
    bool up;
    bool loopback;
    int family; /* AF_INET or AF_INET6 */
    uint8_t addr[16];
};

/* The interfaces of the default routes; "": there is none. */
struct pli_job_routes {
    char v4[IFNAMSIZ], v6[IFNAMSIZ];
};

/* From the texts of /proc/net/route and /proc/net/ipv6_route (either may be NULL or garbage): of several
 * default routes those with the lowest metric. Pure. */
void pli_job_routes_parse(struct pli_job_routes *routes, const char *v4, const char *v6);

/* Chooses one of n addresses and writes it to host, without brackets. want: an interface ("ib0"), a network
 * ("10.1.0.0/16", "fd00::/8") or one of the addresses; the loopback counts if it is named. NULL or "": of
 * the interfaces that are up, not the loopback, and have an address that is not link-local, the one of the
 * default route, else the first; IPv4 before IPv6. PLAIT_E_INVAL (want is none of these),
 * PLAIT_E_UNREACHABLE (no such address; the sentence lists those there are). Pure. */
int pli_job_addr_choose(char host[PLI_JOB_ADDR_TEXT], const struct pli_job_if *ifs, unsigned n,
                        const struct pli_job_routes *routes, const char *want);

/* The same with this network namespace's interfaces and routes, and want from PLAIT_JOB_ADDR. host stays as
 * it is on an error. Any thread; reads files. Also PLAIT_E_NOMEM, PLAIT_E_SYSTEM, PLAIT_E_NOFILE. */
int pli_job_addr(char host[PLI_JOB_ADDR_TEXT]);
/* Has the user set PLAIT_JOB_ADDR? */
bool pli_job_addr_is_set(void);

#endif
