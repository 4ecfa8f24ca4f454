// SPDX-License-Identifier: MIT
/* See volume_swap.h. */
#include "lib/volume_swap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/clock.h"

static int check_running(const struct ch_volume *volume, struct ch_error *e)
{
	if (volume->absent_bytes) {
		ch_error_set(e, -EAGAIN, "volume '%s' is still being filled", volume->name);
		return ch_error_hint(e,
				     "wait until nothing of it is absent: cohostctl volume show "
				     "%s",
				     volume->name);
	}
	if (volume->state == COHOST_STATE_RUNNING)
		return 0;
	ch_error_set(e, -EAGAIN, "volume '%s' is %s, not running", volume->name,
		     ch_volume_state_name(volume->state));
	return ch_error_hint(e, "see: cohostctl volume show %s", volume->name);
}

static int read_headers(struct ch_swap *swap, struct ch_error *e)
{
	enum ch_check fast, slow;
	int err = ch_blockdev_forget(&swap->fast, e);

	if (!err)
		err = ch_blockdev_forget(&swap->slow, e);
	if (!err)
		err = ch_header_read_fast(&swap->fast, &fast, &swap->sb, e);
	if (!err)
		err = ch_header_read_slow(&swap->slow, &slow, &swap->header, e);
	if (err)
		return err;
	if (fast != CH_CHECK_OK)
		return ch_header_fail(swap->fast_path, "fast", fast, e);
	return slow == CH_CHECK_OK ? 0 : ch_header_fail(swap->slow_path, "slow", slow, e);
}

int ch_swap_open(const char *name, struct ch_swap *ret_swap, struct ch_error *e)
{
	struct ch_swap *swap = ret_swap;
	struct ch_volume volume;
	int err = ch_volume_name_check(name, e);

	if (!err)
		err = ch_volume_show(name, &volume, e);
	if (!err)
		err = check_running(&volume, e);
	if (!err)
		err = ch_volume_views_check(name, e);
	if (err)
		return err;
	memset(swap, 0, sizeof(*swap));
	swap->name = name;
	swap->fast.fd = swap->slow.fd = -1;
	ch_volume_device_path(volume.fast_device, swap->fast_path);
	ch_volume_device_path(volume.slow_device, swap->slow_path);
	err = ch_blockdev_open_shared(swap->fast_path, &swap->fast, e);
	if (!err)
		err = ch_blockdev_open_shared(swap->slow_path, &swap->slow, e);
	if (!err)
		err = read_headers(swap, e);
	if (err)
		ch_swap_close(swap);
	return err;
}

void ch_swap_close(struct ch_swap *swap)
{
	ch_blockdev_close(&swap->fast);
	ch_blockdev_close(&swap->slow);
}

/* Ctrl-C must not leave the users of the volume waiting. */
static void hold_signals(struct ch_swap *swap)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &swap->signals);
}

/* I/O flows again. */
static void released(struct ch_swap *swap)
{
	swap->paused_ms = ch_clock_ms() - swap->since_ms;
	sigprocmask(SIG_SETMASK, &swap->signals, NULL);
	(void)munlockall();
}

static int check_sealed(const struct ch_swap *swap, struct ch_error *e)
{
	if (swap->sb.flags & CH_SB_CLEAN)
		return 0;
	ch_error_set(e, -EIO, "volume '%s' could not be brought to a stop in order", swap->name);
	return ch_error_hint(e, "the kernel's log says why: dmesg | tail");
}

int ch_swap_suspend(struct ch_swap *swap, struct ch_error *e)
{
	char device[CH_DM_NAME_SIZE];
	int err;

	/* What is not in memory may lie on what waits for us. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		return ch_error_set(e, -errno, "cannot lock memory: %s", strerror(errno));
	hold_signals(swap);
	swap->since_ms = ch_clock_ms();
	err = ch_dm_suspend(ch_volume_dm_name(swap->name, device), e);
	if (err) {
		released(swap);
		return err;
	}
	err = read_headers(swap, e);
	if (!err)
		err = check_sealed(swap, e);
	if (err)
		ch_swap_resume(swap, e);
	return err;
}

int ch_swap_write(struct ch_swap *swap, const struct ch_blockdev *dev, struct ch_error *e)
{
	struct ch_block block;
	int err;

	swap->sb.generation++;
	ch_sb_encode(&swap->sb, &block);
	err = ch_blockdev_write(dev, ch_sb_place(swap->sb.generation), &block, e);
	if (!err)
		err = ch_blockdev_flush(dev, e);
	return err ? err : ch_blockdev_forget(dev, e);
}

int ch_swap_commit(struct ch_swap *swap, dev_t fast, struct ch_error *e)
{
	struct ch_volume_table_text text;
	const struct ch_dm_table table = ch_volume_table(&swap->sb, fast, swap->slow.dev, &text);
	int err = ch_dm_load(&table, e);

	if (!err)
		err = ch_dm_resume(table.name, e);
	if (!err)
		released(swap);
	return err;
}

void ch_swap_resume(struct ch_swap *swap, struct ch_error *e)
{
	char device[CH_DM_NAME_SIZE];
	struct ch_error failed = {0};

	if (ch_dm_resume(ch_volume_dm_name(swap->name, device), &failed))
		ch_error_hint(e, "the volume is still suspended (%s); try: dmsetup resume %s",
			      failed.message, device);
	released(swap);
}
