// SPDX-License-Identifier: MIT
/* The reference model of a volume; see model.h. Plain and slow on purpose. */
#include "tests/sim/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *xrealloc(void *old, size_t nr, size_t size)
{
	void *p = realloc(old, nr * size);

	if (!p) {
		fprintf(stderr, "sim: out of memory\n");
		abort();
	}
	return p;
}

void sim_model_init(struct sim_model *m, uint32_t units, uint32_t unit_bytes)
{
	memset(m, 0, sizeof(*m));
	m->units = units;
	m->unit_bytes = unit_bytes;
	m->next = 1;
	m->base = xrealloc(NULL, units, sizeof(*m->base));
	m->now = xrealloc(NULL, units, sizeof(*m->now));
	memset(m->base, 0, units * sizeof(*m->base));
	memset(m->now, 0, units * sizeof(*m->now));
}

void sim_model_exit(struct sim_model *m)
{
	free(m->base);
	free(m->now);
	free(m->ops);
	memset(m, 0, sizeof(*m));
}

void sim_model_copy(struct sim_model *m, const struct sim_model *from)
{
	uint64_t *base = m->base, *now = m->now;
	struct sim_mop *ops = m->ops;
	uint32_t max = m->max_ops;

	if (max < from->nr_ops) {
		max = from->nr_ops;
		ops = xrealloc(ops, max, sizeof(*ops));
	}
	*m = *from;
	m->base = base;
	m->now = now;
	m->ops = ops;
	m->max_ops = max;
	memcpy(base, from->base, from->units * sizeof(*base));
	memcpy(now, from->now, from->units * sizeof(*now));
	if (from->nr_ops)
		memcpy(ops, from->ops, from->nr_ops * sizeof(*ops));
}

static void apply(uint64_t *tags, const struct sim_mop *op)
{
	uint32_t i;

	for (i = 0; i < op->count; i++)
		tags[op->first + i] = op->tag;
}

/* tag SIM_TAG_BAD: the operation's own number */
static uint64_t add_op(struct sim_model *m, uint32_t first, uint32_t count, uint64_t tag)
{
	struct sim_mop op = {.nr = m->next++, .first = first, .count = count, .tag = tag};

	if (tag == SIM_TAG_BAD)
		op.tag = op.nr;
	if (m->nr_ops == m->max_ops) {
		m->max_ops = m->max_ops ? 2 * m->max_ops : 64;
		m->ops = xrealloc(m->ops, m->max_ops, sizeof(*m->ops));
	}
	m->ops[m->nr_ops++] = op;
	apply(m->now, &op);
	return op.nr;
}

uint64_t sim_model_write(struct sim_model *m, uint32_t first, uint32_t count)
{
	return add_op(m, first, count, SIM_TAG_BAD);
}

uint64_t sim_model_zero(struct sim_model *m, uint32_t first, uint32_t count)
{
	return add_op(m, first, count, SIM_TAG_ZERO);
}

uint64_t sim_model_discard(struct sim_model *m, uint32_t first, uint32_t count)
{
	return add_op(m, first, count, SIM_TAG_ANY);
}

void sim_model_failed(struct sim_model *m, uint64_t nr)
{
	uint32_t i;

	for (i = m->nr_ops; i-- > 0;)
		if (m->ops[i].nr == nr)
			m->any_failed = m->ops[i].failed = true;
}

void sim_model_acked(struct sim_model *m, uint64_t nr)
{
	if (m->acked < nr)
		m->acked = nr;
}

void sim_model_fold(struct sim_model *m)
{
	uint32_t i = 0;

	while (i < m->nr_ops && m->ops[i].nr <= m->acked && !m->ops[i].failed) {
		apply(m->base, &m->ops[i]);
		m->base_nr = m->ops[i].nr;
		i++;
	}
	if (!i)
		return;
	m->nr_ops -= i;
	memmove(m->ops, m->ops + i, m->nr_ops * sizeof(*m->ops));
}

static uint64_t word_of(uint64_t tag, uint32_t unit, uint32_t i)
{
	uint64_t x = tag * 0x9e3779b97f4a7c15ull + unit * 0xff51afd7ed558ccdull + i;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return x ^ (x >> 32);
}

/* Tag and unit stand in every sector, so a torn unit is seen for what it is. */
void sim_unit_fill(void *buf, uint32_t bytes, uint64_t tag, uint32_t unit, bool thin)
{
	uint64_t *w = buf;
	uint32_t i, last = bytes / 512 - 1;

	memset(buf, 0, bytes);
	if (tag == SIM_TAG_ZERO)
		return;
	for (i = 0; i < bytes / 8; i++)
		if (!thin || i / 64 == 0 || i / 64 == last)
			w[i] = i % 64 == 0 ? tag : word_of(tag, unit, i);
}

