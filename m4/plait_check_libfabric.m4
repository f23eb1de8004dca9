# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_LIBFABRIC(MINIMUM)
# Optional: defines HAVE_LIBFABRIC and PLAIT_LIBFABRIC_VERSION; LIBFABRIC_CFLAGS, LIBFABRIC_LIBS.
# Recorded only: nothing is linked with it before the fabric transport is built.
AC_DEFUN([PLAIT_CHECK_LIBFABRIC], [
  AC_ARG_WITH([libfabric],
    [AS_HELP_STRING([--without-libfabric], [do not look for libfabric])], [], [with_libfabric=check])
  plait_libfabric=no
  AS_IF([test "x$with_libfabric" != xno], [
    PKG_CHECK_MODULES([LIBFABRIC], [libfabric >= $1],
      [plait_libfabric=$($PKG_CONFIG --modversion libfabric)],
      [AS_IF([test "x$with_libfabric" = xyes], [AC_MSG_ERROR([libfabric $1 or newer not found])])])
  ])
  AS_IF([test "x$plait_libfabric" != xno], [
    AC_DEFINE([HAVE_LIBFABRIC], [1], [Define if libfabric is there])
    AC_DEFINE_UNQUOTED([PLAIT_LIBFABRIC_VERSION], ["$plait_libfabric"], [libfabric's version at build time])
  ])
  AM_CONDITIONAL([HAVE_LIBFABRIC], [test "x$plait_libfabric" != xno])
])
