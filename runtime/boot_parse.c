/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/boot_parse.h"

#include <stdbool.h>
#include <string.h>

static const char b64_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static int refuse(const char **why, const char *text)
{
    *why = text;
    return -1;
}

/* ---- PMI-1 lines ---- */

static int add_field(struct pli_pmi1_msg *msg, char *token, const char **why)
{
    char *eq = strchr(token, '=');

    if (!eq || eq == token)
        return refuse(why, "a word is not of the form key=value");
    if (msg->n == PLI_PMI1_FIELDS)
        return refuse(why, "it has too many fields");
    *eq = '\0';
    for (unsigned i = 0; i < msg->n; i++)
        if (strcmp(msg->field[i].key, token) == 0)
            return refuse(why, "a key stands in it twice");
    msg->field[msg->n].key = token;
    msg->field[msg->n].val = eq + 1;
    msg->n++;
    return 0;
}

int pli_pmi1_parse(char *line, size_t len, struct pli_pmi1_msg *msg, const char **why)
{
    size_t i = 0;

    msg->n = 0;
    if (len == 0 || line[len - 1] != '\n')
        return refuse(why, "it has no end of line");
    for (size_t k = 0; k + 1 < len; k++)
        if ((unsigned char)line[k] < 0x20 || (unsigned char)line[k] > 0x7e)
            return refuse(why, "it has unprintable bytes");
    line[len - 1] = '\0';
    while (line[i]) {
        char *token = line + i;
        size_t n = strcspn(token, " ");
        bool last = token[n] == '\0';

        token[n] = '\0';
        if (n > 0 && add_field(msg, token, why) < 0)
            return -1;
        i += n + (last ? 0 : 1);
    }
    if (msg->n == 0 || strcmp(msg->field[0].key, "cmd") != 0)
        return refuse(why, "it does not begin with cmd=");
    return 0;
}

const char *pli_pmi1_field(const struct pli_pmi1_msg *msg, const char *key)
{
    for (unsigned i = 0; i < msg->n; i++)
        if (strcmp(msg->field[i].key, key) == 0)
            return msg->field[i].val;
    return NULL;
}

/* ---- numbers and rank lists ---- */

static int scan_uint(const char **p, uint32_t max, uint32_t *out)
{
    const char *s = *p;
    uint64_t v = 0;

    if (*s < '0' || *s > '9')
        return -1;
    for (; *s >= '0' && *s <= '9'; s++) {
        v = v * 10 + (uint64_t)(*s - '0');
        if (v > max)
            return -1;
    }
    *p = s;
    *out = (uint32_t)v;
    return 0;
}

int pli_boot_parse_uint(const char *text, uint32_t max, uint32_t *out)
{
    uint32_t v;

    if (scan_uint(&text, max, &v) < 0 || *text)
        return -1;
    *out = v;
    return 0;
}

/* Launchers list ranks in ascending order or nearly so: insertion is linear then. */
static int insert_rank(uint32_t *ranks, uint32_t *n, uint32_t rank)
{
    uint32_t i = *n;

    while (i > 0 && ranks[i - 1] > rank)
        i--;
    if (i > 0 && ranks[i - 1] == rank)
        return -1;
    memmove(ranks + i + 1, ranks + i, (*n - i) * sizeof *ranks);
    ranks[i] = rank;
    (*n)++;
    return 0;
}

int pli_boot_parse_ranks(const char *text, uint32_t size, uint32_t *ranks, uint32_t *n, const char **why)
{
    const char *p = text;
    uint32_t first, last;

    *n = 0;
    if (size == 0)
        return refuse(why, "the job has no ranks");
    for (;;) {
        if (scan_uint(&p, size - 1, &first) < 0)
            return refuse(why, "it names no rank of the job where one is due");
        last = first;
        if (*p == '-') {
            p++;
            if (scan_uint(&p, size - 1, &last) < 0 || last < first)
                return refuse(why, "it has a range that is not one of ranks of the job");
        }
        for (uint32_t r = first; r <= last; r++)
            if (insert_rank(ranks, n, r) < 0)
                return refuse(why, "it names a rank twice");
        if (!*p)
            return 0;
        if (*p++ != ',')
            return refuse(why, "it has something else than numbers, ',' and '-'");
    }
}

