// SPDX-License-Identifier: MIT
/*
 * Formats two devices (or files) as a volume, without any of the checks of
 * `cohostctl volume create`, for tests of the module alone:
 *
 *   volume_format FAST SLOW NAME [LOG_MIB]     prints the volume's sectors
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "kmod/core/format.h"

static int open_device(const char *path, u64 *ret_bytes)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	off_t end;

	if (fd < 0 || (end = lseek(fd, 0, SEEK_END)) < 0) {
		perror(path);
		exit(1);
	}
	*ret_bytes = (u64)end;
	return fd;
}

static void write_all(int fd, const struct ch_sb *sb, u64 nr,
		      void (*fill)(const struct ch_sb *, u64, void *, u64 *))
{
	static u8 buf[CH_BLOCK_SIZE];
	u64 block;

	for (u64 n = 0; n < nr; n++) {
		fill(sb, n, buf, &block);
		if (pwrite(fd, buf, sizeof(buf), (off_t)(block * CH_BLOCK_SIZE)) != sizeof(buf)) {
			perror("write");
			exit(1);
		}
	}
	if (fsync(fd)) {
		perror("fsync");
		exit(1);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	struct ch_geometry_spec spec = {0};
	struct ch_geometry geo;
	u64 salt;
	const char *why = "";
	struct ch_sb sb;
	u8 uuid[16];
	int fast, slow;

	if (argc != 4 && argc != 5) {
		fprintf(stderr, "usage: volume_format FAST SLOW NAME [LOG_MIB]\n");
		return 2;
	}
	fast = open_device(argv[1], &spec.fast_bytes);
	slow = open_device(argv[2], &spec.slow_bytes);
	if (argc == 5)
		spec.log_bytes = strtoull(argv[4], NULL, 10) << 20;
	if (ch_geometry_init(&geo, &spec, &why)) {
		fprintf(stderr, "volume_format: %s\n", why);
		return 1;
	}
	if (getrandom(uuid, sizeof(uuid), 0) != sizeof(uuid) ||
	    getrandom(&salt, sizeof(salt), 0) != sizeof(salt))
		return 1;
	ch_format_sb(&sb, &geo, uuid, salt, argv[3]);
	write_all(fast, &sb, ch_format_fast_blocks(&sb), ch_format_fast);
	write_all(slow, &sb, ch_format_slow_blocks(&sb), ch_format_slow);
	printf("%llu\n", geo.volume_blocks * CH_SECTORS_PER_BLOCK);
	return 0;
}
