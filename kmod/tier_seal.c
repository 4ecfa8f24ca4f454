// SPDX-License-Identifier: GPL-2.0
/*
 * Sealing: the power may go at any moment now. What is acknowledged and what is queued goes to
 * the log, the log is flushed, and a superblock says that it ends there, as after an orderly
 * stop. The volume goes on: the next write opens the seal again by a new session, before it
 * gets its place in the log.
 *
 * While it is closed no record begins, so the tail may move and checkpoints may go, but the
 * end of the log that the superblock promises stays true.
 */
#include "kmod/tier.h"

static bool closing_ends(const struct ch_volume *vol)
{
	return (!READ_ONCE(vol->seal_left) && !READ_ONCE(vol->building)) ||
	       READ_ONCE(vol->tier.failed) || READ_ONCE(vol->suspended) || !READ_ONCE(vol->live);
}

/* Until all that was queued is in the log; *ret_seq: of the last record. */
static int take_the_rest(struct ch_volume *vol, u64 *ret_seq)
{
	int r = 0;

	spin_lock_irq(&vol->lock);
	if (vol->tier.failed)
		r = -EIO;
	else if (vol->suspended)
		r = -EAGAIN;
	if (!r) {
		vol->seal_left = vol->commit.queued;
		vol->seal = CH_SEAL_CLOSING;
	}
	spin_unlock_irq(&vol->lock);
	if (r)
		return r;
	ch_log_kick(vol);
	wait_event(vol->change_wait, closing_ends(vol));
	spin_lock_irq(&vol->lock);
	r = vol->tier.failed ? -EIO : vol->suspended || !vol->live ? -EAGAIN : 0;
	*ret_seq = ch_log_seq_begun(&vol->tier);
	spin_unlock_irq(&vol->lock);
	return r;
}

/* Closed already: true, unless writes are about to open it; then it is open on return. */
static bool still_closed(struct ch_volume *vol)
{
	bool closed, idle;

	spin_lock_irq(&vol->lock);
	closed = vol->seal == CH_SEAL_CLOSED;
	idle = !vol->commit.queued;
	spin_unlock_irq(&vol->lock);
	if (!closed || idle)
		return closed;
	ch_seal_open(vol);
	flush_work(&vol->unseal_work);
	return false;
}

int ch_seal_close(struct ch_volume *vol)
{
	u64 seq;
	int r;

	lockdep_assert_held(&vol->control);
	if (still_closed(vol))
		return READ_ONCE(vol->tier.failed) ? -EIO : 0;
	r = take_the_rest(vol, &seq);
	if (!r)
		r = ch_log_sync(vol, seq);
	if (!r) {
		mutex_lock(&vol->super_mutex);
		r = ch_summary_save(vol) ?: ch_super_write(vol, ch_tier_stop);
		mutex_unlock(&vol->super_mutex);
	}
	spin_lock_irq(&vol->lock);
	vol->seal_left = 0;
	vol->seal = r ? CH_SEAL_OPEN : CH_SEAL_CLOSED;
	spin_unlock_irq(&vol->lock);
	ch_log_kick(vol);
	return r;
}

static void unseal(struct work_struct *work)
{
	struct ch_volume *vol = container_of(work, struct ch_volume, unseal_work);
	bool closed;

	mutex_lock(&vol->super_mutex);
	spin_lock_irq(&vol->lock);
	closed = vol->seal == CH_SEAL_CLOSED;
	spin_unlock_irq(&vol->lock);
	/* If that fails so does the volume, and with it all that is queued. */
	if (closed && !ch_super_write(vol, ch_tier_start)) {
		spin_lock_irq(&vol->lock);
		vol->seal = CH_SEAL_OPEN;
		spin_unlock_irq(&vol->lock);
	}
	mutex_unlock(&vol->super_mutex);
	ch_log_kick(vol);
}

void ch_seal_open(struct ch_volume *vol)
{
	queue_work(vol->read_wq, &vol->unseal_work);
}

void ch_seal_init(struct ch_volume *vol)
{
	INIT_WORK(&vol->unseal_work, unseal);
}
