// SPDX-License-Identifier: GPL-2.0
/*
 * Generic netlink family "cohost". Called by userspace (userspace/lib/volume.c); calls
 * volume.h and holds no lock and no state of its own between two messages but what a dump
 * keeps in its callback. Operations run side by side; volume.h does the locking.
 *
 * Invariants: an operation that changes something carries GENL_ADMIN_PERM; every refusal
 * that starts here sets the extended acknowledgement; a dump is flagged as interrupted
 * when the list of volumes changed on the way.
 */
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/types.h>
#include <linux/kdev_t.h>
#include <net/genetlink.h>
#include <cohost/cohost_netlink.h>

#include "kmod/event.h"
#include "kmod/netlink.h"
#include "kmod/netlink_policy.h"
#include "kmod/volume.h"

/* Extents per message of a changed-get dump: 2 KiB, so that several fit a socket buffer. */
#define EXTENTS_PER_MESSAGE 128

struct u64_field {
	u16 attr;
	u16 offset;
};

#define VOLUME_FIELD(ATTR, member)                                                                 \
	{                                                                                          \
		COHOST_A_VOLUME_##ATTR, offsetof(struct ch_volume_info, member)                    \
	}
static const struct u64_field volume_fields[] = {
	VOLUME_FIELD(SIZE_BYTES, size_bytes),
	VOLUME_FIELD(DIRTY_BYTES, dirty_bytes),
	VOLUME_FIELD(LOG_BYTES_USED, log_bytes_used),
	VOLUME_FIELD(LOG_BYTES_TOTAL, log_bytes_total),
	VOLUME_FIELD(EPOCH, epoch),
	VOLUME_FIELD(BASE_EPOCH, base_epoch),
	VOLUME_FIELD(SEQ, seq),
	VOLUME_FIELD(DURABLE_SEQ, durable_seq),
	VOLUME_FIELD(FLUSH_TARGET_SEQ, flush_target_seq),
	VOLUME_FIELD(FLUSH_LEFT_BYTES, flush_left_bytes),
	VOLUME_FIELD(FLUSH_TOTAL_BYTES, flush_total_bytes),
	VOLUME_FIELD(MEMORY_BYTES, memory_bytes),
	VOLUME_FIELD(DIRTY_CAP_BYTES, dirty_cap_bytes),
	VOLUME_FIELD(DRAIN_BYTES_PER_S, drain_bytes_per_s),
	VOLUME_FIELD(DRAIN_MS, drain_ms),
	VOLUME_FIELD(LINE_BYTES_USED, line_bytes_used),
	VOLUME_FIELD(LINE_BYTES_TOTAL, line_bytes_total),
	VOLUME_FIELD(ABSENT_BYTES, absent_bytes),
};

#define COUNTER_FIELD(ATTR, member)                                                                \
	{                                                                                          \
		COHOST_A_COUNTERS_##ATTR, offsetof(struct ch_volume_counters, member)              \
	}
static const struct u64_field counter_fields[] = {
	COUNTER_FIELD(READS, reads),
	COUNTER_FIELD(READ_BYTES, read_bytes),
	COUNTER_FIELD(READ_HITS, read_hits),
	COUNTER_FIELD(WRITES, writes),
	COUNTER_FIELD(WRITE_BYTES, write_bytes),
	COUNTER_FIELD(FLUSHES, flushes),
	COUNTER_FIELD(DISCARDS, discards),
	COUNTER_FIELD(COMMITS, commits),
	COUNTER_FIELD(LOG_BYTES, log_bytes),
	COUNTER_FIELD(FAST_FLUSHES, fast_flushes),
	COUNTER_FIELD(SLOW_FLUSHES, slow_flushes),
	COUNTER_FIELD(DESTAGES, destages),
	COUNTER_FIELD(DESTAGED_BYTES, destaged_bytes),
	COUNTER_FIELD(THROTTLED, throttled),
	COUNTER_FIELD(CRC_ERRORS, crc_errors),
	COUNTER_FIELD(IO_ERRORS, io_errors),
	COUNTER_FIELD(REPLAYED_RECORDS, replayed_records),
	COUNTER_FIELD(WRITE_US, write_us),
	COUNTER_FIELD(FLUSH_US, flush_us),
	COUNTER_FIELD(LINE_HITS, line_hits),
	COUNTER_FIELD(LINE_MISSES, line_misses),
	COUNTER_FIELD(LINE_FILLS, line_fills),
	COUNTER_FIELD(LINE_EVICTIONS, line_evictions),
	COUNTER_FIELD(LINE_CRC_ERRORS, line_crc_errors),
};

