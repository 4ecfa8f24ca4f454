// SPDX-License-Identifier: MIT
/* See volume_json.h. */
#include "lib/volume_json.h"

#include <inttypes.h>
#include <string.h>

#include "lib/netlink_names.h"

struct gauge {
	const char *name; /* in JSON, and behind cohost_volume_ in metrics */
	const char *help;
	size_t offset;
};

#define GAUGE(member, text)                                                                        \
	{                                                                                          \
#member, text, offsetof(struct ch_volume, member)                                  \
	}

static const struct gauge gauges[] = {
	GAUGE(size_bytes, "Size of the volume."),
	GAUGE(dirty_bytes, "In the log and not yet on the slow device."),
	GAUGE(log_bytes_used, "Used space of the log."),
	GAUGE(log_bytes_total, "Size of the log."),
	GAUGE(line_bytes_used, "Data of the slow device that the read tier holds."),
	GAUGE(line_bytes_total, "Size of the read tier, 0 for none."),
	GAUGE(absent_bytes, "Not there yet, of a volume that is being filled."),
	GAUGE(memory_bytes, "Memory held by the index, the map of changes and the read tier."),
	GAUGE(epoch, "Epoch that writes belong to."),
	GAUGE(base_epoch, "Last epoch that was synced, 0 for never."),
	GAUGE(seq, "Last sequence number given to a record of the log."),
	GAUGE(durable_seq, "Last sequence number that survives a power cut."),
	GAUGE(flush_target_seq, "Sequence number that the running or last flush aims at."),
	GAUGE(flush_left_bytes, "Left to do for the running flush."),
	GAUGE(flush_total_bytes, "To do for the running flush when it began."),
	GAUGE(dirty_cap_bytes,
	      "Writers are held back before more than this is dirty, 0 for no cap."),
	GAUGE(drain_ms,
	      "Until nothing is dirty, about, once a flush is asked for; 0 for not known yet."),
	GAUGE(drain_bytes_per_s,
	      "How fast what is dirty comes to the slow device, as measured; 0 for not yet."),
};
#define GAUGES (sizeof(gauges) / sizeof(gauges[0]))

static uint64_t gauge_value(const struct ch_volume *volume, const struct gauge *gauge)
{
	uint64_t value;

	memcpy(&value, (const char *)volume + gauge->offset, sizeof(value));
	return value;
}

static json_t *uuid_json(const uint8_t u[COHOST_UUID_LEN])
{
	return json_sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
			    u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10],
			    u[11], u[12], u[13], u[14], u[15]);
}

static json_t *counters_json(const struct ch_volume *volume)
{
	json_t *counters = json_object();

	for (int i = 0; counters && i <= COHOST_A_COUNTERS_MAX; i++)
		if (ch_netlink_counters_attrs[i].name)
			(void)json_object_set_new(counters, ch_netlink_counters_attrs[i].name,
						  json_integer((json_int_t)volume->counter[i]));
	return counters;
}

static void latency_json(json_t *json, const char *what, const uint64_t *buckets)
{
	json_t *array = json_array();
	char name[64];

	for (int i = 0; i < COHOST_LATENCY_BUCKETS; i++)
		(void)json_array_append_new(array, json_integer((json_int_t)buckets[i]));
	snprintf(name, sizeof(name), "%s_latency_p50_us", what);
	(void)json_object_set_new(json, name,
				  json_integer((json_int_t)ch_volume_latency_us(buckets, 500)));
	snprintf(name, sizeof(name), "%s_latency_p99_us", what);
	(void)json_object_set_new(json, name,
				  json_integer((json_int_t)ch_volume_latency_us(buckets, 990)));
	snprintf(name, sizeof(name), "%s_latency_buckets", what);
	(void)json_object_set_new(json, name, array);
}

json_t *ch_volume_json(const struct ch_volume *volume)
{
	char path[CH_VOLUME_PATH_SIZE];
	json_t *json;

	json = json_pack("{s:s, s:o, s:s, s:s, s:s, s:s, s:i, s:b, s:b, s:s, s:s, s:i, s:i}",
			 "name", volume->name, "uuid", uuid_json(volume->uuid), "device",
			 ch_volume_path(volume->name, path), "state",
			 ch_volume_state_name(volume->state), "mode",
			 ch_volume_mode_name(volume->mode), "flush_state",
			 ch_volume_flush_state_name(volume->flush_state), "checkpoints",
			 (int)volume->checkpoint_count, "slow_error", (int)volume->slow_error,
			 "sealed", (int)volume->sealed, "fast_device", volume->fast_device,
			 "slow_device", volume->slow_device, "dev_major", (int)volume->dev_major,
			 "dev_minor", (int)volume->dev_minor);
	if (!json)
		return NULL;
	for (size_t i = 0; i < GAUGES; i++)
		(void)json_object_set_new(
			json, gauges[i].name,
			json_integer((json_int_t)gauge_value(volume, &gauges[i])));
	(void)json_object_set_new(json, "event_seq", json_integer((json_int_t)volume->event_seq));
	latency_json(json, "write", volume->write_latency);
	latency_json(json, "flush", volume->flush_latency);
	(void)json_object_set_new(json, "counters", counters_json(volume));
	return json;
}

