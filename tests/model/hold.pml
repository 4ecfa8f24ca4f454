/* SPDX-License-Identifier: MIT */
/*
 * Who wakes the log thread? Writes may be held for company: until a round ends (somebody kicks), or
 * until a moment (nobody does). waits(), choose() and log_wait() of kmod/tier_log.c, and
 * ch_log_queue(), by which a writer takes part, with kmod/core/commit.c's rule for holding, as
 * processes; time passes between any two steps. No end but that of all writers is a valid one.
 *
 * -DMUTANT_TWO_LOOKS: how long to sleep is asked by a second look, as it once was: the time that held
 * the write may be up by then, and nobody kicks. -DMUTANT_NO_KICK: a writer's first write is not told.
 * -DMUTANT_BUSY: a thread that holds a write looks again at once, and so does nothing else.
 */
#define WRITERS 2
#define WRITES	2
#define NEVER	255
#define CLOCK	6

byte now = 0, gather_end = 0;
byte queued = 0;    /* writes that nobody has taken */
byte inflight = 0;  /* taken, not acknowledged: a round is under way */
byte acked = 0;	    /* in all */
byte look = NEVER;  /* when the thread looks again unkicked */
bool kick = false;
byte finished = 0;

#define held (inflight > 0 || now < gather_end)

/* Takes all, or says when to look again. Under the lock. */
inline choose()
{
	look = NEVER;
	if
	:: queued > 0 && !held -> inflight = queued; queued = 0
	:: queued > 0 && held ->
#ifdef MUTANT_BUSY
		look = now
#elif !defined(MUTANT_TWO_LOOKS)
		look = (now < gather_end -> gather_end : NEVER)
#endif
	:: else -> skip
	fi
}

proctype writer()
{
	byte n = 0, want;

	do
	:: n < WRITES ->
		n++;
		/* ch_log_queue(): the first one is told to the thread, or written from here. */
		atomic {
			queued++;
			if
			:: !held -> inflight = queued; queued = 0
			:: else ->
#ifndef MUTANT_NO_KICK
				if :: queued == 1 -> kick = true :: else -> skip fi
#else
				skip
#endif
			fi
		};
		atomic { acked > 0 -> acked-- }
	:: else -> break
	od;
	finished++
}

/* The device: the round ends, those who come back are waited for. The callback kicks. */
active proctype device()
{
end:	do
	:: atomic { inflight > 0 ->
			acked = acked + inflight;
			inflight = 0;
			if
			:: now + 1 <= CLOCK -> gather_end = now + 1
			:: skip
			fi;
			kick = (queued > 0 -> true : kick)
		}
	od
}

active proctype log_thread()
{
	do
	:: atomic { choose() };
#ifdef MUTANT_TWO_LOOKS
		atomic { look = (queued > 0 && now < gather_end -> gather_end : NEVER) };
#endif
end_sleep:	if
		:: atomic { kick -> kick = false }
		:: look != NEVER && now >= look -> skip
		:: finished == WRITERS -> break
		fi
	od
}

active proctype clock()
{
end:	do
	:: now < CLOCK -> now++
	od
}

init
{
	atomic { run writer(); run writer() };
	finished == WRITERS
}
