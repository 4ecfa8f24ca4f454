// SPDX-License-Identifier: MIT
/* Log lines to journald or stderr: see log.h. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "lib/log.h"

#define FIELDS_MAX  16
#define FIELD_MAX   512
#define MESSAGE_MAX 1024

static char log_ident[48] = "cohost";
static int log_level_max = LOG_INFO;
static int log_journal;

/* Is stderr the very stream that JOURNAL_STREAM names ("device:inode")? */
static int stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &dev, &ino) != 2 || fstat(STDERR_FILENO, &st))
		return 0;
	return st.st_dev == dev && st.st_ino == ino;
}

void ch_log_init(const char *ident, int level_max)
{
	(void)snprintf(log_ident, sizeof(log_ident), "%s", ident);
	log_level_max = level_max;
	log_journal = stderr_is_journal();
}

/* One line per call: what came from outside cannot forge another. */
static void flatten(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = ' ';
	}
}

static int to_journal(int priority, const struct ch_log_field *fields, const char *message)
{
	char head[3][MESSAGE_MAX + 32], text[FIELDS_MAX][FIELD_MAX];
	struct iovec iov[3 + FIELDS_MAX];
	int i, n;

	(void)snprintf(head[0], sizeof(head[0]), "MESSAGE=%s", message);
	(void)snprintf(head[1], sizeof(head[1]), "PRIORITY=%d", priority);
	(void)snprintf(head[2], sizeof(head[2]), "SYSLOG_IDENTIFIER=%s", log_ident);
	for (n = 0; n < 3; n++)
		iov[n] = (struct iovec){head[n], strlen(head[n])};
	for (i = 0; fields && fields[i].key && i < FIELDS_MAX; i++, n++) {
		(void)snprintf(text[i], FIELD_MAX, "%s=%s", fields[i].key,
			       fields[i].value ? fields[i].value : "");
		iov[n] = (struct iovec){text[i], strlen(text[i])};
	}
	return sd_journal_sendv(iov, n);
}

static void to_stderr(int priority, const struct ch_log_field *fields, const char *message)
{
	char line[MESSAGE_MAX + FIELDS_MAX * FIELD_MAX];
	size_t n;
	int i;

	n = (size_t)snprintf(line, sizeof(line), "<%d> %s: %s", priority, log_ident, message);
	for (i = 0; fields && fields[i].key && i < FIELDS_MAX && n < sizeof(line); i++)
		n += (size_t)snprintf(line + n, sizeof(line) - n, " %s=%.*s", fields[i].key,
				      FIELD_MAX - 64, fields[i].value ? fields[i].value : "");
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n] = '\0';
	flatten(line);
	line[n] = '\n';
	(void)!write(STDERR_FILENO, line, n + 1); /* one write: lines do not mix */
}

void ch_log_write(int priority, const struct ch_log_field *fields, const char *fmt, ...)
{
	char message[MESSAGE_MAX];
	va_list ap;

	if (priority > log_level_max)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	flatten(message);
	if (!log_journal || to_journal(priority, fields, message) < 0)
		to_stderr(priority, fields, message);
}
