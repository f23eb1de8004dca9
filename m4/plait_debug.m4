# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_ENABLE_DEBUG
# --enable-debug: defines PLAIT_DEBUG for every file (thread-ownership and other internal checks).
AC_DEFUN([PLAIT_ENABLE_DEBUG], [
  AC_ARG_ENABLE([debug],
    [AS_HELP_STRING([--enable-debug], [check at run time which thread uses an object, and more])],
    [plait_debug=$enableval], [plait_debug=no])
  DEBUG_CPPFLAGS=
  AS_IF([test "x$plait_debug" = xyes], [DEBUG_CPPFLAGS="-DPLAIT_DEBUG=1"])
  AC_SUBST([DEBUG_CPPFLAGS])
  AM_CONDITIONAL([DEBUG_CHECKS], [test "x$plait_debug" = xyes])
])
