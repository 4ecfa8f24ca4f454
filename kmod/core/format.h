/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The on-disk format: structures, their codec, and what `volume create` writes.
 * Pure: fills and reads buffers, does no I/O. Documentation/on-disk-format.md
 * shows the same as tables. All functions may be called in any context.
 *
 * Everything is counted in blocks of 4 KiB unless a name says otherwise.
 *
 * Fast device:  superblock A | superblock B | changed map 0, 1 | summary pages | log |
 *               lines of the read tier
 * Slow device:  header A | header B | redo area | map of absent granules | data of the volume
 */
#ifndef CH_CORE_FORMAT_H
#define CH_CORE_FORMAT_H

#include "kmod/core/port.h"

#define CH_BLOCK_SHIFT	     12
#define CH_BLOCK_SIZE	     (1U << CH_BLOCK_SHIFT)
#define CH_SECTORS_PER_BLOCK (CH_BLOCK_SIZE / 512)
#define CH_REGION_BLOCKS     256U /* 1 MiB: unit of alignment, destage and read pins */
#define CH_LINE_BLOCKS	     8U	  /* 32 KiB: what the read tier keeps or drops as one */

#define CH_FORMAT_VERSION 2U
#define CH_SB_BLOCK_A	  0U /* the same two places on both devices */
#define CH_SB_BLOCK_B	  16U
#define CH_META_START	  32U /* first block behind the superblocks */
#define CH_NAME_MAX	  64  /* with the terminating 0 */

#define CH_FAST_MAGIC	"CohostF1"
#define CH_SLOW_MAGIC	"CohostS1"
#define CH_REC_MAGIC	0x52486f43U /* "CoHR" */
#define CH_MAP_MAGIC	0x4d486f43U /* "CoHM" */
#define CH_REDO_MAGIC	0x55486f43U /* "CoHU" */
#define CH_SUM_MAGIC	0x49486f43U /* "CoHI" */
#define CH_ABSENT_MAGIC 0x41486f43U /* "CoHA" */

/* Superblock flags. */
#define CH_SB_CLEAN (1U << 0) /* shut down in order; informative, recovery needs no trust */
#define CH_SB_FULL  (1U << 1) /* no synced checkpoint yet: everything counts as changed */

/* A set bit that the reader does not know in `incompat` refuses the device, in `compat` does not.
 */
#define CH_INCOMPAT_ABSENT (1ULL << 0) /* there is a map of absent granules */
#define CH_INCOMPAT_KNOWN  CH_INCOMPAT_ABSENT

/* A live checkpoint, as the superblock keeps it; those in use come first, ascending by pos. */
#define CH_PINS_MAX 64U
struct ch_pin_disk {
	__le64 epoch; /* that it began; 0 = unused */
	__le64 pos;   /* of its marker: the view is what lies before it; 0 = the view is lost */
	__le64 seq;   /* of its marker */
	__le64 created_ns;
};
static_assert(sizeof(struct ch_pin_disk) == 32, "pin layout");