#define CHECKPOINT_FIELD(ATTR, member)                                                             \
	{                                                                                          \
		COHOST_A_CHECKPOINT_##ATTR, offsetof(struct ch_checkpoint_info, member)            \
	}
static const struct u64_field checkpoint_fields[] = {
	CHECKPOINT_FIELD(EPOCH, epoch),		  CHECKPOINT_FIELD(SEQ, seq),
	CHECKPOINT_FIELD(SIZE_BYTES, size_bytes), CHECKPOINT_FIELD(BASE_EPOCH, base_epoch),
	CHECKPOINT_FIELD(CREATED_NS, created_ns),
};

static int put_u64_fields(struct sk_buff *skb, const struct u64_field *fields, size_t count,
			  const void *from, int pad)
{
	size_t i;

	for (i = 0; i < count; i++) {
		const u64 *value = from + fields[i].offset;

		if (nla_put_u64_64bit(skb, fields[i].attr, *value, pad))
			return -EMSGSIZE;
	}
	return 0;
}

/* A literal that came from the tier. NL_SET_ERR_MSG takes only what is a literal here. */
static void set_why(struct netlink_ext_ack *extack, const char *why)
{
	if (extack && why)
		extack->_msg = why;
}

/* The volume that a request names, with a reference; an ERR_PTR with extack set. */
static struct ch_volume *volume_of(struct nlattr *attr, struct netlink_ext_ack *extack)
{
	struct ch_volume *vol;

	if (!attr) {
		NL_SET_ERR_MSG(extack, "the request does not say which volume");
		return ERR_PTR(-EINVAL);
	}
	vol = ch_volume_get(nla_data(attr));
	if (!vol) {
		NL_SET_ERR_MSG_ATTR(extack, attr, "no volume of this name is started");
		return ERR_PTR(-ENOENT);
	}
	return vol;
}

static int put_counters(struct sk_buff *skb, const struct ch_volume_counters *counters)
{
	struct nlattr *nest = nla_nest_start(skb, COHOST_A_VOLUME_COUNTERS);

	if (!nest)
		return -EMSGSIZE;
	if (put_u64_fields(skb, counter_fields, ARRAY_SIZE(counter_fields), counters,
			   COHOST_A_COUNTERS_PAD)) {
		nla_nest_cancel(skb, nest);
		return -EMSGSIZE;
	}
	nla_nest_end(skb, nest);
	return 0;
}

static int put_volume_attrs(struct sk_buff *skb, const struct ch_volume_info *info, u64 event_seq)
{
	if (nla_put_string(skb, COHOST_A_VOLUME_NAME, info->name) ||
	    nla_put(skb, COHOST_A_VOLUME_UUID, sizeof(info->uuid), info->uuid) ||
	    nla_put_u32(skb, COHOST_A_VOLUME_DEV_MAJOR, MAJOR(info->dev)) ||
	    nla_put_u32(skb, COHOST_A_VOLUME_DEV_MINOR, MINOR(info->dev)) ||
	    nla_put_u32(skb, COHOST_A_VOLUME_STATE, info->state) ||
	    nla_put_u32(skb, COHOST_A_VOLUME_MODE, info->mode) ||
	    nla_put_u32(skb, COHOST_A_VOLUME_FLUSH_STATE, info->flush_state) ||
	    nla_put_u32(skb, COHOST_A_VOLUME_CHECKPOINT_COUNT, info->checkpoints) ||
	    nla_put_string(skb, COHOST_A_VOLUME_FAST_DEVICE, info->fast_device) ||
	    nla_put_string(skb, COHOST_A_VOLUME_SLOW_DEVICE, info->slow_device) ||
	    (info->slow_error && nla_put_flag(skb, COHOST_A_VOLUME_SLOW_ERROR)) ||
	    (info->sealed && nla_put_flag(skb, COHOST_A_VOLUME_SEALED)) ||
	    nla_put(skb, COHOST_A_VOLUME_WRITE_LATENCY, sizeof(info->counters.write_latency),
		    &info->counters.write_latency) ||
	    nla_put(skb, COHOST_A_VOLUME_FLUSH_LATENCY, sizeof(info->counters.flush_latency),
		    &info->counters.flush_latency) ||
	    nla_put_u64_64bit(skb, COHOST_A_VOLUME_EVENT_SEQ, event_seq, COHOST_A_VOLUME_PAD) ||
	    put_u64_fields(skb, volume_fields, ARRAY_SIZE(volume_fields), info,
			   COHOST_A_VOLUME_PAD))
		return -EMSGSIZE;
	return put_counters(skb, &info->counters);
}

