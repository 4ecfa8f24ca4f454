/* SPDX-License-Identifier: MIT */
/*
 * An error as a person is to see it: what failed and why (message), what to do
 * next (hint), and the class that becomes the exit code of cohostctl.
 *
 * Functions that can fail for a reason worth telling take a `struct ch_error *`
 * last, return a negative errno, and never log. A NULL error is allowed
 * everywhere: the text is then dropped.
 */
#ifndef CH_LIB_ERROR_H
#define CH_LIB_ERROR_H

#include <stdarg.h>

enum ch_exit {
	CH_EXIT_OK = 0,
	CH_EXIT_FAILED = 1,
	CH_EXIT_USAGE = 2,
	CH_EXIT_FINDINGS = 3, /* done, but something was found */
	CH_EXIT_NOT_FOUND = 4,
	CH_EXIT_CONFLICT = 5,
	CH_EXIT_UNREACHABLE = 6, /* the daemon does not answer */
	CH_EXIT_PERMISSION = 7,
	CH_EXIT_UNSUPPORTED = 8, /* a kernel feature is missing */
	CH_EXIT_DEADLINE = 9,
	CH_EXIT_INTERRUPTED = 130,
};

struct ch_error {
	int err;	   /* negative errno, 0 = nothing set */
	enum ch_exit exit; /* class; derived from err unless set apart */
	char message[768]; /* what and why; no trailing full stop or newline */
	char hint[512];	   /* what to do next, may be empty */
};

/*
 * Sets the message and the class that belongs to `err`, clears the hint and
 * returns `err`, so that `return ch_error_set(e, -EBUSY, "...")` reads well.
 */
int ch_error_set(struct ch_error *e, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same with a class that differs from the one of the errno. */
int ch_error_set_exit(struct ch_error *e, int err, enum ch_exit exit, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Adds what to do next; returns the err that was set, also for NULL. */
int ch_error_hint(struct ch_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "what: " in front of the message, keeps everything else; returns the err set. */
int ch_error_prefix(struct ch_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* -ENOENT -> NOT_FOUND, -EPERM -> PERMISSION, -EBUSY -> CONFLICT, ... */
enum ch_exit ch_exit_from_errno(int err);

/* Stable word for a class ("not_found"): "code" of the JSON error object. */
const char *ch_exit_name(enum ch_exit exit);

#endif
