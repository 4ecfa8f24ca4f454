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

static void checkpoint_parse(struct nlattr **attrs, struct ch_checkpoint *checkpoint)
{
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
}

/* Nobody but the kernel knows whether the volume or the checkpoint is missing. */
static int explain(const char *volume, int err, struct ch_error *e)
{
	if (!err)
		return 0;
	ch_error_prefix(e, "volume '%s'", volume);
	if (err == -ENOENT)
		ch_error_hint(e, "see what there is with: cohostctl volume list");
	return err;
}

static int one_parse(void *arg, struct nlattr **attrs)
{
	checkpoint_parse(attrs, arg);
	return 0;
}

int ch_checkpoint_create(const char *volume, struct ch_checkpoint *ret_checkpoint,
			 struct ch_error *e)
{
	struct ch_checkpoint checkpoint = {0};
	const struct ch_netlink_request req = {
		.cmd = COHOST_CMD_CHECKPOINT_CREATE,
		.attr_max = COHOST_A_CHECKPOINT_MAX,
		.each = one_parse,
		.arg = &checkpoint,
	};
	struct ch_netlink nl;
	struct nl_msg *msg;
	int err;

	err = ch_netlink_open(&nl, e);
	if (err)
		return err;
	msg = ch_netlink_msg(&nl, &req);
	if (msg && nla_put_string(msg, COHOST_A_CHECKPOINT_VOLUME, volume) < 0) {
		nlmsg_free(msg);
		msg = NULL;
	}
	err = ch_netlink_call(&nl, &req, msg, e);
	ch_netlink_close(&nl);
	if (!err)
		*ret_checkpoint = checkpoint;
	return explain(volume, err, e);
}

struct list {
	struct ch_checkpoint *checkpoints;
	size_t count;
};

static int list_add(void *arg, struct nlattr **attrs)
{
	struct list *list = arg;
	struct ch_checkpoint *more;

	more = realloc(list->checkpoints, (list->count + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	list->checkpoints = more;
	checkpoint_parse(attrs, &more[list->count++]);
	return 0;
}

static int list_once(struct ch_netlink *nl, const char *volume, struct list *list,
		     struct ch_error *e)
{
	const struct ch_netlink_request req = {
		.cmd = COHOST_CMD_CHECKPOINT_GET,
		.dump = true,
		.attr_max = COHOST_A_CHECKPOINT_MAX,
		.each = list_add,
		.arg = list,
	};
	struct nl_msg *msg = ch_netlink_msg(nl, &req);

	list->count = 0;
	if (msg && volume && nla_put_string(msg, COHOST_A_CHECKPOINT_VOLUME, volume) < 0) {
		nlmsg_free(msg);
		msg = NULL;
	}
	return ch_netlink_call(nl, &req, msg, e);
}

int ch_checkpoint_list(const char *volume, struct ch_checkpoint **ret_checkpoints,
		       size_t *ret_count, struct ch_error *e)
{
	struct list list = {0};
	struct ch_netlink nl;
	int err;

	err = ch_netlink_open(&nl, e);
	if (err)
		return err;
	for (int i = 0; i < CH_NETLINK_DUMP_TRIES; i++) {
		err = list_once(&nl, volume, &list, e);
		if (err != -EAGAIN)
			break;
	}
	ch_netlink_close(&nl);
	if (err) {
		free(list.checkpoints);
		return volume ? explain(volume, err, e) : err;
	}
	*ret_checkpoints = list.checkpoints;
	*ret_count = list.count;
	return 0;
}

int ch_checkpoint_delete(const char *volume, uint64_t epoch, bool synced, struct ch_error *e)
{
	const struct ch_netlink_request req = {.cmd = COHOST_CMD_CHECKPOINT_DELETE};
	struct ch_netlink nl;
	struct nl_msg *msg;
	int err;

	err = ch_netlink_open(&nl, e);
	if (err)
		return err;
	msg = ch_netlink_msg(&nl, &req);
	if (msg && (nla_put_string(msg, COHOST_A_CHECKPOINT_VOLUME, volume) < 0 ||
		    nla_put_u64(msg, COHOST_A_CHECKPOINT_EPOCH, epoch) < 0 ||
		    (synced && nla_put_flag(msg, COHOST_A_CHECKPOINT_SYNCED) < 0))) {
		nlmsg_free(msg);
		msg = NULL;
	}
	err = ch_netlink_call(&nl, &req, msg, e);
	ch_netlink_close(&nl);
	return explain(volume, err, e);
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
		.attr_max = COHOST_A_CHANGED_MAX,
		.each = changed_add,
		.arg = &changed,
	};
	struct ch_netlink nl;
	struct nl_msg *msg;
	int err;

	err = ch_netlink_open(&nl, e);
	if (err)
		return err;
	msg = ch_netlink_msg(&nl, &req);
	if (msg && (nla_put_string(msg, COHOST_A_CHANGED_VOLUME, volume) < 0 ||
		    nla_put_u64(msg, COHOST_A_CHANGED_EPOCH, epoch) < 0)) {
		nlmsg_free(msg);
		msg = NULL;
	}
	err = ch_netlink_call(&nl, &req, msg, e);
	ch_netlink_close(&nl);
	if (err)
		return explain(volume, err, e);
	*ret_full = changed.full;
	return 0;
}