static int put_checkpoint_attrs(struct sk_buff *skb, const char *volume,
				const struct ch_checkpoint_info *info)
{
	if (nla_put_string(skb, COHOST_A_CHECKPOINT_VOLUME, volume) ||
	    nla_put_u32(skb, COHOST_A_CHECKPOINT_VIEWS, info->views) ||
	    (info->full && nla_put_flag(skb, COHOST_A_CHECKPOINT_FULL)) ||
	    (info->lost && nla_put_flag(skb, COHOST_A_CHECKPOINT_LOST)))
		return -EMSGSIZE;
	return put_u64_fields(skb, checkpoint_fields, ARRAY_SIZE(checkpoint_fields), info,
			      COHOST_A_CHECKPOINT_PAD);
}

/* A message of one volume. cb is set for a dump, info for the answer to a request. */
static int put_volume(struct sk_buff *skb, struct netlink_callback *cb, struct genl_info *info,
		      u8 cmd, struct ch_volume *vol)
{
	struct ch_volume_info volume;
	u64 event_seq = ch_event_seq();
	void *head;
	int err;

	/* The number is read before the state, so that a listener misses nothing. */
	err = ch_volume_info(vol, &volume);
	if (err)
		return err;
	head = cb ? genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				&ch_netlink_family, NLM_F_MULTI, cmd)
		  : genlmsg_put_reply(skb, info, &ch_netlink_family, 0, cmd);
	if (!head)
		return -EMSGSIZE;
	if (cb)
		genl_dump_check_consistent(cb, head);
	err = put_volume_attrs(skb, &volume, event_seq);
	if (err) {
		genlmsg_cancel(skb, head);
		return err;
	}
	genlmsg_end(skb, head);
	return 0;
}

static int put_checkpoint(struct sk_buff *skb, struct netlink_callback *cb, struct genl_info *info,
			  const char *volume, const struct ch_checkpoint_info *checkpoint)
{
	void *head;
	int err;

	head = cb ? genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				&ch_netlink_family, NLM_F_MULTI, COHOST_CMD_CHECKPOINT_GET)
		  : genlmsg_put_reply(skb, info, &ch_netlink_family, 0,
				      COHOST_CMD_CHECKPOINT_CREATE);
	if (!head)
		return -EMSGSIZE;
	if (cb)
		genl_dump_check_consistent(cb, head);
	err = put_checkpoint_attrs(skb, volume, checkpoint);
	if (err) {
		genlmsg_cancel(skb, head);
		return err;
	}
	genlmsg_end(skb, head);
	return 0;
}

/* Answers a request with the volume as it is now. Takes the reference over. */
static int reply_volume(struct genl_info *info, u8 cmd, struct ch_volume *vol)
{
	struct sk_buff *skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	int err = -ENOMEM;

	if (skb)
		err = put_volume(skb, NULL, info, cmd, vol);
	ch_volume_put(vol);
	if (err) {
		if (err == -ENOMEM)
			GENL_SET_ERR_MSG(info, "no memory for the answer");
		else
			GENL_SET_ERR_MSG(info, "the volume is being started or stopped");
		nlmsg_free(skb);
		return err;
	}
	return genlmsg_reply(skb, info);
}

