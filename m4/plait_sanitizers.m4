# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_ENABLE_SANITIZERS
# --enable-sanitizers=address,undefined or =thread: SANITIZER_CFLAGS for the compiler and the linker,
# PLAIT_SANITIZERS (the list, or empty) for the test driver, conditionals
# SANITIZERS and SANITIZE_THREAD.
AC_DEFUN([PLAIT_ENABLE_SANITIZERS], [
  AC_ARG_ENABLE([sanitizers],
    [AS_HELP_STRING([--enable-sanitizers=LIST],
                    [instrument with LIST: address,undefined or thread])],
    [PLAIT_SANITIZERS=$enableval], [PLAIT_SANITIZERS=])
  AS_CASE([$PLAIT_SANITIZERS],
    [no], [PLAIT_SANITIZERS=],
    [yes], [PLAIT_SANITIZERS=address,undefined])
  SANITIZER_CFLAGS=
  AS_IF([test -n "$PLAIT_SANITIZERS"], [
    SANITIZER_CFLAGS="-fsanitize=$PLAIT_SANITIZERS -fno-omit-frame-pointer"
    AS_CASE([,$PLAIT_SANITIZERS,], [*,undefined,*],
      [SANITIZER_CFLAGS="$SANITIZER_CFLAGS -fno-sanitize-recover=undefined"])
    plait_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS $SANITIZER_CFLAGS"
    AC_MSG_CHECKING([whether $CC links with -fsanitize=$PLAIT_SANITIZERS])
    AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [AC_MSG_RESULT([yes])],
      [AC_MSG_RESULT([no])
       AC_MSG_ERROR([this compiler cannot build with --enable-sanitizers=$PLAIT_SANITIZERS])])
    CFLAGS=$plait_save_CFLAGS
    # gcc warns that TSan does not model fences; where plait needs one, its tests know it
    AS_CASE([,$PLAIT_SANITIZERS,], [*,thread,*],
      [PLAIT_TRY_CFLAG([-Wno-tsan], [SANITIZER_CFLAGS="$SANITIZER_CFLAGS -Wno-tsan"])])
  ])
  AC_SUBST([SANITIZER_CFLAGS])
  AC_SUBST([PLAIT_SANITIZERS])
  AM_CONDITIONAL([SANITIZERS], [test -n "$PLAIT_SANITIZERS"])
  AM_CONDITIONAL([SANITIZE_THREAD], [echo ",$PLAIT_SANITIZERS," | grep -q ,thread,])
])
