# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_LIBPNG
# libpng is for examples/heat only: LIBPNG_CFLAGS, LIBPNG_LIBS, conditional HAVE_LIBPNG.
AC_DEFUN([PLAIT_CHECK_LIBPNG], [
  PKG_CHECK_MODULES([LIBPNG], [libpng],
    [plait_libpng=$($PKG_CONFIG --modversion libpng)], [plait_libpng=no])
  AM_CONDITIONAL([HAVE_LIBPNG], [test "x$plait_libpng" != xno])
])
