// SPDX-License-Identifier: MIT
/*
 * Making and unmaking volumes: create, start, stop, delete. See volume.h. The format is the
 * codec of kmod/core, the running volume a device-mapper table of target "cohost".
 *
 * Order in create: everything is checked while both devices are held exclusively; then
 * what is there is wiped, the format written and flushed, the devices let go (the kernel
 * wants them for itself) and the table loaded. A failure after the first write takes the
 * headers away again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/random.h>
#include <sys/sysmacros.h>

#include "kmod/core/format.h"
#include "lib/blockdev.h"
#include "lib/dm.h"
#include "lib/netlink.h"
#include "lib/volume.h"
#include "lib/volume_header.h"

/* Both devices of a volume, held exclusively. */
struct pair {
	struct ch_blockdev fast, slow;
};

bool ch_volume_name_valid(const char *name)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
		"._-";
	size_t length = strlen(name);

	return length >= 1 && length < CH_VOLUME_NAME_SIZE && strspn(name, allowed) == length &&
	       !strchr("._-", name[0]);
}

const char *ch_volume_path(const char *name, char buf[static CH_VOLUME_PATH_SIZE])
{
	(void)snprintf(buf, CH_VOLUME_PATH_SIZE, "/dev/mapper/cohost-%s", name);
	return buf;
}

const char *ch_volume_dm_name(const char *name, char buf[static CH_DM_NAME_SIZE])
{
	(void)snprintf(buf, CH_DM_NAME_SIZE, "cohost-%s", name);
	return buf;
}

void ch_volume_dm_uuid(const uint8_t u[static COHOST_UUID_LEN], char buf[static CH_DM_UUID_SIZE])
{
	(void)snprintf(
		buf, CH_DM_UUID_SIZE,
		"COHOST-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
		u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
		u[14], u[15]);
}

int ch_volume_identity(uint8_t ret_uuid[static COHOST_UUID_LEN], uint64_t *ret_salt,
		       struct ch_error *e)
{
	if (getrandom(ret_uuid, COHOST_UUID_LEN, 0) != COHOST_UUID_LEN ||
	    getrandom(ret_salt, sizeof(*ret_salt), 0) != sizeof(*ret_salt))
		return ch_error_set(e, -EIO, "the kernel gives no random numbers");
	ret_uuid[6] = (ret_uuid[6] & 0x0f) | 0x40; /* RFC 4122, version 4 */
	ret_uuid[8] = (ret_uuid[8] & 0x3f) | 0x80;
	return 0;
}

int ch_volume_name_check(const char *name, struct ch_error *e)
{
	if (ch_volume_name_valid(name))
		return 0;
	ch_error_set_exit(e, -EINVAL, CH_EXIT_USAGE, "'%s' is no name for a volume", name);
	return ch_error_hint(
		e, "use 1 to %d letters, digits and . _ - beginning with a letter or digit",
		COHOST_VOLUME_NAME_MAX);
}

int ch_volume_name_free(const char *name, struct ch_error *e)
{
	char device[CH_DM_NAME_SIZE];
	int found = ch_dm_exists(ch_volume_dm_name(name, device), e);

	if (found <= 0)
		return found;
	ch_error_set(e, -EEXIST, "volume '%s' is started already", name);
	return ch_error_hint(e, "look at it with: cohostctl volume show %s", name);
}

/* The module is there, and no volume of this name is started. */
static int check_free(const char *name, struct ch_error *e)
{
	struct ch_netlink nl;
	int err;

	err = ch_dm_check(e);
	if (err)
		return err;
	err = ch_netlink_open(&nl, e);
	if (err)
		return err;
	ch_netlink_close(&nl);
	return ch_volume_name_free(name, e);
}

static void pair_close(struct pair *pair)
{
	ch_blockdev_close(&pair->fast);
	ch_blockdev_close(&pair->slow);
}

/* Before the second one is opened: held exclusively, it would look as if in use. */
static int check_two(const struct ch_volume_spec *spec, const struct ch_blockdev *fast,
		     struct ch_error *e)
{
	struct stat st;

	if (stat(spec->slow, &st) || !S_ISBLK(st.st_mode) || st.st_rdev != fast->dev)
		return 0;
	ch_error_set_exit(e, -EINVAL, CH_EXIT_USAGE, "fast and slow are the same device: %s",
			  spec->fast);
	return ch_error_hint(e, "a volume needs two devices, the fast one for its log and the slow "
				"one for its data");
}

static int pair_open(const struct ch_volume_spec *spec, struct pair *ret_pair, struct ch_error *e)
{
	struct pair pair = {.fast.fd = -1, .slow.fd = -1};
	int err;

	err = ch_blockdev_open(spec->fast, &pair.fast, e);
	if (err)
		return err;
	err = check_two(spec, &pair.fast, e);
	if (!err)
		err = ch_blockdev_open(spec->slow, &pair.slow, e);
	if (err) {
		pair_close(&pair);
		return err;
	}
	*ret_pair = pair;
	return 0;
}