static bool sector_is(const uint64_t *w, uint64_t tag, uint32_t unit, uint32_t first)
{
	uint32_t i;

	if (tag != SIM_TAG_ZERO && w[first] != tag)
		return false;
	for (i = first; i < first + 64; i++)
		if (w[i] != (tag == SIM_TAG_ZERO ? 0 : i % 64 == 0 ? tag : word_of(tag, unit, i)))
			return false;
	return true;
}

uint64_t sim_unit_tag(const void *buf, uint32_t bytes, uint32_t unit)
{
	const uint64_t *w = buf;
	uint64_t tag = w[0];
	uint32_t i, sectors = bytes / 512, zeros = 0;

	for (i = 0; i < sectors; i++) {
		if (tag != SIM_TAG_ZERO && i && i < sectors - 1 && w[64 * i] == 0) {
			if (!sector_is(w, SIM_TAG_ZERO, unit, 64 * i))
				return SIM_TAG_BAD;
			zeros++;
		} else if (!sector_is(w, tag, unit, 64 * i)) {
			return SIM_TAG_BAD;
		}
	}
	/* All of the inner sectors are zeros (a thin unit) or none. */
	return zeros == 0 || zeros == sectors - 2 ? tag : SIM_TAG_BAD;
}

/* Of operations up to @upto, one that failed and is not overwritten since may show. */
static bool failed_shows(const struct sim_model *m, uint32_t unit, uint64_t tag, uint64_t upto)
{
	uint32_t i;

	for (i = m->nr_ops; i-- > 0;) {
		const struct sim_mop *op = &m->ops[i];

		if (op->nr > upto || unit < op->first || unit >= op->first + op->count)
			continue;
		if (op->tag == tag || op->tag == SIM_TAG_ANY)
			return true;
		if (!op->failed)
			return false;
	}
	return m->base[unit] == tag || m->base[unit] == SIM_TAG_ANY;
}

static bool fits(const struct sim_model *m, uint32_t unit, uint64_t want, uint64_t seen,
		 uint64_t upto)
{
	return want == seen || want == SIM_TAG_ANY || seen == SIM_TAG_EIO ||
	       (m->any_failed && failed_shows(m, unit, seen, upto));
}

bool sim_model_right_now(const struct sim_model *m, uint32_t unit, uint64_t tag)
{
	return fits(m, unit, m->now[unit], tag, UINT64_MAX);
}

void sim_model_prefix(const struct sim_model *m, uint64_t nr, uint64_t *tags)
{
	uint32_t i;

	memcpy(tags, m->base, m->units * sizeof(*tags));
	for (i = 0; i < m->nr_ops && m->ops[i].nr <= nr; i++)
		apply(tags, &m->ops[i]);
}

bool sim_model_find(const struct sim_model *m, const uint64_t *seen, uint64_t min, uint64_t max,
		    uint64_t *ret_low, uint64_t *ret, uint32_t *ret_unit)
{
	uint64_t *want = xrealloc(NULL, m->units, sizeof(*want));
	uint8_t *wrong = xrealloc(NULL, m->units, 1);
	uint32_t i, j, nr_wrong = 0, best = UINT32_MAX;
	uint64_t at = m->base_nr;
	bool found = false;

	memcpy(want, m->base, m->units * sizeof(*want));
	for (i = 0; i < m->units; i++) {
		wrong[i] = !fits(m, i, want[i], seen[i], at);
		nr_wrong += wrong[i];
	}
	for (i = 0;; i++) {
		if (at >= min && at <= max) {
			if (nr_wrong == 0) {
				*ret = at;
				if (!found)
					*ret_low = at;
				found = true;
			} else if (nr_wrong < best) {
				best = nr_wrong;
				*ret_unit =
					(uint32_t)((uint8_t *)memchr(wrong, 1, m->units) - wrong);
			}
		}
		if (i == m->nr_ops)
			break;
		at = m->ops[i].nr;
		for (j = m->ops[i].first; j < m->ops[i].first + m->ops[i].count; j++) {
			bool bad;

			want[j] = m->ops[i].tag;
			bad = !fits(m, j, want[j], seen[j], at);
			nr_wrong += bad - wrong[j];
			wrong[j] = bad;
		}
	}
	free(want);
	free(wrong);
	return found;
}

void sim_model_rewind(struct sim_model *m, uint64_t nr)
{
	while (m->nr_ops && m->ops[m->nr_ops - 1].nr > nr)
		m->nr_ops--;
	sim_model_prefix(m, nr, m->now);
}
