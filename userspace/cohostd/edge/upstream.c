// SPDX-License-Identifier: MIT
/*
 * State of an origin. One failure is enough to call it down: what that changes is
 * only that stale objects are served without waiting for it; each further fetch
 * still tries, and the first that succeeds calls it up again.
 */
#include "cohostd/edge/upstream.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static int split_url(struct ch_upstream *up, const char *url, char *host, size_t host_size,
		     char *port, size_t port_size)
{
	const char *start, *end, *colon, *host_end;
	size_t n;

	if (strncasecmp(url, "http://", 7) != 0)
		return -EINVAL;
	start = url + 7;
	end = start + strcspn(start, "/?#");
	n = (size_t)(end - start);
	if (n == 0 || n >= sizeof(up->authority) || strchr("?#", *end ? *end : '/'))
		return -EINVAL;
	memcpy(up->authority, start, n);
	up->authority[n] = '\0';
	n = strlen(end);
	while (n > 0 && end[n - 1] == '/')
		n--;
	if (n >= sizeof(up->prefix))
		return -EINVAL;
	memcpy(up->prefix, end, n);
	up->prefix[n] = '\0';

	if (*start == '[') {
		start++;
		host_end = memchr(start, ']', (size_t)(end - start));
		if (!host_end)
			return -EINVAL;
		colon = host_end + 1 < end && host_end[1] == ':' ? host_end + 1 : NULL;
	} else {
		colon = memchr(start, ':', (size_t)(end - start));
		host_end = colon ? colon : end;
	}
	n = (size_t)(host_end - start);
	if (n == 0 || n >= host_size)
		return -EINVAL;
	memcpy(host, start, n);
	host[n] = '\0';
	(void)snprintf(port, port_size, "%.*s", colon ? (int)(end - colon - 1) : 2,
		       colon ? colon + 1 : "80");
	return 0;
}

#define LOOKUP_AGAIN_S 60
#define LOOKUP_FAIL_S  2
#define LOOKUP_WAIT_NS 500000000L

static void take_address(struct ch_upstream *up, const struct addrinfo *list)
{
	memcpy(&up->addr, list->ai_addr, list->ai_addrlen);
	up->addr_len = list->ai_addrlen;
}

static bool resolve_numeric(struct ch_upstream *up)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV},
			*list = NULL;

	if (getaddrinfo(up->host, up->port, &hints, &list) != 0)
		return false;
	take_address(up, list);
	freeaddrinfo(list);
	return true;
}

static void lookup_start(struct ch_upstream *up)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct gaicb *lookup = calloc(1, sizeof(*lookup));

	if (!lookup)
		return;
	lookup->ar_name = up->host;
	lookup->ar_service = up->port;
	lookup->ar_request = &hints;
	if (getaddrinfo_a(GAI_NOWAIT, &lookup, 1, NULL) != 0)
		free(lookup);
	else
		up->lookup = lookup;
}

void ch_upstream_resolve(struct ch_upstream *up, int64_t now_s)
{
	int64_t again = up->addr_len ? LOOKUP_AGAIN_S : LOOKUP_FAIL_S;
	int err;

	if (up->numeric)
		return;
	if (!up->lookup && (!up->looked_up_s || now_s - up->looked_up_s >= again))
		lookup_start(up);
	err = up->lookup ? gai_error(up->lookup) : EAI_INPROGRESS;
	if (err == EAI_INPROGRESS)
		return;
	/* an address that was good once is kept when the name service fails */
	if (err == 0)
		take_address(up, up->lookup->ar_result);
	if (up->lookup->ar_result)
		freeaddrinfo(up->lookup->ar_result);
	free(up->lookup);
	up->lookup = NULL;
	up->looked_up_s = now_s;
}

int ch_upstream_init(struct ch_upstream *up, const char *site, const char *url,
		     uint32_t connect_timeout_ms, uint32_t first_byte_timeout_ms,
		     struct ch_error *e)
{
	struct timespec wait = {.tv_nsec = LOOKUP_WAIT_NS};

	memset(up, 0, sizeof(*up));
	up->connect_timeout_ms = connect_timeout_ms;
	up->first_byte_timeout_ms = first_byte_timeout_ms;
	if (split_url(up, url, up->host, sizeof(up->host), up->port, sizeof(up->port)) < 0) {
		(void)ch_error_set(e, -EINVAL, "site %s: origin %s is no http:// address", site,
				   url);
		return ch_error_hint(e, "write it as http://HOST[:PORT][/PREFIX]");
	}
	up->numeric = resolve_numeric(up);
	if (up->numeric)
		return 0;
	lookup_start(up);
	if (up->lookup)
		(void)gai_suspend((const struct gaicb *const *)&up->lookup, 1, &wait);
	ch_upstream_resolve(up, 1);
	return 0;
}

void ch_upstream_exit(struct ch_upstream *up)
{
	/* a lookup under way belongs to its thread until the process ends */
	while (up->idle_count > 0)
		close(up->idle[--up->idle_count]);
}

bool ch_upstream_good(struct ch_upstream *up, int64_t now_s)
{
	if (!up->down)
		return false;
	up->down = false;
	up->since_s = now_s;
	return true;
}

bool ch_upstream_bad(struct ch_upstream *up, int64_t now_s, const char *error)
{
	up->failures++;
	(void)snprintf(up->last_error, sizeof(up->last_error), "%s", error);
	up->last_error_s = now_s;
	/* whatever waits there idle is of no use to a dead or hung origin */
	ch_upstream_exit(up);
	if (up->down)
		return false;
	up->down = true;
	up->since_s = now_s;
	return true;
}

int ch_upstream_take(struct ch_upstream *up)
{
	while (up->idle_count > 0) {
		int fd = up->idle[--up->idle_count];
		char byte;

		/* closed by the origin, or it spoke unasked: of no use */
		if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN)
			return fd;
		close(fd);
	}
	return -1;
}

void ch_upstream_give(struct ch_upstream *up, int fd)
{
	if (up->idle_count < CH_UPSTREAM_IDLE_MAX)
		up->idle[up->idle_count++] = fd;
	else
		close(fd);
}