/* The devices of a volume that is to run under this name. */
static int pair_take(const struct ch_volume_spec *spec, struct pair *ret_pair, struct ch_error *e)
{
	int err = ch_volume_name_check(spec->name, e);

	if (!err)
		err = check_free(spec->name, e);
	return err ? err : pair_open(spec, ret_pair, e);
}

/* --- the headers on the devices -------------------------------------------------- */

int ch_header_wipe(const struct ch_blockdev *dev, struct ch_error *e)
{
	const struct ch_block zeroes = {0};
	int err;

	err = ch_blockdev_write(dev, CH_SB_BLOCK_A, &zeroes, e);
	if (!err)
		err = ch_blockdev_write(dev, CH_SB_BLOCK_B, &zeroes, e);
	return err ? err : ch_blockdev_flush(dev, e);
}

/* Writes `count` blocks as the codec lays them out, and flushes. */
static int format_one(const struct ch_blockdev *dev, const struct ch_sb *sb, uint64_t count,
		      void (*layout)(const struct ch_sb *sb, u64 n, void *block, u64 *place),
		      struct ch_error *e)
{
	struct ch_block block;
	u64 place;

	for (uint64_t n = 0; n < count; n++) {
		int err;

		layout(sb, n, &block, &place);
		err = ch_blockdev_write(dev, place, &block, e);
		if (err)
			return err;
	}
	return ch_blockdev_flush(dev, e);
}

/* --- create ------------------------------------------------------------------------ */

static int fail_held(const char *path, const char *what, struct ch_error *e)
{
	ch_error_set(e, -EEXIST, "device %s already holds %s", path, what);
	return ch_error_hint(e, "if all of that may be lost, run it again with -y");
}

int ch_header_empty(const struct ch_blockdev *dev, struct ch_error *e)
{
	struct ch_slow slow;
	struct ch_sb sb;
	enum ch_check fast_check, slow_check;
	char what[256];
	int err;

	err = ch_header_read_fast(dev, &fast_check, &sb, e);
	if (!err)
		err = ch_header_read_slow(dev, &slow_check, &slow, e);
	if (err)
		return err;
	if (fast_check != CH_CHECK_ABSENT || slow_check != CH_CHECK_ABSENT) {
		const char *name = fast_check == CH_CHECK_OK   ? sb.name
				   : slow_check == CH_CHECK_OK ? slow.name
							       : NULL;

		(void)snprintf(what, sizeof(what),
			       name ? "cohost volume '%s'" : "a cohost volume that %s",
			       name ? name
				    : ch_check_text(fast_check != CH_CHECK_ABSENT ? fast_check
										  : slow_check));
		return fail_held(dev->path, what, e);
	}
	err = ch_blockdev_signature(dev, what, sizeof(what), e);
	if (err == 1)
		return fail_held(dev->path, what, e);
	return err;
}

static int check_geometry(const struct pair *pair, const struct ch_volume_spec *volume,
			  struct ch_geometry *ret_geo, struct ch_error *e)
{
	const struct ch_geometry_spec spec = {
		.fast_bytes = pair->fast.size_bytes,
		.slow_bytes = pair->slow.size_bytes,
		.log_bytes = volume->log_bytes,
		.absent = volume->absent,
	};
	const char *why = "the devices do not fit";
	int err;

	err = ch_geometry_init(ret_geo, &spec, &why);
	if (!err)
		return 0;
	ch_error_set(e, err, "%s (%s has %" PRIu64 " MiB, %s has %" PRIu64 " MiB)", why,
		     pair->fast.path, pair->fast.size_bytes >> 20, pair->slow.path,
		     pair->slow.size_bytes >> 20);
	if (volume->log_bytes)
		return ch_error_hint(e,
				     "leave `log` out for a size that fits, or give another one "
				     "of at least %llu MiB",
				     CH_LOG_BLOCKS_MIN * CH_BLOCK_SIZE >> 20);
	return ch_error_hint(e, "the fast device needs at least %llu MiB, the slow one %llu MiB",
			     CH_FAST_BYTES_MIN >> 20, CH_SLOW_BYTES_MIN >> 20);
}

static int make_sb(const char *name, const struct ch_geometry *geo, struct ch_sb *ret_sb,
		   struct ch_error *e)
{
	uint8_t uuid[COHOST_UUID_LEN];
	uint64_t salt;
	int err = ch_volume_identity(uuid, &salt, e);

	if (!err)
		ch_format_sb(ret_sb, geo, uuid, salt, name);
	return err;
}

