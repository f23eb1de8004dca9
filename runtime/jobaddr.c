/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/jobaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plait/status.h"
#include "util/err.h"

#define ROUTES_MAX (256 * 1024) /* bytes of a table that are looked at */
#define RTF_UP_BIT 0x1u

/* ---- routes ---- */

static const char *next_line(const char *p)
{
    p = strchr(p, '\n');
    return p ? p + 1 : NULL;
}

/* "eth0 00000000 010200C0 0003 0 0 100 00000000 ...": interface, destination, gateway, flags, -, -, metric,
 * mask */
static void parse_v4(char best[IFNAMSIZ], const char *text)
{
    unsigned long lowest = 0;

    for (const char *p = text; p; p = next_line(p)) {
        char name[IFNAMSIZ];
        unsigned long dest, flags, metric, mask;

        if (sscanf(p, "%15s %8lx %*x %4lx %*d %*d %lu %8lx", name, &dest, &flags, &metric, &mask) != 5)
            continue;
        if (dest || mask || !(flags & RTF_UP_BIT) || (best[0] && metric >= lowest))
            continue;
        memcpy(best, name, IFNAMSIZ);
        lowest = metric;
    }
}

/* "<32 digits> 00 <32 digits> 00 <32 digits> metric refs uses flags eth0", all but the name in hexadecimal */
static void parse_v6(char best[IFNAMSIZ], const char *text)
{
    unsigned long lowest = 0;

    for (const char *p = text; p; p = next_line(p)) {
        char name[IFNAMSIZ], dest[33];
        unsigned long len, flags, metric;

        if (sscanf(p, "%32s %2lx %*s %*x %*s %8lx %*x %*x %8lx %15s", dest, &len, &metric, &flags, name) != 5)
            continue;
        if (len || strspn(dest, "0") != 32 || !(flags & RTF_UP_BIT) || strcmp(name, "lo") == 0)
            continue;
        if (best[0] && metric >= lowest)
            continue;
        memcpy(best, name, IFNAMSIZ);
        lowest = metric;
    }
}

void pli_job_routes_parse(struct pli_job_routes *routes, const char *v4, const char *v6)
{
    memset(routes, 0, sizeof *routes);
    if (v4)
        parse_v4(routes->v4, v4);
    if (v6)
        parse_v6(routes->v6, v6);
}

/* ---- what the user wants ---- */

struct want {
    const char *text;
    const char *name; /* of an interface, or NULL */
    int family;
    uint8_t addr[16];
    unsigned bits; /* how many of addr must be the same */
};

static int parse_bits(const char *text, unsigned max, unsigned *bits)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || v > max)
        return -1;
    *bits = (unsigned)v;
    return 0;
}

static int fail_want(const char *text)
{
    return pli_fail(PLAIT_E_INVAL,
                    PLI_JOB_ADDR_ENV "=%.80s is neither an interface (ib0) nor a network (10.1.0.0/16, "
                                     "fd00::/8) nor an address of this machine",
                    text);
}

