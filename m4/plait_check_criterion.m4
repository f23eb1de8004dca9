# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_CRITERION(MINIMUM)
# Criterion is for the unit tests only: CRITERION_CFLAGS, CRITERION_LIBS, conditional HAVE_CRITERION.
AC_DEFUN([PLAIT_CHECK_CRITERION], [
  PKG_CHECK_MODULES([CRITERION], [criterion >= $1],
    [plait_criterion=$($PKG_CONFIG --modversion criterion)], [plait_criterion=no])
  AM_CONDITIONAL([HAVE_CRITERION], [test "x$plait_criterion" != xno])
])
