// SPDX-License-Identifier: GPL-2.0
/*
 * Events: see event.h. They are raised in any context, interrupt handlers of the block
 * layer included, but netlink sends from process context: so they queue up for a work
 * item. Numbers are given when an event is queued, under the lock, and the queue keeps
 * the order, so the order of the numbers is the order of arrival. event_lock is the
 * innermost lock of the module.
 */
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>

#include "kmod/event.h"
#include "kmod/netlink.h"

/* More than this many waiting are dropped, which the listener sees as a gap. */
#define EVENTS_WAITING_MAX 1024

struct event {
	struct list_head list;
	u64 seq;
	u64 time_ns;
	u64 value;
	enum cohost_event_type type;
	int state; /* or -1 */
	int mode; /* or -1 */
	int error;
	char volume[COHOST_VOLUME_NAME_MAX + 1];
};

static void event_work_run(struct work_struct *work);

static DEFINE_SPINLOCK(event_lock);
static LIST_HEAD(event_queue);
static unsigned int event_waiting;
static u64 event_seq;
static DECLARE_WORK(event_work, event_work_run);

static int event_put(struct sk_buff *skb, const struct event *event)
{
	void *head;

	head = genlmsg_put(skb, 0, 0, &ch_netlink_family, 0, COHOST_CMD_EVENT);
	if (!head)
		return -EMSGSIZE;
	if (nla_put_u64_64bit(skb, COHOST_A_EVENT_SEQ, event->seq, COHOST_A_EVENT_PAD) ||
	    nla_put_u32(skb, COHOST_A_EVENT_TYPE, event->type) ||
	    nla_put_string(skb, COHOST_A_EVENT_VOLUME, event->volume) ||
	    nla_put_u64_64bit(skb, COHOST_A_EVENT_TIME_NS, event->time_ns,
			      COHOST_A_EVENT_PAD) ||
	    (event->state >= 0 && nla_put_u32(skb, COHOST_A_EVENT_STATE, event->state)) ||
	    (event->mode >= 0 && nla_put_u32(skb, COHOST_A_EVENT_MODE, event->mode)) ||
	    nla_put_u64_64bit(skb, COHOST_A_EVENT_VALUE, event->value, COHOST_A_EVENT_PAD) ||
	    nla_put_s32(skb, COHOST_A_EVENT_ERROR, event->error)) {
		genlmsg_cancel(skb, head);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, head);
	return 0;
}

static void event_multicast(const struct event *event)
{
	struct sk_buff *skb;

	skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!skb)
		return;
	if (event_put(skb, event)) {
		nlmsg_free(skb);
		return;
	}
	/* -ESRCH is nobody listening, all else is a gap that the listener will notice. */
	(void)genlmsg_multicast(&ch_netlink_family, skb, 0, CH_NETLINK_GROUP_EVENTS, GFP_KERNEL);
}

static struct event *event_pop(void)
{
	struct event *event;
	unsigned long flags;

	spin_lock_irqsave(&event_lock, flags);
	event = list_first_entry_or_null(&event_queue, struct event, list);
	if (event) {
		list_del(&event->list);
		event_waiting--;
	}
	spin_unlock_irqrestore(&event_lock, flags);
	return event;
}

static void event_work_run(struct work_struct *work)
{
	struct event *event;

	while ((event = event_pop())) {
		event_multicast(event);
		kfree(event);
	}
}

static void event_raise(const char *volume, const struct event *template)
{
	struct event *event = kmemdup(template, sizeof(*template), GFP_ATOMIC | __GFP_NOWARN);
	unsigned long flags;
	bool queued = false;

	if (event) {
		strscpy(event->volume, volume, sizeof(event->volume));
		event->time_ns = ktime_get_real_ns();
	}
	spin_lock_irqsave(&event_lock, flags);
	event_seq++;
	if (event && event_waiting < EVENTS_WAITING_MAX) {
		event->seq = event_seq;
		list_add_tail(&event->list, &event_queue);
		event_waiting++;
		queued = true;
	}
	spin_unlock_irqrestore(&event_lock, flags);
	if (queued)
		schedule_work(&event_work);
	else
		kfree(event);
}

void ch_event_send(const char *volume, enum cohost_event_type type, u64 value, int error)
{
	const struct event event = {
		.type = type,
		.state = -1,
		.mode = -1,
		.value = value,
		.error = error,
	};

	event_raise(volume, &event);
}

void ch_event_state(const char *volume, enum cohost_state state)
{
	const struct event event = {
		.type = COHOST_EVENT_TYPE_STATE,
		.state = state,
		.mode = -1,
	};

	event_raise(volume, &event);
}

void ch_event_mode(const char *volume, enum cohost_mode mode)
{
	const struct event event = {
		.type = COHOST_EVENT_TYPE_MODE,
		.state = -1,
		.mode = mode,
	};

	event_raise(volume, &event);
}

void ch_event_exit(void)
{
	flush_work(&event_work);
}

u64 ch_event_seq(void)
{
	unsigned long flags;
	u64 seq;

	spin_lock_irqsave(&event_lock, flags);
	seq = event_seq;
	spin_unlock_irqrestore(&event_lock, flags);
	return seq;
}
