/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "util/err.h"

static void set_option(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof value);
}

static int at_least_1(uint32_t seconds)
{
    return seconds ? (int)seconds : 1;
}

void pli_sock_tune_tcp(int fd, uint32_t dead_after_ms)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    /* who has just answered may fall silent at once: asking early keeps the time from there to the end near dead_after_ms */
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, at_least_1(dead_after_ms / 5000));
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, at_least_1(dead_after_ms / 10000));
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 8);
    /* when to stop asking, and repeating what was sent */
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)dead_after_ms);
}

const char *pli_sock_text(const struct sockaddr *addr, char *buf, size_t len)
{
    char ip[INET6_ADDRSTRLEN] = "?";

    if (addr->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)addr;

        inet_ntop(AF_INET, &in->sin_addr, ip, sizeof ip);
        snprintf(buf, len, "%s:%u", ip, ntohs(in->sin_port));
    } else if (addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)addr;

        inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof ip);
        snprintf(buf, len, "[%s]:%u", ip, ntohs(in6->sin6_port));
    } else {
        snprintf(buf, len, "a local socket");
    }
    return buf;
}

socklen_t pli_sock_abstract(struct sockaddr_un *addr, const void *name, size_t len)
{
    memset(addr, 0, sizeof *addr);
    addr->sun_family = AF_UNIX;
    if (len > sizeof addr->sun_path - 1)
        len = sizeof addr->sun_path - 1;
    memcpy(addr->sun_path + 1, name, len);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len);
}

static int fail_gai(const char *host, int err)
{
    switch (err) {
    case EAI_MEMORY:
        return pli_fail(PLAIT_E_NOMEM, "no memory to resolve '%.200s'", host);
    case EAI_SYSTEM:
        return pli_fail(PLAIT_E_RESOLVE,
                        "host '%.200s' does not resolve: %s; check the spelling and the name service", host,
                        strerror(errno));
    default:
        return pli_fail(PLAIT_E_RESOLVE,
                        "host '%.200s' does not resolve: %s; check the spelling and the name service", host,
                        gai_strerror(err));
    }
}

/* RFC 6761: such names never exist; a machine without network would wait for its name server to say so. */
static bool is_invalid(const char *host)
{
    static const char suffix[] = ".invalid";
    size_t len = strlen(host), n = sizeof suffix - 1;

    return strcasecmp(host, "invalid") == 0 || (len > n && strcasecmp(host + len - n, suffix) == 0);
}

/* The two addresses of this machine, without a name service and its files. */
static int resolve_localhost(const char *port, struct addrinfo *hints, struct addrinfo **list)
{
    struct addrinfo *v6 = NULL;
    int err = getaddrinfo("127.0.0.1", port, hints, list);

    if (err)
        return fail_gai("127.0.0.1", err);
    if (getaddrinfo("::1", port, hints, &v6) == 0)
        (*list)->ai_next = v6; /* one chain: glibc frees entry by entry */
    return 0;
}

int pli_sock_resolve(const char *host, uint16_t port, bool passive, void (*block)(void),
                     void (*unblock)(void), struct addrinfo **list)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    bool any = !*host || strcmp(host, "*") == 0;
    char service[8];
    int err;

    *list = NULL;
    snprintf(service, sizeof service, "%u", port);
    if (any && !passive)
        return pli_fail(PLAIT_E_INVAL, "no host to connect to: '%s' means every address of a listener", host);
    if (strcasecmp(host, "localhost") == 0)
        return resolve_localhost(service, &hints, list);
    if (any)
        hints.ai_flags |= AI_PASSIVE;
    err = getaddrinfo(any ? NULL : host, service, &hints, list);
    if (err != EAI_NONAME)
        return err ? fail_gai(host, err) : 0;
    if (is_invalid(host))
        return fail_gai(host, err);
    hints.ai_flags = AI_NUMERICSERV;
    if (block)
        block();
    err = getaddrinfo(host, service, &hints, list);
    if (unblock)
        unblock();
    return err ? fail_gai(host, err) : 0;
}

static const struct sockaddr *address(int (*get)(int, struct sockaddr *, socklen_t *), int fd, struct sockaddr_storage *addr)
{
    socklen_t len = sizeof *addr;
    struct sockaddr_in6 in6;
    struct sockaddr_in in = { .sin_family = AF_INET };

    memset(addr, 0, sizeof *addr);
    if (get(fd, (struct sockaddr *)addr, &len) < 0)
        return NULL;
    memcpy(&in6, addr, sizeof in6);
    if (addr->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
        memcpy(&in.sin_addr, in6.sin6_addr.s6_addr + 12, 4);
        memset(addr, 0, sizeof *addr);
        memcpy(addr, &in, sizeof in);
    }
    return (const struct sockaddr *)addr;
}

const struct sockaddr *pli_sock_local(int fd, struct sockaddr_storage *addr)
{
    return address(getsockname, fd, addr);
}

const struct sockaddr *pli_sock_remote(int fd, struct sockaddr_storage *addr)
{
    return address(getpeername, fd, addr);
}
