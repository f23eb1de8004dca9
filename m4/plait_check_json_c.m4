# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_JSON_C
# json-c is for the command plait, never for the library: JSON_C_CFLAGS, JSON_C_LIBS, HAVE_JSON_C.
AC_DEFUN([PLAIT_CHECK_JSON_C], [
  PKG_CHECK_MODULES([JSON_C], [json-c],
    [plait_json_c=$($PKG_CONFIG --modversion json-c)
     AC_DEFINE([HAVE_JSON_C], [1], [Define if json-c is there])],
    [plait_json_c=no])
  AM_CONDITIONAL([HAVE_JSON_C], [test "x$plait_json_c" != xno])
])
