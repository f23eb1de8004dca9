/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file plait.h
 * @brief Everything of plait: include this one.
 */
#ifndef PLAIT_PLAIT_H
#define PLAIT_PLAIT_H

#include <plait/status.h>
#include <plait/version.h>
#include <plait/ctx.h>
#include <plait/session.h>
#include <plait/msg.h>
#include <plait/mem.h>
#include <plait/rma.h>
#include <plait/job.h>
#include <plait/topo.h>

#endif
