// SPDX-License-Identifier: MIT
/* The kernel's view of volumes: list, show, set, flush. See volume.h. */
#include "lib/volume.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "lib/netlink.h"
#include "lib/netlink_names.h"

#define FLUSH_POLL_MS 200
/* A slow device that fails for so long will not finish a flush. */
#define SLOW_ERROR_MS 10000

struct field {
	int attr;
	size_t offset;
};

#define FIELD(ATTR, member)                                                                        \
	{                                                                                          \
		COHOST_A_VOLUME_##ATTR, offsetof(struct ch_volume, member)                         \
	}

static const struct field u64_fields[] = {
	FIELD(SIZE_BYTES, size_bytes),
	FIELD(DIRTY_BYTES, dirty_bytes),
	FIELD(LOG_BYTES_USED, log_bytes_used),
	FIELD(LOG_BYTES_TOTAL, log_bytes_total),
	FIELD(MEMORY_BYTES, memory_bytes),
	FIELD(LINE_BYTES_USED, line_bytes_used),
	FIELD(LINE_BYTES_TOTAL, line_bytes_total),
	FIELD(ABSENT_BYTES, absent_bytes),
	FIELD(EPOCH, epoch),
	FIELD(BASE_EPOCH, base_epoch),
	FIELD(SEQ, seq),
	FIELD(DURABLE_SEQ, durable_seq),
	FIELD(FLUSH_TARGET_SEQ, flush_target_seq),
	FIELD(FLUSH_LEFT_BYTES, flush_left_bytes),
	FIELD(FLUSH_TOTAL_BYTES, flush_total_bytes),
	FIELD(EVENT_SEQ, event_seq),
	FIELD(DIRTY_CAP_BYTES, dirty_cap_bytes),
	FIELD(DRAIN_BYTES_PER_S, drain_bytes_per_s),
	FIELD(DRAIN_MS, drain_ms),
};

static const struct field u32_fields[] = {
	FIELD(DEV_MAJOR, dev_major),
	FIELD(DEV_MINOR, dev_minor),
	FIELD(STATE, state),
	FIELD(MODE, mode),
	FIELD(FLUSH_STATE, flush_state),
	FIELD(CHECKPOINT_COUNT, checkpoint_count),
};

static const char *name_of(const char *const *names, size_t count, uint32_t number)
{
	return number < count && names[number] ? names[number] : "unknown";
}

const char *ch_volume_state_name(uint32_t state)
{
	return name_of(ch_netlink_state_names, COHOST_STATE_MAX + 1, state);
}

const char *ch_volume_mode_name(uint32_t mode)
{
	return name_of(ch_netlink_mode_names, COHOST_MODE_MAX + 1, mode);
}

const char *ch_volume_flush_state_name(uint32_t flush_state)
{
	return name_of(ch_netlink_flush_state_names, COHOST_FLUSH_STATE_MAX + 1, flush_state);
}

int ch_volume_mode_parse(const char *name, enum cohost_mode *ret_mode)
{
	for (unsigned int i = 0; i <= COHOST_MODE_MAX; i++) {
		if (!strcmp(name, ch_netlink_mode_names[i])) {
			*ret_mode = i;
			return 0;
		}
	}
	return -EINVAL;
}

uint64_t ch_volume_latency_us(const uint64_t buckets[COHOST_LATENCY_BUCKETS], unsigned int permille)
{
	uint64_t all = 0, seen = 0;

	for (int i = 0; i < COHOST_LATENCY_BUCKETS; i++)
		all += buckets[i];
	for (int i = 0; i < COHOST_LATENCY_BUCKETS; i++) {
		seen += buckets[i];
		if (seen && seen >= all / 1000 * permille + all % 1000 * permille / 1000)
			return 1ULL << i;
	}
	return 0;
}

