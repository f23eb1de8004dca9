/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/boot_parse.h"
#include "util/rand.h"

/* ---- PMI-1 lines ---- */

static int parse(const char *text, struct pli_pmi1_msg *msg, char *line)
{
    const char *why = NULL;
    int rc;

    strcpy(line, text);
    rc = pli_pmi1_parse(line, strlen(line), msg, &why);
    cr_assert(rc == 0 || why != NULL);
    return rc;
}

Test(boot_parse, pmi1_fields)
{
    char line[256];
    struct pli_pmi1_msg msg;

    cr_assert_eq(parse("cmd=get_result rc=0  msg=success value=(vector,(0,1,4)) \n", &msg, line), 0);
    cr_assert_eq(msg.n, 4);
    cr_assert_str_eq(pli_pmi1_field(&msg, "cmd"), "get_result");
    cr_assert_str_eq(pli_pmi1_field(&msg, "value"), "(vector,(0,1,4))");
    cr_assert_null(pli_pmi1_field(&msg, "val"));
    cr_assert_eq(parse("cmd=x value=a=b=c empty=\n", &msg, line), 0);
    cr_assert_str_eq(pli_pmi1_field(&msg, "value"), "a=b=c");
    cr_assert_str_eq(pli_pmi1_field(&msg, "empty"), "");
}

Test(boot_parse, pmi1_refuses)
{
    static const char *const bad[] = {
        "cmd=x", /* no newline */
        "\n",
        " \n", /* nothing */
        "cmd\n",
        "cmd=x rc\n", /* no '=' */
        "=x\n",
        "cmd=x =\n",         /* no key */
        "rc=0 cmd=x\n",      /* cmd is not first */
        "cmd=x rc=0 rc=1\n", /* twice */
        "cmd=x\tv=1\n",
        "cmd=x\r\n",
        "cmd=\x7f\n",
        "cmd=\xc3\xa4\n",
        "cmd=x a=1 b=1 c=1 d=1 e=1 f=1 g=1 h=1 i=1 j=1 k=1 l=1 m=1 n=1 o=1 p=1\n",
    };
    char line[256] = "cmd=x\0y=z\n";
    struct pli_pmi1_msg msg;
    const char *why;

    cr_assert_eq(pli_pmi1_parse(line, 10, &msg, &why), -1, "a NUL byte was accepted");
    cr_assert_eq(pli_pmi1_parse(line, 0, &msg, &why), -1);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(parse(bad[i], &msg, line), -1, "accepted: %s", bad[i]);
}

/* Random edits of a good line: no crash (the sanitizers watch), and fields that lie within the line. */
Test(boot_parse, pmi1_random_edits)
{
    static const char good[] = "cmd=get_result rc=0 msg=success value=(vector,(0,1,4))\n";
    struct pli_rand r;

    pli_rand_seed(&r, 42);
    for (int round = 0; round < 20000; round++) {
        size_t len = sizeof good - 1 - pli_rand_below(&r, 8);
        char *line = malloc(len);
        struct pli_pmi1_msg msg;
        const char *why;

        memcpy(line, good, len);
        for (unsigned k = (unsigned)pli_rand_below(&r, 4); k > 0; k--)
            line[pli_rand_below(&r, len)] = (char)pli_rand_below(&r, 256);
        if (pli_rand_below(&r, 2))
            line[len - 1] = '\n';
        if (pli_pmi1_parse(line, len, &msg, &why) == 0)
            for (unsigned i = 0; i < msg.n; i++)
                cr_assert(msg.field[i].key >= line &&
                          msg.field[i].val + strlen(msg.field[i].val) < line + len);
        free(line);
    }
}

/* ---- numbers ---- */

Test(boot_parse, uint)
{
    static const char *const bad[] = { "",    " 1", "1 ",  "+1",         "-1",
                                       "0x1", "a",  "101", "4294967296", "99999999999999999999" };
    uint32_t v = 7;

    cr_assert_eq(pli_boot_parse_uint("0", 100, &v), 0);
    cr_assert_eq(v, 0);
    cr_assert_eq(pli_boot_parse_uint("0100", 100, &v), 0);
    cr_assert_eq(v, 100);
    cr_assert_eq(pli_boot_parse_uint("4294967295", UINT32_MAX, &v), 0);
    cr_assert_eq(v, UINT32_MAX);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(pli_boot_parse_uint(bad[i], 100, &v), -1, "accepted: '%s'", bad[i]);
    cr_assert_eq(v, UINT32_MAX, "a refusal wrote a value");
}

/* ---- PMI_process_mapping ---- */

static void check_mapping(const char *text, uint32_t size, const uint32_t *want)
{
    uint32_t node[64];
    const char *why = "";

    cr_assert_eq(pli_boot_parse_mapping(text, size, node, &why), 0, "%s: %s", text, why);
    for (uint32_t r = 0; r < size; r++)
        cr_assert_eq(node[r], want[r], "%s: rank %u is on node %u, not %u", text, r, node[r], want[r]);
}

