# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_MPI
# The library never links with MPI. Tests and benchmarks build small programs with the two MPIs' own
# compilers, and start jobs with the two launchers:
#   MPICC_OPENMPI, MPIRUN_OPENMPI (the launcher), conditional HAVE_OPENMPI when both are there;
#   MPICC_MPICH, MPIEXEC_MPICH, conditional HAVE_MPICH.
# MPICC_MPICH=no (and so on) on configure's command line leaves one out.
AC_DEFUN([PLAIT_CHECK_MPI], [
  PLAIT_MPI_PROGRAM([MPICC_OPENMPI], [mpicc.openmpi], [Open MPI's compiler wrapper])
  PLAIT_MPI_PROGRAM([MPIRUN_OPENMPI], [mpirun.openmpi], [Open MPI's launcher])
  PLAIT_MPI_PROGRAM([MPICC_MPICH], [mpicc.mpich], [MPICH's compiler wrapper])
  PLAIT_MPI_PROGRAM([MPIEXEC_MPICH], [mpiexec.mpich mpiexec.hydra], [MPICH's launcher])
  plait_openmpi=no
  AS_IF([test -n "$MPICC_OPENMPI" && test -n "$MPIRUN_OPENMPI"], [plait_openmpi=yes])
  plait_mpich=no
  AS_IF([test -n "$MPICC_MPICH" && test -n "$MPIEXEC_MPICH"], [plait_mpich=yes])
  AM_CONDITIONAL([HAVE_OPENMPI], [test "$plait_openmpi" = yes])
  AM_CONDITIONAL([HAVE_MPICH], [test "$plait_mpich" = yes])
])

# PLAIT_MPI_PROGRAM(VARIABLE, NAMES, DESCRIPTION)
AC_DEFUN([PLAIT_MPI_PROGRAM], [
  AC_ARG_VAR([$1], [$3, or no])
  AS_IF([test "x$$1" = xno], [$1=], [AC_PATH_PROGS([$1], [$2])])
])
