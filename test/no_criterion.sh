#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Stands in the list of tests where configure did not find Criterion.
echo "SKIP: Criterion was not found, so no unit test was built: install libcriterion-dev (Debian)" \
     "or Criterion from source, and run configure again"
exit 77
