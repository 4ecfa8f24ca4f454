// SPDX-License-Identifier: MIT
/*
 * Drives the sync engine on image files without a daemon, for tests/e2e/sync_s3.sh:
 *
 *   sync_tool [OPTIONS] bucket | checkpoint FILE | restore FILE | verify | list
 *
 *   -e URL -b BUCKET -a ACCESS -s SECRET -c CAFILE   the remote (named "lab")
 *   -v VOLUME (default "media")  -k KEYFILE | -p PASSPHRASE
 *   -d DIR  state directory      -i ID      checkpoint to restore
 *   -x START:BLOCKS[,..]  what changed      -2  suite 2
 *   -r BYTES  read at most this many per second (to be killed on the way)
 *
 * The result is one JSON object; errors go to stderr as message and hint, exit 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cohostd/sync/restore.h"
#include "cohostd/sync/s3.h"

static struct ch_s3_config remote = {.name = "lab", .region = "us-east-1", .attempts_max = 3};
static struct ch_repo_args repo = {.remote = "lab", .volume = "media", .state_dirfd = -1};
static struct ch_key_source key;
static struct ch_block_extent extents[4096];
static size_t extents_count;
static const char *extents_text, *checkpoint_id;
static enum ch_suite suite;
static uint64_t rate_bytes;

static int fail(const struct ch_error *e)
{
	fprintf(stderr, "%s\n", e->message);
	if (e->hint[0])
		fprintf(stderr, "%s\n", e->hint);
	return 1;
}

static int die(const char *what)
{
	fprintf(stderr, "sync_tool: %s: %s\n", what, strerror(errno));
	return 2;
}

/* Slows a job down to rate_bytes, so that a test can kill it in the middle. */
static int on_progress(void *arg, uint64_t done, uint64_t total, const char *phase)
{
	static struct timespec start;
	struct timespec now;
	double ahead;

	if (!rate_bytes)
		return 0;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!start.tv_sec)
		start = now;
	ahead = (double)done / (double)rate_bytes - (double)(now.tv_sec - start.tv_sec) -
		(double)(now.tv_nsec - start.tv_nsec) / 1e9;
	if (ahead > 0)
		usleep((useconds_t)(ahead * 1e6));
	return 0;
}

static int read_key(const char *path)
{
	static uint8_t data[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, data, sizeof(data));

	if (n < 0)
		return die(path);
	close(fd);
	key = (struct ch_key_source){CH_SLOT_KEY_FILE, data, (size_t)n};
	return 0;
}

static int parse_extents(const char *p)
{
	int n;

	while (*p && extents_count < sizeof(extents) / sizeof(extents[0])) {
		struct ch_block_extent *x = &extents[extents_count++];

		if (sscanf(p, "%" SCNu64 ":%" SCNu64 "%n", &x->start_block, &x->blocks, &n) != 2)
			return 2;
		p += n;
		p += *p == ',';
	}
	return 0;
}

static int do_bucket(void)
{
	struct ch_bucket_req req = {.op = CH_BUCKET_MAKE_BUCKET};
	struct ch_error e = {0};
	int err = ch_bucket_do(repo.store, &req, &e);

	return err && err != -EEXIST ? fail(&e) : 0;
}

static int do_checkpoint(const char *file)
{
	struct ch_checkpoint_args args = {.repo = repo, .suite = suite, .progress = on_progress};
	struct ch_checkpoint_result r;
	struct ch_error e = {0};
	struct stat st;

	args.repo.create = true;
	args.fd = open(file, O_RDONLY | O_CLOEXEC);
	if (args.fd < 0 || fstat(args.fd, &st))
		return die(file);
	args.size_bytes = (uint64_t)st.st_size;
	if (extents_text) {
		args.extents = extents;
		args.extents_count = extents_count;
	}
	if (ch_sync_checkpoint(&args, &r, &e))
		return fail(&e);
	printf("{\"id\":\"%s\",\"hash\":\"%s\",\"scanned_bytes\":%" PRIu64
	       ",\"changed_bytes\":%" PRIu64 ",\"zeroed_bytes\":%" PRIu64
	       ",\"uploaded_bytes\":%" PRIu64 ",\"resumed_bytes\":%" PRIu64 ",\"packs\":%" PRIu64
	       ",\"requests\":%" PRIu64 ",\"retries\":%" PRIu64 ",\"elapsed_ms\":%" PRIu64
	       ",\"full_map\":%s,\"unchanged\":%s}\n",
	       r.id, r.hash, r.scanned_bytes, r.changed_bytes, r.zeroed_bytes, r.uploaded_bytes,
	       r.resumed_bytes, r.packs, r.requests, repo.store->retries, r.elapsed_ms,
	       r.full_map ? "true" : "false", r.unchanged ? "true" : "false");
	return 0;
}