/* Superblock of the fast device: one 4 KiB block, two places, the higher valid generation wins. */
struct ch_sb_disk {
	u8 magic[8];
	__le32 version;
	__le32 crc; /* CRC-32C of the block with this field 0 */
	__le64 compat;
	__le64 incompat;
	u8 uuid[16];
	__le64 salt;	   /* random per format: foreign log records never match */
	__le64 generation; /* +1 per superblock write, parity selects the place */
	u8 name[CH_NAME_MAX];
	__le64 fast_blocks;
	__le64 slow_blocks;
	__le64 volume_blocks;
	__le64 map_start;
	__le64 map_blocks; /* of one of the two maps */
	__le64 sum_start;
	__le64 sum_blocks;
	__le64 log_start;
	__le64 log_blocks;
	__le64 redo_start; /* on the slow device */
	__le64 redo_blocks;
	__le64 data_start;    /* on the slow device */
	__le32 changed_shift; /* one bit of the changed map covers 1 << shift blocks */
	__le32 flags;
	__le64 tail_pos;      /* where recovery starts, see ch_rec_disk.pos */
	__le64 tail_seq;      /* seq of the record that is (or will be) there */
	__le32 tail_prev_crc; /* crc of the record before it */
	__le32 session;	      /* +1 per start */
	__le64 durable_seq;   /* the log is known to be whole up to this seq */
	__le64 epoch;	      /* at least this epoch has begun */
	__le64 base_epoch;    /* the changed map holds what changed since this epoch began */
	__le32 base_slot;     /* which of the two maps belongs to base_epoch */
	__le32 reserved0;
	__le64 session_pos;  /* where this session's first record goes: see below */
	__le64 line_start;   /* lines of the read tier; what they hold does not outlive a stop */
	__le64 line_blocks;  /* 0: no read tier */
	__le64 absent_start; /* on the slow device, 0 without such a map */
	__le64 absent_blocks;
	__le32 absent_shift; /* a granule is 1 << shift blocks */
	u8 reserved1[512 - 332];
	struct ch_pin_disk pin[CH_PINS_MAX];
	u8 reserved[4096 - 2560];
};
static_assert(sizeof(struct ch_sb_disk) == CH_BLOCK_SIZE, "superblock is one block");
static_assert(offsetof(struct ch_sb_disk, fast_blocks) == 128, "superblock layout");
static_assert(offsetof(struct ch_sb_disk, tail_pos) == 232, "superblock layout");
static_assert(offsetof(struct ch_sb_disk, line_start) == 296, "superblock layout");
static_assert(offsetof(struct ch_sb_disk, pin) == 512, "superblock layout");
static_assert(offsetof(struct ch_sb_disk, reserved) == 2560, "superblock layout");

/*
 * Sessions: a start writes session + 1 and the end of the recovered log into the
 * superblock before it writes a record. So a record at or behind session_pos counts only
 * if it carries this very session, one before it only if it carries an earlier one:
 * what a power cut left behind the end of the log can never come back.
 */

/*
 * Header of the slow device: written by format only, same two places. A rescue (the slow device
 * alone, after the fast one died) gives it a new uuid and salt: no log belongs to it any more,
 * and what is in the redo area does not count again.
 */
#define CH_SLOW_RESCUED (1U << 0)
struct ch_slow_disk {
	u8 magic[8];
	__le32 version;
	__le32 crc; /* as above */
	__le64 compat;
	__le64 incompat;
	u8 uuid[16]; /* must equal the fast device's */
	__le64 slow_blocks;
	__le64 volume_blocks;
	__le64 redo_start;
	__le64 redo_blocks;
	__le64 data_start;
	u8 name[CH_NAME_MAX];
	__le64 salt;	     /* the fast device's: of the redo lists that count */
	__le32 flags;	     /* CH_SLOW_* */
	__le32 absent_shift; /* these three as in the superblock */
	__le64 absent_start;
	__le64 absent_blocks;
	u8 reserved[4096 - 184];
};
static_assert(sizeof(struct ch_slow_disk) == CH_BLOCK_SIZE, "slow header is one block");
static_assert(offsetof(struct ch_slow_disk, salt) == 152, "slow header layout");
static_assert(offsetof(struct ch_slow_disk, reserved) == 184, "slow header layout");

/*
 * A log record: one header block, then `blocks - 1` blocks of payload, always
 * contiguous on the device. Position `pos` counts blocks since format and never
 * wraps (u64); its place is log_start + pos % log_blocks.
 */
#define CH_REC_MARKER	   (1U << 0) /* epoch begins here; no payload */
#define CH_REC_PAD	   (1U << 1) /* skips to the end of the log area; payload: anything */
#define CH_REC_FLAGS_KNOWN (CH_REC_MARKER | CH_REC_PAD)

struct ch_extent_disk {
	__le64 lba; /* block of the volume */
	__le32 len; /* blocks; bits 24-31 are flags (none known so far), 1 for data */
	__le32 crc; /* CRC-32C of the payload block */
};
static_assert(sizeof(struct ch_extent_disk) == 16, "extent layout");

