/* SPDX-License-Identifier: MIT */
/*
 * Structured log lines: to journald by its native protocol when stderr is a
 * journal stream, else to stderr as "<priority> ident: message KEY=VALUE".
 * Called by programs (cohostd and its workers), never by library code. Does not
 * fail and does not block on anything but stderr. Thread-safe.
 */
#ifndef CH_LIB_LOG_H
#define CH_LIB_LOG_H

#include <stddef.h>
#include <syslog.h>

struct ch_log_field {
	const char *key; /* A-Z, 0-9, _ */
	const char *value;
};

/* ident: "cohostd", "cohostd-edge". Lines below level_max in urgency are dropped. */
void ch_log_init(const char *ident, int level_max);

/* fields ends with a NULL key, or is NULL. priority: LOG_ERR ... LOG_DEBUG. */
void ch_log_write(int priority, const struct ch_log_field *fields, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define ch_log_error(...)   ch_log_write(LOG_ERR, NULL, __VA_ARGS__)
#define ch_log_warning(...) ch_log_write(LOG_WARNING, NULL, __VA_ARGS__)
#define ch_log_notice(...)  ch_log_write(LOG_NOTICE, NULL, __VA_ARGS__)
#define ch_log_info(...)    ch_log_write(LOG_INFO, NULL, __VA_ARGS__)
#define ch_log_debug(...)   ch_log_write(LOG_DEBUG, NULL, __VA_ARGS__)

/* ch_log_write(LOG_INFO, CH_FIELDS({"SITE", site}, {"STATUS", "200"}), "...") */
#define CH_FIELDS(...) ((const struct ch_log_field[]){__VA_ARGS__, {NULL, NULL}})

#endif
