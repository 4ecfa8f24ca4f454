// SPDX-License-Identifier: MIT
/* Errors for people: see error.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/error.h"

/*
 * Where nobody wants the text, so that "return ch_error_hint(e, ...)" behind a
 * ch_error_set(e, ...) returns the error also when e is NULL.
 */
static _Thread_local struct ch_error unwanted;

enum ch_exit ch_exit_from_errno(int err)
{
	switch (err < 0 ? -err : err) {
	case 0:
		return CH_EXIT_OK;
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return CH_EXIT_NOT_FOUND;
	case EBUSY:
	case EEXIST:
	case EADDRINUSE:
	case EALREADY:
		return CH_EXIT_CONFLICT;
	case ECONNREFUSED:
	case ECONNRESET:
	case EHOSTUNREACH:
	case ENETUNREACH:
		return CH_EXIT_UNREACHABLE;
	case EPERM:
	case EACCES:
		return CH_EXIT_PERMISSION;
	case EOPNOTSUPP:
	case ENOSYS:
		return CH_EXIT_UNSUPPORTED;
	case ETIMEDOUT:
	case ETIME:
		return CH_EXIT_DEADLINE;
	case EINTR:
		return CH_EXIT_INTERRUPTED;
	default:
		return CH_EXIT_FAILED;
	}
}

const char *ch_exit_name(enum ch_exit exit)
{
	switch (exit) {
	case CH_EXIT_OK:
		return "ok";
	case CH_EXIT_FAILED:
		return "failed";
	case CH_EXIT_USAGE:
		return "usage";
	case CH_EXIT_FINDINGS:
		return "findings";
	case CH_EXIT_NOT_FOUND:
		return "not_found";
	case CH_EXIT_CONFLICT:
		return "conflict";
	case CH_EXIT_UNREACHABLE:
		return "unreachable";
	case CH_EXIT_PERMISSION:
		return "permission";
	case CH_EXIT_UNSUPPORTED:
		return "unsupported";
	case CH_EXIT_DEADLINE:
		return "deadline";
	case CH_EXIT_INTERRUPTED:
		return "interrupted";
	}
	return "failed";
}

static int set(struct ch_error *e, int err, enum ch_exit exit, const char *fmt, va_list ap)
{
	if (!e)
		e = &unwanted;
	e->err = err;
	e->exit = exit;
	e->hint[0] = '\0';
	(void)vsnprintf(e->message, sizeof(e->message), fmt, ap);
	return err;
}

int ch_error_set(struct ch_error *e, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)set(e, err, ch_exit_from_errno(err), fmt, ap);
	va_end(ap);
	return err;
}

int ch_error_set_exit(struct ch_error *e, int err, enum ch_exit exit, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)set(e, err, exit, fmt, ap);
	va_end(ap);
	return err;
}

int ch_error_hint(struct ch_error *e, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		e = &unwanted;
	va_start(ap, fmt);
	(void)vsnprintf(e->hint, sizeof(e->hint), fmt, ap);
	va_end(ap);
	return e->err;
}

int ch_error_prefix(struct ch_error *e, const char *fmt, ...)
{
	char text[sizeof(e->message)];
	size_t n, keep;
	va_list ap;

	if (!e)
		e = &unwanted;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text) - 2, fmt, ap);
	va_end(ap);
	n = strlen(text);
	text[n++] = ':';
	text[n++] = ' ';
	keep = strlen(e->message);
	if (keep > sizeof(e->message) - 1 - n)
		keep = sizeof(e->message) - 1 - n;
	memmove(e->message + n, e->message, keep);
	memcpy(e->message, text, n);
	e->message[n + keep] = '\0';
	return e->err;
}
