# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_ENABLE_WARNINGS
# Puts the warning options that the compiler knows into WARN_CFLAGS; --enable-werror makes them errors.
AC_DEFUN([PLAIT_ENABLE_WARNINGS], [
  AC_ARG_ENABLE([werror],
    [AS_HELP_STRING([--enable-werror], [treat compiler warnings as errors (used by ./check)])],
    [plait_werror=$enableval], [plait_werror=no])
  WARN_CFLAGS=
  for plait_flag in -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
                    -Wformat=2 -Wpointer-arith -Wundef; do
    PLAIT_TRY_CFLAG([$plait_flag], [WARN_CFLAGS="$WARN_CFLAGS $plait_flag"])
  done
  AS_IF([test "x$plait_werror" = xyes], [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
  AC_SUBST([WARN_CFLAGS])
])

# PLAIT_TRY_CFLAG(FLAG, IF-KNOWN, IF-NOT)
AC_DEFUN([PLAIT_TRY_CFLAG], [
  plait_save_CFLAGS=$CFLAGS
  CFLAGS="$CFLAGS -Werror $1"
  AC_MSG_CHECKING([whether $CC knows $1])
  AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])],
    [CFLAGS=$plait_save_CFLAGS; AC_MSG_RESULT([yes]); $2],
    [CFLAGS=$plait_save_CFLAGS; AC_MSG_RESULT([no]); $3])
])
