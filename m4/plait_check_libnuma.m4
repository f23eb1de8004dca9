# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_LIBNUMA
# libnuma is required: NUMA_LIBS. Its old versions have no .pc file, so the header and library are tried.
AC_DEFUN([PLAIT_CHECK_LIBNUMA], [
  AC_CHECK_HEADER([numaif.h], [],
    [AC_MSG_ERROR([numaif.h not found: install libnuma-dev (Debian) or numactl-devel (Fedora)])])
  plait_save_LIBS=$LIBS
  AC_CHECK_LIB([numa], [numa_available], [NUMA_LIBS=-lnuma],
    [AC_MSG_ERROR([libnuma not found: install libnuma-dev (Debian) or numactl-devel (Fedora)])])
  LIBS=$plait_save_LIBS
  plait_libnuma=$($PKG_CONFIG --modversion numa 2>/dev/null || echo yes)
  AC_SUBST([NUMA_LIBS])
])
