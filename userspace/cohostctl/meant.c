// SPDX-License-Identifier: MIT
/*
 * "Did you mean": optimal string alignment distance (insert, delete, replace,
 * swap of neighbours), and a word that was only begun counts as near. Nothing
 * is suggested when a third of the letters would have to change.
 */
#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "cohostctl/meant.h"

#define WORD_MAX 32

static unsigned int min3(unsigned int a, unsigned int b, unsigned int c)
{
	unsigned int m = a < b ? a : b;

	return m < c ? m : c;
}

static bool same(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

static unsigned int distance(const char *a, size_t la, const char *b, size_t lb)
{
	unsigned int row[3][WORD_MAX + 1];
	unsigned int *before = row[0], *last = row[1], *now = row[2], *spare;

	for (size_t j = 0; j <= lb; j++)
		last[j] = (unsigned int)j;
	for (size_t i = 1; i <= la; i++) {
		now[0] = (unsigned int)i;
		for (size_t j = 1; j <= lb; j++) {
			unsigned int differs = !same(a[i - 1], b[j - 1]);

			now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + differs);
			if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) &&
			    same(a[i - 2], b[j - 1]) && now[j] > before[j - 2] + 1)
				now[j] = before[j - 2] + 1;
		}
		spare = before;
		before = last;
		last = now;
		now = spare;
	}
	return last[lb];
}

void ch_meant_init(struct ch_meant *meant, const char *word)
{
	meant->word = word;
	meant->best = NULL;
	meant->cost = UINT_MAX;
}

void ch_meant_offer(struct ch_meant *meant, const char *candidate)
{
	size_t lw = strlen(meant->word), lc = strlen(candidate);
	unsigned int cost, limit;

	if (!lw || lw > WORD_MAX || !lc || lc > WORD_MAX)
		return;
	cost = distance(meant->word, lw, candidate, lc);
	limit = (unsigned int)((lw > lc ? lw : lc) + 2) / 3;
	if (lw >= 2 && lw < lc && !strncasecmp(meant->word, candidate, lw))
		cost = 1;
	if (cost > limit || cost >= lc || cost >= meant->cost)
		return;
	meant->best = candidate;
	meant->cost = cost;
}