json_t *ch_checkpoint_json(const struct ch_checkpoint *checkpoint)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:b, s:b}", "volume",
			 checkpoint->volume, "epoch", (json_int_t)checkpoint->epoch, "seq",
			 (json_int_t)checkpoint->seq, "size_bytes",
			 (json_int_t)checkpoint->size_bytes, "base_epoch",
			 (json_int_t)checkpoint->base_epoch, "created_ns",
			 (json_int_t)checkpoint->created_ns, "views", (int)checkpoint->views,
			 "full", (int)checkpoint->full, "lost", (int)checkpoint->lost);
}

json_t *ch_event_json(const struct ch_event *event)
{
	json_t *json;

	json = json_pack("{s:I, s:I, s:s, s:s}", "seq", (json_int_t)event->seq, "time_ns",
			 (json_int_t)event->time_ns, "type", ch_event_type_name(event->type),
			 "volume", event->volume);
	if (!json)
		return NULL;
	if (event->has_state)
		(void)json_object_set_new(json, "state",
					  json_string(ch_volume_state_name(event->state)));
	if (event->has_mode)
		(void)json_object_set_new(json, "mode",
					  json_string(ch_volume_mode_name(event->mode)));
	(void)json_object_set_new(json, "value", json_integer((json_int_t)event->value));
	(void)json_object_set_new(json, "error", json_integer(event->error));
	return json;
}

/* What counts bytes says so in the attribute's name; OpenMetrics wants it so, too. */
static void counter_metrics(const struct ch_volume *volumes, size_t count, int attr, FILE *out)
{
	const char *name = ch_netlink_counters_attrs[attr].name;
	const char *doc = ch_netlink_counters_attrs[attr].doc;

	fprintf(out, "# TYPE cohost_volume_%s counter\n", name);
	fprintf(out, "# HELP cohost_volume_%s %s\n", name,
		doc ? doc : "Since the volume was started.");
	for (size_t i = 0; i < count; i++)
		fprintf(out, "cohost_volume_%s_total{volume=\"%s\"} %" PRIu64 "\n", name,
			volumes[i].name, volumes[i].counter[attr]);
}

/* The last bucket is open at its end, as OpenMetrics wants it. */
static void latency_metrics(const struct ch_volume *volume, const char *what,
			    const uint64_t *buckets, uint64_t sum_us, FILE *out)
{
	uint64_t count = 0;

	for (int i = 0; i < COHOST_LATENCY_BUCKETS; i++) {
		char le[32] = "+Inf";

		count += buckets[i];
		if (i < COHOST_LATENCY_BUCKETS - 1)
			snprintf(le, sizeof(le), "%.6f", (double)(1U << i) / 1e6);
		fprintf(out,
			"cohost_volume_%s_latency_seconds_bucket{volume=\"%s\",le=\"%s\"} %" PRIu64
			"\n",
			what, volume->name, le, count);
	}
	fprintf(out, "cohost_volume_%s_latency_seconds_count{volume=\"%s\"} %" PRIu64 "\n", what,
		volume->name, count);
	fprintf(out, "cohost_volume_%s_latency_seconds_sum{volume=\"%s\"} %.6f\n", what,
		volume->name, (double)sum_us / 1e6);
}

static void latencies_metrics(const struct ch_volume *volumes, size_t count, FILE *out)
{
	fprintf(out,
		"# TYPE cohost_volume_write_latency_seconds histogram\n"
		"# HELP cohost_volume_write_latency_seconds Until a write was acknowledged.\n");
	for (size_t i = 0; i < count; i++)
		latency_metrics(&volumes[i], "write", volumes[i].write_latency,
				volumes[i].counter[COHOST_A_COUNTERS_WRITE_US], out);
	fprintf(out,
		"# TYPE cohost_volume_flush_latency_seconds histogram\n"
		"# HELP cohost_volume_flush_latency_seconds Until a FLUSH was acknowledged.\n");
	for (size_t i = 0; i < count; i++)
		latency_metrics(&volumes[i], "flush", volumes[i].flush_latency,
				volumes[i].counter[COHOST_A_COUNTERS_FLUSH_US], out);
}

void ch_volume_metrics(const struct ch_volume *volumes, size_t count, FILE *out)
{
	for (size_t g = 0; g < GAUGES; g++) {
		fprintf(out, "# TYPE cohost_volume_%s gauge\n", gauges[g].name);
		fprintf(out, "# HELP cohost_volume_%s %s\n", gauges[g].name, gauges[g].help);
		for (size_t i = 0; i < count; i++)
			fprintf(out, "cohost_volume_%s{volume=\"%s\"} %" PRIu64 "\n",
				gauges[g].name, volumes[i].name,
				gauge_value(&volumes[i], &gauges[g]));
	}
	fprintf(out,
		"# TYPE cohost_volume_running gauge\n"
		"# HELP cohost_volume_running 1 if reads and writes are served without error.\n");
	for (size_t i = 0; i < count; i++)
		fprintf(out, "cohost_volume_running{volume=\"%s\"} %d\n", volumes[i].name,
			volumes[i].state == COHOST_STATE_RUNNING && !volumes[i].slow_error);
	for (int attr = 0; attr <= COHOST_A_COUNTERS_MAX; attr++)
		if (ch_netlink_counters_attrs[attr].name)
			counter_metrics(volumes, count, attr, out);
	latencies_metrics(volumes, count, out);
}