#define CH_REC_EXTENTS_MAX 250U
struct ch_rec_disk {
	__le32 magic;
	__le32 crc; /* CRC-32C of the header block with this field 0 */
	__le64 salt;
	__le64 seq; /* +1 per record */
	__le64 pos;
	__le64 epoch;	    /* epoch the record belongs to; a marker carries the new one */
	__le64 durable_seq; /* records up to this seq were durable when this one was made */
	__le32 session;	    /* never smaller than the previous record's */
	__le32 prev_crc;    /* crc field of the previous record's header */
	__le32 flags;
	__le32 extents; /* payload block i belongs to extent i */
	__le32 blocks;	/* header included */
	__le32 reserved0;
	u8 reserved[24];
	struct ch_extent_disk extent[CH_REC_EXTENTS_MAX];
};
static_assert(sizeof(struct ch_rec_disk) == CH_BLOCK_SIZE, "record header is one block");
static_assert(offsetof(struct ch_rec_disk, extent) == 96, "record layout");
#define CH_REC_BLOCKS_MAX (1U + CH_REC_EXTENTS_MAX)

/*
 * A sector of the changed map. Bits are relative to the epoch in the sector:
 * a valid sector of an older epoch means "nothing yet", an invalid one "all".
 */
#define CH_MAP_SECTOR_BITS 3840U
struct ch_map_disk {
	__le32 magic;
	__le32 crc; /* CRC-32C of the sector with this field 0 */
	__le64 salt;
	__le64 epoch;
	__le32 index; /* of this sector in its map */
	__le32 slot;  /* which map */
	u8 bits[CH_MAP_SECTOR_BITS / 8];
};
static_assert(sizeof(struct ch_map_disk) == 512, "map sector is one sector");
#define CH_MAP_SECTORS_PER_BLOCK 8U

/*
 * The map of absent granules (absent.h) is made of the same sectors, with CH_ABSENT_MAGIC, epoch
 * and slot 0. Other than there, a sector that does not verify is an error.
 */
#define CH_ABSENT_SHIFT	     6U /* 64 blocks, 256 KiB: the largest frame of the sync format */
#define CH_ABSENT_BLOCK_BITS (CH_MAP_SECTOR_BITS * CH_MAP_SECTORS_PER_BLOCK)

/*
 * The redo area of the slow device: what the batch under way is about to write, so that the
 * slow device alone can always be brought to one moment of the volume. A list block, the
 * payload blocks it names, the next list block, and so on. It counts as a whole or not at
 * all: every list block and every payload must verify and agree about end_pos.
 */
#define CH_REDO_ITEMS_MAX 504U
struct ch_redo_item_disk {
	__le32 lba;
	__le32 crc; /* CRC-32C of the payload block */
};
struct ch_redo_disk {
	__le32 magic;
	__le32 crc; /* CRC-32C of the block with this field 0 */
	__le64 salt;
	__le64 end_pos; /* replayed, the slow device holds what the log does before this position */
	__le64 end_seq; /* of the record there */
	__le32 index;	/* of this list block, from 0 */
	__le32 items;	/* in this one */
	__le32 total;	/* in all of them; all but the last are full */
	u8 reserved[20];
	struct ch_redo_item_disk item[CH_REDO_ITEMS_MAX];
};
static_assert(sizeof(struct ch_redo_disk) == CH_BLOCK_SIZE, "redo list is one block");
#define CH_REDO_CHUNK_BLOCKS (1U + CH_REDO_ITEMS_MAX)

/*
 * A summary page: what CH_SUM_ENTRIES blocks of the log hold, so that recovery needs not read
 * their record headers. Page n of the area is for log blocks n * CH_SUM_ENTRIES and on. It
 * is written when all its records are durable; one of another lap, or that does not
 * verify, is as good as none: then the headers are read.
 */
