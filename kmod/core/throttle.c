// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Slowing writers down, see throttle.h. */
#include "kmod/core/throttle.h"

#define NS_PER_S 1000000000ULL

u32 ch_throttle_pressure(u64 used, u64 limit)
{
	u64 start = limit - limit / 4;

	if (!limit || used <= start)
		return 0;
	if (used >= limit)
		return 1000;
	return (u32)((used - start) * 1000 / (limit - start));
}

void ch_throttle_tail(struct ch_throttle *throttle, u64 pos, u64 now)
{
	u64 moved = pos - throttle->tail_pos, rate;

	if (!moved)
		return;
	if (throttle->tail_ns && now > throttle->tail_ns) {
		rate = moved * NS_PER_S / (now - throttle->tail_ns);
		/* It moves in leaps: one of them is no speed. */
		throttle->rate =
			throttle->rate ? throttle->rate - throttle->rate / 4 + rate / 4 : rate;
	}
	throttle->tail_pos = pos;
	throttle->tail_ns = now;
}

void ch_throttle_rest(struct ch_throttle *throttle)
{
	throttle->tail_ns = 0;
}

bool ch_throttle_took(struct ch_throttle *throttle, u32 blocks, u32 pressure, u64 now)
{
	u64 ns;

	if (!pressure || !throttle->rate)
		return false;
	/* Pressure 500: at the rate of destage; less and more: faster and slower without end. */
	ns = blocks * NS_PER_S / throttle->rate * pressure / (1001 - pressure);
	throttle->next_ns = now + (ns < CH_THROTTLE_NS_MAX ? ns : CH_THROTTLE_NS_MAX);
	return true;
}

u64 ch_throttle_wait_ns(const struct ch_throttle *throttle, u32 pressure, u64 now)
{
	return pressure && now < throttle->next_ns ? throttle->next_ns - now : 0;
}
