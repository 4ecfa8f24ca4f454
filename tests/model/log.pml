/* SPDX-License-Identifier: MIT */
/*
 * Reuse of the log, and checkpoints that pin it: the rules of kmod/core/log.c (room), destage.c
 * (batches, tail), tier.c (pins) and of who calls them, kmod/tier_log.c, tier_destage.c and
 * tier_io.c, as processes that may be interleaved, and cut, anywhere.
 *
 * The volume is one block, so its content is the position of the last record: a write at position
 * p leaves p in it. A record takes one place of the log. Batches are one record long: what the redo
 * area is for is the simulator's to show (tests/sim). What a device has in its cache is lost in a
 * cut, or is not, as it likes. A region of the log, whose readers are counted together, is one place.
 *
 * Every process does a bounded number of steps, and model.sh proves that no run goes round in a
 * circle: so nobody waits for ever if no run ends but where all processes do.
 *
 * -DMUTANT_x breaks a rule, to see that the property which guards it notices.
 */
#define LOG   2 /* places */
#define LAST  5 /* no write behind this position: enough to find the log full behind a view */
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
byte readers[LOG];	/* reads in flight of each place */
byte boot = 0;		/* a read does not outlive its machine */
bool stalled = false;	/* writers wait for room */
bool power_stays = false;
#define over (head > LAST && power_stays)
bool marker_wanted = false;
bool destaging = false, saving = false;

#ifdef MUTANT_UNPINNED
#define may_go_on true
#else
#define may_go_on (pin == NONE || slow < pin)
#endif
#ifdef MUTANT_UNDURABLE
#define may_destage (slow < done)
#else
#define may_destage (slow < durable)
#endif
#ifdef MUTANT_NO_READERS
#define unread(p) true
#else
#define unread(p) (readers[(p) % LOG] == 0)
#endif
#ifdef MUTANT_ACK_EARLY
#define acknowledged done
#else
#define acknowledged durable
#endif

#define newest(p) (p - 1)
/* What a read of the volume as it was before position p finds. */
#define before(p) (newest(p) >= tail && newest(p) >= FIRST -> place[newest(p) % LOG] : data)
#define right(p) (p == FIRST -> NONE : newest(p))

inline read_right(p)
{
	assert(before(p) == right(p))
}

/* Writers: room() and ch_log_room(), ch_log_begin(), ch_log_end(), and the device's answer. */
active proctype writer()
{
	do
	:: over -> break
	:: atomic { head <= LAST && !marker_wanted && head - tail < LOG && unread(head) ->
			/* Whoever still needs what is there must have moved on. */
			assert(place[head % LOG] < tail);
			place[head % LOG] = head;
			head++;
			done = head;
			stalled = false
		}
	:: atomic { head <= LAST && head - tail >= LOG && !stalled -> stalled = true }
	:: atomic { done > durable -> durable = done }
	:: atomic { acknowledged > promised -> promised = acknowledged }
	od
}

/* find_run() of kmod/tier_read.c: which place, or the slow device, has what was there before p. */
inline find(p)
{
	asked = p;
	want = right(p);
	in_log = newest(p) >= tail && newest(p) >= FIRST;
	at = newest(p) % LOG;
	readers[at] = readers[at] + in_log;
	booted = boot
}

/*
 * One read of the volume or of the view, at any moment: ch_read_map(), the device, end_read(). Any
 * of many reads may be this one.
 */
active proctype reader()
{
	byte asked, want, got, at, booted;
	bool in_log, of_view;

	if
	:: atomic { head > FIRST -> find(head) }
	:: atomic { pin != NONE -> of_view = true; find(pin) }
	:: over -> goto none
	fi;
	got = (in_log -> place[at] : data);
	atomic {
		if
		:: booted != boot -> skip
		:: else ->
			readers[at] = readers[at] - in_log;
			if
#ifndef MUTANT_NO_LAST_LOOK
			/* Once the view is lost, newer data may be there: an error, not an answer. */
			:: of_view && pin != asked -> skip
#endif
			/* A write that came after the read may have reached the slow device. */
			:: else -> assert(got == want || (!of_view && !in_log && got > want))
			fi
		fi;
		/* What nobody looks at any more shall not make two states of one. */
		asked = 0; want = 0; got = 0; at = 0; booted = 0; in_log = false; of_view = false
	};
none:	skip
}

/*
 * One checkpoint, ch_checkpoint_create(): its marker is next in line, and needs room as writes do
 * (choose(), stall()). It closes a batch at the head; when it is durable a superblock tells of it.
 */
active proctype checkpoint()
{
	if
	:: head > FIRST ->
		marker_wanted = true;
		do
		:: atomic { head - tail < LOG && unread(head) ->
				pin = head; marker_wanted = false; stalled = false; break }
		:: atomic { head - tail >= LOG && !stalled -> stalled = true }
		od;
		/* ch_log_sync() has the device flushed, if nobody else has. */
		durable = done;
		atomic { !saving -> saving = true };
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
	:: atomic { may_destage && may_go_on -> destaging = true };
		item = place[slow % LOG];
		assert(item == slow);
		data = item;
#ifndef MUTANT_NO_SLOW_FLUSH
		data_disk = data;
#endif
		atomic { slow++; item = 0; destaging = false };
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
#ifndef MUTANT_LOST_UNSAID
		pin_disk = NONE;
#endif
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
			assert(end >= promised && end >= tail_disk);
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
			boot++;
			p = 0;
			do
			:: p < LOG -> readers[p] = 0; p++
			:: else -> break
			od;
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
