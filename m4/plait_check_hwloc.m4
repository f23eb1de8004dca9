# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_HWLOC(MINIMUM)
# hwloc is required: HWLOC_CFLAGS, HWLOC_LIBS.
AC_DEFUN([PLAIT_CHECK_HWLOC], [
  PKG_CHECK_MODULES([HWLOC], [hwloc >= $1],
    [plait_hwloc=$($PKG_CONFIG --modversion hwloc)],
    [AC_MSG_ERROR([hwloc $1 or newer not found: install libhwloc-dev (Debian), hwloc-devel (Fedora),
  or set HWLOC_CFLAGS and HWLOC_LIBS])])
])
