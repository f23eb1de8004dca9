# SPDX-License-Identifier: BSD-3-Clause
# PLAIT_CHECK_MPI
# The library never links with MPI. Tests and benchmarks build small programs with the two MPIs' own
# compilers, and start jobs with the two launchers:
#   MPICC_OPENMPI, MPIRUN_OPENMPI (the launcher), conditional HAVE_OPENMPI when both are there;
#   MPICC_MPICH, MPIEXEC_MPICH, conditional HAVE_MPICH.
AC_DEFUN([PLAIT_CHECK_MPI], [
  AC_ARG_VAR([MPICC_OPENMPI], [Open MPI's compiler wrapper])
  AC_ARG_VAR([MPIRUN_OPENMPI], [Open MPI's launcher])
  AC_ARG_VAR([MPICC_MPICH], [MPICH's compiler wrapper])
  AC_ARG_VAR([MPIEXEC_MPICH], [MPICH's launcher])
  AC_PATH_PROG([MPICC_OPENMPI], [mpicc.openmpi])
  AC_PATH_PROG([MPIRUN_OPENMPI], [mpirun.openmpi])
  AC_PATH_PROG([MPICC_MPICH], [mpicc.mpich])
  AC_PATH_PROGS([MPIEXEC_MPICH], [mpiexec.mpich mpiexec.hydra])
  plait_openmpi=no
  AS_IF([test -n "$MPICC_OPENMPI" && test -n "$MPIRUN_OPENMPI"], [plait_openmpi=yes])
  plait_mpich=no
  AS_IF([test -n "$MPICC_MPICH" && test -n "$MPIEXEC_MPICH"], [plait_mpich=yes])
  AM_CONDITIONAL([HAVE_OPENMPI], [test "$plait_openmpi" = yes])
  AM_CONDITIONAL([HAVE_MPICH], [test "$plait_mpich" = yes])
])
