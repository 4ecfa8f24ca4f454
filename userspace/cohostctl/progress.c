// SPDX-License-Identifier: MIT
/*
 * Progress bars, progress lines, Ctrl-C. Used by the admin client for the
 * daemon's jobs and by handlers that wait for the kernel (volume flush).
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cohostctl/progress.h"
#include "cohostctl/value.h"
#include "lib/clock.h"

#define SHOW_EVERY_MS 500
#define LINE_EVERY_MS 10000
#define BAR_CELLS     24

static volatile sig_atomic_t interrupted;

void ch_progress_init(struct ch_progress *p, const struct ch_cmd *cmd, const char *what)
{
	memset(p, 0, sizeof(*p));
	p->cmd = cmd;
	p->what = what;
	p->start_ms = ch_clock_ms();
}

/* "45%  1.2G of 2.7G  35.0M/s  12.0s left  upload" */
static void describe(const struct ch_progress *p, uint64_t now, char *buf, size_t size)
{
	char done[CH_VALUE_TEXT_MAX], total[CH_VALUE_TEXT_MAX], text[CH_VALUE_TEXT_MAX];
	uint64_t spent = now - p->start_ms, rate;
	size_t used;

	if (p->total)
		snprintf(buf, size, "%3u%%  %s of %s",
			 (unsigned int)((unsigned __int128)p->done * 100 / p->total),
			 ch_value_size_text(p->done, done), ch_value_size_text(p->total, total));
	else
		snprintf(buf, size, "%s", ch_value_size_text(p->done, done));
	used = strlen(buf);
	rate = spent ? (uint64_t)((unsigned __int128)p->done * 1000 / spent) : 0;
	if (rate && spent >= 1000) {
		snprintf(buf + used, size - used, "  %s/s", ch_value_size_text(rate, text));
		used += strlen(buf + used);
		if (p->total > p->done) {
			uint64_t left = (p->total - p->done) / rate;

			snprintf(buf + used, size - used, "  %s left",
				 ch_value_seconds_text(left, text));
			used += strlen(buf + used);
		}
	}
	if (p->phase[0])
		snprintf(buf + used, size - used, "  %s", p->phase);
}

static void draw_bar(struct ch_progress *p, uint64_t now)
{
	char bar[BAR_CELLS + 1], text[160];
	unsigned int full = 0;
	struct winsize ws;
	int columns = 80;

	if (p->total)
		full = (unsigned int)((unsigned __int128)p->done * BAR_CELLS / p->total);
	for (unsigned int i = 0; i < BAR_CELLS; i++)
		bar[i] = i < full ? '=' : i == full ? '>' : ' ';
	bar[BAR_CELLS] = '\0';
	if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) && ws.ws_col)
		columns = ws.ws_col;
	describe(p, now, text, sizeof(text));
	/* One line only: what does not fit is cut, the rest of the line cleared. */
	if (columns > (int)(strlen(p->what) + BAR_CELLS + 24))
		fprintf(stderr, "\r%s [%s] %.*s\033[K", p->what, bar,
			columns - (int)strlen(p->what) - BAR_CELLS - 5, text);
	else
		fprintf(stderr, "\r%.*s\033[K", columns - 1, text);
	fflush(stderr);
	p->drawn = true;
}

static void put_json_line(const struct ch_progress *p)
{
	json_t *line = json_pack("{s:{s:I}}", "progress", "done_bytes", (json_int_t)p->done);
	json_t *inner = json_object_get(line, "progress");

	if (p->total)
		json_object_set_new(inner, "total_bytes", json_integer((json_int_t)p->total));
	if (p->phase[0])
		json_object_set_new(inner, "phase", json_string(p->phase));
	json_dumpf(line, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(line);
}

void ch_progress_set(struct ch_progress *p, uint64_t done, uint64_t total, const char *phase)
{
	bool bar = p->cmd->tty && !p->cmd->req.json;
	bool first = !p->shown_ms, new_phase;
	uint64_t now = ch_clock_ms();
	unsigned int tenth;
	char text[160];

	new_phase = phase && strncmp(p->phase, phase, sizeof(p->phase) - 1);
	if (new_phase)
		snprintf(p->phase, sizeof(p->phase), "%s", phase);
	if (total && done > total)
		done = total;
	p->done = done;
	p->total = total;
	if (!first && !new_phase && now - p->shown_ms < SHOW_EVERY_MS)
		return;
	/* A line that says "nothing of I do not know" says nothing. */
	if (!done && !total && !phase && !p->cmd->req.json)
		return;
	tenth = total ? (unsigned int)((unsigned __int128)done * 10 / total) : 0;
	if (!p->cmd->req.json && !bar && !first && !new_phase && tenth == p->tenth &&
	    now - p->shown_ms < LINE_EVERY_MS)
		return;
	p->tenth = tenth;
	p->shown_ms = now;
	if (p->cmd->req.json) {
		put_json_line(p);
	} else if (bar) {
		draw_bar(p, now);
	} else {
		describe(p, now, text, sizeof(text));
		fprintf(stderr, "%s: %s\n", p->what, text);
	}
}

void ch_progress_end(struct ch_progress *p)
{
	if (p->drawn)
		fputs("\r\033[K", stderr);
	p->drawn = false;
}

static void on_signal(int sig)
{
	interrupted = 1;
}

void ch_interrupt_catch(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	/* No SA_RESTART: a waiting read must come back. */
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

bool ch_interrupted(void)
{
	return interrupted;
}

int ch_interrupt_poll(struct pollfd *pfd)
{
	sigset_t catch, before;
	int ready, err;

	sigemptyset(&catch);
	sigaddset(&catch, SIGINT);
	sigaddset(&catch, SIGTERM);
	sigprocmask(SIG_BLOCK, &catch, &before);
	if (interrupted) {
		ready = -1;
		err = EINTR;
	} else {
		ready = ppoll(pfd, 1, NULL, &before);
		err = errno;
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = err;
	return ready;
}

int ch_interrupt_fail(struct ch_cmd *cmd, const char *goes_on)
{
	return ch_cmd_fail(cmd, CH_EXIT_INTERRUPTED, goes_on, "interrupted");
}
