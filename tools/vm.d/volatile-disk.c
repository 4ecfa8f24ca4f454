// SPDX-License-Identifier: MIT
/*
 * A disk with a volatile write cache, as an NBD server for QEMU.
 *
 *   volatile-disk SOCKET IMAGE SEED
 *
 * Written sectors wait in memory until a FLUSH (or a write with FUA) makes them
 * durable in IMAGE. When the client goes away without NBD_CMD_DISC (QEMU was
 * killed: the power cut), what becomes of each waiting sector is drawn from
 * SEED: it is written, or lost, one by one, so that writes are reordered and
 * torn at 512 bytes as a real disk may do. A sector overwritten while waiting
 * may have reached the medium in its older version first. An orderly disconnect
 * keeps everything. One client, one thread: QEMU pipelines, order is as sent.
 *
 * Protocol: the NBD project's proto.md, fixed newstyle negotiation.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SECTOR		  512u
#define REQUEST_BYTES_MAX (32u << 20)

#define NBD_FLAG_HAS_FLAGS	   (1 << 0)
#define NBD_FLAG_SEND_FLUSH	   (1 << 2)
#define NBD_FLAG_SEND_FUA	   (1 << 3)
#define NBD_FLAG_SEND_TRIM	   (1 << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1 << 6)
#define TRANSMISSION_FLAGS                                                                         \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |       \
	 NBD_FLAG_SEND_WRITE_ZEROES)

#define NBD_OPT_EXPORT_NAME 1
#define NBD_OPT_ABORT	    2
#define NBD_OPT_INFO	    6
#define NBD_OPT_GO	    7
#define NBD_REP_ACK	    1u
#define NBD_REP_INFO	    3u
#define NBD_REP_ERR_UNSUP   ((1u << 31) + 1)
#define NBD_INFO_EXPORT	    0

enum {
	NBD_CMD_READ,
	NBD_CMD_WRITE,
	NBD_CMD_DISC,
	NBD_CMD_FLUSH,
	NBD_CMD_TRIM,
	NBD_CMD_CACHE,
	NBD_CMD_WRITE_ZEROES
};
#define NBD_CMD_FLAG_FUA (1 << 0)

struct __attribute__((packed)) nbd_request {
	uint32_t magic;
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
};

/* The waiting sectors: `cache` is what a read sees, `waiting` lists the sectors in `is_waiting`. */
struct disk {
	uint8_t *cache;
	uint8_t *is_waiting;
	uint64_t *waiting;
	size_t waiting_count;
	uint64_t size;
	int image;
	uint64_t random;
};

