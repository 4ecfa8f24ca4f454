/* SPDX-License-Identifier: MIT */
/*
 * A stored answer and its form on disk. Pure but for memory; store.c does the I/O.
 *
 * A file of the store is a head of CH_CACHED_HEAD bytes and the body behind it. The
 * head is little-endian: fixed part, then site name, path, and the stored fields.
 * It carries its own checksum and the body's. It is written when the body is
 * complete and written anew in place when a validation brought new fields.
 */
#ifndef CH_EDGE_CACHED_H
#define CH_EDGE_CACHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/edge/fresh.h"

struct ch_http;

#define CH_CACHED_HEAD	  8192
#define CH_CACHED_FIELDS  6144 /* of stored fields */
#define CH_CACHED_NAME	  36   /* "ab/…", 32 hex digits and a slash, with the NUL */
#define CH_CACHED_SMALL	  1460 /* bodies up to this are kept in memory */
#define CH_CACHED_VERSION 1

struct ch_reader;

struct ch_cached {
	unsigned int refs;
	uint16_t status;
	char *fields; /* "Name: value\r\n"..., end-to-end, without length, Age, Date */
	size_t fields_len;
	char etag[128];		 /* "" = none */
	char last_modified[32];	 /* as sent, "" = none */
	int64_t modified;	 /* -1 = not known */
	char date[32];		 /* as sent, or when received */
	int64_t received_s;	 /* real time */
	int64_t age_s, lifetime_s, swr_s, sie_s;
	bool length_known;
	uint64_t size;	  /* of the body; of a growing one only if length_known */
	uint64_t written; /* bytes that may be read */
	uint32_t crc;	  /* of the body, crc32c */
	bool complete, failed, verified;
	char name[CH_CACHED_NAME];
	int fd; /* open while it grows, else -1 */
	char *small; /* the body, when it is small */
	struct ch_reader *readers; /* that wait for more */
	unsigned int users;	   /* of fd */
};

/* Stored from a parsed answer; NULL when out of memory or the fields are too long. */
struct ch_cached *ch_cached_create(const struct ch_http *h, const char *buf,
				   const struct ch_fresh *fresh, int64_t now_s);
void ch_cached_get(struct ch_cached *c);
void ch_cached_put(struct ch_cached *c); /* NULL is allowed */

/* A 304 has come: new fields replace old ones of the same name. 0 or -ENOMEM, -E2BIG. */
int ch_cached_update(struct ch_cached *c, const struct ch_http *h, const char *buf,
		     const struct ch_fresh *fresh, int64_t now_s);

int64_t ch_cached_age(const struct ch_cached *c, int64_t now_s);
enum ch_fresh_state ch_cached_state(const struct ch_cached *c, int64_t now_s);

/* Is this field of an answer connection-bound, or written anew by us? */
bool ch_field_dropped(const struct ch_http *h, const char *buf, const char *name, size_t len);

/* Name of the file. */
void ch_cached_name(const char *site, const char *path, char out[CH_CACHED_NAME]);

/* -E2BIG when the strings do not fit. `head` has CH_CACHED_HEAD bytes. */
int ch_cached_encode(const struct ch_cached *c, const char *site, const char *path,
		     unsigned char *head);
/*
 * -EBADMSG when it is not whole or not ours. *ret_site and *ret_path point into
 * `head` and are terminated (`head` is changed to that end).
 */
int ch_cached_decode(unsigned char *head, struct ch_cached **ret, const char **ret_site,
		     const char **ret_path);

uint32_t ch_crc32c(uint32_t crc, const void *data, size_t len);

#endif