static int do_restore(const char *file)
{
	struct ch_restore_args args = {
		.repo = repo, .checkpoint = checkpoint_id, .fd = -1, .progress = on_progress};
	struct ch_restore_result r;
	struct ch_error e = {0};
	struct stat st;

	if (file) {
		args.fd = open(file, O_RDWR | O_CLOEXEC);
		if (args.fd < 0 || fstat(args.fd, &st))
			return die(file);
		args.target_size_bytes = (uint64_t)st.st_size;
	}
	if (ch_sync_restore(&args, &r, &e))
		return fail(&e);
	printf("{\"id\":\"%s\",\"size_bytes\":%" PRIu64 ",\"data_bytes\":%" PRIu64
	       ",\"zeroed_bytes\":%" PRIu64 ",\"received_bytes\":%" PRIu64 ",\"packs\":%" PRIu64
	       ",\"requests\":%" PRIu64 ",\"elapsed_ms\":%" PRIu64 "}\n",
	       r.id, r.size_bytes, r.data_bytes, r.zeroed_bytes, r.received_bytes, r.packs,
	       r.requests, r.elapsed_ms);
	return 0;
}

static int on_info(void *arg, const struct ch_checkpoint_info *info)
{
	printf("{\"id\":\"%s\",\"size_bytes\":%" PRIu64 ",\"changed_bytes\":%" PRIu64
	       ",\"stored_bytes\":%" PRIu64 ",\"full_map\":%s}\n",
	       info->id, info->size_bytes, info->changed_bytes, info->stored_bytes,
	       info->full_map ? "true" : "false");
	return 0;
}

static int options(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "c:e:b:a:s:v:k:p:d:i:x:r:2")) >= 0) {
		switch (c) {
		case 'e':
			remote.endpoint = optarg;
			break;
		case 'c':
			remote.ca_file = optarg;
			break;
		case 'b':
			remote.bucket = optarg;
			break;
		case 'a':
			remote.access_key = optarg;
			break;
		case 's':
			remote.secret_key = optarg;
			break;
		case 'v':
			repo.volume = optarg;
			break;
		case 'i':
			checkpoint_id = optarg;
			break;
		case 'r':
			rate_bytes = strtoull(optarg, NULL, 10);
			break;
		case '2':
			suite = CH_SUITE_XCHACHA20;
			break;
		case 'p':
			key = (struct ch_key_source){CH_SLOT_PASSPHRASE, optarg, strlen(optarg)};
			break;
		case 'k':
			if (read_key(optarg))
				return 2;
			break;
		case 'd':
			repo.state_dirfd = open(optarg, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
			if (repo.state_dirfd < 0)
				return die(optarg);
			break;
		case 'x':
			extents_text = optarg;
			if (parse_extents(optarg))
				return 2;
			break;
		default:
			return 2;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct ch_error e = {0};
	const char *verb, *file;
	int err = options(argc, argv);

	if (err || optind >= argc) {
		fprintf(stderr, "usage: sync_tool [OPTIONS] bucket|checkpoint|restore|verify|list "
				"[FILE]\n");
		return 2;
	}
	verb = argv[optind];
	file = optind + 1 < argc ? argv[optind + 1] : NULL;
	if (ch_crypto_init())
		return 2;
	repo.key = &key;
	if (ch_s3_create(&repo.store, &remote, &e))
		return fail(&e);
	if (!strcmp(verb, "bucket"))
		err = do_bucket();
	else if (!strcmp(verb, "checkpoint") && file)
		err = do_checkpoint(file);
	else if (!strcmp(verb, "restore") && file)
		err = do_restore(file);
	else if (!strcmp(verb, "verify"))
		err = do_restore(NULL);
	else if (!strcmp(verb, "list"))
		err = ch_sync_list(&repo, 100, on_info, NULL, &e) ? fail(&e) : 0;
	else
		err = 2;
	ch_bucket_destroy(repo.store);
	return err;
}