#define CH_SUM_ENTRIES 504U
#define CH_SUM_HEADER  0xffff0000U /* lba of a record's header: | its length | kind */
#define CH_SUM_BLOCKS  0x00000fffU
#define CH_SUM_MARKER  0x00001000U
#define CH_SUM_PAD     0x00002000U
struct ch_sum_entry_disk {
	__le32 lba;
	__le32 crc; /* of the payload block, or of the record's header */
};
struct ch_sum_disk {
	__le32 magic;
	__le32 crc; /* CRC-32C of the block with this field 0 */
	__le64 salt;
	__le64 pos;	/* of the first block of the page */
	__le64 seq;	/* of the first record that begins at or behind entry `first` */
	__le64 epoch;	/* no record of the page belongs to a later one */
	__le32 first;	/* entries before it say nothing */
	__le32 entries; /* up to here */
	u8 reserved[16];
	struct ch_sum_entry_disk entry[CH_SUM_ENTRIES];
};
static_assert(sizeof(struct ch_sum_disk) == CH_BLOCK_SIZE, "summary page is one block");

/* ---- native forms ---- */

struct ch_pin {
	u64 epoch, pos, seq, created_ns; /* as in struct ch_pin_disk */
};

struct ch_geometry {
	u64 fast_blocks, slow_blocks, volume_blocks;
	u64 map_start, map_blocks;
	u64 sum_start, sum_blocks;
	u64 log_start, log_blocks;
	u64 line_start, line_blocks;
	u64 redo_start, redo_blocks, data_start;
	u64 absent_start, absent_blocks; /* 0: nothing was ever absent */
	u32 changed_shift, absent_shift;
};

struct ch_sb {
	u64 compat, incompat;
	u8 uuid[16];
	u64 salt, generation;
	char name[CH_NAME_MAX];
	struct ch_geometry geo;
	u32 flags;
	u64 tail_pos, tail_seq;
	u32 tail_prev_crc;
	u32 session;
	u64 session_pos;
	u64 durable_seq;
	u64 epoch, base_epoch;
	u32 base_slot;
	u32 pins;
	struct ch_pin pin[CH_PINS_MAX];
};

/* A list block of the redo area, without its items. */
struct ch_redo {
	u64 end_pos, end_seq;
	u32 index, items, total;
};

struct ch_slow {
	u64 compat, incompat;
	u8 uuid[16];
	char name[CH_NAME_MAX];
	u64 slow_blocks, volume_blocks, redo_start, redo_blocks, data_start;
	u64 absent_start, absent_blocks;
	u64 salt;
	u32 flags, absent_shift;
};

enum ch_check {
	CH_CHECK_OK,
	CH_CHECK_ABSENT,  /* magic does not match: not ours */
	CH_CHECK_OLD,	  /* ours, but of an older version */
	CH_CHECK_VERSION, /* ours, but of a newer version or with unknown incompat bits */
	CH_CHECK_CRC,	  /* ours, damaged */
	CH_CHECK_RANGE,	  /* ours, crc right, but the values contradict each other */
};

/* One sentence for people, never NULL. */
const char *ch_check_text(enum ch_check check);

/*
 * Smallest devices. Fast: superblocks, maps and a log of CH_LOG_BLOCKS_MIN, which
 * holds the largest records in flight twice over, so that a writer never waits for
 * itself. Slow: headers, redo area and 16 MiB of volume (XFS needs more; that is
 * mkfs's to say).
 */
#define CH_LOG_BLOCKS_MIN    8192ULL	   /* 32 MiB */
#define CH_VOLUME_BLOCKS_MIN 4096ULL	   /* 16 MiB */
#define CH_LOG_BLOCKS_MAX    (1ULL << 31)  /* 8 TiB: index entries are 32 bit, */
#define CH_VOLUME_BLOCKS_MAX 0xffff0000ULL /* and so are blocks of the volume: 16 TiB */
#define CH_FAST_BYTES_MIN    (40ULL << 20)
#define CH_SLOW_BYTES_MIN    (32ULL << 20)

/*
 * By default the log gets half of what it may share with the read tier, at most
 * CH_LOG_BYTES_DEFAULT_MAX: more log makes a longer recovery, more lines more hits. A small
 * fast device is all log.
 */
#define CH_LOG_BYTES_DEFAULT_MAX (32ULL << 30)
#define CH_LOG_BYTES_SHARE_MIN	 (1ULL << 30)

struct ch_geometry_spec {
	u64 fast_bytes, slow_bytes; /* sizes of the devices */
	u64 log_bytes;		    /* wanted, rounded up to MiB; 0 = by default */
	bool absent;		    /* it begins with nothing there, and a map that says so */
};

