// SPDX-License-Identifier: MIT
/* The keys of the configuration file and what each may hold. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/config_schema.h"

#define PATH_LEN_MAX 255 /* they travel in fixed fields between processes */
#define NAME_LEN_MAX 63

static const char *check_name(const char *s)
{
	if (!isalnum((unsigned char)s[0]))
		return "a name begins with a letter or a digit";
	if (s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")])
		return "a name holds letters, digits, '.', '_' and '-' only";
	return NULL;
}

static const char *check_path(const char *s)
{
	if (s[0] != '/')
		return "a path here must be absolute (begin with '/')";
	return NULL;
}

static const char *check_port(const char *s)
{
	char *end;
	long port;

	if (!isdigit((unsigned char)s[0]))
		return "the port must be a number from 1 to 65535";
	port = strtol(s, &end, 10);
	if (*end || end - s > 5 || port < 1 || port > 65535)
		return "the port must be a number from 1 to 65535";
	return NULL;
}

static const char *check_listen(const char *s)
{
	const char *colon = strrchr(s, ':');
	unsigned char addr[sizeof(struct in6_addr)];
	char host[64];
	size_t n;

	if (!colon)
		return "expected ADDRESS:PORT, as in 0.0.0.0:8080 or [::]:8080";
	n = (size_t)(colon - s);
	if (n >= sizeof(host))
		return "the address is too long";
	memcpy(host, s, n);
	host[n] = '\0';
	if (host[0] == '[' && n > 2 && host[n - 1] == ']') {
		host[n - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, addr) != 1)
			return "not an IPv6 address";
	} else if (inet_pton(AF_INET, host, addr) != 1) {
		return "the address must be a number, as in 0.0.0.0:8080 or [::]:8080";
	}
	return check_port(colon + 1);
}

static const char *check_host(const char *s)
{
	if (s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-:")])
		return "a host name holds letters, digits, '.' and '-'";
	if (strchr(s, ':') && strchr(s, ':') == strrchr(s, ':'))
		return "without the port, please: Host is compared without it";
	return NULL;
}

/* [http|https]://HOST[:PORT], no path. */
static const char *check_url(const char *s, bool tls)
{
	const char *host, *port, *slash;
	size_t n;

	if (!strncasecmp(s, "http://", 7))
		host = s + 7;
	else if (!strncasecmp(s, "https://", 8))
		host = s + 8;
	else
		return tls ? "expected http://HOST:PORT or https://HOST"
			   : "expected http://HOST:PORT";
	if (!tls && host == s + 8)
		return "origins are fetched by http:// only";
	slash = strchr(host, '/');
	if (slash && slash[1])
		return "without a path, please";
	if (strpbrk(host, "@?# \t"))
		return "a URL of scheme, host and port only";
	port = host[0] == '[' ? strchr(host, ']') : host;
	port = port ? strchr(port, ':') : NULL;
	n = port ? (size_t)(port - host) : strcspn(host, "/");
	if (!n)
		return "the host is missing";
	if (port) {
		char digits[8];

		n = strcspn(port + 1, "/");
		if (n >= sizeof(digits))
			return "the port must be a number from 1 to 65535";
		memcpy(digits, port + 1, n);
		digits[n] = '\0';
		return check_port(digits);
	}
	return NULL;
}

static const char *check_origin(const char *s)
{
	return check_url(s, false);
}

static const char *check_endpoint(const char *s)
{
	return check_url(s, true);
}

static const char *check_interface(const char *s)
{
	if (strchr(s, '/') || strpbrk(s, " \t:") || !strcmp(s, ".") || !strcmp(s, ".."))
		return "not a name of a network interface (see: ip link)";
	return NULL;
}

static const char *check_bucket(const char *s)
{
	if (s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")])
		return "a bucket name holds letters, digits, '.', '_' and '-' only";
	return NULL;
}

#define STR(n, req, lo, hi, chk, def)                                                              \
	{                                                                                          \
		.name = n, .type = CH_CONFIG_STRING, .required = req, .min = lo, .max = hi,        \
		.check = chk, .fallback = def                                                      \
	}
#define INT(n, lo, hi, def)                                                                        \
	{                                                                                          \
		.name = n, .type = CH_CONFIG_INT, .min = lo, .max = hi, .fallback = def            \
	}

static const struct ch_config_key edge_keys[] = {
	{.name = "interfaces", .type = CH_CONFIG_STRINGS, .max = 16, .check = check_interface},
	{.name = "fastpath",
	 .type = CH_CONFIG_CHOICE,
	 .choices = "auto|xdp|tc|off",
	 .fallback = "auto"},
	STR("bpf_pin_dir", false, 1, PATH_LEN_MAX, check_path, "/sys/fs/bpf/cohost"),
	STR("cgroup", false, 1, PATH_LEN_MAX, check_path, "/sys/fs/cgroup"),
	INT("workers", 1, 16, "1"),
	STR("cache_dir", false, 1, PATH_LEN_MAX, check_path, NULL),
	{0},
};

static const struct ch_config_key site_keys[] = {
	STR("name", true, 1, NAME_LEN_MAX, check_name, NULL),
	STR("listen", true, 1, 63, check_listen, NULL),
	{.name = "hosts",
	 .type = CH_CONFIG_STRINGS,
	 .required = true,
	 .min = 1,
	 .max = 64,
	 .check = check_host},
	STR("ingest", false, 1, PATH_LEN_MAX, check_path, NULL),
	STR("origin", false, 1, PATH_LEN_MAX, check_origin, NULL),
	INT("ttl_s", 0, 31536000, "2"),
	INT("stale_if_error_s", 0, 31536000, "3600"),
	INT("connect_timeout_ms", 1, 60000, "300"),
	INT("first_byte_timeout_ms", 1, 60000, "800"),
	{0},
};

static const struct ch_config_key remote_keys[] = {
	STR("name", true, 1, NAME_LEN_MAX, check_name, NULL),
	STR("endpoint", true, 1, PATH_LEN_MAX, check_endpoint, NULL),
	STR("region", false, 1, NAME_LEN_MAX, check_name, "us-east-1"),
	STR("bucket", true, 1, 255, check_bucket, NULL),
	STR("access_key", true, 1, 128, NULL, NULL),
	STR("secret_key_file", true, 1, PATH_LEN_MAX, check_path, NULL),
	STR("ca_file", false, 1, PATH_LEN_MAX, check_path, NULL),
	{0},
};

static const struct ch_config_key volume_keys[] = {
	STR("name", true, 1, NAME_LEN_MAX, check_name, NULL),
	STR("remote", true, 1, NAME_LEN_MAX, check_name, NULL),
	STR("key_file", false, 1, PATH_LEN_MAX, check_path, NULL),
	STR("passphrase_file", false, 1, PATH_LEN_MAX, check_path, NULL),
	{0},
};

const struct ch_config_key ch_config_schema[] = {
	{.name = "version", .type = CH_CONFIG_INT, .required = true, .min = 1, .max = 1},
	{.name = "edge", .type = CH_CONFIG_MAP, .keys = edge_keys},
	{.name = "sites", .type = CH_CONFIG_MAPS, .max = 64, .keys = site_keys, .kind = "site"},
	{.name = "remotes",
	 .type = CH_CONFIG_MAPS,
	 .max = 16,
	 .keys = remote_keys,
	 .kind = "remote"},
	{.name = "volumes",
	 .type = CH_CONFIG_MAPS,
	 .max = 64,
	 .keys = volume_keys,
	 .kind = "volume"},
	{0},
};
