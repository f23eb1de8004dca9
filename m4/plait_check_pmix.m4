# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_PMIX
# Only PMIx's header is needed here: a job opens the library with dlopen when a launcher offers PMIx.
# Defines HAVE_PMIX and PLAIT_PMIX_LIBRARY (the soname); PMIX_CFLAGS. --with-pmix=DIR, --without-pmix.
AC_DEFUN([PLAIT_CHECK_PMIX], [
  AC_ARG_WITH([pmix],
    [AS_HELP_STRING([--with-pmix=DIR], [look for PMIx's header in DIR/include])], [], [with_pmix=check])
  plait_pmix=no
  PMIX_CFLAGS=
  AS_IF([test "x$with_pmix" != xno], [
    plait_pmix_dirs=$($PKG_CONFIG --variable=includedir pmix 2>/dev/null)
    AS_CASE([$with_pmix], [yes|check], [], [plait_pmix_dirs=$with_pmix/include])
    plait_save_CPPFLAGS=$CPPFLAGS
    for plait_dir in $plait_pmix_dirs /usr/lib/*/pmix2/include /usr/include; do
      test -f "$plait_dir/pmix.h" || continue
      # -isystem: warnings in another project's headers are not ours
      AS_IF([test "$plait_dir" = /usr/include], [PMIX_CFLAGS=], [PMIX_CFLAGS="-isystem $plait_dir"])
      CPPFLAGS="$plait_save_CPPFLAGS $PMIX_CFLAGS"
      AC_MSG_CHECKING([for PMIx in $plait_dir])
      AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <pmix.h>]], [[pmix_proc_t p; (void)p;]])],
        [AC_MSG_RESULT([yes])
         plait_pmix=$($PKG_CONFIG --modversion pmix 2>/dev/null || echo yes)
         break],
        [AC_MSG_RESULT([no])])
    done
    CPPFLAGS=$plait_save_CPPFLAGS
  ])
  AS_IF([test "x$plait_pmix" != xno], [
    AC_DEFINE([HAVE_PMIX], [1], [Define if pmix.h is there])
    AC_DEFINE([PLAIT_PMIX_LIBRARY], ["libpmix.so.2"], [The PMIx library that a job opens at run time])
  ], [
    PMIX_CFLAGS=
    AS_IF([test "x$with_pmix" != xno && test "x$with_pmix" != xcheck],
      [AC_MSG_ERROR([--with-pmix: no usable pmix.h found])])
  ])
  AC_SUBST([PMIX_CFLAGS])
  AM_CONDITIONAL([HAVE_PMIX], [test "x$plait_pmix" != xno])
])
