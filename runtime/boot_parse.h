/* SPDX-License-Identifier: BSD-3-Clause */
/* Parsers for what launchers say. Pure functions: no I/O, no allocation, no globals; any thread. On a
 * refusal they return -1 and point *why to a static text. */
#ifndef PLI_RUNTIME_BOOT_PARSE_H
#define PLI_RUNTIME_BOOT_PARSE_H

#include <stddef.h>
#include <stdint.h>

#define PLI_PMI1_FIELDS 16

struct pli_pmi1_msg {
    unsigned n;
    struct {
        const char *key, *val;
    } field[PLI_PMI1_FIELDS];
};

/* Splits one PMI-1 line ("cmd=x key=value ...\n") in place; line has len bytes, the newline the last. The
 * fields point into line. The first field is 'cmd'. */
int pli_pmi1_parse(char *line, size_t len, struct pli_pmi1_msg *msg, const char **why);

/* The value of a field, or NULL. */
const char *pli_pmi1_field(const struct pli_pmi1_msg *msg, const char *key);

/* A decimal number without sign or blanks, at most max. */
int pli_boot_parse_uint(const char *text, uint32_t max, uint32_t *out);

/* PMI_process_mapping, "(vector,(first node,nodes,ranks per node),...)": node[r] for each of size ranks. The
 * blocks repeat until every rank has a node. */
int pli_boot_parse_mapping(const char *text, uint32_t size, uint32_t *node, const char **why);

/* "0,1,4-6": ranks below size; ranks[] has room for size of them and is filled in ascending order. */
int pli_boot_parse_ranks(const char *text, uint32_t size, uint32_t *ranks, uint32_t *n, const char **why);

/* base64 with '-' and '_' and no padding, as PMI-1 values can hold neither blanks nor '='. encode writes
 * pli_boot_b64_len(len) characters and a NUL. decode returns the number of bytes, -1 if it is not such text
 * or does not fit. */
size_t pli_boot_b64_len(size_t len);
void pli_boot_b64_encode(const void *data, size_t len, char *out);
int pli_boot_b64_decode(const char *text, void *out, size_t cap);

#endif