static int volume_get(struct sk_buff *skb, struct genl_info *info)
{
	struct ch_volume *vol = volume_of(info->attrs[COHOST_A_VOLUME_NAME], info->extack);

	if (IS_ERR(vol))
		return PTR_ERR(vol);
	return reply_volume(info, COHOST_CMD_VOLUME_GET, vol);
}

static int volume_set(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *mode = info->attrs[COHOST_A_VOLUME_MODE];
	struct nlattr *cap = info->attrs[COHOST_A_VOLUME_DIRTY_CAP_BYTES];
	struct ch_volume *vol;
	const char *why = NULL;
	int err = 0;

	if (!mode && !cap) {
		GENL_SET_ERR_MSG(info, "the request does not say what to set");
		return -EINVAL;
	}
	vol = volume_of(info->attrs[COHOST_A_VOLUME_NAME], info->extack);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	/* The one that can be refused comes first, so that nothing is done by halves. */
	if (cap)
		err = ch_volume_set_dirty_cap(vol, nla_get_u64(cap), &why);
	if (!err && mode)
		err = ch_volume_set_mode(vol, nla_get_u32(mode), &why);
	if (err)
		set_why(info->extack, why);
	ch_volume_put(vol);
	return err;
}

static int volume_flush(struct sk_buff *skb, struct genl_info *info)
{
	struct ch_volume *vol = volume_of(info->attrs[COHOST_A_VOLUME_NAME], info->extack);
	const char *why = NULL;
	u64 target_seq;
	int err;

	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = ch_volume_flush(vol, &target_seq, &why);
	if (err) {
		set_why(info->extack, why);
		ch_volume_put(vol);
		return err;
	}
	return reply_volume(info, COHOST_CMD_VOLUME_FLUSH, vol);
}

static int volume_seal(struct sk_buff *skb, struct genl_info *info)
{
	struct ch_volume *vol = volume_of(info->attrs[COHOST_A_VOLUME_NAME], info->extack);
	const char *why = NULL;
	int err;

	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = ch_volume_seal(vol, &why);
	if (err) {
		set_why(info->extack, why);
		ch_volume_put(vol);
		return err;
	}
	return reply_volume(info, COHOST_CMD_VOLUME_SEAL, vol);
}

static int checkpoint_create(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *name = info->attrs[COHOST_A_CHECKPOINT_VOLUME];
	struct ch_volume *vol = volume_of(name, info->extack);
	struct ch_checkpoint_info checkpoint;
	struct sk_buff *reply;
	const char *why = NULL;
	int err;

	if (IS_ERR(vol))
		return PTR_ERR(vol);
	/* The memory comes first: a checkpoint whose epoch nobody learns would stay. */
	reply = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!reply) {
		GENL_SET_ERR_MSG(info, "no memory for the answer");
		err = -ENOMEM;
		goto put_volume;
	}
	err = ch_checkpoint_create(vol, &checkpoint, &why);
	if (err)
		set_why(info->extack, why);
	else
		err = put_checkpoint(reply, NULL, info, nla_data(name), &checkpoint);
	if (err)
		nlmsg_free(reply);
	else
		err = genlmsg_reply(reply, info);
put_volume:
	ch_volume_put(vol);
	return err;
}

static int checkpoint_delete(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *epoch = info->attrs[COHOST_A_CHECKPOINT_EPOCH];
	bool synced = nla_get_flag(info->attrs[COHOST_A_CHECKPOINT_SYNCED]);
	struct ch_volume *vol;
	const char *why = NULL;
	int err;

	if (!epoch) {
		GENL_SET_ERR_MSG(info, "the request does not say which epoch");
		return -EINVAL;
	}
	vol = volume_of(info->attrs[COHOST_A_CHECKPOINT_VOLUME], info->extack);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	err = ch_checkpoint_delete(vol, nla_get_u64(epoch), synced, &why);
	if (err)
		set_why(info->extack, why);
	ch_volume_put(vol);
	return err;
}

/* What a dump remembers from one buffer to the next. */
struct dump {
	struct ch_volume *vol; /* the only one wanted, or NULL for all */
	u64 id;		       /* of the last volume put, for all */
	u64 epoch;	       /* checkpoint-get: the next one of the volume under way */
	bool done;
	/* changed-get only */
	struct ch_checkpoint_info checkpoint;
	char name[COHOST_VOLUME_NAME_MAX + 1];
	u64 from_block;
	struct cohost_extent extents[EXTENTS_PER_MESSAGE];
};

