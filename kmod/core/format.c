// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The on-disk format: layout of the devices and codec of the superblocks. See format.h. */
#include "kmod/core/format.h"

const char *ch_check_text(enum ch_check check)
{
	switch (check) {
	case CH_CHECK_OK:
		return "is valid";
	case CH_CHECK_ABSENT:
		return "carries no cohost superblock";
	case CH_CHECK_OLD:
		return "was written by an older version of cohost";
	case CH_CHECK_VERSION:
		return "was written by a newer version of cohost";
	case CH_CHECK_CRC:
		return "carries a cohost superblock whose checksum does not match";
	case CH_CHECK_RANGE:
		return "carries a cohost superblock with contradicting values";
	}
	return "is in an unknown state";
}

/* ---- geometry ---- */

static u64 div_up(u64 a, u64 b)
{
	return a / b + (a % b != 0);
}

static u64 align_down(u64 a, u64 unit)
{
	return a - a % unit;
}

static u64 align_up(u64 a, u64 unit)
{
	return div_up(a, unit) * unit;
}

static u64 clamp_u64(u64 value, u64 low, u64 high)
{
	return value < low ? low : value > high ? high : value;
}

u64 ch_geometry_map_bits(const struct ch_geometry *geo)
{
	return div_up(geo->volume_blocks, 1ULL << geo->changed_shift);
}

u32 ch_geometry_map_sectors(const struct ch_geometry *geo)
{
	return (u32)div_up(ch_geometry_map_bits(geo), CH_MAP_SECTOR_BITS);
}

u64 ch_geometry_granules(const struct ch_geometry *geo)
{
	u64 all = div_up(geo->volume_blocks, 1ULL << geo->absent_shift);

	return clamp_u64(all, 0, geo->absent_blocks * CH_ABSENT_BLOCK_BITS);
}

/*
 * The end of the redo area is given to it: a volume of the same devices has the same size, whether
 * it began absent or not.
 */
static void absent_init(struct ch_geometry *geo)
{
	u64 most = geo->slow_blocks - geo->data_start;

	geo->absent_shift = CH_ABSENT_SHIFT;
	geo->absent_blocks = div_up(div_up(most, 1ULL << CH_ABSENT_SHIFT), CH_ABSENT_BLOCK_BITS);
	geo->redo_blocks -= geo->absent_blocks;
	geo->absent_start = geo->redo_start + geo->redo_blocks;
}

static int slow_init(struct ch_geometry *geo, bool absent, const char **ret_why)
{
	/*
	 * The redo area limits how much one batch of destage can put in order: a 64th of the
	 * slow device, at most 1 GiB; of a small one up to a 16th, 4 to 64 MiB.
	 */
	u64 least = clamp_u64(geo->slow_blocks / 16, 1024, 16384);

	geo->redo_start = CH_REGION_BLOCKS;
	geo->redo_blocks =
		align_down(clamp_u64(geo->slow_blocks / 64, least, 262144), CH_REGION_BLOCKS);
	geo->data_start = geo->redo_start + geo->redo_blocks;
	if (absent)
		absent_init(geo);
	geo->volume_blocks = align_down(geo->slow_blocks - geo->data_start, CH_REGION_BLOCKS);
	if (geo->volume_blocks > CH_VOLUME_BLOCKS_MAX) {
		*ret_why = "the slow device is larger than 16 TiB, which this version does not "
			   "support";
		return -EFBIG;
	}
	return 0;
}

static u64 sum_blocks_of(u64 log_blocks)
{
	return div_up(log_blocks, CH_SUM_ENTRIES);
}

/* What of `blocks` is left when summary pages for all of it have been taken off. */
static u64 shared_blocks(u64 blocks)
{
	u64 off = sum_blocks_of(blocks) + CH_REGION_BLOCKS; /* the log begins aligned */

	return blocks > off ? align_down(blocks - off, CH_REGION_BLOCKS) : 0;
}

static u64 log_default(u64 shared)
{
	if (shared < CH_LOG_BYTES_SHARE_MIN >> CH_BLOCK_SHIFT)
		return shared;
	return align_down(clamp_u64(shared / 2, 0, CH_LOG_BYTES_DEFAULT_MAX >> CH_BLOCK_SHIFT),
			  CH_REGION_BLOCKS);
}

