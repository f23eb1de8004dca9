/* SPDX-License-Identifier: BSD-3-Clause */
/* Answers process_vm_readv(2) in place of the C library's: for one file of a test program. Two contexts of one process may always read each other. */
#ifndef PLI_TEST_REFUSE_READS_H
#define PLI_TEST_REFUSE_READS_H

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static unsigned allowed = UINT_MAX; /* calls that are still let through */

ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long nlocal, const struct iovec *remote, unsigned long nremote,
                         unsigned long flags)
{
    if (!allowed) {
        memset(local[0].iov_base, 0xee, local[0].iov_len / 2); /* as if it had been refused in the middle */
        errno = EPERM;
        return -1;
    }
    if (allowed != UINT_MAX)
        allowed--;
    return syscall(SYS_process_vm_readv, pid, local, nlocal, remote, nremote, flags);
}

#endif