static struct dump *dump_of(struct netlink_callback *cb)
{
	return (struct dump *)cb->args[0];
}

static struct dump *dump_create(struct netlink_callback *cb)
{
	struct dump *dump = kzalloc(sizeof(*dump), GFP_KERNEL);

	if (!dump)
		NL_SET_ERR_MSG(cb->extack, "no memory for the list");
	cb->args[0] = (long)dump;
	return dump;
}

static int dump_done(struct netlink_callback *cb)
{
	struct dump *dump = dump_of(cb);

	if (dump && dump->vol)
		ch_volume_put(dump->vol);
	kfree(dump);
	cb->args[0] = 0;
	return 0;
}

/* Where `done` is not called after a `start` that failed, nothing may be left behind. */
static int dump_fail(struct netlink_callback *cb, int err)
{
	(void)dump_done(cb);
	return err;
}

/*
 * The next volume of a dump, or NULL at the end. *id is what dump->id becomes once the
 * volume has been put. Unless it is dump->vol, the caller gives the reference back.
 */
static struct ch_volume *dump_next(struct dump *dump, u64 *id)
{
	*id = dump->id;
	if (!dump->vol)
		return ch_volume_next(id);
	*id = 1;
	return dump->id ? NULL : dump->vol;
}

/*
 * The generation of the list is what makes a dump consistent; 0 would mean "not used", so
 * one is added. It is set again at the end, for the check of the closing message.
 */
static void dump_mark(struct netlink_callback *cb)
{
	cb->seq = ch_volume_generation() + 1 ?: 1;
}

typedef int (*dump_put_t)(struct sk_buff *skb, struct netlink_callback *cb, struct ch_volume *vol);

static int dump_volumes(struct sk_buff *skb, struct netlink_callback *cb, dump_put_t put)
{
	struct dump *dump = dump_of(cb);
	struct ch_volume *vol;
	int err = 0;
	u64 id;

	dump_mark(cb);
	while ((vol = dump_next(dump, &id))) {
		err = put(skb, cb, vol);
		if (vol != dump->vol)
			ch_volume_put(vol);
		if (err == -EMSGSIZE)
			break;
		dump->id = id;
	}
	dump_mark(cb);
	/* A volume that went away on the way is no error: the generation tells. */
	return err == -EMSGSIZE && !skb->len ? err : skb->len;
}

static int volume_dump_start(struct netlink_callback *cb)
{
	struct nlattr *attrs[COHOST_A_VOLUME_NAME + 1];
	int err;

	err = genlmsg_parse(cb->nlh, &ch_netlink_family, attrs, COHOST_A_VOLUME_NAME,
			    volume_get_policy, cb->extack);
	if (err)
		return err;
	if (attrs[COHOST_A_VOLUME_NAME]) {
		NL_SET_ERR_MSG_ATTR(cb->extack, attrs[COHOST_A_VOLUME_NAME],
				    "a dump lists all volumes; ask for one without NLM_F_DUMP");
		return -EINVAL;
	}
	return dump_create(cb) ? 0 : -ENOMEM;
}

static int volume_dump_put(struct sk_buff *skb, struct netlink_callback *cb, struct ch_volume *vol)
{
	return put_volume(skb, cb, NULL, COHOST_CMD_VOLUME_GET, vol);
}

static int volume_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump_volumes(skb, cb, volume_dump_put);
}

static int checkpoint_dump_start(struct netlink_callback *cb)
{
	struct nlattr *attrs[COHOST_A_CHECKPOINT_VOLUME + 1];
	struct dump *dump;
	int err;

	err = genlmsg_parse(cb->nlh, &ch_netlink_family, attrs, COHOST_A_CHECKPOINT_VOLUME,
			    checkpoint_get_policy, cb->extack);
	if (err)
		return err;
	dump = dump_create(cb);
	if (!dump)
		return -ENOMEM;
	if (attrs[COHOST_A_CHECKPOINT_VOLUME]) {
		struct ch_volume *vol = volume_of(attrs[COHOST_A_CHECKPOINT_VOLUME], cb->extack);

		if (IS_ERR(vol))
			return dump_fail(cb, PTR_ERR(vol));
		dump->vol = vol;
	}
	return 0;
}