/* What is missing counts as 0, what is more (of a newer kernel) is left out. */
static void latency_parse(struct nlattr *attr, uint64_t ret[COHOST_LATENCY_BUCKETS])
{
	size_t size = COHOST_LATENCY_BUCKETS * sizeof(*ret);

	if (attr)
		memcpy(ret, nla_data(attr),
		       (size_t)nla_len(attr) < size ? (size_t)nla_len(attr) : size);
}

static int volume_parse(void *arg, struct nlattr **attrs)
{
	struct nlattr *counters[COHOST_A_COUNTERS_MAX + 1];
	struct nlattr *uuid = attrs[COHOST_A_VOLUME_UUID];
	struct ch_volume *volume = arg;

	memset(volume, 0, sizeof(*volume));
	ch_netlink_string(attrs[COHOST_A_VOLUME_NAME], volume->name, sizeof(volume->name));
	ch_netlink_string(attrs[COHOST_A_VOLUME_FAST_DEVICE], volume->fast_device,
			  sizeof(volume->fast_device));
	ch_netlink_string(attrs[COHOST_A_VOLUME_SLOW_DEVICE], volume->slow_device,
			  sizeof(volume->slow_device));
	if (uuid && nla_len(uuid) == sizeof(volume->uuid))
		memcpy(volume->uuid, nla_data(uuid), sizeof(volume->uuid));
	latency_parse(attrs[COHOST_A_VOLUME_WRITE_LATENCY], volume->write_latency);
	latency_parse(attrs[COHOST_A_VOLUME_FLUSH_LATENCY], volume->flush_latency);
	volume->slow_error = attrs[COHOST_A_VOLUME_SLOW_ERROR] != NULL;
	volume->sealed = attrs[COHOST_A_VOLUME_SEALED] != NULL;
	for (size_t i = 0; i < sizeof(u64_fields) / sizeof(u64_fields[0]); i++)
		ch_netlink_u64(attrs[u64_fields[i].attr],
			       (uint64_t *)((char *)volume + u64_fields[i].offset));
	for (size_t i = 0; i < sizeof(u32_fields) / sizeof(u32_fields[0]); i++)
		ch_netlink_u32(attrs[u32_fields[i].attr],
			       (uint32_t *)((char *)volume + u32_fields[i].offset));
	if (!attrs[COHOST_A_VOLUME_COUNTERS] ||
	    nla_parse_nested(counters, COHOST_A_COUNTERS_MAX, attrs[COHOST_A_VOLUME_COUNTERS],
			     NULL) < 0)
		return 0;
	for (int i = 0; i <= COHOST_A_COUNTERS_MAX; i++)
		ch_netlink_u64(counters[i], &volume->counter[i]);
	return 0;
}

int ch_volume_list(struct ch_volume **ret_volumes, size_t *ret_count, struct ch_error *e)
{
	const struct ch_netlink_request req = {
		.cmd = COHOST_CMD_VOLUME_GET,
		.attr_max = COHOST_A_VOLUME_MAX,
		.each = volume_parse,
	};
	void *volumes;
	int err = ch_netlink_list(&req, sizeof(**ret_volumes), &volumes, ret_count, e);

	if (!err)
		*ret_volumes = volumes;
	return err;
}

/* A request about one volume, with settings unless they are NULL. */
static int call_one(uint8_t cmd, const char *name, const struct ch_volume_settings *set,
		    struct ch_volume *ret_volume, struct ch_error *e)
{
	struct ch_volume volume = {0};
	const struct ch_netlink_request req = {
		.cmd = cmd,
		.volume_attr = COHOST_A_VOLUME_NAME,
		.volume = name,
		.put = {{COHOST_A_VOLUME_MODE,
			 set && set->has_mode ? CH_NETLINK_U32 : CH_NETLINK_NONE,
			 set ? (uint64_t)set->mode : 0},
			{COHOST_A_VOLUME_DIRTY_CAP_BYTES,
			 set && set->has_dirty_cap ? CH_NETLINK_U64 : CH_NETLINK_NONE,
			 set ? set->dirty_cap_bytes : 0}},
		.attr_max = COHOST_A_VOLUME_MAX,
		.each = volume_parse,
		.arg = &volume,
	};
	int err = ch_netlink_call(&req, e);

