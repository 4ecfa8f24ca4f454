// SPDX-License-Identifier: MIT
/*
 * What of the configuration each kind of worker gets. Workers cannot open files of
 * root, so the secrets that the sync worker needs are read here; one that cannot be
 * read is told to it in words, because the rest works without.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/supervisor/supervisor.h"
#include "lib/json.h"
#include "lib/log.h"

#define SECRET_MAX 4096

static ssize_t read_secret(const char *path, char buf[SECRET_MAX + 1], char *why, size_t why_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, SECRET_MAX + 1);

	if (n < 0)
		(void)snprintf(why, why_size, "cannot read %s: %s", path, strerror(errno));
	else if (n == 0 || n > SECRET_MAX)
		(void)snprintf(why, why_size, "%s is %s", path,
			       n ? "too large for a secret" : "empty");
	if (fd >= 0)
		close(fd);
	if (n <= 0 || n > SECRET_MAX) {
		ch_log_warning("%s", why);
		return -1;
	}
	buf[n] = '\0';
	return n;
}

static void add_text(json_t *map, const char *path, const char *key, const char *error_key)
{
	char buf[SECRET_MAX + 1], why[512];
	json_t *text = NULL;

	if (path && read_secret(path, buf, why, sizeof(why)) > 0) {
		buf[strcspn(buf, "\r\n")] = '\0';
		text = json_string(buf);
		if (!text)
			(void)snprintf(why, sizeof(why), "%s holds no text", path);
	}
	(void)json_object_set_new(map, key, text ? text : json_null());
	(void)json_object_set_new(map, error_key, path && !text ? json_string(why) : json_null());
	explicit_bzero(buf, sizeof(buf));
}

static void add_key(json_t *volume)
{
	const char *path = ch_json_str(volume, "key_file");
	char buf[SECRET_MAX + 1], hex[2 * SECRET_MAX + 1], why[512];
	ssize_t n, i;

	(void)json_object_set_new(volume, "key_hex", json_null());
	(void)json_object_set_new(volume, "passphrase", json_null());
	if (!path) {
		add_text(volume, ch_json_str(volume, "passphrase_file"), "passphrase", "key_error");
		return;
	}
	(void)json_object_set_new(volume, "key_error", json_null());
	n = read_secret(path, buf, why, sizeof(why));
	if (n < 0) {
		(void)json_object_set_new(volume, "key_error", json_string(why));
		return;
	}
	for (i = 0; i < n; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", (unsigned char)buf[i]);
	(void)json_object_set_new(volume, "key_hex", json_string(hex));
	explicit_bzero(buf, sizeof(buf));
	explicit_bzero(hex, sizeof(hex));
}

static json_t *sync_part(const json_t *config)
{
	json_t *remotes = json_deep_copy(json_object_get(config, "remotes")), *it;
	json_t *volumes = json_deep_copy(json_object_get(config, "volumes"));
	size_t i;

	json_array_foreach(remotes, i, it) {
		add_text(it, ch_json_str(it, "secret_key_file"), "secret_key", "secret_key_error");
	}
	json_array_foreach(volumes, i, it) {
		add_key(it);
	}
	return json_pack("{s:o,s:o}", "remotes", remotes, "volumes", volumes);
}

/* The addresses at which encoders come, each once. */
static json_t *door_part(const json_t *config)
{
	json_t *addresses = json_object(), *list = json_array();
	const json_t *site, *value;
	const char *address;
	size_t i;

	json_array_foreach(ch_json_array(config, "sites"), i, site) {
		if (ch_json_str(site, "ingest"))
			(void)json_object_set_new(addresses, ch_json_str(site, "listen"),
						  json_true());
	}
	json_object_foreach((json_t *)addresses, address, value) {
		(void)json_array_append_new(list, json_string(address));
	}
	json_decref(addresses);
	return json_pack("{s:o}", "listen", list);
}

void ch_parts_make(const json_t *config, json_t *ret_parts[CH_TARGETS])
{
	const json_t *edge = json_object_get(config, "edge");

	ret_parts[CH_TARGET_EDGE] =
		json_pack("{s:O,s:O}", "edge", edge, "sites", json_object_get(config, "sites"));
	ret_parts[CH_TARGET_SYNC] = sync_part(config);
	ret_parts[CH_TARGET_ADMIN] =
		json_pack("{s:O}", "edge_workers", json_object_get(edge, "workers"));
	ret_parts[CH_TARGET_DOOR] = door_part(config);
}