static int checkpoint_dump_put(struct sk_buff *skb, struct netlink_callback *cb,
			       struct ch_volume *vol)
{
	struct dump *dump = dump_of(cb);
	struct ch_checkpoint_info checkpoint;
	struct ch_volume_info volume;
	int err;

	err = ch_volume_info(vol, &volume);
	while (!err && !(err = ch_checkpoint_next(vol, dump->epoch, &checkpoint))) {
		err = put_checkpoint(skb, cb, NULL, volume.name, &checkpoint);
		if (err)
			return err;
		dump->epoch = checkpoint.epoch + 1;
	}
	dump->epoch = 0;
	return err;
}

static int checkpoint_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump_volumes(skb, cb, checkpoint_dump_put);
}

static int changed_dump_start(struct netlink_callback *cb)
{
	struct nlattr *attrs[COHOST_A_CHANGED_EPOCH + 1];
	struct ch_volume *vol;
	struct dump *dump;
	int err;

	err = genlmsg_parse(cb->nlh, &ch_netlink_family, attrs, COHOST_A_CHANGED_EPOCH,
			    changed_get_policy, cb->extack);
	if (err)
		return err;
	if (!attrs[COHOST_A_CHANGED_EPOCH]) {
		NL_SET_ERR_MSG(cb->extack, "the request does not say which epoch");
		return -EINVAL;
	}
	vol = volume_of(attrs[COHOST_A_CHANGED_VOLUME], cb->extack);
	if (IS_ERR(vol))
		return PTR_ERR(vol);
	dump = dump_create(cb);
	if (!dump) {
		ch_volume_put(vol);
		return -ENOMEM;
	}
	dump->vol = vol;
	nla_strscpy(dump->name, attrs[COHOST_A_CHANGED_VOLUME], sizeof(dump->name));
	err = ch_checkpoint_info(vol, nla_get_u64(attrs[COHOST_A_CHANGED_EPOCH]),
				 &dump->checkpoint);
	if (err) {
		NL_SET_ERR_MSG_ATTR(cb->extack, attrs[COHOST_A_CHANGED_EPOCH],
				    "the volume has no checkpoint of this epoch");
		return dump_fail(cb, -ENOENT);
	}
	return 0;
}

/* Fills dump->extents; the number found, or a negative errno. */
static int changed_collect(struct dump *dump)
{
	u64 from = dump->from_block;
	int i, found;

	for (i = 0; i < EXTENTS_PER_MESSAGE; i++) {
		struct cohost_extent *extent = &dump->extents[i];

		found = ch_checkpoint_changed(dump->vol, dump->checkpoint.epoch, from, extent);
		if (found < 0)
			return found;
		if (!found)
			break;
		from = extent->start_block + extent->block_count;
	}
	return i;
}

static int changed_put(struct sk_buff *skb, struct netlink_callback *cb, struct dump *dump,
		       int count)
{
	const struct ch_checkpoint_info *checkpoint = &dump->checkpoint;
	void *head;

	head = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, &ch_netlink_family,
			   NLM_F_MULTI, COHOST_CMD_CHANGED_GET);
	if (!head)
		return -EMSGSIZE;
	if (nla_put_string(skb, COHOST_A_CHANGED_VOLUME, dump->name) ||
	    nla_put_u64_64bit(skb, COHOST_A_CHANGED_EPOCH, checkpoint->epoch,
			      COHOST_A_CHANGED_PAD) ||
	    nla_put_u64_64bit(skb, COHOST_A_CHANGED_BASE_EPOCH, checkpoint->base_epoch,
			      COHOST_A_CHANGED_PAD) ||
	    (checkpoint->full && nla_put_flag(skb, COHOST_A_CHANGED_FULL)) ||
	    (count && nla_put(skb, COHOST_A_CHANGED_EXTENTS, count * sizeof(dump->extents[0]),
			      dump->extents))) {
		genlmsg_cancel(skb, head);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, head);
	return 0;
}

