#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Makes ./configure from configure.ac; only needed in a git checkout.
set -e
cd "$(dirname "$0")"
exec autoreconf -fi "$@"