/* What is neither an address nor a network is taken for the name of an interface. */
static int parse_want(struct want *w, const char *text)
{
    char addr[PLI_JOB_ADDR_TEXT];
    size_t len = strcspn(text, "/");

    memset(w, 0, sizeof *w);
    w->text = text;
    if (len < sizeof addr) {
        memcpy(addr, text, len);
        addr[len] = '\0';
        w->family = inet_pton(AF_INET, addr, w->addr) == 1    ? AF_INET
                    : inet_pton(AF_INET6, addr, w->addr) == 1 ? AF_INET6
                                                              : 0;
    }
    w->bits = w->family == AF_INET ? 32 : 128;
    if (w->family && text[len])
        return parse_bits(text + len + 1, w->bits, &w->bits) < 0 ? fail_want(text) : 0;
    if (w->family)
        return 0;
    if (text[len] || strlen(text) >= IFNAMSIZ)
        return fail_want(text);
    w->name = text;
    return 0;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    return memcmp(a, b, whole) == 0 && (!rest || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

static bool is_wanted(const struct pli_job_if *i, const struct want *w)
{
    if (w->name)
        return strcmp(i->name, w->name) == 0;
    return i->family == w->family && same_bits(i->addr, w->addr, w->bits);
}

/* ---- choosing ---- */

/* Nobody on another node could use such an address as it is: it needs the name of an interface there. */
static bool is_link_local(const struct pli_job_if *i)
{
    return i->family == AF_INET ? i->addr[0] == 169 && i->addr[1] == 254
                                : i->addr[0] == 0xfe && (i->addr[1] & 0xc0) == 0x80;
}

static unsigned weight(const struct pli_job_if *i, const struct pli_job_routes *routes, const struct want *w)
{
    const char *route = i->family == AF_INET ? routes->v4 : routes->v6;

    if (!i->up || is_link_local(i) || (w && !is_wanted(i, w)) || (!w && i->loopback))
        return 0;
    if (!w && strcmp(i->name, route) == 0)
        return i->family == AF_INET ? 4 : 3;
    return i->family == AF_INET ? 2 : 1;
}

static void list_addresses(char *text, size_t len, const struct pli_job_if *ifs, unsigned n)
{
    size_t at = 0;

    snprintf(text, len, "none");
    for (unsigned i = 0; i < n && at < len; i++) {
        char addr[PLI_JOB_ADDR_TEXT] = "";

        if (!ifs[i].up || is_link_local(&ifs[i]))
            continue;
        inet_ntop(ifs[i].family, ifs[i].addr, addr, sizeof addr);
        at += (size_t)snprintf(text + at, len - at, "%s%s %s", at ? ", " : "", ifs[i].name, addr);
    }
}

static int fail_none(const struct pli_job_if *ifs, unsigned n, const char *want)
{
    char text[300];

    list_addresses(text, sizeof text, ifs, n);
    if (want)
        return pli_fail(PLAIT_E_UNREACHABLE,
                        PLI_JOB_ADDR_ENV "=%.80s fits no address of an interface that is up here (%s); for all "
                                         "nodes the same value serves if it names an interface or a network",
                        want, text);
    return pli_fail(PLAIT_E_UNREACHABLE,
                    "the job has ranks on other nodes, and no interface here is up with an address that they "
                    "could reach (there is: %s); name one with " PLI_JOB_ADDR_ENV,
                    text);
}

int pli_job_addr_choose(char host[PLI_JOB_ADDR_TEXT], const struct pli_job_if *ifs, unsigned n,
                        const struct pli_job_routes *routes, const char *want)
{
    const struct pli_job_if *best = NULL;
    unsigned highest = 0;
    struct want w;
    int rc;

    if (want && !*want)
        want = NULL;
    rc = want ? parse_want(&w, want) : 0;
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < n; i++) {
        unsigned v = weight(&ifs[i], routes, want ? &w : NULL);

        if (v > highest) {
            highest = v;
            best = &ifs[i];
        }
    }
    if (!best)
        return fail_none(ifs, n, want);
    if (!inet_ntop(best->family, best->addr, host, PLI_JOB_ADDR_TEXT))
        return pli_fail_errno("inet_ntop of an address of %s", best->name);
    return 0;
}

/* ---- this machine ---- */

/* The file's text, or NULL where the kernel has no such table. For free(). */
static char *read_table(const char *path)
{
    size_t len = 0;
    char *text;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return NULL;
    text = malloc(ROUTES_MAX + 1);
    while (text && len < ROUTES_MAX && (n = read(fd, text + len, ROUTES_MAX - len)) > 0)
        len += (size_t)n;
    if (text)
        text[len] = '\0';
    close(fd);
    return text;
}

static void read_routes(struct pli_job_routes *routes)
{
    char *v4 = read_table("/proc/net/route"), *v6 = read_table("/proc/net/ipv6_route");

    pli_job_routes_parse(routes, v4, v6);
    free(v4);
    free(v6);
}

static bool copy_if(struct pli_job_if *to, const struct ifaddrs *from)
{
    if (!from->ifa_addr)
        return false;
    memset(to, 0, sizeof *to);
    to->family = from->ifa_addr->sa_family;
    if (to->family == AF_INET)
        memcpy(to->addr, &((const struct sockaddr_in *)(const void *)from->ifa_addr)->sin_addr, 4);
    else if (to->family == AF_INET6)
        memcpy(to->addr, &((const struct sockaddr_in6 *)(const void *)from->ifa_addr)->sin6_addr, 16);
    else
        return false;
    snprintf(to->name, sizeof to->name, "%s", from->ifa_name);
    /* a bridge without anything behind it is up, but not running */
    to->up = (from->ifa_flags & IFF_UP) && (from->ifa_flags & IFF_RUNNING);
    to->loopback = from->ifa_flags & IFF_LOOPBACK;
    return true;
}

bool pli_job_addr_is_set(void)
{
    const char *want = getenv(PLI_JOB_ADDR_ENV);

    return want && *want;
}

int pli_job_addr(char host[PLI_JOB_ADDR_TEXT])
{
    struct pli_job_routes routes;
    struct pli_job_if *ifs;
    struct ifaddrs *list;
    unsigned n = 0;
    int rc;

    if (getifaddrs(&list) < 0)
        return pli_fail_errno("reading the interfaces of this machine");
    for (const struct ifaddrs *i = list; i; i = i->ifa_next)
        n++;
    ifs = calloc(n ? n : 1, sizeof *ifs);
    if (!ifs) {
        rc = pli_fail(PLAIT_E_NOMEM, "no memory for the addresses of %u interfaces", n);
        goto out;
    }
    n = 0;
    for (const struct ifaddrs *i = list; i; i = i->ifa_next)
        n += copy_if(&ifs[n], i);
    read_routes(&routes);
    rc = pli_job_addr_choose(host, ifs, n, &routes, getenv(PLI_JOB_ADDR_ENV));
    free(ifs);
out:
    freeifaddrs(list);
    return rc;
}
