# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_KERNEL_HEADERS
# What glibc and the kernel's headers offer; the running kernel is asked at run time.
AC_DEFUN([PLAIT_CHECK_KERNEL_HEADERS], [
  AC_CHECK_FUNC([memfd_create], [], [AC_MSG_ERROR([memfd_create not found: glibc 2.27 or newer is needed])])
  AC_CHECK_FUNC([process_vm_readv], [], [AC_MSG_ERROR([process_vm_readv not found])])
  AC_CHECK_HEADERS([linux/membarrier.h])
])
