/* SPDX-License-Identifier: BSD-3-Clause */
/* What connector and acceptor have in common about sockets. Any thread; errors as described. */
#ifndef PLI_RUNTIME_SOCK_H
#define PLI_RUNTIME_SOCK_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PLI_SOCK_TEXT 96 /* bytes for pli_sock_text() */

/* Small messages at once, and the other machine taken for dead when it was silent for dead_after_ms. Where nothing is being sent the kernel asks, in whole seconds:
 * then it is between 4/5 of that and all of it, rounded up, after the machine's end. Never fails: a kernel that does not know an option does without it. Never blocks. */
void pli_sock_tune_tcp(int fd, uint32_t dead_after_ms);

/* "127.0.0.1:4711", "[::1]:4711", "a local socket". Never blocks. */
const char *pli_sock_text(const struct sockaddr *addr, char *buf, size_t len);

/* The socket's own address in *addr, an IPv4 one as such although the socket be of IPv6; NULL: unknown. Never blocks. */
const struct sockaddr *pli_sock_local(int fd, struct sockaddr_storage *addr);
/* The same of its peer. */
const struct sockaddr *pli_sock_remote(int fd, struct sockaddr_storage *addr);

/* The address of an abstract AF_UNIX socket; name without the leading zero byte. Returns its length. Never
 * blocks. */
socklen_t pli_sock_abstract(struct sockaddr_un *addr, const void *name, size_t len);

/* The TCP addresses of a host, in the order to try; the caller frees them with freeaddrinfo(). Blocks for the
 * name service, unless host is a number, "localhost", or ends with ".invalid". passive: to bind; "" and "*"
 * are every address then. PLAIT_E_RESOLVE, PLAIT_E_NOMEM, PLAIT_E_INVAL. */
int pli_sock_resolve(const char *host, uint16_t port, bool passive, void (*block)(void),
                     void (*unblock)(void), struct addrinfo **list);

#endif
