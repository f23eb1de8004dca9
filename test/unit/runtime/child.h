/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PLI_TEST_CHILD_H
#define PLI_TEST_CHILD_H

#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs fn in a child; what it asserts there is told by its exit status. */
static inline int in_child(int (*fn)(void *arg), void *arg)
{
    int status;
    pid_t pid = fork();

    cr_assert_geq(pid, 0);
    if (pid == 0)
        _exit(fn(arg));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "the child died of signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

#endif
