/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/peeraddr.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "util/err.h"

#define SCHEME "plait://"
#define EXAMPLE "plait://node7:4711/render?transport=shm"
#define NAME_MAX_LEN 253 /* of a domain name */
#define ZONE_MAX_LEN 15  /* of a network interface: IFNAMSIZ - 1 */

__attribute__((format(printf, 2, 3), cold)) static int bad(const char *text, const char *fmt, ...)
{
    char what[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return pli_fail(PLAIT_E_INVAL, "URI '%.120s': %s; a right one looks like " EXAMPLE, text, what);
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* [address] or [address%zone], also with %25 for the % (RFC 6874). *end: after the bracket. */
static int parse_ipv6(struct pli_uri *uri, const char *text, const char *p, const char **end)
{
    const char *close = strchr(p, ']');
    struct in6_addr addr;
    char *zone;
    size_t len;

    if (!close)
        return bad(text, "the host begins with '[' and has no ']'");
    len = (size_t)(close - p - 1);
    if (len >= sizeof uri->host)
        return bad(text, "the address in brackets is too long");
    memcpy(uri->host, p + 1, len);
    uri->host[len] = '\0';
    zone = strchr(uri->host, '%');
    if (zone)
        *zone = '\0';
    if (inet_pton(AF_INET6, uri->host, &addr) != 1)
        return bad(text, "'%.60s' in brackets is not an IPv6 address", uri->host);
    if (zone) {
        char *name = zone + 1;

        *zone = '%';
        if (name[0] == '2' && name[1] == '5' && name[2])
            memmove(name, name + 2, strlen(name + 2) + 1);
        if (!*name ||
            strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != strlen(name))
            return bad(text, "the zone of the IPv6 address is not the name of an interface");
        if (strlen(name) > ZONE_MAX_LEN)
            return bad(text, "the zone of the IPv6 address has %zu characters, an interface's name at most %d",
                       strlen(name), ZONE_MAX_LEN);
    }
    *end = close + 1;
    return 0;
}

static int parse_host(struct pli_uri *uri, const char *text, const char *p, const char **end)
{
    size_t len = strcspn(p, ":/?#");

    if (*p == '[')
        return parse_ipv6(uri, text, p, end);
    if (len > NAME_MAX_LEN)
        return bad(text, "the host has %zu characters, at most %d are allowed", len, NAME_MAX_LEN);
    if (len > 1 && memchr(p, '@', len))
        return bad(text, "a user name before '@' has no meaning here");
    for (size_t i = 0; i < len; i++) {
        bool star = len == 1 && p[i] == '*';

        if (!star && !is_alnum(p[i]) && !strchr("-._", p[i]))
            return bad(text, "the host has the character '%c'", p[i] >= ' ' && p[i] < 0x7f ? p[i] : '?');
    }
    memcpy(uri->host, p, len);
    uri->host[len] = '\0';
    *end = p + len;
    return 0;
}

/* ":4711" */
static int parse_port(struct pli_uri *uri, const char *text, const char **pos)
{
    const char *p = *pos + 1;
    unsigned port = 0, digits = 0;

    while (*p >= '0' && *p <= '9' && digits < 6) {
        port = 10 * port + (unsigned)(*p++ - '0');
        digits++;
    }
    if (!digits || (*p && !strchr("/?#", *p)))
        return bad(text, strchr(p, ':') && text[sizeof SCHEME - 1] != '['
                             ? "the port is not a number (an IPv6 address needs brackets: [::1]:4711)"
                             : "the port is not a number");
    if (port > 65535)
        return bad(text, "the port is over 65535");
    uri->port = (uint16_t)port;
    *pos = p;
    return 0;
}

static int parse_resource(struct pli_uri *uri, const char *text, const char **pos)
{
    const char *p = *pos + 1;
    size_t len = 0;

    while (*p && *p != '?' && *p != '#') {
        int c = (unsigned char)*p++;

        if (c == '%') {
            int hi = hex_digit(*p), lo = hi < 0 ? -1 : hex_digit(p[1]);

            if (lo < 0)
                return bad(text, "'%%' in the resource is not followed by two hexadecimal digits");
            c = hi << 4 | lo;
            p += 2;
        }
        if (c < 0x20 || c == 0x7f)
            return bad(text, "the resource has the control character 0x%02x", (unsigned)c);
        if (len >= PLI_WIRE_RESOURCE_MAX)
            return bad(text, "the resource is longer than %u bytes", PLI_WIRE_RESOURCE_MAX);
        uri->resource[len++] = (char)c;
    }
    uri->resource[len] = '\0';
    *pos = p;
    return 0;
}

static int parse_transport(struct pli_uri *uri, const char *text, const char *value, size_t len)
{
    static const struct {
        const char *name;
        uint32_t mask;
    } known[] = {{"auto", PLI_TRANSPORT_SHM | PLI_TRANSPORT_OFI},
                 {"shm", PLI_TRANSPORT_SHM},
                 {"ofi", PLI_TRANSPORT_OFI}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strlen(known[i].name) == len && memcmp(known[i].name, value, len) == 0) {
            uri->transports = known[i].mask;
            return 0;
        }
    }
    return bad(text, "transport '%.*s' is not auto, shm or ofi", len > 40 ? 40 : (int)len, value);
}

/* A name as libfabric has them: verbs, tcp;ofi_rxm. Whether there is such a provider is seen when a link needs it. */
static int parse_provider(struct pli_uri *uri, const char *text, const char *value, size_t len)
{
    if (len == 0 || len > PLI_PROVIDER_MAX)
        return bad(text, "the provider's name has %zu characters, not 1 to %d", len, PLI_PROVIDER_MAX);
    for (size_t i = 0; i < len; i++)
        if (!is_alnum(value[i]) && !strchr("_-.;", value[i]))
            return bad(text, "provider '%.*s' is not the name of one, as tcp or verbs;ofi_rxm", (int)len, value);
    memcpy(uri->provider, value, len);
    uri->provider[len] = '\0';
    return 0;
}

static const struct option {
    const char *key;
    int (*parse)(struct pli_uri *uri, const char *text, const char *value, size_t len);
} uri_options[] = {{"transport", parse_transport}, {"provider", parse_provider}};
enum { NOPTIONS = sizeof uri_options / sizeof uri_options[0] };

static int parse_option(struct pli_uri *uri, const char *text, const char *p, size_t len, unsigned *seen)
{
    for (unsigned i = 0; i < NOPTIONS; i++) {
        const struct option *o = &uri_options[i];
        size_t n = strlen(o->key);

        if (len <= n || p[n] != '=' || memcmp(p, o->key, n) != 0)
            continue;
        if (*seen & 1u << i)
            return bad(text, "%s is given twice", o->key);
        *seen |= 1u << i;
        return o->parse(uri, text, p + n + 1, len - n - 1);
    }
    return bad(text, "unknown option '%.*s'; there are transport=auto|shm|ofi and provider=NAME", len > 40 ? 40 : (int)len, p);
}

static int parse_query(struct pli_uri *uri, const char *text, const char **pos)
{
    const char *p = *pos;
    unsigned seen = 0;

    do {
        size_t len = strcspn(++p, "&#");
        int rc = parse_option(uri, text, p, len, &seen);

        if (rc < 0)
            return rc;
        p += len;
    } while (*p == '&');
    *pos = p;
    if (uri->provider[0] && !(uri->transports & PLI_TRANSPORT_OFI))
        return bad(text, "provider=%s names a provider of libfabric, which transport=shm does not use", uri->provider);
    return 0;
}

int pli_uri_parse(struct pli_uri *uri, const char *text)
{
    const char *p = NULL;
    int rc;

    memset(uri, 0, sizeof *uri);
    uri->transports = PLI_TRANSPORT_SHM | PLI_TRANSPORT_OFI;
    if (!text)
        return pli_fail(PLAIT_E_INVAL, "the URI is NULL; a right one looks like " EXAMPLE);
    if (strncmp(text, SCHEME, sizeof SCHEME - 1) != 0)
        return bad(text, "it does not begin with " SCHEME);
    rc = parse_host(uri, text, text + sizeof SCHEME - 1, &p);
    if (rc == 0 && *p == ':')
        rc = parse_port(uri, text, &p);
    if (rc == 0 && *p == '/')
        rc = parse_resource(uri, text, &p);
    if (rc == 0 && *p == '?')
        rc = parse_query(uri, text, &p);
    if (rc < 0)
        return rc;
    if (*p == '#')
        return bad(text, "a fragment ('#') has no meaning here");
    return *p ? bad(text, "'%.20s' after the host is neither a port nor a resource", p) : 0;
}

/* Appends as much as fits. */
static void append(char *buf, size_t len, size_t *at, const char *s, size_t n)
{
    for (size_t i = 0; i < n && *at + 1 < len; i++)
        buf[(*at)++] = s[i];
}

static void append_resource(char *buf, size_t len, size_t *at, const char *s)
{
    append(buf, len, at, "/", 1);
    for (; *s; s++) {
        char code[4];

        if (is_alnum(*s) || strchr("-._~/!$&'()*+,;=:@", *s)) {
            append(buf, len, at, s, 1);
        } else if (*at + 3 < len) { /* never half a character */
            snprintf(code, sizeof code, "%%%02X", (unsigned char)*s);
            append(buf, len, at, code, 3);
        }
    }
}

void pli_uri_format(const struct pli_uri *uri, char *buf, size_t len)
{
    bool ipv6 = strchr(uri->host, ':') != NULL;
    size_t at = 0;
    char port[8];

    if (!len)
        return;
    append(buf, len, &at, SCHEME, sizeof SCHEME - 1);
    append(buf, len, &at, "[", ipv6);
    for (const char *h = uri->host; *h; h++)
        append(buf, len, &at, *h == '%' ? "%25" : h, *h == '%' ? 3 : 1);
    append(buf, len, &at, "]", ipv6);
    if (uri->port) {
        snprintf(port, sizeof port, ":%u", uri->port);
        append(buf, len, &at, port, strlen(port));
    }
    if (uri->resource[0])
        append_resource(buf, len, &at, uri->resource);
    if (uri->transports == PLI_TRANSPORT_SHM)
        append(buf, len, &at, "?transport=shm", 14);
    else if (uri->transports == PLI_TRANSPORT_OFI)
        append(buf, len, &at, "?transport=ofi", 14);
    if (uri->provider[0]) {
        append(buf, len, &at, uri->transports == PLI_TRANSPORT_OFI ? "&provider=" : "?provider=", 10);
        append(buf, len, &at, uri->provider, strlen(uri->provider));
    }
    buf[at] = '\0';
}