static int log_wanted(u64 log_bytes, u64 shared, u64 *ret_blocks, const char **ret_why)
{
	u64 blocks = align_up(div_up(log_bytes, CH_BLOCK_SIZE), CH_REGION_BLOCKS);

	if (blocks < CH_LOG_BLOCKS_MIN) {
		*ret_why = "a log of less than 32 MiB would not hold the largest writes in flight "
			   "twice";
		return -EINVAL;
	}
	if (blocks > CH_LOG_BLOCKS_MAX) {
		*ret_why = "a log of more than 8 TiB is not supported";
		return -EFBIG;
	}
	if (blocks > shared) {
		*ret_why = "the fast device is too small for a log of this size";
		return -ENOSPC;
	}
	*ret_blocks = blocks;
	return 0;
}

static int fast_init(struct ch_geometry *geo, u64 log_bytes, const char **ret_why)
{
	u64 shared;
	int r;

	/* One bit per block up to 1 TiB; coarser above, so that a map stays below 36 MiB. */
	while (ch_geometry_map_bits(geo) > 1ULL << 28)
		geo->changed_shift++;
	geo->map_start = CH_META_START;
	geo->map_blocks = div_up(ch_geometry_map_sectors(geo), CH_MAP_SECTORS_PER_BLOCK);
	geo->sum_start = geo->map_start + 2 * geo->map_blocks;

	shared = geo->fast_blocks > geo->sum_start
			 ? shared_blocks(geo->fast_blocks - geo->sum_start)
			 : 0;
	if (shared < CH_LOG_BLOCKS_MIN) {
		*ret_why = "the fast device is too small for a slow device of this size: less than "
			   "32 MiB are left for the log";
		return -ENOSPC;
	}
	geo->log_blocks = log_default(shared);
	if (log_bytes) {
		r = log_wanted(log_bytes, shared, &geo->log_blocks, ret_why);
		if (r)
			return r;
	}
	geo->sum_blocks = sum_blocks_of(geo->log_blocks);
	geo->log_start = align_up(geo->sum_start + geo->sum_blocks, CH_REGION_BLOCKS);
	geo->line_start = geo->log_start + geo->log_blocks;
	/* More lines than the volume has would never be used. */
	geo->line_blocks = clamp_u64(shared - geo->log_blocks, 0, geo->volume_blocks);
	return 0;
}

int ch_geometry_init(struct ch_geometry *ret_geo, const struct ch_geometry_spec *spec,
		     const char **ret_why)
{
	struct ch_geometry geo = {0};
	int r;

	if (spec->fast_bytes < CH_FAST_BYTES_MIN) {
		*ret_why = "the fast device is smaller than 40 MiB: its log must hold the largest "
			   "writes in flight twice";
		return -ENOSPC;
	}
	if (spec->slow_bytes < CH_SLOW_BYTES_MIN) {
		*ret_why = "the slow device is smaller than 32 MiB: headers, redo area and a "
			   "volume of 16 MiB do not fit";
		return -ENOSPC;
	}
	geo.fast_blocks = spec->fast_bytes >> CH_BLOCK_SHIFT;
	geo.slow_blocks = spec->slow_bytes >> CH_BLOCK_SHIFT;
	r = slow_init(&geo, spec->absent, ret_why);
	if (!r)
		r = fast_init(&geo, spec->log_bytes, ret_why);
	if (!r)
		*ret_geo = geo;
	return r;
}

int ch_geometry_grow(struct ch_geometry *geo, u64 slow_bytes, const char **ret_why)
{
	struct ch_geometry grown = *geo;

	grown.slow_blocks = slow_bytes >> CH_BLOCK_SHIFT;
	if (grown.slow_blocks < geo->slow_blocks) {
		*ret_why = "the slow device is smaller than when the volume was made";
		return -ENOSPC;
	}
	grown.volume_blocks = align_down(grown.slow_blocks - geo->data_start, CH_REGION_BLOCKS);
	if (grown.volume_blocks > CH_VOLUME_BLOCKS_MAX) {
		*ret_why = "a volume of more than 16 TiB is not supported";
		return -EFBIG;
	}
	if (grown.volume_blocks <= geo->volume_blocks) {
		*ret_why = "the volume has all of the slow device already";
		return -EALREADY;
	}
	/* The changed map has the room it has. */
	while (ch_geometry_map_sectors(&grown) > grown.map_blocks * CH_MAP_SECTORS_PER_BLOCK)
		grown.changed_shift++;
	if (!ch_geometry_valid(&grown)) {
		*ret_why = "the changed map on the fast device is too small for such a volume";
		return -EFBIG;
	}
	*geo = grown;
	return 0;
}