	if (err == -ENOENT) {
		ch_error_set(e, err, "no volume '%s' is started", name);
		return ch_error_hint(e,
				     "list the started ones with: cohostctl volume list; start one "
				     "with: cohostctl volume start %s fast DEV slow DEV",
				     name);
	}
	if (!err && ret_volume)
		*ret_volume = volume;
	return err;
}

int ch_volume_show(const char *name, struct ch_volume *ret_volume, struct ch_error *e)
{
	return call_one(COHOST_CMD_VOLUME_GET, name, NULL, ret_volume, e);
}

int ch_volume_set(const char *name, const struct ch_volume_settings *settings, struct ch_error *e)
{
	return call_one(COHOST_CMD_VOLUME_SET, name, settings, NULL, e);
}

int ch_volume_seal(const char *name, struct ch_volume *ret_volume, struct ch_error *e)
{
	return call_one(COHOST_CMD_VOLUME_SEAL, name, NULL, ret_volume, e);
}

uint64_t ch_volume_drain_ms(const struct ch_volume *volume)
{
	if (!volume->dirty_bytes)
		return 0;
	return volume->drain_ms ? volume->drain_ms : UINT64_MAX;
}

int ch_volume_flush_start(const char *name, struct ch_volume *ret_volume, struct ch_error *e)
{
	return call_one(COHOST_CMD_VOLUME_FLUSH, name, NULL, ret_volume, e);
}

/* Why a flush that is not done will not end by itself soon; 0 if it will. */
static int flush_stuck(const struct ch_volume *volume, uint64_t *errors, struct ch_error *e)
{
	int err = 0;

	*errors = volume->slow_error ? *errors + 1 : 0;
	if (volume->state == COHOST_STATE_SUSPENDED) {
		err = ch_error_set(e, -EBUSY, "volume '%s' is suspended, its flush waits",
				   volume->name);
		ch_error_hint(e, "let it go on with: dmsetup resume cohost-%s", volume->name);
	} else if (volume->flush_state == COHOST_FLUSH_STATE_FAILED ||
		   volume->state == COHOST_STATE_FAILED) {
		err = ch_error_set(e, -EIO,
				   "volume '%s' could not be flushed: its fast device failed",
				   volume->name);
		ch_error_hint(e, "look at dmesg and at: cohostctl volume show %s", volume->name);
	} else if (*errors * FLUSH_POLL_MS >= SLOW_ERROR_MS) {
		err = ch_error_set(e, -EIO,
				   "volume '%s' could not be flushed: its slow device fails",
				   volume->name);
		ch_error_hint(
			e, "nothing is lost: the data is in the log on the fast device, and it is "
			   "tried again and again; look at dmesg");
	}
	return err;
}

int ch_volume_flush(const char *name, bool (*progress)(void *arg, const struct ch_volume *volume),
		    void *arg, struct ch_error *e)
{
	const struct timespec pause = {.tv_nsec = FLUSH_POLL_MS * 1000000L};
	uint64_t target_seq, errors = 0;
	struct ch_volume volume;
	int err;

	err = ch_volume_flush_start(name, &volume, e);
	if (err)
		return err;
	target_seq = volume.flush_target_seq;
	for (;;) {
		if (progress && !progress(arg, &volume))
			return ch_error_set(e, -EINTR, "the flush of volume '%s' goes on", name);
		err = flush_stuck(&volume, &errors, e);
		if (err)
			return err;
		/* Another flush that was asked for later has a target behind this one's. */
		if (volume.flush_state != COHOST_FLUSH_STATE_RUNNING ||
		    volume.flush_target_seq < target_seq)
			return 0;
		nanosleep(&pause, NULL);
		err = ch_volume_show(name, &volume, e);
		if (err)
			return err;
	}
}
