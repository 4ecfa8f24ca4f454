// SPDX-License-Identifier: GPL-2.0
/* The map of absent granules between memory and the slow device; core/absent.h has the rules. */
#include <linux/blkdev.h>
#include <linux/mm.h>

#include "kmod/core/absent.h"
#include "kmod/hydrate.h"
#include "kmod/tier.h"

int ch_absent_read(struct ch_volume *vol, u8 *block)
{
	struct ch_tier *tier = &vol->tier;

	for (u64 b = 0; b < tier->geo.absent_blocks; b++) {
		int r = ch_io_read(vol->slow->bdev, tier->geo.absent_start + b, 1, block);

		for (u32 i = 0; !r && i < CH_MAP_SECTORS_PER_BLOCK; i++)
			if (!ch_absent_load(tier, b * CH_MAP_SECTORS_PER_BLOCK + i,
					    block + i * 512))
				r = -EUCLEAN;
		if (r)
			return r;
		cond_resched();
	}
	return 0;
}

void ch_absent_place(struct ch_volume *vol, u64 lba, u32 blocks)
{
	if (!vol->tier.absent.granules)
		return;
	spin_lock_irq(&vol->lock);
	for (u32 i = 0; i < blocks; i++)
		ch_absent_placed(&vol->tier, lba + i);
	spin_unlock_irq(&vol->lock);
}

int ch_absent_write(struct ch_volume *vol)
{
	struct page *page;
	bool more = true;
	u64 block;
	int r = 0;

	if (!vol->tier.absent.granules)
		return 0;
	page = alloc_page(GFP_NOIO);
	if (!page)
		r = -ENOMEM;
	while (!r) {
		spin_lock_irq(&vol->lock);
		more = ch_absent_next(&vol->tier, page_address(page), &block);
		spin_unlock_irq(&vol->lock);
		if (!more)
			break;
		r = ch_io_block(vol->slow->bdev, block, page, REQ_OP_WRITE | REQ_META);
	}
	if (page)
		__free_page(page);
	return r;
}
