/* SPDX-License-Identifier: MIT */
/*
 * Progress of long work, in three forms: a bar on stderr (2 Hz) when that is a
 * terminal, plain lines on stderr otherwise, {"progress":{...}} lines on stdout
 * with -j. And Ctrl-C: it detaches, the work goes on.
 */
#ifndef CH_CTL_PROGRESS_H
#define CH_CTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "cohostctl/cmd.h"

struct pollfd;

struct ch_progress {
	const struct ch_cmd *cmd;
	const char *what; /* "flush media": must outlive the progress */
	char phase[32];
	uint64_t start_ms, shown_ms, done, total;
	unsigned int tenth; /* of the work, last shown as a line */
	bool drawn;	    /* a bar stands on the terminal */
};

void ch_progress_init(struct ch_progress *p, const struct ch_cmd *cmd, const char *what);

/*
 * Tell where the work is. Bytes; @total 0 = unknown. @phase may be NULL. May be
 * called as often as you like: it shows at most twice a second.
 */
void ch_progress_set(struct ch_progress *p, uint64_t done, uint64_t total, const char *phase);

/* Take the bar away. Call before any other output. */
void ch_progress_end(struct ch_progress *p);

/* From here on Ctrl-C and SIGTERM set a flag instead of ending the program. */
void ch_interrupt_catch(void);
bool ch_interrupted(void);

/*
 * poll() of one descriptor without a limit that ends with EINTR also when the signal
 * came just before it: between a look at ch_interrupted() and a plain poll() it
 * would be missed, and the wait would be for ever.
 */
int ch_interrupt_poll(struct pollfd *pfd);

/*
 * The failure for Ctrl-C: exit 130. @goes_on: what continues and how to see it,
 * e.g. "the flush goes on; watch it with: cohostctl volume list 1".
 */
int ch_interrupt_fail(struct ch_cmd *cmd, const char *goes_on);

#endif
