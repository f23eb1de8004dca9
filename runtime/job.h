/* SPDX-License-Identifier: BSD-3-Clause */
/* What the rest of runtime/ wants to know of the job that this process is in. */
#ifndef PLI_RUNTIME_JOB_H
#define PLI_RUNTIME_JOB_H

#include <stdbool.h>
#include <stddef.h>

/* The job's name, the same in all its ranks and in no other job; "" without a job. Any thread. */
const char *pli_job_id(void);
/* This process's rank in it, -1 without a job. Any thread. */
int pli_job_own_rank(void);
/* Is that the own job's name? Any thread. */
bool pli_job_is_own(const void *id, size_t len);

#endif
