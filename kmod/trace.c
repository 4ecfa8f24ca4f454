// SPDX-License-Identifier: GPL-2.0
/* The one place where the tracepoints of trace.h are made; all others only call them. */
#define CREATE_TRACE_POINTS
#include "kmod/trace.h"
