/* SPDX-License-Identifier: MIT */
/* "Did you mean": which known word is nearest to the one that was typed. */
#ifndef CH_CTL_MEANT_H
#define CH_CTL_MEANT_H

struct ch_meant {
	const char *word; /* as typed */
	const char *best; /* NULL: nothing near enough */
	unsigned int cost;
};

void ch_meant_init(struct ch_meant *meant, const char *word);

/* Consider @candidate, which must outlive @meant. */
void ch_meant_offer(struct ch_meant *meant, const char *candidate);

#endif
