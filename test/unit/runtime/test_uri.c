/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/peeraddr.h"
#include "util/err.h"

#define AUTO (PLI_TRANSPORT_SHM | PLI_TRANSPORT_OFI)

static const struct {
    const char *text, *host;
    uint16_t port;
    const char *resource;
    uint32_t transports;
    const char *again; /* as it is formatted, if that differs */
    const char *provider;
} good[] = {
    {"plait://node7:4711/render", "node7", 4711, "render", AUTO, NULL, ""},
    {"plait://node7", "node7", 0, "", AUTO, NULL, ""},
    {"plait://node7:0/", "node7", 0, "", AUTO, "plait://node7", ""},
    {"plait://node-7.cluster_a.example.com:65535", "node-7.cluster_a.example.com", 65535, "", AUTO, NULL, ""},
    {"plait://*:5000", "*", 5000, "", AUTO, NULL, ""},
    {"plait://*", "*", 0, "", AUTO, NULL, ""},
    {"plait://", "", 0, "", AUTO, NULL, ""},
    {"plait://:5000/a", "", 5000, "a", AUTO, NULL, ""},
    {"plait:///a/b?transport=shm", "", 0, "a/b", PLI_TRANSPORT_SHM, NULL, ""},
    {"plait://10.0.0.1:1/x?transport=ofi", "10.0.0.1", 1, "x", PLI_TRANSPORT_OFI, NULL, ""},
    {"plait://h?transport=auto", "h", 0, "", AUTO, "plait://h", ""},
    {"plait://h/r?transport=auto", "h", 0, "r", AUTO, "plait://h/r", ""},
    {"plait://[::1]:4711/r", "::1", 4711, "r", AUTO, NULL, ""},
    {"plait://[fe80::1%eth0]:4711", "fe80::1%eth0", 4711, "", AUTO, "plait://[fe80::1%25eth0]:4711", ""},
    {"plait://[fe80::1%25eth0]", "fe80::1%eth0", 0, "", AUTO, NULL, ""},
    {"plait://h/a%20b%2fc%C3%A4", "h", 0, "a b/c\xc3\xa4", AUTO, "plait://h/a%20b/c%C3%A4", ""},
    {"plait://h/a:b@c&d=e;f", "h", 0, "a:b@c&d=e;f", AUTO, NULL, ""},
    {"plait://h/100%25", "h", 0, "100%", AUTO, NULL, ""},
    {"plait://h?provider=tcp", "h", 0, "", AUTO, NULL, "tcp"},
    {"plait://h/r?transport=ofi&provider=verbs;ofi_rxm", "h", 0, "r", PLI_TRANSPORT_OFI, NULL, "verbs;ofi_rxm"},
    {"plait://h?provider=psm3&transport=auto", "h", 0, "", AUTO, "plait://h?provider=psm3", "psm3"},
    {"plait://h?provider=net&transport=ofi", "h", 0, "", PLI_TRANSPORT_OFI, "plait://h?transport=ofi&provider=net", "net"},
    {"plait://h?provider=a.b-c_d0123456789012345678901", "h", 0, "", AUTO, NULL, "a.b-c_d0123456789012345678901"},
};

Test(uri, good_ones_are_taken_apart_and_put_together)
{
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct pli_uri uri, twice;
        char text[PLI_URI_TEXT];

        cr_assert_eq(pli_uri_parse(&uri, good[i].text), 0, "%s: %s", good[i].text, pli_err_text());
        cr_expect_str_eq(uri.host, good[i].host);
        cr_expect_eq(uri.port, good[i].port);
        cr_expect_str_eq(uri.resource, good[i].resource);
        cr_expect_eq(uri.transports, good[i].transports);
        cr_expect_str_eq(uri.provider, good[i].provider);
        pli_uri_format(&uri, text, sizeof text);
        cr_expect_str_eq(text, good[i].again ? good[i].again : good[i].text);
        cr_assert_eq(pli_uri_parse(&twice, text), 0, "%s: %s", text, pli_err_text());
        cr_expect_str_eq(twice.host, uri.host);
        cr_expect_eq(twice.port, uri.port);
        cr_expect_str_eq(twice.resource, uri.resource);
        cr_expect_eq(twice.transports, uri.transports);
        cr_expect_str_eq(twice.provider, uri.provider);
    }
}