struct ch_dm_table ch_volume_table(const struct ch_sb *sb, dev_t fast, dev_t slow,
				   struct ch_volume_table_text *ret_text)
{
	struct ch_volume_table_text *text = ret_text;

	ch_volume_dm_name(sb->name, text->name);
	ch_volume_dm_uuid(sb->uuid, text->uuid);
	(void)snprintf(text->params, sizeof(text->params), "%u:%u %u:%u", major(fast), minor(fast),
		       major(slow), minor(slow));
	return (struct ch_dm_table){
		.name = text->name,
		.uuid = text->uuid,
		.target = "cohost",
		.params = text->params,
		.sectors = sb->geo.volume_blocks * CH_SECTORS_PER_BLOCK,
	};
}

/* Loads the table. The devices must have been let go of. */
static int load_table(const struct pair *pair, const struct ch_sb *sb, struct ch_error *e)
{
	struct ch_volume_table_text text;
	const struct ch_dm_table table = ch_volume_table(sb, pair->fast.dev, pair->slow.dev, &text);

	return ch_dm_create(&table, e);
}

/* After a failure: the error that counts is the first one. */
static void undo_format(const struct ch_volume_spec *spec)
{
	struct pair pair;

	if (pair_open(spec, &pair, NULL))
		return;
	(void)ch_header_wipe(&pair.fast, NULL);
	(void)ch_header_wipe(&pair.slow, NULL);
	pair_close(&pair);
}

static int format(const struct ch_volume_spec *spec, const struct pair *pair,
		  const struct ch_sb *sb, struct ch_error *e)
{
	int err = 0;

	if (spec->overwrite) {
		err = ch_blockdev_wipe(&pair->fast, e);
		if (!err)
			err = ch_blockdev_wipe(&pair->slow, e);
	}
	/* The slow device first: a fast one with headers is what makes a volume. */
	if (!err)
		err = format_one(&pair->slow, sb, ch_format_slow_blocks(sb), ch_format_slow, e);
	if (!err)
		err = format_one(&pair->fast, sb, ch_format_fast_blocks(sb), ch_format_fast, e);
	return err;
}

int ch_volume_create(const struct ch_volume_spec *spec, uint64_t *ret_size_bytes,
		     struct ch_error *e)
{
	struct ch_geometry geo;
	struct pair pair;
	struct ch_sb sb;
	int err;

	err = pair_take(spec, &pair, e);
	if (err)
		return err;
	err = check_geometry(&pair, spec, &geo, e);
	if (!err && !spec->overwrite)
		err = ch_header_empty(&pair.fast, e);
	if (!err && !spec->overwrite)
		err = ch_header_empty(&pair.slow, e);
	if (!err)
		err = make_sb(spec->name, &geo, &sb, e);
	if (err || spec->dry_run) {
		pair_close(&pair);
		goto out;
	}
	err = format(spec, &pair, &sb, e);
	pair_close(&pair);
	if (!err)
		err = load_table(&pair, &sb, e);
	if (err)
		undo_format(spec);
out:
	if (!err && ret_size_bytes)
		*ret_size_bytes = geo.volume_blocks * CH_BLOCK_SIZE;
	return err;
}

/* --- start, stop, delete --------------------------------------------------------------- */

/* Both devices belong to one volume, and it has this name. */
static int pair_check(const struct pair *pair, const char *name, struct ch_sb *ret_sb,
		      struct ch_error *e)
{
	enum ch_check fast_check, slow_check;
	struct ch_slow slow;
	int err;

	err = ch_header_read_fast(&pair->fast, &fast_check, ret_sb, e);
	if (!err)
		err = ch_header_read_slow(&pair->slow, &slow_check, &slow, e);
	if (err)
		return err;
	if (fast_check != CH_CHECK_OK)
		return ch_header_fail(pair->fast.path, "fast", fast_check, e);
	if (slow_check != CH_CHECK_OK)
		return ch_header_fail(pair->slow.path, "slow", slow_check, e);
	if (slow.flags & CH_SLOW_RESCUED) {
		ch_error_set(e, -EINVAL,
			     "%s holds volume '%s' without a fast device: it was rescued, and %s "
			     "belongs to what it was before",
			     pair->slow.path, slow.name, pair->fast.path);
		return ch_error_hint(e, "start it with: cohostctl volume rescue %s slow %s",
				     slow.name, pair->slow.path);
	}
	if (memcmp(ret_sb->uuid, slow.uuid, sizeof(slow.uuid))) {
		ch_error_set(e, -EINVAL, "%s belongs to volume '%s' and %s to another one, '%s'",
			     pair->fast.path, ret_sb->name, pair->slow.path, slow.name);
		return ch_error_hint(
			e, "each volume has its own pair; find the right ones with: lsblk -p");
	}
	if (strcmp(ret_sb->name, name)) {
		ch_error_set(e, -EINVAL, "these devices hold volume '%s', not '%s'", ret_sb->name,
			     name);
		return ch_error_hint(e, "start it with: cohostctl volume start %s fast %s slow %s",
				     ret_sb->name, pair->fast.path, pair->slow.path);
	}
	return 0;
}

