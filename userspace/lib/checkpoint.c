// SPDX-License-Identifier: MIT
/* Checkpoints: netlink, and the read-only devices that show them. See volume.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/dm.h"
#include "lib/netlink.h"
#include "lib/volume.h"

static int checkpoint_parse(void *arg, struct nlattr **attrs)
{
	struct ch_checkpoint *checkpoint = arg;

	memset(checkpoint, 0, sizeof(*checkpoint));
	ch_netlink_string(attrs[COHOST_A_CHECKPOINT_VOLUME], checkpoint->volume,
			  sizeof(checkpoint->volume));
	ch_netlink_u64(attrs[COHOST_A_CHECKPOINT_EPOCH], &checkpoint->epoch);
	ch_netlink_u64(attrs[COHOST_A_CHECKPOINT_SEQ], &checkpoint->seq);
	ch_netlink_u64(attrs[COHOST_A_CHECKPOINT_SIZE_BYTES], &checkpoint->size_bytes);
	ch_netlink_u64(attrs[COHOST_A_CHECKPOINT_BASE_EPOCH], &checkpoint->base_epoch);
	ch_netlink_u64(attrs[COHOST_A_CHECKPOINT_CREATED_NS], &checkpoint->created_ns);
	ch_netlink_u32(attrs[COHOST_A_CHECKPOINT_VIEWS], &checkpoint->views);
	checkpoint->full = attrs[COHOST_A_CHECKPOINT_FULL] != NULL;
	checkpoint->lost = attrs[COHOST_A_CHECKPOINT_LOST] != NULL;
	return 0;
}

/* Nobody but the kernel knows whether the volume or the checkpoint is missing. */
static int explain(int err, struct ch_error *e)
{
	if (err == -ENOENT)
		ch_error_hint(e, "see what there is with: cohostctl volume list");
	return err;
}

int ch_checkpoint_create(const char *volume, struct ch_checkpoint *ret_checkpoint,
			 struct ch_error *e)
{
	struct ch_checkpoint checkpoint = {0};
	const struct ch_netlink_request req = {
		.cmd = COHOST_CMD_CHECKPOINT_CREATE,
		.volume_attr = COHOST_A_CHECKPOINT_VOLUME,
		.volume = volume,
		.attr_max = COHOST_A_CHECKPOINT_MAX,
		.each = checkpoint_parse,
		.arg = &checkpoint,
	};
	int err = ch_netlink_call(&req, e);

	if (!err)
		*ret_checkpoint = checkpoint;
	return explain(err, e);
}

int ch_checkpoint_list(const char *volume, struct ch_checkpoint **ret_checkpoints,
		       size_t *ret_count, struct ch_error *e)
{
	const struct ch_netlink_request req = {
		.cmd = COHOST_CMD_CHECKPOINT_GET,
		.volume_attr = COHOST_A_CHECKPOINT_VOLUME,
		.volume = volume,
		.attr_max = COHOST_A_CHECKPOINT_MAX,
		.each = checkpoint_parse,
	};
	void *checkpoints;
	int err = ch_netlink_list(&req, sizeof(**ret_checkpoints), &checkpoints, ret_count, e);

	if (err)
		return explain(err, e);
	*ret_checkpoints = checkpoints;
	return 0;
}

int ch_checkpoint_delete(const char *volume, uint64_t epoch, bool synced, struct ch_error *e)
{
	const struct ch_netlink_request req = {
		.cmd = COHOST_CMD_CHECKPOINT_DELETE,
		.volume_attr = COHOST_A_CHECKPOINT_VOLUME,
		.volume = volume,
		.put = {{COHOST_A_CHECKPOINT_EPOCH, CH_NETLINK_U64, epoch},
			{COHOST_A_CHECKPOINT_SYNCED, synced ? CH_NETLINK_FLAG : CH_NETLINK_NONE,
			 0}},
	};

	return explain(ch_netlink_call(&req, e), e);
}

static void view_name(const char *volume, uint64_t epoch, char buf[static CH_DM_NAME_SIZE])
{
	(void)snprintf(buf, CH_DM_NAME_SIZE, "cohost-%s@%" PRIu64, volume, epoch);
}

int ch_checkpoint_view_create(const struct ch_checkpoint *checkpoint,
			      char ret_path[CH_VOLUME_PATH_SIZE], struct ch_error *e)
{
	char name[CH_DM_NAME_SIZE], params[CH_DM_NAME_SIZE];
	const struct ch_dm_table table = {
		.name = name,
		.target = "cohost-view",
		.params = params,
		.sectors = checkpoint->size_bytes / 512,
		.read_only = true,
	};
	int err;

	view_name(checkpoint->volume, checkpoint->epoch, name);
	(void)snprintf(params, sizeof(params), "%s %" PRIu64, checkpoint->volume,
		       checkpoint->epoch);
	err = ch_dm_create(&table, e);
	if (err) {
		ch_error_prefix(e, "checkpoint %" PRIu64 " of volume '%s'", checkpoint->epoch,
				checkpoint->volume);
		return err;
	}
	if (ret_path)
		(void)snprintf(ret_path, CH_VOLUME_PATH_SIZE, "/dev/mapper/%s", name);
	return 0;
}

int ch_checkpoint_view_remove(const char *volume, uint64_t epoch, struct ch_error *e)
{
	char name[CH_DM_NAME_SIZE];

	view_name(volume, epoch, name);
	return ch_dm_remove(name, e);
}

struct changed {
	int (*each)(void *arg, const struct cohost_extent *extents, size_t count);
	void *arg;
	bool full;
	struct ch_error *e;
};

static int changed_add(void *arg, struct nlattr **attrs)
{
	struct nlattr *extents = attrs[COHOST_A_CHANGED_EXTENTS];
	struct changed *changed = arg;
	struct cohost_extent *copy;
	size_t count;
	int err;

	if (attrs[COHOST_A_CHANGED_FULL])
		changed->full = true;
	if (!extents || nla_len(extents) < (int)sizeof(*copy))
		return 0;
	/* An attribute is aligned to 4 bytes, an extent to 8. */
	count = (size_t)nla_len(extents) / sizeof(*copy);
	copy = malloc(count * sizeof(*copy));
	if (!copy)
		return ch_error_set(changed->e, -ENOMEM, "no memory for the changed extents");
	memcpy(copy, nla_data(extents), count * sizeof(*copy));
	err = changed->each(changed->arg, copy, count);
	free(copy);
	return err;
}

int ch_checkpoint_changed(const char *volume, uint64_t epoch,
			  int (*each)(void *arg, const struct cohost_extent *extents, size_t count),
			  void *arg, bool *ret_full, struct ch_error *e)
{
	struct changed changed = {.each = each, .arg = arg, .e = e};
	const struct ch_netlink_request req = {
		.cmd = COHOST_CMD_CHANGED_GET,
		.dump = true,
		.volume_attr = COHOST_A_CHANGED_VOLUME,
		.volume = volume,
		.put = {{COHOST_A_CHANGED_EPOCH, CH_NETLINK_U64, epoch}},
		.attr_max = COHOST_A_CHANGED_MAX,
		.each = changed_add,
		.arg = &changed,
	};
	int err = ch_netlink_call(&req, e);

	if (err)
		return explain(err, e);
	*ret_full = changed.full;
	return 0;
}