static const struct {
    const char *text, *why;
} malformed[] = {
    {"", "does not begin with plait://"},
    {"node7:4711", "does not begin with plait://"},
    {"tcp://node7:4711", "does not begin with plait://"},
    {"plait:/node7", "does not begin with plait://"},
    {"PLAIT://node7", "does not begin with plait://"},
    {"plait://node 7", "character ' '"},
    {"plait://node7,node8", "character ','"},
    {"plait://**", "character '*'"},
    {"plait://n\xc3\xb6", "character '?'"},
    {"plait://me@node7", "user name"},
    {"plait://node7:", "port is not a number"},
    {"plait://node7:http", "port is not a number"},
    {"plait://node7:47x", "port is not a number"},
    {"plait://node7:-1", "port is not a number"},
    {"plait://node7:4711x/r", "port is not a number"},
    {"plait://node7:65536", "over 65535"},
    {"plait://node7:99999999999999999999", "port is"},
    {"plait://::1:4711", "brackets"},
    {"plait://fe80:1:2:4711", "brackets"},
    {"plait://[::1", "has no ']'"},
    {"plait://[::1]x", "neither a port nor a resource"},
    {"plait://[node7]:1", "not an IPv6 address"},
    {"plait://[]:1", "not an IPv6 address"},
    {"plait://[1.2.3.4]:1", "not an IPv6 address"},
    {"plait://[fe80::1%]:1", "zone"},
    {"plait://[fe80::1%e/0]:1", "zone"},
    {"plait://[fe80::1%sixteen_letters_]:1", "16 characters, an interface's name at most 15"},
    {"plait://h/%", "hexadecimal"},
    {"plait://h/%4", "hexadecimal"},
    {"plait://h/%zz", "hexadecimal"},
    {"plait://h/a%00b", "control character 0x00"},
    {"plait://h/a\nb", "control character 0x0a"},
    {"plait://h/r#part", "fragment"},
    {"plait://h#part", "fragment"},
    {"plait://h?", "unknown option"},
    {"plait://h?transport", "unknown option"},
    {"plait://h?transports=shm", "unknown option 'transports=shm'"},
    {"plait://h?transport=", "transport ''"},
    {"plait://h?transport=tcp", "transport 'tcp'"},
    {"plait://h?transport=shmx", "transport 'shmx'"},
    {"plait://h?transport=shm&transport=shm", "twice"},
    {"plait://h?transport=shm&", "unknown option"},
    {"plait://h?provider", "unknown option 'provider'"},
    {"plait://h?providers=tcp", "unknown option 'providers=tcp'"},
    {"plait://h?provider=", "0 characters"},
    {"plait://h?provider=an_endless_name_that_has_32_byte", "32 characters, not 1 to 31"},
    {"plait://h?provider=tcp%20", "provider 'tcp%20'"},
    {"plait://h?provider=tcp,verbs", "provider 'tcp,verbs'"},
    {"plait://h?provider=tcp&provider=net", "provider is given twice"},
    {"plait://h?provider=tcp&transport=shm", "transport=shm does not use"},
    {"plait://h?transport=shm&timeout=3", "unknown option 'timeout=3'"},
};

Test(uri, malformed_ones_are_quoted_and_explained)
{
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        struct pli_uri uri;

        cr_expect_eq(pli_uri_parse(&uri, malformed[i].text), PLAIT_E_INVAL, "%s is accepted",
                     malformed[i].text);
        cr_expect(strstr(pli_err_text(), malformed[i].why), "%s: %s", malformed[i].text, pli_err_text());
        cr_expect(strstr(pli_err_text(), malformed[i].text), "%s is not quoted", malformed[i].text);
        cr_expect(strstr(pli_err_text(), "plait://node7:4711/render"), "no example: %s", pli_err_text());
    }
}

Test(uri, null_is_malformed)
{
    struct pli_uri uri;

    cr_expect_eq(pli_uri_parse(&uri, NULL), PLAIT_E_INVAL);
}

static char *long_uri(const char *head, char c, size_t n)
{
    size_t at = strlen(head);
    char *s = malloc(at + n + 1);

    memcpy(s, head, at);
    memset(s + at, c, n);
    s[at + n] = '\0';
    return s;
}