/* ---- PMI_process_mapping ---- */

struct block {
    uint32_t first, nodes, per_node;
};

static bool eat(const char **p, const char *word)
{
    size_t n = strlen(word);

    while (**p == ' ')
        (*p)++;
    if (strncmp(*p, word, n) != 0)
        return false;
    *p += n;
    while (**p == ' ')
        (*p)++;
    return true;
}

static int scan_block(const char **p, struct block *b)
{
    const uint32_t max = 1u << 24;

    if (!eat(p, "(") || scan_uint(p, max, &b->first) < 0 || !eat(p, ",") ||
        scan_uint(p, max, &b->nodes) < 0 || !eat(p, ",") || scan_uint(p, max, &b->per_node) < 0 ||
        !eat(p, ")"))
        return -1;
    return b->nodes > 0 && b->per_node > 0 ? 0 : -1;
}

static void place_block(const struct block *b, uint32_t size, uint32_t *node, uint32_t *next)
{
    for (uint32_t i = 0; i < b->nodes; i++)
        for (uint32_t k = 0; k < b->per_node; k++) {
            if (*next == size)
                return;
            node[(*next)++] = b->first + i;
        }
}

/* One pass over the text; the ranks from *next on get their nodes. */
static int place_once(const char *p, uint32_t size, uint32_t *node, uint32_t *next, const char **why)
{
    struct block b;
    bool any = false;

    if (!eat(&p, "(") || !eat(&p, "vector"))
        return refuse(why, "it does not begin with (vector,");
    while (eat(&p, ",")) {
        if (scan_block(&p, &b) < 0)
            return refuse(why, "it has a block that is not (first node,nodes,ranks per node)");
        place_block(&b, size, node, next);
        any = true;
    }
    if (!any || !eat(&p, ")") || *p)
        return refuse(why, "it does not end as it should");
    return 0;
}

int pli_boot_parse_mapping(const char *text, uint32_t size, uint32_t *node, const char **why)
{
    uint32_t next = 0;

    do {
        if (place_once(text, size, node, &next, why) < 0)
            return -1;
    } while (next < size);
    return 0;
}

/* ---- base64 ---- */

size_t pli_boot_b64_len(size_t len)
{
    return len / 3 * 4 + (len % 3 ? len % 3 + 1 : 0);
}

void pli_boot_b64_encode(const void *data, size_t len, char *out)
{
    const unsigned char *d = data;

    while (len > 0) {
        size_t n = len < 3 ? len : 3;
        uint32_t v = (uint32_t)d[0] << 16 | (n > 1 ? (uint32_t)d[1] << 8 : 0) | (n > 2 ? d[2] : 0);

        for (size_t i = 0; i <= n; i++)
            *out++ = b64_chars[v >> (18 - 6 * i) & 63];
        d += n;
        len -= n;
    }
    *out = '\0';
}

int pli_boot_b64_decode(const char *text, void *out, size_t cap)
{
    unsigned char *o = out;
    size_t n = 0, chars = strlen(text);
    uint32_t acc = 0;
    unsigned bits = 0;

    if (chars % 4 == 1)
        return -1;
    for (size_t i = 0; i < chars; i++) {
        const char *c = strchr(b64_chars, text[i]);

        if (!c)
            return -1;
        acc = (acc << 6 | (uint32_t)(c - b64_chars)) & 0xffffff;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            if (n == cap)
                return -1;
            o[n++] = (unsigned char)(acc >> bits);
        }
    }
    /* the bits left over are zero in what encode makes */
    return acc & ((1u << bits) - 1) ? -1 : (int)n;
}