int ch_geometry_move(struct ch_geometry *geo, u64 fast_bytes, const char **ret_why)
{
	u64 end = geo->log_start + geo->log_blocks;

	if (fast_bytes >> CH_BLOCK_SHIFT < end) {
		*ret_why = "the new fast device is too small for the log of the volume";
		return -ENOSPC;
	}
	geo->fast_blocks = fast_bytes >> CH_BLOCK_SHIFT;
	geo->line_start = end;
	geo->line_blocks = clamp_u64(align_down(geo->fast_blocks - end, CH_REGION_BLOCKS), 0,
				     geo->volume_blocks);
	return 0;
}

static bool area_ok(u64 start, u64 blocks, u64 end)
{
	return start <= end && blocks <= end - start;
}

/* Behind the redo area, before the data; a granule fits into a record. */
static bool absent_ok(u64 start, u64 blocks, u32 shift, u64 from, u64 end)
{
	if (!blocks)
		return !start && !shift;
	return start >= from && area_ok(start, blocks, end) &&
	       1ULL << (shift & 63) <= CH_REC_EXTENTS_MAX;
}

bool ch_geometry_valid(const struct ch_geometry *geo)
{
	if (geo->volume_blocks == 0 || geo->volume_blocks > CH_VOLUME_BLOCKS_MAX ||
	    geo->changed_shift > 16)
		return false;
	if (geo->log_blocks < 16 || geo->log_blocks > CH_LOG_BLOCKS_MAX)
		return false;
	if (!area_ok(geo->log_start, geo->log_blocks, geo->fast_blocks) ||
	    geo->sum_blocks < sum_blocks_of(geo->log_blocks) ||
	    !area_ok(geo->sum_start, geo->sum_blocks, geo->log_start) ||
	    geo->map_blocks > geo->sum_start / 2 ||
	    !area_ok(geo->map_start, 2 * geo->map_blocks, geo->sum_start) ||
	    geo->map_start < CH_META_START)
		return false;
	if (geo->map_blocks < div_up(ch_geometry_map_sectors(geo), CH_MAP_SECTORS_PER_BLOCK))
		return false;
	if (geo->line_blocks &&
	    (geo->line_blocks % CH_REGION_BLOCKS || geo->line_blocks > CH_VOLUME_BLOCKS_MAX ||
	     geo->line_start < geo->log_start + geo->log_blocks ||
	     !area_ok(geo->line_start, geo->line_blocks, geo->fast_blocks)))
		return false;
	if (!absent_ok(geo->absent_start, geo->absent_blocks, geo->absent_shift,
		       geo->redo_start + geo->redo_blocks, geo->data_start))
		return false;
	return area_ok(geo->data_start, geo->volume_blocks, geo->slow_blocks) &&
	       area_ok(geo->redo_start, geo->redo_blocks, geo->data_start) &&
	       geo->redo_start >= CH_META_START;
}

/* ---- superblocks ---- */

/* CRC of `size` bytes with the 4 bytes at `at` taken as 0. */
static u32 crc_skipping(const void *data, size_t size, size_t at)
{
	static const u8 zero[4];
	const u8 *p = data;
	u32 crc = ch_crc32c(p, at);

	crc = ch_crc32c_update(crc, zero, sizeof(zero));
	return ch_crc32c_update(crc, p + at + 4, size - at - 4);
}

u32 ch_rec_crc(const struct ch_rec_disk *rec)
{
	return crc_skipping(rec, sizeof(*rec), offsetof(struct ch_rec_disk, crc));
}

u32 ch_map_crc(const struct ch_map_disk *map)
{
	return crc_skipping(map, sizeof(*map), offsetof(struct ch_map_disk, crc));
}

u32 ch_redo_crc(const struct ch_redo_disk *redo)
{
	return crc_skipping(redo, sizeof(*redo), offsetof(struct ch_redo_disk, crc));
}