/*
 * At least one message comes, so that the reader learns the base also where nothing
 * changed. The changed set of a checkpoint does not change any more, so the dump is
 * consistent by itself; when the checkpoint is deleted on the way, it ends with an error.
 */
static int changed_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dump *dump = dump_of(cb);
	int count, err;

	while (!dump->done) {
		count = dump->checkpoint.full ? 0 : changed_collect(dump);
		if (count < 0) {
			NL_SET_ERR_MSG(cb->extack, "the checkpoint was deleted meanwhile");
			return count;
		}
		err = changed_put(skb, cb, dump, count);
		if (err)
			return skb->len ? skb->len : err;
		if (count)
			dump->from_block = dump->extents[count - 1].start_block +
					   dump->extents[count - 1].block_count;
		dump->done = count < EXTENTS_PER_MESSAGE;
	}
	return skb->len;
}

static const struct genl_ops ops[] = {
	{
		.cmd = COHOST_CMD_VOLUME_GET,
		.policy = volume_get_policy,
		.maxattr = ARRAY_SIZE(volume_get_policy) - 1,
		.doit = volume_get,
		.start = volume_dump_start,
		.dumpit = volume_dump,
		.done = dump_done,
	},
	{
		.cmd = COHOST_CMD_VOLUME_SET,
		.flags = GENL_ADMIN_PERM,
		.policy = volume_set_policy,
		.maxattr = ARRAY_SIZE(volume_set_policy) - 1,
		.doit = volume_set,
	},
	{
		.cmd = COHOST_CMD_VOLUME_FLUSH,
		.flags = GENL_ADMIN_PERM,
		.policy = volume_flush_policy,
		.maxattr = ARRAY_SIZE(volume_flush_policy) - 1,
		.doit = volume_flush,
	},
	{
		.cmd = COHOST_CMD_VOLUME_SEAL,
		.flags = GENL_ADMIN_PERM,
		.policy = volume_seal_policy,
		.maxattr = ARRAY_SIZE(volume_seal_policy) - 1,
		.doit = volume_seal,
	},
	{
		.cmd = COHOST_CMD_CHECKPOINT_CREATE,
		.flags = GENL_ADMIN_PERM,
		.policy = checkpoint_create_policy,
		.maxattr = ARRAY_SIZE(checkpoint_create_policy) - 1,
		.doit = checkpoint_create,
	},
	{
		.cmd = COHOST_CMD_CHECKPOINT_GET,
		.policy = checkpoint_get_policy,
		.maxattr = ARRAY_SIZE(checkpoint_get_policy) - 1,
		.start = checkpoint_dump_start,
		.dumpit = checkpoint_dump,
		.done = dump_done,
	},
	{
		.cmd = COHOST_CMD_CHECKPOINT_DELETE,
		.flags = GENL_ADMIN_PERM,
		.policy = checkpoint_delete_policy,
		.maxattr = ARRAY_SIZE(checkpoint_delete_policy) - 1,
		.doit = checkpoint_delete,
	},
	{
		.cmd = COHOST_CMD_CHANGED_GET,
		.flags = GENL_ADMIN_PERM,
		.policy = changed_get_policy,
		.maxattr = ARRAY_SIZE(changed_get_policy) - 1,
		.start = changed_dump_start,
		.dumpit = changed_dump,
		.done = dump_done,
	},
};

static const struct genl_multicast_group groups[] = {
	[CH_NETLINK_GROUP_EVENTS] = {.name = COHOST_MCGRP_EVENTS},
};

struct genl_family ch_netlink_family __ro_after_init = {
	.name = COHOST_GENL_NAME,
	.version = COHOST_GENL_VERSION,
	.module = THIS_MODULE,
	/* Some wait for I/O: the lock that all families share is not held meanwhile. */
	.parallel_ops = true,
	.ops = ops,
	.n_ops = ARRAY_SIZE(ops),
	.mcgrps = groups,
	.n_mcgrps = ARRAY_SIZE(groups),
};

int __init ch_netlink_init(void)
{
	return genl_register_family(&ch_netlink_family);
}

void ch_netlink_exit(void)
{
	genl_unregister_family(&ch_netlink_family);
}