/*
 * Lays out both devices. 0, or -ENOSPC (a device too small), -EFBIG (slow device or log
 * too large) or -EINVAL (log too small) with *ret_why = a sentence for people, which the
 * caller does not free.
 */
int ch_geometry_init(struct ch_geometry *ret_geo, const struct ch_geometry_spec *spec,
		     const char **ret_why);

/*
 * The layout when the slow device of a volume has got larger, or when another fast device takes the
 * place of its own: areas stay where they are, the volume or the read tier gets what is new. 0,
 * -ENOSPC or -EFBIG with *ret_why as above; -EALREADY: there is nothing new to be had. A
 * changed_shift that is not what it was makes the changed map unreadable: the caller then
 * has to say that everything has changed (CH_SB_FULL).
 */
int ch_geometry_grow(struct ch_geometry *geo, u64 slow_bytes, const char **ret_why);
int ch_geometry_move(struct ch_geometry *geo, u64 fast_bytes, const char **ret_why);

/* True when no area overlaps another or leaves its device. Used on every superblock read. */
bool ch_geometry_valid(const struct ch_geometry *geo);

/* Sectors of 512 bytes in one changed map, and the bits in it. */
u32 ch_geometry_map_sectors(const struct ch_geometry *geo);
u64 ch_geometry_map_bits(const struct ch_geometry *geo);
/* Granules that can be absent: all of those with which the volume began; 0 without a map. */
u64 ch_geometry_granules(const struct ch_geometry *geo);

/* A struct ch_sb is too large for the kernel's stack; where decode or pick fail it is garbage. */
void ch_sb_encode(const struct ch_sb *sb, void *block);
enum ch_check ch_sb_decode(const void *block, struct ch_sb *ret_sb);

/*
 * The newer valid of the two superblocks. On failure the more telling reason of the
 * two. `ret_slot`, if not NULL: 0 = A, 1 = B.
 */
enum ch_check ch_sb_pick(const void *block_a, const void *block_b, struct ch_sb *ret_sb,
			 u32 *ret_slot);

/* The block number where a superblock with this generation is written. */
u64 ch_sb_place(u64 generation);

void ch_slow_encode(const struct ch_slow *slow, void *block);
enum ch_check ch_slow_decode(const void *block, struct ch_slow *ret_slow);
enum ch_check ch_slow_pick(const void *block_a, const void *block_b, struct ch_slow *ret_slow);

/* CRC helpers; the crc field is taken as 0. */
u32 ch_rec_crc(const struct ch_rec_disk *rec);
u32 ch_map_crc(const struct ch_map_disk *map);
u32 ch_redo_crc(const struct ch_redo_disk *redo);
u32 ch_sum_crc(const struct ch_sum_disk *sum);

/* Is it a whole redo list of the volume with this salt? Payload is the caller's to verify. */
bool ch_redo_decode(const void *block, u64 salt, struct ch_redo *ret_redo);
/* Blocks that so many items take in the redo area, lists included; and the other way round. */
u64 ch_redo_blocks(u64 items);
u64 ch_redo_items(u64 blocks);

/*
 * Format. Fill `sb` by ch_format_sb() from geometry, uuid (16 bytes), salt (random)
 * and name (NUL-terminated, < CH_NAME_MAX); then write, for n in
 * [0, ch_format_fast_blocks()), the block filled by ch_format_fast() at *ret_block of
 * the fast device, likewise the slow device, and flush both. Order matters for a
 * format that is interrupted: superblocks come last on both.
 */
void ch_format_sb(struct ch_sb *ret_sb, const struct ch_geometry *geo, const u8 uuid[16], u64 salt,
		  const char *name);
u64 ch_format_fast_blocks(const struct ch_sb *sb);
void ch_format_fast(const struct ch_sb *sb, u64 n, void *block, u64 *ret_block);
u64 ch_format_slow_blocks(const struct ch_sb *sb);
void ch_format_slow(const struct ch_sb *sb, u64 n, void *block, u64 *ret_block);

#endif