u32 ch_sum_crc(const struct ch_sum_disk *sum)
{
	return crc_skipping(sum, sizeof(*sum), offsetof(struct ch_sum_disk, crc));
}

static u32 sb_crc(const void *block)
{
	return crc_skipping(block, CH_BLOCK_SIZE, offsetof(struct ch_sb_disk, crc));
}

static void sb_encode(const struct ch_sb *sb, u64 generation, void *block)
{
	struct ch_sb_disk *d = block;
	const struct ch_geometry *geo = &sb->geo;

	memset(d, 0, sizeof(*d));
	memcpy(d->magic, CH_FAST_MAGIC, sizeof(d->magic));
	d->version = cpu_to_le32(CH_FORMAT_VERSION);
	d->compat = cpu_to_le64(sb->compat);
	d->incompat = cpu_to_le64(sb->incompat);
	memcpy(d->uuid, sb->uuid, sizeof(d->uuid));
	d->salt = cpu_to_le64(sb->salt);
	d->generation = cpu_to_le64(generation);
	memcpy(d->name, sb->name, CH_NAME_MAX - 1);
	d->fast_blocks = cpu_to_le64(geo->fast_blocks);
	d->slow_blocks = cpu_to_le64(geo->slow_blocks);
	d->volume_blocks = cpu_to_le64(geo->volume_blocks);
	d->map_start = cpu_to_le64(geo->map_start);
	d->map_blocks = cpu_to_le64(geo->map_blocks);
	d->sum_start = cpu_to_le64(geo->sum_start);
	d->sum_blocks = cpu_to_le64(geo->sum_blocks);
	d->log_start = cpu_to_le64(geo->log_start);
	d->log_blocks = cpu_to_le64(geo->log_blocks);
	d->redo_start = cpu_to_le64(geo->redo_start);
	d->redo_blocks = cpu_to_le64(geo->redo_blocks);
	d->data_start = cpu_to_le64(geo->data_start);
	d->changed_shift = cpu_to_le32(geo->changed_shift);
	d->flags = cpu_to_le32(sb->flags);
	d->tail_pos = cpu_to_le64(sb->tail_pos);
	d->tail_seq = cpu_to_le64(sb->tail_seq);
	d->tail_prev_crc = cpu_to_le32(sb->tail_prev_crc);
	d->session = cpu_to_le32(sb->session);
	d->durable_seq = cpu_to_le64(sb->durable_seq);
	d->epoch = cpu_to_le64(sb->epoch);
	d->base_epoch = cpu_to_le64(sb->base_epoch);
	d->base_slot = cpu_to_le32(sb->base_slot);
	d->session_pos = cpu_to_le64(sb->session_pos);
	d->line_start = cpu_to_le64(geo->line_start);
	d->line_blocks = cpu_to_le64(geo->line_blocks);
	d->absent_start = cpu_to_le64(geo->absent_start);
	d->absent_blocks = cpu_to_le64(geo->absent_blocks);
	d->absent_shift = cpu_to_le32(geo->absent_shift);
	for (u32 i = 0; i < sb->pins; i++) {
		d->pin[i].epoch = cpu_to_le64(sb->pin[i].epoch);
		d->pin[i].pos = cpu_to_le64(sb->pin[i].pos);
		d->pin[i].seq = cpu_to_le64(sb->pin[i].seq);
		d->pin[i].created_ns = cpu_to_le64(sb->pin[i].created_ns);
	}
	d->crc = cpu_to_le32(sb_crc(d));
}

void ch_sb_encode(const struct ch_sb *sb, void *block)
{
	sb_encode(sb, sb->generation, block);
}

static void pins_decode(const struct ch_sb_disk *d, struct ch_sb *sb)
{
	for (u32 i = 0; i < CH_PINS_MAX && d->pin[i].epoch; i++) {
		sb->pin[i].epoch = le64_to_cpu(d->pin[i].epoch);
		sb->pin[i].pos = le64_to_cpu(d->pin[i].pos);
		sb->pin[i].seq = le64_to_cpu(d->pin[i].seq);
		sb->pin[i].created_ns = le64_to_cpu(d->pin[i].created_ns);
		sb->pins++;
	}
}

