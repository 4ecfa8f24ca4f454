// SPDX-License-Identifier: MIT
/*
 * cohostctl monitor: what happens in the kernel module, line by line, as it happens. When
 * events were lost it says so and shows the volumes as they are now.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cohostctl/cmd.h"
#include "cohostctl/progress.h"
#include "cohostctl/value.h"
#include "lib/clock.h"
#include "lib/volume.h"
#include "lib/volume_json.h"

#define WAIT_MS 500

static const char *time_text(uint64_t time_ns, char buf[static 32])
{
	time_t seconds = (time_t)(time_ns / 1000000000U);
	struct tm tm;
	size_t n;

	localtime_r(&seconds, &tm);
	n = strftime(buf, 24, "%H:%M:%S", &tm);
	(void)snprintf(buf + n, 32 - n, ".%03u", (unsigned int)(time_ns / 1000000U % 1000U));
	return buf;
}

/* What the values of an event mean depends on its type. */
static void describe(const struct ch_event *event, char *buf, size_t size)
{
	char text[CH_VALUE_TEXT_MAX];

	buf[0] = '\0';
	switch (event->type) {
	case COHOST_EVENT_TYPE_STATE:
		(void)snprintf(buf, size, "%s", ch_volume_state_name(event->state));
		break;
	case COHOST_EVENT_TYPE_MODE:
		(void)snprintf(buf, size, "%s", ch_volume_mode_name(event->mode));
		break;
	case COHOST_EVENT_TYPE_RECOVERED:
		(void)snprintf(buf, size, "%" PRIu64 " records replayed", event->value);
		break;
	case COHOST_EVENT_TYPE_DIRTY_HIGH:
	case COHOST_EVENT_TYPE_DIRTY_LOW:
		(void)snprintf(buf, size, "%s dirty", ch_value_size_text(event->value, text));
		break;
	case COHOST_EVENT_TYPE_FLUSH_DONE:
		(void)snprintf(buf, size, "%s", event->error ? strerror(-event->error) : "ok");
		break;
	case COHOST_EVENT_TYPE_CHECKPOINT_CREATED:
	case COHOST_EVENT_TYPE_CHECKPOINT_DELETED:
		(void)snprintf(buf, size, "epoch %" PRIu64, event->value);
		break;
	case COHOST_EVENT_TYPE_ERROR:
		(void)snprintf(buf, size, "sector %" PRIu64 ": %s", event->value,
			       strerror(-event->error));
		break;
	default:
		break;
	}
}

static void show_event(struct ch_cmd *cmd, const struct ch_event *event)
{
	char when[32], what[128];

	describe(event, what, sizeof(what));
	(void)ch_cmd_event(cmd, json_pack("{s:o}", "event", ch_event_json(event)),
			   "%s  %-12s  %-18s  %s", time_text(event->time_ns, when), event->volume,
			   ch_event_type_name(event->type), what);
}

/* Events are missing: the state is what counts. */
static int resync(struct ch_cmd *cmd, uint64_t next_seq)
{
	struct ch_volume *volumes = NULL;
	char dirty[CH_VALUE_TEXT_MAX];
	size_t count = 0;

	if (ch_volume_list(&volumes, &count, &cmd->error))
		return ch_cmd_failed(cmd);
	(void)ch_cmd_event(cmd, json_pack("{s:{s:I}}", "lost", "next_seq", (json_int_t)next_seq),
			   "events were lost; this is how it is now:");
	for (size_t i = 0; i < count; i++)
		(void)ch_cmd_event(cmd, json_pack("{s:o}", "volume", ch_volume_json(&volumes[i])),
				   "              %-12s  %-18s  %s dirty", volumes[i].name,
				   ch_volume_state_name(volumes[i].state),
				   ch_value_size_text(volumes[i].dirty_bytes, dirty));
	free(volumes);
	return 0;
}

static int watch(struct ch_cmd *cmd, struct ch_events *events)
{
	const char *only = ch_cmd_str(cmd, "volume", NULL);
	uint64_t count = ch_cmd_number(cmd, "count", 0), for_ms = ch_cmd_ms(cmd, "for", 0);
	uint64_t end_ms = for_ms ? ch_clock_ms() + for_ms : UINT64_MAX, seen = 0;
	struct ch_event event;

	while (!ch_interrupted()) {
		uint64_t now = ch_clock_ms();
		int result;

		if (now >= end_ms)
			return CH_EXIT_OK;
		result = ch_events_next(events,
					end_ms - now < WAIT_MS ? (int)(end_ms - now) : WAIT_MS,
					&event, &cmd->error);
		if (result < 0)
			return ch_cmd_failed(cmd);
		if (result == CH_EVENTS_LOST && resync(cmd, event.seq))
			return cmd->error.exit;
		if (result != CH_EVENTS_ONE || (only && strcmp(only, event.volume)))
			continue;
		show_event(cmd, &event);
		if (count && ++seen >= count)
			return CH_EXIT_OK;
	}
	return CH_EXIT_INTERRUPTED;
}

static int run_monitor(struct ch_cmd *cmd)
{
	struct ch_events *events;
	int rc;

	if (ch_events_open(&events, &cmd->error))
		return ch_cmd_failed(cmd);
	ch_interrupt_catch();
	ch_cmd_note(cmd, "listening; end with Ctrl-C");
	rc = watch(cmd, events);
	ch_events_close(events);
	return rc;
}

static const struct ch_ctl_key keys[] = {
	{"volume", CH_KEY_STRING, false, NULL, "NAME", "only events of this volume"},
	{"count", CH_KEY_NUMBER, false, NULL, NULL, "end after so many events"},
	{"for", CH_KEY_DURATION, false, NULL, NULL, "end after this time"},
	{NULL, CH_KEY_STRING, false, NULL, NULL, NULL},
};

static const struct ch_ctl_verb verbs[] = {
	{"", CH_NAME_NONE, NULL, CH_VERB_STREAMS, keys,
	 "events of the kernel module as they happen", NULL, run_monitor},
	{NULL, CH_NAME_NONE, NULL, 0, NULL, NULL, NULL, NULL},
};

extern const struct ch_ctl_object ch_ctl_monitor;
const struct ch_ctl_object ch_ctl_monitor = {
	.name = "monitor",
	.help = "kernel events, live",
	.verbs = verbs,
};
