/* SPDX-License-Identifier: BSD-3-Clause */
/* What the library logs, caught and counted. */
#ifndef PLI_TEST_CATCH_LOG_H
#define PLI_TEST_CATCH_LOG_H

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int log_fd = -1;

/* The warnings go where the test can count them. */
static inline void catch_log(void)
{
    log_fd = memfd_create("log", MFD_CLOEXEC);
    cr_assert_geq(log_fd, 0);
    cr_assert_geq(dup2(log_fd, STDERR_FILENO), 0);
}

static inline int count_in_log(const char *word)
{
    static char text[65536];
    ssize_t len = pread(log_fd, text, sizeof text - 1, 0);
    const char *p = text;
    int n = 0;

    cr_assert_geq(len, 0);
    text[len] = '\0';
    while ((p = strstr(p, word)) != NULL) {
        p += strlen(word);
        n++;
    }
    return n;
}

#endif