static void geometry_decode(const struct ch_sb_disk *d, struct ch_geometry *geo)
{
	geo->fast_blocks = le64_to_cpu(d->fast_blocks);
	geo->slow_blocks = le64_to_cpu(d->slow_blocks);
	geo->volume_blocks = le64_to_cpu(d->volume_blocks);
	geo->map_start = le64_to_cpu(d->map_start);
	geo->map_blocks = le64_to_cpu(d->map_blocks);
	geo->sum_start = le64_to_cpu(d->sum_start);
	geo->sum_blocks = le64_to_cpu(d->sum_blocks);
	geo->log_start = le64_to_cpu(d->log_start);
	geo->log_blocks = le64_to_cpu(d->log_blocks);
	geo->line_start = le64_to_cpu(d->line_start);
	geo->line_blocks = le64_to_cpu(d->line_blocks);
	geo->redo_start = le64_to_cpu(d->redo_start);
	geo->redo_blocks = le64_to_cpu(d->redo_blocks);
	geo->data_start = le64_to_cpu(d->data_start);
	geo->absent_start = le64_to_cpu(d->absent_start);
	geo->absent_blocks = le64_to_cpu(d->absent_blocks);
	geo->changed_shift = le32_to_cpu(d->changed_shift);
	geo->absent_shift = le32_to_cpu(d->absent_shift);
}

static_assert(offsetof(struct ch_slow_disk, version) == offsetof(struct ch_sb_disk, version) &&
		      offsetof(struct ch_slow_disk, crc) == offsetof(struct ch_sb_disk, crc) &&
		      offsetof(struct ch_slow_disk, incompat) ==
			      offsetof(struct ch_sb_disk, incompat),
	      "both headers keep version, crc and incompat in the same places");

/* Of either header, whose crc is right. */
static enum ch_check version_check(const void *block)
{
	const struct ch_sb_disk *d = block;

	if (le32_to_cpu(d->version) < CH_FORMAT_VERSION)
		return CH_CHECK_OLD;
	if (le32_to_cpu(d->version) > CH_FORMAT_VERSION ||
	    (le64_to_cpu(d->incompat) & ~CH_INCOMPAT_KNOWN))
		return CH_CHECK_VERSION;
	return CH_CHECK_OK;
}

/* In order, and none from before the log that is left or of an epoch that has not begun. */
static bool pins_valid(const struct ch_sb *sb)
{
	u64 pos = sb->tail_pos, epoch = 0;

	for (u32 i = 0; i < sb->pins; i++) {
		const struct ch_pin *pin = &sb->pin[i];

		if (pin->epoch <= epoch || pin->epoch > sb->epoch || pin->pos >= 1ULL << 62)
			return false;
		if (pin->pos && pin->pos < pos)
			return false;
		epoch = pin->epoch;
		pos = pin->pos ? pin->pos : pos;
	}
	return true;
}

static bool sb_valid(const struct ch_sb *sb)
{
	return ch_geometry_valid(&sb->geo) &&
	       !(sb->incompat & CH_INCOMPAT_ABSENT) == !sb->geo.absent_blocks &&
	       sb->base_slot < 2 && sb->tail_seq > 0 && sb->durable_seq + 1 >= sb->tail_seq &&
	       sb->base_epoch <= sb->epoch &&
	       /* position 0 means "none" elsewhere; and what counts up is far from wrapping */
	       sb->tail_pos >= sb->geo.log_blocks && sb->tail_pos < 1ULL << 62 &&
	       sb->session_pos < 1ULL << 62 && sb->durable_seq < 1ULL << 62 &&
	       sb->epoch < 1ULL << 62 && sb->generation < 1ULL << 62 && sb->session < 1U << 31 &&
	       pins_valid(sb);
}

/* Ours, whole, and of a version we know? */
static enum ch_check header_check(const void *block, const char *magic)
{
	const struct ch_sb_disk *d = block;

	if (memcmp(d->magic, magic, sizeof(d->magic)))
		return CH_CHECK_ABSENT;
	if (le32_to_cpu(d->crc) != sb_crc(d))
		return CH_CHECK_CRC;
	return version_check(d);
}

enum ch_check ch_sb_decode(const void *block, struct ch_sb *ret_sb)
{
	const struct ch_sb_disk *d = block;
	enum ch_check check = header_check(block, CH_FAST_MAGIC);
	struct ch_sb *sb = ret_sb;

