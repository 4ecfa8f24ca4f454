// SPDX-License-Identifier: MIT
/*
 * Sites from the configuration. The supervisor has validated the document; what
 * is checked here is what only this process can know: the descriptors.
 */
#include "cohostd/edge/site.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cohostd/edge/edge.h"
#include "cohostd/ipc/worker.h"
#include "lib/json.h"

#define TMP_DIR ".cohost-tmp"

const char *ch_result_name(enum ch_result result)
{
	static const char *const names[CH_RESULTS] = {
		[CH_RESULT_HIT] = "hit",
		[CH_RESULT_STALE] = "stale",
		[CH_RESULT_MISS] = "miss",
		[CH_RESULT_PASS] = "pass",
		[CH_RESULT_REVALIDATED] = "revalidated",
		[CH_RESULT_STORED] = "stored",
		[CH_RESULT_DELETED] = "deleted",
		[CH_RESULT_NOT_FOUND] = "not_found",
		[CH_RESULT_REFUSED] = "refused",
		[CH_RESULT_ERROR] = "error",
	};

	return names[result];
}

static int site_hosts(struct ch_site *site, json_t *config)
{
	json_t *hosts = ch_json_array(config, "hosts"), *value;
	size_t i;

	site->hosts = calloc(json_array_size(hosts) + 1, sizeof(*site->hosts));
	if (!site->hosts)
		return -ENOMEM;
	json_array_foreach(hosts, i, value)
		if (json_is_string(value))
			site->hosts[site->hosts_count++] = json_string_value(value);
	return 0;
}

static int site_ingest_init(struct ch_site *site, struct ch_error *e)
{
	char fd_name[128];

	(void)snprintf(fd_name, sizeof(fd_name), "dir:%s", site->name);
	site->dir_fd = ch_worker_fd(site->edge->worker, fd_name);
	if (site->dir_fd < 0)
		return ch_error_set(e, -ENOENT, "site %s: its ingest directory was not handed over",
				    site->name);
	if (mkdirat(site->dir_fd, TMP_DIR, 0750) < 0 && errno != EEXIST)
		return ch_error_set(e, -errno,
				    "site %s: cannot write into its ingest directory: %s",
				    site->name, strerror(errno));
	site->tmp_fd =
		openat(site->dir_fd, TMP_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (site->tmp_fd < 0)
		return ch_error_set(e, -errno,
				    "site %s: cannot open %s in its ingest directory: %s",
				    site->name, TMP_DIR, strerror(errno));
	return 0;
}

static int site_init(struct ch_site *site, json_t *config, struct ch_error *e)
{
	const char *origin = ch_json_str(config, "origin");

	site->name = ch_json_str(config, "name");
	site->listen = ch_json_str(config, "listen");
	site->ingest = ch_json_str(config, "ingest") != NULL;
	site->dir_fd = site->tmp_fd = -1;
	site->policy.ttl_s = (uint32_t)ch_json_u64(config, "ttl_s", 2);
	site->policy.stale_if_error_s = (uint32_t)ch_json_u64(config, "stale_if_error_s", 3600);
	if (!site->name || !site->listen || (!site->ingest && !origin))
		return ch_error_set(e, -EINVAL, "site without name, listen, or ingest or origin");
	if (site_hosts(site, config) < 0)
		return ch_error_set(e, -ENOMEM, "out of memory");
	if (site->ingest)
		return site_ingest_init(site, e);
	return ch_upstream_init(&site->upstream, site->name, origin,
				(uint32_t)ch_json_u64(config, "connect_timeout_ms", 300),
				(uint32_t)ch_json_u64(config, "first_byte_timeout_ms", 800), e);
}

int ch_sites_create(struct ch_edge *edge, struct ch_error *e)
{
	json_t *sites = ch_json_array(edge->worker->config, "sites"), *config;
	size_t i;

	if (json_array_size(sites) > CH_EDGE_SITES_MAX)
		return ch_error_set(e, -E2BIG, "more than %d sites", CH_EDGE_SITES_MAX);
	edge->sites = calloc(json_array_size(sites) + 1, sizeof(*edge->sites));
	if (!edge->sites)
		return ch_error_set(e, -ENOMEM, "out of memory");
	json_array_foreach(sites, i, config) {
		struct ch_site *site = &edge->sites[edge->sites_count++];
		int err;

		site->edge = edge;
		site->id = (uint32_t)i;
		err = site_init(site, config, e);
		if (err < 0)
			return err;
	}
	return 0;
}

void ch_sites_destroy(struct ch_edge *edge)
{
	for (unsigned int i = 0; i < edge->sites_count; i++) {
		struct ch_site *site = &edge->sites[i];

		free(site->hosts);
		if (site->tmp_fd >= 0)
			close(site->tmp_fd);
		if (!site->ingest)
			ch_upstream_exit(&site->upstream);
	}
	free(edge->sites);
	edge->sites = NULL;
	edge->sites_count = 0;
}

struct ch_site *ch_site_find(struct ch_edge *edge, const struct ch_listener *listener,
			     const char *host, size_t len)
{
	for (unsigned int i = 0; i < edge->sites_count; i++) {
		struct ch_site *site = &edge->sites[i];

		if (strcmp(site->listen, listener->address) != 0)
			continue;
		for (unsigned int k = 0; k < site->hosts_count; k++)
			if (strlen(site->hosts[k]) == len &&
			    !strncasecmp(site->hosts[k], host, len))
				return site;
	}
	return NULL;
}