Test(uri, lengths_are_limited)
{
    struct pli_uri uri;
    char *s = long_uri("plait://", 'h', 253), text[PLI_URI_TEXT];

    cr_expect_eq(pli_uri_parse(&uri, s), 0);
    free(s);
    s = long_uri("plait://", 'h', 254);
    cr_expect_eq(pli_uri_parse(&uri, s), PLAIT_E_INVAL);
    cr_expect(strstr(pli_err_text(), "at most 253"), "%s", pli_err_text());
    free(s);
    s = long_uri("plait://[", '1', 300);
    cr_expect_eq(pli_uri_parse(&uri, s), PLAIT_E_INVAL);
    free(s);
    s = long_uri("plait://h/", '\xff', PLI_WIRE_RESOURCE_MAX);
    cr_expect_eq(pli_uri_parse(&uri, s), 0);
    pli_uri_format(&uri, text, sizeof text);
    cr_expect_eq(strlen(text), 10 + 3 * PLI_WIRE_RESOURCE_MAX);
    free(s);
    s = long_uri("plait://h/", 'r', PLI_WIRE_RESOURCE_MAX + 1);
    cr_expect_eq(pli_uri_parse(&uri, s), PLAIT_E_INVAL);
    cr_expect(strstr(pli_err_text(), "1023"), "%s", pli_err_text());
    free(s);
}

Test(uri, formatting_keeps_within_its_buffer)
{
    struct pli_uri uri;

    cr_assert_eq(pli_uri_parse(&uri, "plait://[fe80::1%25eth0]:4711/a%20b?transport=ofi&provider=verbs;ofi_rxm"), 0);
    for (size_t len = 0; len < 96; len++) {
        char *buf = malloc(len);

        pli_uri_format(&uri, buf, len);
        cr_expect(len == 0 || strlen(buf) < len);
        free(buf);
    }
}

/* ---- identity ---- */

Test(identity, stays_the_same_in_a_process)
{
    uint8_t id[PLI_ID_LEN], host[PLI_HOST_LEN];

    memcpy(id, pli_incarnation(), sizeof id);
    memcpy(host, pli_host_id(), sizeof host);
    cr_expect_arr_eq(pli_incarnation(), id, sizeof id);
    cr_expect_arr_eq(pli_host_id(), host, sizeof host);
}

/* Runs fn in a child; true if it returned true. */
static bool in_child(bool (*fn)(const uint8_t *id, const uint8_t *host), const uint8_t *id,
                     const uint8_t *host)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0)
        _exit(fn(id, host) ? 0 : 1);
    cr_assert_gt(pid, 0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return status == 0;
}

static bool same_host_new_process(const uint8_t *id, const uint8_t *host)
{
    return memcmp(id, pli_incarnation(), PLI_ID_LEN) != 0 && memcmp(host, pli_host_id(), PLI_HOST_LEN) == 0;
}

Test(identity, a_forked_child_is_another_process_of_the_same_host)
{
    uint8_t id[PLI_ID_LEN];

    memcpy(id, pli_incarnation(), sizeof id);
    cr_expect(in_child(same_host_new_process, id, pli_host_id()));
}

static int host_from_child(int (*prepare)(void), uint8_t *host)
{
    int p[2], status = 0;
    pid_t pid;

    cr_assert_eq(pipe(p), 0);
    pid = fork();
    if (pid == 0) {
        if (prepare && prepare() < 0)
            _exit(77);
        _exit(write(p[1], pli_host_id(), PLI_HOST_LEN) == PLI_HOST_LEN ? 0 : 1);
    }
    close(p[1]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    if (WEXITSTATUS(status) == 77)
        cr_skip_test("namespaces cannot be made here");
    cr_assert_eq(read(p[0], host, PLI_HOST_LEN), PLI_HOST_LEN);
    close(p[0]);
    return 0;
}

static int other_net(void)
{
    return unshare(CLONE_NEWNET);
}

static int other_user(void)
{
    return unshare(CLONE_NEWUSER);
}

static int other_boot(void)
{
    char path[] = "/tmp/plait-test-XXXXXX";
    int fd, rc;

    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -1;
    fd = mkstemp(path);
    if (fd < 0 || write(fd, "00112233-4455-6677-8899-aabbccddeeff\n", 37) != 37)
        return -1;
    rc = mount(path, "/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL);
    unlink(path);
    close(fd);
    return rc;
}

Test(identity, hosts_differ_by_boot_and_by_namespace)
{
    static int (*const others[])(void) = {other_net, other_user, other_boot};
    uint8_t here[PLI_HOST_LEN], there[PLI_HOST_LEN];

    host_from_child(NULL, here);
    host_from_child(NULL, there);
    cr_expect_arr_eq(here, there, PLI_HOST_LEN);
    for (int i = 0; i < 3; i++) {
        host_from_child(others[i], there);
        cr_expect_arr_neq(here, there, PLI_HOST_LEN, "case %d", i);
        if (others[i] == other_boot)
            cr_expect_arr_eq(there, ((const uint8_t[]){0, 0x11, 0x22, 0x33, 0x44}), 5);
    }
}