	if (check != CH_CHECK_OK)
		return check;
	memset(sb, 0, sizeof(*sb));
	sb->compat = le64_to_cpu(d->compat);
	sb->incompat = le64_to_cpu(d->incompat);
	memcpy(sb->uuid, d->uuid, sizeof(sb->uuid));
	sb->salt = le64_to_cpu(d->salt);
	sb->generation = le64_to_cpu(d->generation);
	memcpy(sb->name, d->name, CH_NAME_MAX - 1);
	geometry_decode(d, &sb->geo);
	sb->flags = le32_to_cpu(d->flags);
	sb->tail_pos = le64_to_cpu(d->tail_pos);
	sb->tail_seq = le64_to_cpu(d->tail_seq);
	sb->tail_prev_crc = le32_to_cpu(d->tail_prev_crc);
	sb->session = le32_to_cpu(d->session);
	sb->durable_seq = le64_to_cpu(d->durable_seq);
	sb->epoch = le64_to_cpu(d->epoch);
	sb->base_epoch = le64_to_cpu(d->base_epoch);
	sb->base_slot = le32_to_cpu(d->base_slot);
	sb->session_pos = le64_to_cpu(d->session_pos);
	pins_decode(d, sb);
	return sb_valid(sb) ? CH_CHECK_OK : CH_CHECK_RANGE;
}

/* The reason that tells more: another version or damage says more than absence. */
static enum ch_check worse(enum ch_check a, enum ch_check b)
{
	return a == CH_CHECK_ABSENT ? b : a;
}

static u64 generation_of(const void *block)
{
	const struct ch_sb_disk *d = block;

	return le64_to_cpu(d->generation);
}

enum ch_check ch_sb_pick(const void *block_a, const void *block_b, struct ch_sb *ret_sb,
			 u32 *ret_slot)
{
	enum ch_check check_a = header_check(block_a, CH_FAST_MAGIC);
	enum ch_check check_b = header_check(block_b, CH_FAST_MAGIC);
	u32 slot;

	/* Another version in one place may have moved things: the other is not to be trusted. */
	if (check_a == CH_CHECK_VERSION || check_b == CH_CHECK_VERSION)
		return CH_CHECK_VERSION;
	if (check_a == CH_CHECK_OLD || check_b == CH_CHECK_OLD)
		return CH_CHECK_OLD;
	if (check_a == CH_CHECK_OK && check_b == CH_CHECK_OK)
		slot = generation_of(block_b) > generation_of(block_a);
	else
		slot = check_b == CH_CHECK_OK;
	/* One that contradicts itself is no better than a damaged one. */
	for (u32 i = 0; i < 2; i++, slot = !slot) {
		enum ch_check check = ch_sb_decode(slot ? block_b : block_a, ret_sb);

		if (check == CH_CHECK_OK) {
			if (ret_slot)
				*ret_slot = slot;
			return CH_CHECK_OK;
		}
		*(slot ? &check_b : &check_a) = check;
	}
	return worse(check_a, check_b);
}

u64 ch_sb_place(u64 generation)
{
	return generation & 1 ? CH_SB_BLOCK_B : CH_SB_BLOCK_A;
}

void ch_slow_encode(const struct ch_slow *slow, void *block)
{
	struct ch_slow_disk *d = block;

	memset(d, 0, sizeof(*d));
	memcpy(d->magic, CH_SLOW_MAGIC, sizeof(d->magic));
	d->version = cpu_to_le32(CH_FORMAT_VERSION);
	d->compat = cpu_to_le64(slow->compat);
	d->incompat = cpu_to_le64(slow->incompat);
	memcpy(d->uuid, slow->uuid, sizeof(d->uuid));
	d->slow_blocks = cpu_to_le64(slow->slow_blocks);
	d->volume_blocks = cpu_to_le64(slow->volume_blocks);
	d->redo_start = cpu_to_le64(slow->redo_start);
	d->redo_blocks = cpu_to_le64(slow->redo_blocks);
	d->data_start = cpu_to_le64(slow->data_start);
	memcpy(d->name, slow->name, CH_NAME_MAX - 1);
	d->salt = cpu_to_le64(slow->salt);
	d->flags = cpu_to_le32(slow->flags);
	d->absent_shift = cpu_to_le32(slow->absent_shift);
	d->absent_start = cpu_to_le64(slow->absent_start);
	d->absent_blocks = cpu_to_le64(slow->absent_blocks);
	d->crc = cpu_to_le32(sb_crc(d));
}