int ch_volume_start(const struct ch_volume_spec *spec, struct ch_error *e)
{
	struct pair pair;
	struct ch_sb sb;
	int err;

	err = pair_take(spec, &pair, e);
	if (err)
		return err;
	err = pair_check(&pair, spec->name, &sb, e);
	pair_close(&pair);
	return err ? err : load_table(&pair, &sb, e);
}

/* A view of a checkpoint would read errors once its volume is gone. */
int ch_volume_views_check(const char *name, struct ch_error *e)
{
	struct ch_checkpoint *checkpoints;
	size_t count;
	int err = 0;

	/* Without an answer there is no view either: no module, or not started. */
	if (ch_checkpoint_list(name, &checkpoints, &count, NULL))
		return 0;
	for (size_t i = 0; i < count && !err; i++) {
		if (!checkpoints[i].views)
			continue;
		err = ch_error_set(e, -EBUSY, "checkpoint %" PRIu64 " of volume '%s' is being read",
				   checkpoints[i].epoch, name);
		ch_error_hint(e,
			      "wait for the sync to end (cohostctl job list), or remove the view "
			      "with: cohostctl checkpoint unview %s epoch %" PRIu64,
			      name, checkpoints[i].epoch);
	}
	free(checkpoints);
	return err;
}

int ch_volume_stop(const char *name, struct ch_error *e)
{
	char device[CH_DM_NAME_SIZE];
	int err;

	err = ch_volume_name_check(name, e);
	if (!err)
		err = ch_dm_check(e);
	if (!err)
		err = ch_volume_views_check(name, e);
	if (err)
		return err;
	ch_volume_dm_name(name, device);
	err = ch_dm_remove(device, e);
	if (err == -ENOENT) {
		ch_error_set(e, err, "no volume '%s' is started", name);
		return ch_error_hint(e, "list the started ones with: cohostctl volume list");
	}
	if (err == -EBUSY) {
		ch_error_set(e, err, "volume '%s' is in use", name);
		return ch_error_hint(e,
				     "unmount it and end what reads it; see who does with: "
				     "lsblk /dev/mapper/%s; fuser -vm /dev/mapper/%s",
				     device, device);
	}
	return err;
}

/* By the kernel's own names: /dev/block is udev's, and not everywhere. */
const char *ch_volume_device_path(const char *major_minor, char buf[static CH_VOLUME_PATH_SIZE])
{
	char path[CH_VOLUME_PATH_SIZE], name[CH_VOLUME_PATH_SIZE - 8];
	FILE *uevent;

	(void)snprintf(buf, CH_VOLUME_PATH_SIZE, "/dev/block/%s", major_minor);
	(void)snprintf(path, sizeof(path), "/sys/dev/block/%s/uevent", major_minor);
	uevent = fopen(path, "re");
	if (!uevent)
		return buf;
	while (fgets(path, sizeof(path), uevent))
		if (sscanf(path, "DEVNAME=%247s", name) == 1)
			(void)snprintf(buf, CH_VOLUME_PATH_SIZE, "/dev/%s", name);
	(void)fclose(uevent);
	return buf;
}

int ch_volume_delete(const struct ch_volume_spec *spec, struct ch_error *e)
{
	char fast[CH_VOLUME_PATH_SIZE], slow[CH_VOLUME_PATH_SIZE];
	struct ch_volume_spec found = *spec;
	struct ch_volume volume;
	struct ch_error ignored = {0};
	struct pair pair;
	struct ch_sb sb;
	int err;

	err = ch_volume_name_check(spec->name, e);
	if (err)
		return err;
	if (!ch_volume_show(spec->name, &volume, &ignored)) {
		found.fast = ch_volume_device_path(volume.fast_device, fast);
		found.slow = ch_volume_device_path(volume.slow_device, slow);
		err = ch_volume_stop(spec->name, e);
		if (err)
			return err;
	} else if (!spec->fast || !spec->slow) {
		ch_error_set(e, -ENOENT, "no volume '%s' is started", spec->name);
		return ch_error_hint(
			e,
			"of a stopped one name the devices: cohostctl volume delete %s "
			"fast DEV slow DEV",
			spec->name);
	}
	err = pair_open(&found, &pair, e);
	if (err)
		return err;
	err = pair_check(&pair, spec->name, &sb, e);
	if (!err)
		err = ch_header_wipe(&pair.fast, e);
	if (!err)
		err = ch_header_wipe(&pair.slow, e);
	pair_close(&pair);
	return err;
}