Test(boot_parse, mapping)
{
    check_mapping("(vector,(0,1,4))", 4, (uint32_t[]){ 0, 0, 0, 0 });
    check_mapping("(vector,(0,2,2))", 4, (uint32_t[]){ 0, 0, 1, 1 });
    check_mapping("(vector,(0,2,2),(2,1,1))", 5, (uint32_t[]){ 0, 0, 1, 1, 2 });
    check_mapping(" ( vector , ( 3 , 2 , 1 ) )", 2, (uint32_t[]){ 3, 4 });
    /* more ranks than places: the blocks repeat (mpiexec with fewer hosts than ranks) */
    check_mapping("(vector,(0,2,1))", 5, (uint32_t[]){ 0, 1, 0, 1, 0 });
    /* fewer ranks than places */
    check_mapping("(vector,(0,16777216,16777216))", 2, (uint32_t[]){ 0, 0 });
}

Test(boot_parse, mapping_refuses)
{
    static const char *const bad[] = {
        "",
        "(",
        "vector",
        "(vector",
        "(vector)",
        "(vector,)",
        "(vector,(0,1,4)",
        "(vector,(0,1,4)))",
        "(vector,(0,1,4)) x",
        "(vector,(0,1,4),)",
        "(vector,(0,1))",
        "(vector,(0,1,4,5))",
        "(vector,(0,0,4))",
        "(vector,(0,1,0))",
        "(vector,(-1,1,4))",
        "(vector,(0,1,99999999999))",
        "(vector(0,1,4))",
        "(vec,(0,1,4))",
        "(vector,(0,1,4),(0,1,x))",
        "()",
        "(vector,(,,))",
    };
    uint32_t node[8];
    const char *why;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(pli_boot_parse_mapping(bad[i], 2, node, &why), -1, "accepted: %s", bad[i]);
}

/* ---- rank lists ---- */

static void check_ranks(const char *text, uint32_t size, uint32_t n_want, const uint32_t *want)
{
    uint32_t *ranks = malloc(size * sizeof *ranks), n;
    const char *why = "";

    cr_assert_eq(pli_boot_parse_ranks(text, size, ranks, &n, &why), 0, "%s: %s", text, why);
    cr_assert_eq(n, n_want);
    cr_assert_eq(memcmp(ranks, want, n * sizeof *ranks), 0, "%s", text);
    free(ranks);
}

Test(boot_parse, ranks)
{
    static const char *const bad[] = { "",      ",",   "0,",  ",0",
                                       "0,,1",  "0 1", "8",   "0-8",
                                       "3-1",   "0-",  "-1",  "0,1,0",
                                       "0-3,2", "x",   "0;1", "0,99999999999999999999" };
    uint32_t ranks[8], n;
    const char *why;

    check_ranks("0", 1, 1, (uint32_t[]){ 0 });
    check_ranks("0,1,2,3", 4, 4, (uint32_t[]){ 0, 1, 2, 3 });
    check_ranks("6,0-2,4", 8, 5, (uint32_t[]){ 0, 1, 2, 4, 6 });
    check_ranks("0-7", 8, 8, (uint32_t[]){ 0, 1, 2, 3, 4, 5, 6, 7 });
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(pli_boot_parse_ranks(bad[i], 8, ranks, &n, &why), -1, "accepted: '%s'", bad[i]);
    cr_assert_eq(pli_boot_parse_ranks("0", 0, ranks, &n, &why), -1);
}

/* ---- base64 ---- */

Test(boot_parse, b64_round_trip)
{
    unsigned char data[300], back[300];
    char text[401];

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 167 + 13);
    for (size_t len = 0; len <= sizeof data; len++) {
        pli_boot_b64_encode(data, len, text);
        cr_assert_eq(strlen(text), pli_boot_b64_len(len));
        cr_assert_eq(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
                     strlen(text));
        cr_assert_eq(pli_boot_b64_decode(text, back, len), (int)len);
        cr_assert_eq(memcmp(back, data, len), 0);
        if (len > 0)
            cr_assert_eq(pli_boot_b64_decode(text, back, len - 1), -1, "more than the room was written");
    }
}

Test(boot_parse, b64_refuses)
{
    static const char *const bad[] = { "A",
                                       "AAAAA",
                                       "AA=",
                                       "AA==",
                                       "A A",
                                       "AB",
                                       "AAB",
                                       "+/",
                                       "A\xff"
                                       "AA" };
    unsigned char out[16];

    cr_assert_eq(pli_boot_b64_decode("", out, 0), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(pli_boot_b64_decode(bad[i], out, sizeof out), -1, "accepted: '%s'", bad[i]);
}