enum ch_check ch_slow_decode(const void *block, struct ch_slow *ret_slow)
{
	const struct ch_slow_disk *d = block;
	enum ch_check check = header_check(block, CH_SLOW_MAGIC);
	struct ch_slow slow;

	if (check != CH_CHECK_OK)
		return check;
	memset(&slow, 0, sizeof(slow));
	slow.compat = le64_to_cpu(d->compat);
	slow.incompat = le64_to_cpu(d->incompat);
	memcpy(slow.uuid, d->uuid, sizeof(slow.uuid));
	memcpy(slow.name, d->name, CH_NAME_MAX - 1);
	slow.slow_blocks = le64_to_cpu(d->slow_blocks);
	slow.volume_blocks = le64_to_cpu(d->volume_blocks);
	slow.redo_start = le64_to_cpu(d->redo_start);
	slow.redo_blocks = le64_to_cpu(d->redo_blocks);
	slow.data_start = le64_to_cpu(d->data_start);
	slow.salt = le64_to_cpu(d->salt);
	slow.flags = le32_to_cpu(d->flags);
	slow.absent_shift = le32_to_cpu(d->absent_shift);
	slow.absent_start = le64_to_cpu(d->absent_start);
	slow.absent_blocks = le64_to_cpu(d->absent_blocks);
	if (!area_ok(slow.data_start, slow.volume_blocks, slow.slow_blocks) ||
	    !area_ok(slow.redo_start, slow.redo_blocks, slow.data_start) ||
	    slow.redo_start < CH_META_START ||
	    !absent_ok(slow.absent_start, slow.absent_blocks, slow.absent_shift,
		       slow.redo_start + slow.redo_blocks, slow.data_start))
		return CH_CHECK_RANGE;
	*ret_slow = slow;
	return CH_CHECK_OK;
}

enum ch_check ch_slow_pick(const void *block_a, const void *block_b, struct ch_slow *ret_slow)
{
	enum ch_check check_a = ch_slow_decode(block_a, ret_slow);
	enum ch_check check_b;

	if (check_a == CH_CHECK_OK)
		return CH_CHECK_OK;
	check_b = ch_slow_decode(block_b, ret_slow);
	return check_b == CH_CHECK_OK ? CH_CHECK_OK : worse(check_a, check_b);
}

/* ---- redo area ---- */

bool ch_redo_decode(const void *block, u64 salt, struct ch_redo *ret_redo)
{
	const struct ch_redo_disk *d = block;
	struct ch_redo redo = {
		.end_pos = le64_to_cpu(d->end_pos),
		.end_seq = le64_to_cpu(d->end_seq),
		.index = le32_to_cpu(d->index),
		.items = le32_to_cpu(d->items),
		.total = le32_to_cpu(d->total),
	};
	u64 before = (u64)redo.index * CH_REDO_ITEMS_MAX;

	if (le32_to_cpu(d->magic) != CH_REDO_MAGIC || le64_to_cpu(d->salt) != salt ||
	    le32_to_cpu(d->crc) != ch_redo_crc(d))
		return false;
	if (before >= redo.total || redo.items > CH_REDO_ITEMS_MAX ||
	    redo.items != clamp_u64(redo.total - before, 1, CH_REDO_ITEMS_MAX))
		return false;
	*ret_redo = redo;
	return true;
}

u64 ch_redo_blocks(u64 items)
{
	return items + div_up(items, CH_REDO_ITEMS_MAX);
}

u64 ch_redo_items(u64 blocks)
{
	u64 rest = blocks % CH_REDO_CHUNK_BLOCKS;

	return blocks / CH_REDO_CHUNK_BLOCKS * CH_REDO_ITEMS_MAX + (rest ? rest - 1 : 0);
}

/* ---- format ---- */