static uint64_t disk_random(struct disk *disk)
{
	/* splitmix64 (Steele, Lea, Flood 2014): any seed will do, zero too. */
	uint64_t z = (disk->random += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void die(const char *what)
{
	fprintf(stderr, "volatile-disk: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void sector_persist(struct disk *disk, uint64_t sector)
{
	if (pwrite(disk->image, disk->cache + sector * SECTOR, SECTOR, sector * SECTOR) != SECTOR)
		die("write to the image");
}

static void disk_flush(struct disk *disk)
{
	for (size_t i = 0; i < disk->waiting_count; i++) {
		sector_persist(disk, disk->waiting[i]);
		disk->is_waiting[disk->waiting[i]] = 0;
	}
	disk->waiting_count = 0;
}

/* Must run before the new bytes are put into the cache. */
static void sector_touch(struct disk *disk, uint64_t sector)
{
	if (disk->is_waiting[sector]) {
		if (disk_random(disk) & 1)
			sector_persist(disk, sector);
		return;
	}
	disk->is_waiting[sector] = 1;
	disk->waiting[disk->waiting_count++] = sector;
}

static void disk_write(struct disk *disk, uint64_t offset, const uint8_t *data, size_t length,
		       bool durable)
{
	for (size_t i = 0; i < length; i += SECTOR) {
		uint64_t sector = (offset + i) / SECTOR;

		if (!durable)
			sector_touch(disk, sector);
		if (data)
			memcpy(disk->cache + offset + i, data + i, SECTOR);
		else
			memset(disk->cache + offset + i, 0, SECTOR);
		if (durable)
			sector_persist(disk, sector);
	}
}

/* A mix of fates: some cuts lose all that waited, some little, most a half. */
static void disk_cut(struct disk *disk)
{
	unsigned int keep_of_8 = disk_random(disk) % 9;
	size_t kept = 0;

	for (size_t i = 0; i < disk->waiting_count; i++) {
		if (disk_random(disk) % 8 >= keep_of_8)
			continue;
		sector_persist(disk, disk->waiting[i]);
		kept++;
	}
	printf("cut: %zu sectors waited, %zu reached the medium, %zu lost\n", disk->waiting_count,
	       kept, disk->waiting_count - kept);
}

static bool receive(int fd, void *buffer, size_t length)
{
	while (length) {
		ssize_t n = recv(fd, buffer, length, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		buffer = (uint8_t *)buffer + n;
		length -= n;
	}
	return true;
}

static bool transmit(int fd, const void *buffer, size_t length)
{
	while (length) {
		ssize_t n = send(fd, buffer, length, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		buffer = (const uint8_t *)buffer + n;
		length -= n;
	}
	return true;
}

static bool option_reply(int fd, uint32_t option, uint32_t type, const void *data, uint32_t length)
{
	struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t option, type, length;
	} head = {htobe64(0x3e889045565a9ull), htonl(option), htonl(type), htonl(length)};

	return transmit(fd, &head, sizeof(head)) && transmit(fd, data, length);
}

static bool option_go(int fd, uint32_t option, uint64_t size)
{
	struct __attribute__((packed)) {
		uint16_t type;
		uint64_t size;
		uint16_t flags;
	} info = {htons(NBD_INFO_EXPORT), htobe64(size), htons(TRANSMISSION_FLAGS)};

	return option_reply(fd, option, NBD_REP_INFO, &info, sizeof(info)) &&
	       option_reply(fd, option, NBD_REP_ACK, NULL, 0);
}

static bool negotiate(int fd, uint64_t size)
{
	struct __attribute__((packed)) {
		uint64_t magic, option_magic;
		uint16_t flags;
	} hello = {htobe64(0x4e42444d41474943ull), htobe64(0x49484156454f5054ull), htons(1)};
	uint32_t client_flags;

	if (!transmit(fd, &hello, sizeof(hello)) || !receive(fd, &client_flags, 4))
		return false;
	for (;;) {
		struct __attribute__((packed)) {
			uint64_t magic;
			uint32_t option, length;
		} head;
		uint8_t body[4096];
		uint32_t option, length;

		if (!receive(fd, &head, sizeof(head)))
			return false;
		option = ntohl(head.option);
		length = ntohl(head.length);
		if (length > sizeof(body) || !receive(fd, body, length) || option == NBD_OPT_ABORT)
			return false;
		if (option == NBD_OPT_EXPORT_NAME) {
			struct __attribute__((packed)) {
				uint64_t size;
				uint16_t flags;
				uint8_t zeroes[124];
			} reply = {htobe64(size), htons(TRANSMISSION_FLAGS), {0}};

			return transmit(fd, &reply, sizeof(reply));
		}
		if (option != NBD_OPT_GO && option != NBD_OPT_INFO) {
			if (!option_reply(fd, option, NBD_REP_ERR_UNSUP, NULL, 0))
				return false;
			continue;
		}
		if (!option_go(fd, option, size))
			return false;
		if (option == NBD_OPT_GO)
			return true;
	}
}

static bool answer(int fd, uint64_t cookie, uint32_t error)
{
	struct __attribute__((packed)) {
		uint32_t magic, error;
		uint64_t cookie;
	} reply = {htonl(0x67446698), htonl(error), cookie};

	return transmit(fd, &reply, sizeof(reply));
}

static bool in_range(const struct disk *disk, uint64_t offset, uint32_t length)
{
	return length <= REQUEST_BYTES_MAX && offset <= disk->size &&
	       length <= disk->size - offset && !(offset % SECTOR) && !(length % SECTOR);
}

/* One request; false ends the connection, *ret_orderly tells how. */
static bool serve_one(struct disk *disk, int fd, uint8_t *buffer, bool *ret_orderly)
{
	struct nbd_request request;
	uint64_t offset;
	uint32_t length;
	bool fua;

	if (!receive(fd, &request, sizeof(request)) || ntohl(request.magic) != 0x25609513)
		return false;
	offset = be64toh(request.offset);
	length = ntohl(request.length);
	fua = ntohs(request.flags) & NBD_CMD_FLAG_FUA;

	switch (ntohs(request.type)) {
	case NBD_CMD_DISC:
		*ret_orderly = true;
		return false;
	case NBD_CMD_FLUSH:
		disk_flush(disk);
		return answer(fd, request.cookie, 0);
	case NBD_CMD_READ:
		if (!in_range(disk, offset, length))
			return answer(fd, request.cookie, EINVAL);
		return answer(fd, request.cookie, 0) && transmit(fd, disk->cache + offset, length);
	case NBD_CMD_WRITE:
		if (length > REQUEST_BYTES_MAX || !receive(fd, buffer, length))
			return false;
		if (!in_range(disk, offset, length))
			return answer(fd, request.cookie, EINVAL);
		disk_write(disk, offset, buffer, length, fua);
		return answer(fd, request.cookie, 0);
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		if (offset > disk->size || length > disk->size - offset)
			return answer(fd, request.cookie, EINVAL);
		disk_write(disk, offset, NULL, length, fua);
		return answer(fd, request.cookie, 0);
	default:
		return answer(fd, request.cookie, EINVAL);
	}
}

static void disk_open(struct disk *disk, const char *path, uint64_t seed)
{
	struct stat st;

	disk->image = open(path, O_RDWR | O_CLOEXEC);
	if (disk->image < 0 || fstat(disk->image, &st))
		die(path);
	disk->size = st.st_size;
	disk->random = seed;
	/* A private mapping is the cache: its untouched pages are the image's own. */
	disk->cache = mmap(NULL, disk->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
			   disk->image, 0);
	if (disk->cache == MAP_FAILED)
		die("map the image");
	disk->is_waiting = calloc(disk->size / SECTOR, 1);
	disk->waiting = calloc(disk->size / SECTOR, sizeof(*disk->waiting));
	if (!disk->is_waiting || !disk->waiting)
		die("memory");
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(address.sun_path, path);
	(void)unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1))
		die(path);
	return fd;
}

int main(int argc, char **argv)
{
	struct disk disk = {0};
	uint8_t *buffer = malloc(REQUEST_BYTES_MAX);
	bool orderly = false;
	int client;

	if (argc != 4 || !buffer) {
		fprintf(stderr, "usage: volatile-disk SOCKET IMAGE SEED\n");
		return 2;
	}
	disk_open(&disk, argv[2], strtoull(argv[3], NULL, 0));
	client = accept(listen_at(argv[1]), NULL, NULL);
	if (client < 0)
		die("accept");
	if (negotiate(client, disk.size))
		while (serve_one(&disk, client, buffer, &orderly))
			;
	if (orderly)
		disk_flush(&disk);
	else
		disk_cut(&disk);
	return 0;
}
