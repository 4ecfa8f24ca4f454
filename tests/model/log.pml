/* SPDX-License-Identifier: MIT */
/*
 * Reuse of the log, and checkpoints that pin it: the rules of kmod/core/log.c (room), destage.c
 * (batches, tail), tier.c (pins) and of who calls them, kmod/tier_log.c, tier_destage.c and
 * tier_io.c, as processes that may be interleaved, and cut, anywhere.
 *
 * The volume is one block, so its content is the position of the last record: a write at position
 * p leaves p in it. A record takes one place of the log. Batches are one record long: what the redo
 * area is for is the simulator's to show (tests/sim). What a device has in its cache is lost in a
 * cut, or is not, as it likes.
 *
 * -DMUTANT_x breaks a rule, to see that the property which guards it notices.
 */
#define LOG   3 /* places */
#define LAST  7 /* no write behind this position */
#define NONE  0 /* of positions; the first one is LOG, as on the disk */
#define FIRST LOG

byte place[LOG]; /* which position is there, durable up to durable */
byte head = FIRST, done = FIRST, durable = FIRST;
byte slow = FIRST;	/* the slow device holds what is before it */
byte tail = FIRST;	/* in memory: before it places may be written again */
byte tail_disk = FIRST; /* in the superblock */
byte data = NONE;	/* on the slow device, in its cache ... */
byte data_disk = NONE;	/* ... and durable */
byte pin = NONE;	/* the view is what is before it */
byte pin_disk = NONE;
byte promised = FIRST;	/* a flush of all before it was acknowledged */
bool stalled = false;	/* writers wait for room */
bool power_stays = false;
#define over (head > LAST && power_stays)
bool destaging = false, saving = false;

#ifdef MUTANT_UNPINNED
#define may_go_on true
#else
#define may_go_on (pin == NONE || slow < pin)
#endif

#define newest(p) (p - 1)
/* What a read of the volume as it was before position p finds. */
#define before(p) (newest(p) >= tail && newest(p) >= FIRST -> place[newest(p) % LOG] : data)
#define right(p) (p == FIRST -> NONE : newest(p))

inline read_right(p)
{
	assert(before(p) == right(p))
}

/* Writers: ch_log_room(), ch_log_begin(), ch_log_end(), and the device's answer. */
active proctype writer()
{
	do
	:: over -> break
	:: atomic { head <= LAST && head - tail < LOG ->
			/* Whoever still needs what is there must have moved on. */
			assert(place[head % LOG] < tail);
			place[head % LOG] = head;
			head++;
			done = head;
			stalled = false
		}
	:: atomic { head <= LAST && head - tail >= LOG && !stalled -> stalled = true }
	:: atomic { done > durable -> durable = done }
	:: atomic { durable > promised -> promised = durable }
	od
}

/*
 * Readers of the volume and of the view, at any moment. They end, or a state in which nobody else
 * can do anything would not look like one.
 */
active proctype reader()
{
	byte n = 0;

	do
	:: n == 2 -> break
	:: atomic { n < 2 && head > FIRST -> read_right(head); n++ }
	:: atomic { n < 2 && pin != NONE -> read_right(pin); n++ }
	:: n < 2 -> n++
	od
}

/* One checkpoint: its marker closes a batch at the head; a superblock tells of it. */
active proctype checkpoint()
{
	if
	:: atomic { head > FIRST && !saving -> pin = head; saving = true };
		pin_disk = pin;
		saving = false
	:: true
	fi
}

/* The destage thread: step() and tail_move() of kmod/tier_destage.c. */
active proctype destage()
{
	byte item;

	do
	:: atomic { over && tail == head -> break }
	/* A batch: read from the log, written, flushed, clean. */
	:: atomic { slow < durable && may_go_on -> destaging = true };
		item = place[slow % LOG];
		assert(item == slow);
		data = item;
#ifndef MUTANT_NO_SLOW_FLUSH
		data_disk = data;
#endif
		atomic { slow++; destaging = false };
#ifdef MUTANT_FREE_EARLY
		tail = slow;
#endif
		/* The superblock first, then the space. */
		atomic { !saving -> saving = true };
		atomic { tail_disk = slow; pin_disk = pin };
		atomic { tail = tail_disk; saving = false }
#ifndef MUTANT_NEVER_LOST
	/* Only a view holds the log, and writers wait: local write first. */
	:: atomic { pin != NONE && slow >= pin && stalled && !saving ->
			pin = NONE; saving = true };
		pin_disk = NONE;
		saving = false
#endif
	/* Nobody waits any more: the owner of the checkpoint is done with it. */
	:: atomic { pin != NONE && over && !saving -> pin = NONE; pin_disk = NONE }
	/* Without writers the rest is flushed on request (ch_log_sync()). */
	:: atomic { done > durable && head > LAST -> durable = done }
	od
}

/*
 * The power goes: what is not durable is there or not, all memory is gone. Recovery reads from the
 * superblock's tail to the last durable record. It is one step here: nothing else runs.
 */
active proctype power()
{
	byte p, end;

	if
	:: atomic { !destaging && promised > FIRST ->
			if
			:: end = durable
			:: end = done
			fi;
			if
			:: data = data_disk
			:: data_disk = data
			fi;
			assert(end >= promised);
			tail = tail_disk;
			slow = tail_disk;
			p = tail_disk;
			do
			:: p < end -> assert(place[p % LOG] == p); p++
			:: else -> break
			od;
			head = end; done = end; durable = end;
			/* One whose marker is not in the log was never told to anybody. */
			pin = (pin_disk > end -> NONE : pin_disk);
			stalled = false;
			/* What the log does not have, the slow device must. */
			if
			:: end == tail_disk -> assert(data == right(end))
			:: else -> skip
			fi;
			read_right(head);
			/* The places behind the end are as good as empty: another session. */
			p = 0;
			do
			:: p < LOG -> if :: place[p] >= end -> place[p] = NONE :: else -> skip fi; p++
			:: else -> break
			od;
			p = 0; end = 0
		}
	:: true
	fi;
	power_stays = true
}