void ch_format_sb(struct ch_sb *ret_sb, const struct ch_geometry *geo, const u8 uuid[16], u64 salt,
		  const char *name)
{
	struct ch_sb *sb = ret_sb;

	memset(sb, 0, sizeof(*sb));
	memcpy(sb->uuid, uuid, sizeof(sb->uuid));
	sb->salt = salt;
	sb->generation = 2;
	for (u32 i = 0; i < CH_NAME_MAX - 1 && name[i]; i++)
		sb->name[i] = name[i];
	sb->geo = *geo;
	sb->incompat = geo->absent_blocks ? CH_INCOMPAT_ABSENT : 0;
	sb->flags = CH_SB_CLEAN | CH_SB_FULL;
	/* Position 0 means "none" elsewhere (pin_pos): start one lap on. */
	sb->tail_pos = sb->session_pos = geo->log_blocks;
	sb->tail_seq = 1;
	sb->epoch = 1;
}

/* Map blocks of both slots, then superblock B, then A (the higher generation). */
u64 ch_format_fast_blocks(const struct ch_sb *sb)
{
	return 2 * sb->geo.map_blocks + 2;
}

static void format_map_block(const struct ch_sb *sb, u64 n, void *block)
{
	struct ch_map_disk *map = block;
	u64 first = n % sb->geo.map_blocks * CH_MAP_SECTORS_PER_BLOCK;

	memset(block, 0, CH_BLOCK_SIZE);
	for (u32 i = 0; i < CH_MAP_SECTORS_PER_BLOCK; i++, map++) {
		map->magic = cpu_to_le32(CH_MAP_MAGIC);
		map->salt = cpu_to_le64(sb->salt);
		map->index = cpu_to_le32((u32)first + i);
		map->slot = cpu_to_le32((u32)(n / sb->geo.map_blocks));
		map->crc = cpu_to_le32(ch_map_crc(map));
	}
}

void ch_format_fast(const struct ch_sb *sb, u64 n, void *block, u64 *ret_block)
{
	u64 generation = sb->generation;

	if (n < 2 * sb->geo.map_blocks) {
		format_map_block(sb, n, block);
		*ret_block = sb->geo.map_start + n;
		return;
	}
	if (n == 2 * sb->geo.map_blocks)
		generation--;
	sb_encode(sb, generation, block);
	*ret_block = ch_sb_place(generation);
}

/* The map of absent granules, then both headers. */
u64 ch_format_slow_blocks(const struct ch_sb *sb)
{
	return sb->geo.absent_blocks + 2;
}

static void format_absent_block(const struct ch_sb *sb, u64 n, void *block)
{
	struct ch_map_disk *map = block;
	u64 granule = n * CH_ABSENT_BLOCK_BITS, granules = ch_geometry_granules(&sb->geo);

	memset(block, 0, CH_BLOCK_SIZE);
	for (u32 i = 0; i < CH_MAP_SECTORS_PER_BLOCK; i++, map++) {
		map->magic = cpu_to_le32(CH_ABSENT_MAGIC);
		map->salt = cpu_to_le64(sb->salt);
		map->index = cpu_to_le32((u32)n * CH_MAP_SECTORS_PER_BLOCK + i);
		for (u32 bit = 0; bit < CH_MAP_SECTOR_BITS && granule < granules; bit++, granule++)
			map->bits[bit / 8] |= (u8)(1 << (bit % 8));
		map->crc = cpu_to_le32(ch_map_crc(map));
	}
}

void ch_format_slow(const struct ch_sb *sb, u64 n, void *block, u64 *ret_block)
{
	struct ch_slow slow = {
		.slow_blocks = sb->geo.slow_blocks,
		.volume_blocks = sb->geo.volume_blocks,
		.redo_start = sb->geo.redo_start,
		.redo_blocks = sb->geo.redo_blocks,
		.data_start = sb->geo.data_start,
		.absent_start = sb->geo.absent_start,
		.absent_blocks = sb->geo.absent_blocks,
		.absent_shift = sb->geo.absent_shift,
		.incompat = sb->incompat,
		.salt = sb->salt,
	};

	memcpy(slow.uuid, sb->uuid, sizeof(slow.uuid));
	memcpy(slow.name, sb->name, sizeof(slow.name));
	if (n < sb->geo.absent_blocks) {
		format_absent_block(sb, n, block);
		*ret_block = sb->geo.absent_start + n;
		return;
	}
	ch_slow_encode(&slow, block);
	*ret_block = n == sb->geo.absent_blocks ? CH_SB_BLOCK_B : CH_SB_BLOCK_A;
}
