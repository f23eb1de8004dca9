/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer target: bytes that a peer could send on a control channel.
 *
 * What the parser accepts must be the same, byte by byte, when it is encoded again, and its fields must lie
 * within the frame. The bytes are also taken as a URI. The sanitizers watch the rest. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/peeraddr.h"
#include "test/unit/runtime/wire_samples.h"
#include "util/err.h"

#define CAP (PLI_WIRE_HEAD + PLI_WIRE_MAX)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define CHECK(what)                                                                                          \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "not true: %s (%s)\n", #what, pli_err_text());                                   \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static void check_frame(const uint8_t *data, size_t size)
{
    static uint8_t again[CAP];
    struct pli_wire_msg msg, twice;
    int n = pli_wire_parse(data, size, &msg);

    CHECK(n >= 0 || n == PLAIT_E_PROTO || n == PLAIT_E_VERSION);
    CHECK(n <= (int)CAP && (n <= 0 || (size_t)n <= size));
    if (n <= 0)
        return;
    CHECK(pli_wire_encode(again, sizeof again, &msg) == n);
    CHECK(memcmp(again, data, (size_t)n) == 0);
    CHECK(pli_wire_parse(again, (size_t)n, &twice) == n);
    /* one byte less is not enough */
    CHECK(pli_wire_parse(data, (size_t)n - 1, &twice) == 0);
    if (msg.type == PLI_WIRE_SESSION_ACCEPT)
        for (uint32_t i = 0; i < msg.accept.nportals; i++)
            CHECK(pli_wire_portal(&msg, i) != 0);
}

static void check_uri(const uint8_t *data, size_t size)
{
    char text[2048], formatted[PLI_URI_TEXT];
    struct pli_uri uri, again;

    if (size >= sizeof text)
        return;
    memcpy(text, data, size);
    text[size] = '\0';
    if (pli_uri_parse(&uri, text) < 0)
        return;
    pli_uri_format(&uri, formatted, sizeof formatted);
    CHECK(pli_uri_parse(&again, formatted) == 0);
    CHECK(strcmp(uri.host, again.host) == 0 && uri.port == again.port);
    CHECK(strcmp(uri.resource, again.resource) == 0 && uri.transports == again.transports);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_frame(data, size);
    check_uri(data, size);
    return 0;
}

static void write_file(const char *dir, const char *name, const void *data, size_t len)
{
    char path[4096];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    if (!f || fwrite(data, 1, len, f) != len || fclose(f) != 0) {
        fprintf(stderr, "cannot write %s\n", path);
        exit(1);
    }
}

/* fuzz_wire -corpus=DIR writes one valid frame of every type, and a URI, and ends. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char uri[] = "plait://[fe80::1%25eth0]:4711/a%20b?transport=shm";
    static uint8_t frame[CAP];
    const char *dir;

    if (*argc != 2 || strncmp((*argv)[1], "-corpus=", 8) != 0)
        return 0;
    dir = (*argv)[1] + 8;
    for (unsigned type = 1; type < PLI_WIRE_TYPES; type++) {
        struct pli_wire_msg msg;
        int len;

        sample_message(&msg, (enum pli_wire_type)type);
        len = pli_wire_encode(frame, sizeof frame, &msg);
        CHECK(len > 0);
        write_file(dir, pli_wire_type_name(type), frame, (size_t)len);
    }
    write_file(dir, "URI", uri, sizeof uri - 1);
    exit(0);
}
