# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_LD_VERSION_SCRIPT
# The linker must know version scripts: without one the library would export its internals.
AC_DEFUN([PLAIT_LD_VERSION_SCRIPT], [
  AC_MSG_CHECKING([whether the linker knows --version-script])
  plait_save_LDFLAGS=$LDFLAGS
  echo 'P_1 { global: *; };' > conftest.map
  LDFLAGS="$LDFLAGS -Wl,--version-script=conftest.map"
  AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [AC_MSG_RESULT([yes])],
    [AC_MSG_RESULT([no])
     AC_MSG_ERROR([the linker does not accept --version-script; GNU ld, gold and lld do])])
  LDFLAGS=$plait_save_LDFLAGS
  rm -f conftest.map
])
