// SPDX-License-Identifier: MIT
/* The configuration: what is refused, where, and in which words; what defaults become. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/config.h"
#include "lib/json.h"

#define V    "version: 1\n"
#define SITE "sites:\n  - name: a\n    listen: 0.0.0.0:80\n    hosts: [h]\n"
#define REMOTE                                                                                     \
	"remotes:\n  - name: r\n    endpoint: http://h:1\n    bucket: b\n    access_key: k\n"      \
	"    secret_key_file: /s\n"

static const struct {
	const char *text;
	const char *want; /* the first problem: all of it, or its beginning */
} bad[] = {
	{"", "t:1:1: the file is empty"},
	{"# nothing\n", "t:1:1: the file is empty"},
	{"[a]\n", "t:1:1: the configuration: \"key: value\" lines are expected"},
	{"edge: {}\n", "t:1:1: key \"version\" is missing in the configuration"},
	{"version: 2\n", "t:1:10: version: 2 is not supported: this cohost reads version 1"},
	{"version: one\n", "t:1:10: version: \"one\" is not a whole number"},
	{"version: [1]\n", "t:1:1: version: a single value is expected, not a list or a map"},
	{"version:\n", "t:1:1: version: the value is missing"},
	{V "version: 1\n", "t:2:"},
	{V "sits: []\n",
	 "t:2:1: unknown key \"sits\" in the configuration: did you mean \"sites\"?"},
	{V "zzzzzzzz: 1\n",
	 "t:2:1: unknown key \"zzzzzzzz\" in the configuration: it knows version, "
	 "edge, sites, remotes, volumes"},
	{V "edge:\n  wokers: 2\n",
	 "t:3:3: unknown key \"wokers\" in edge: did you mean \"workers\"?"},
	{V "edge:\n  workers: 0\n", "t:3:12: workers: 0 is out of range: 1 to 16"},
	{V "edge:\n  workers: 2k\n", "t:3:12: workers: \"2k\" is not a whole number"},
	{V "edge:\n  fastpath: fast\n", "t:3:13: fastpath: \"fast\" is none of auto|xdp|tc|off"},
	{V "edge:\n  interfaces: eth0\n", "t:3:15: interfaces: a list is expected, as in [a, b]"},
	{V "edge:\n  cache_dir: srv\n",
	 "t:3:14: cache_dir: \"srv\": a path here must be absolute (begin with '/')"},
	{V "edge: [1]\n", "t:2:1: edge: \"key: value\" lines are expected"},
	{V "sites: {}\n", "t:2:1: sites: a list is expected"},
	{V "sites:\n  - name: a\n", "t:3:5: key \"listen\" is missing in site 1"},
	{V SITE, "t:3:5: site 1: give either ingest (a folder) or origin (a URL)"},
	{V SITE "    ingest: /i\n    origin: http://h:1\n",
	 "t:7:13: site 1: give either ingest (a folder) or origin (a URL), not both"},
	{V SITE "    origin: http://h:1\n",
	 "t:6:13: origin: edge.cache_dir is needed to keep what is fetched"},
	{V SITE "    origin: https://h\n",
	 "t:6:13: origin: \"https://h\": origins are fetched by http:// only"},
	{V SITE "    origin: h:1\n", "t:6:13: origin: \"h:1\": expected http://HOST:PORT"},
	{V SITE "    origin: http://h:70000\n",
	 "t:6:13: origin: \"http://h:70000\": the port must"},
	{V SITE "    ingest: /i\n    ttl_s: 5s\n",
	 "t:7:12: ttl_s: \"5s\" is not a whole number: the unit is in the name, write digits only, "
	 "in seconds"},
	{V SITE "    ingest: /i\n    connect_timeout_ms: 0.3\n",
	 "t:7:25: connect_timeout_ms: \"0.3\" is not a whole number: the unit is in the name, "
	 "write "
	 "digits only, in milliseconds"},
	{V "sites:\n  - name: a\n    listen: 80\n    hosts: [h]\n    ingest: /i\n",
	 "t:4:13: listen: \"80\": expected ADDRESS:PORT"},
	{V "sites:\n  - name: a\n    listen: localhost:80\n    hosts: [h]\n    ingest: /i\n",
	 "t:4:13: listen: \"localhost:80\": the address must be a number"},
	{V "sites:\n  - name: a\n    listen: 0.0.0.0:99999\n    hosts: [h]\n    ingest: /i\n",
	 "t:4:13: listen: \"0.0.0.0:99999\": the port must be a number from 1 to 65535"},
	{V "sites:\n  - name: a b\n    listen: 0.0.0.0:80\n    hosts: [h]\n    ingest: /i\n",
	 "t:3:11: name: \"a b\": a name holds"},
	{V "sites:\n  - name: a\n    listen: 0.0.0.0:80\n    hosts: []\n    ingest: /i\n",
	 "t:5:5: hosts: at least 1 entry is needed"},
	{V "sites:\n  - name: a\n    listen: 0.0.0.0:80\n    hosts: [\"h:80\"]\n    ingest: /i\n",
	 "t:5:14: hosts: \"h:80\": without the port, please"},
	{V SITE
	 "    ingest: /i\n  - name: a\n    listen: 0.0.0.0:80\n    hosts: [g]\n    ingest: /j\n",
	 "t:7:11: name: \"a\" is the name of another entry of sites"},
	{V SITE
	 "    ingest: /i\n  - name: b\n    listen: 0.0.0.0:80\n    hosts: [H]\n    ingest: /j\n",
	 "t:9:13: hosts: \"H\" on 0.0.0.0:80 is already a host of site \"a\""},
	{V REMOTE "    regio: x\n",
	 "t:8:5: unknown key \"regio\" in remote 1: did you mean \"region\"?"},
	{V REMOTE "    ca_file: ca.pem\n",
	 "t:8:14: ca_file: \"ca.pem\": a path here must be absolute (begin with '/')"},
	{V REMOTE "    ca_file: /nonexistent/ca.pem\n",
	 "t:8:14: ca_file: cannot read \"/nonexistent/ca.pem\": No such file or directory"},
	{V REMOTE "    ca_file: /tmp\n", "t:8:14: ca_file: \"/tmp\" is not a file"},
	{V "volumes:\n  - name: v\n    remote: r\n    key_file: /k\n",
	 "t:4:13: remote: \"r\" is not in the list of remotes"},
	{V REMOTE "volumes:\n  - name: v\n    remote: r\n",
	 "t:9:5: volume 1: give either key_file or passphrase_file"},
	{V "edge: &x\n  workers: 1\nsites: *x\n", "t:4:9: sites: a list is expected"},
	{V "edge:\n  cgroup: !!str /a\n", "t:3:"},
	{"%YAML 1.1\n---\nversion: 1\n", "t:1:1: YAML directives (%) are not used here"},
	{"version: 1\n%", "t:2:1: YAML directives"},
	{V "edge:\n  cgroup: /\xff\n", "t:3:12: not valid UTF-8"},
	{V "edge:\n  cgroup: /\x01\n", "t:3:12: a control character"},
	{V "edge:\n  cgroup: /\xc2\x85\n", "t:3:12: a control character"},
	{"\xef\xbb\xbfversion: 1\n", "t:1:1: a control character"},
	{"version: 1\redge: {}\n", "t:1:11: a control character"},
	{"version: 1\n  x: 2\n", "t:1:10: not valid YAML: "},
	{"version: \"1\n", "t:"},
	{"a: [\n", "t:"},
	{"\tversion: 1\n", "t:1:"},
	{"--- \nversion: 1\n---\nversion: 1\n", "t:"},
};

static void count(void *arg, const char *problem)
{
	++*(int *)arg;
}

static void test_bad(void **state)
{
	struct ch_error e;
	json_t *doc;
	size_t i;
	int n, rc;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		n = 0;
		doc = NULL;
		memset(&e, 0, sizeof(e));
		rc = ch_config_parse("t", bad[i].text, strlen(bad[i].text), &doc, count, &n, &e);
		if (rc != -EINVAL || strncmp(e.message, bad[i].want, strlen(bad[i].want)))
			print_message("%s\n  got:  %d %s\n  want: %s\n", bad[i].text, rc, e.message,
				      bad[i].want);
		assert_int_equal(rc, -EINVAL);
		assert_null(doc);
		assert_true(n >= 1);
		assert_int_equal(e.exit, CH_EXIT_USAGE);
		assert_memory_equal(e.message, bad[i].want, strlen(bad[i].want));
	}
}

static void test_all_problems_are_told(void **state)
{
	static const char text[] = "version: 1\nedge:\n  workers: 99\n  fastpth: auto\nsits: 1\n";
	struct ch_error e;
	json_t *doc;
	int n = 0;

	assert_int_equal(ch_config_parse("t", text, sizeof(text) - 1, &doc, count, &n, &e),
			 -EINVAL);
	assert_int_equal(n, 3);
}

static void test_good(void **state)
{
	static const char text[] = V "edge:\n  interfaces: [eth0]\n  cache_dir: /c\n" SITE
				     "    origin: http://h:1\n" REMOTE
				     "volumes:\n  - name: v\n    remote: r\n    key_file: /k\n";
	struct ch_error e = {0};
	json_t *doc = NULL, *edge, *site;

	assert_int_equal(ch_config_parse("t", text, sizeof(text) - 1, &doc, NULL, NULL, &e), 0);
	edge = ch_json_object(doc, "edge");
	assert_string_equal(ch_json_str(edge, "fastpath"), "auto");
	assert_string_equal(ch_json_str(edge, "bpf_pin_dir"), "/sys/fs/bpf/cohost");
	assert_int_equal(ch_json_u64(edge, "workers", 0), 1);
	site = json_array_get(ch_json_array(doc, "sites"), 0);
	assert_int_equal(ch_json_u64(site, "ttl_s", 0), 2);
	assert_int_equal(ch_json_u64(site, "first_byte_timeout_ms", 0), 800);
	assert_true(json_is_null(json_object_get(site, "ingest")));
	assert_string_equal(ch_json_str(json_array_get(ch_json_array(doc, "remotes"), 0), "region"),
			    "us-east-1");
	assert_null(ch_json_str(json_array_get(ch_json_array(doc, "remotes"), 0), "ca_file"));
	json_decref(doc);
	/* a file from Windows */
	assert_int_equal(ch_config_parse("t", "version: 1\r\nedge:\r\n  workers: 2\r\n", 33, &doc,
					 NULL, NULL, &e),
			 0);
	assert_int_equal(ch_json_u64(ch_json_object(doc, "edge"), "workers", 0), 2);
	json_decref(doc);
	/* the least there is */
	assert_int_equal(ch_config_parse("t", V, strlen(V), &doc, NULL, NULL, &e), 0);
	assert_int_equal(json_array_size(ch_json_array(doc, "sites")), 0);
	assert_string_equal(ch_json_str(ch_json_object(doc, "edge"), "cgroup"), "/sys/fs/cgroup");
	json_decref(doc);
}

/* There, and readable by the worker that opens it. */
static void test_ca_file(void **state)
{
	char path[] = "/tmp/cohost-ca.XXXXXX", text[512], want[128];
	struct ch_error e = {0};
	json_t *doc = NULL;
	int fd = mkstemp(path), len;

	assert_true(fd >= 0);
	len = snprintf(text, sizeof(text), V REMOTE "    ca_file: %s\n", path);
	assert_int_equal(fchmod(fd, 0644), 0);
	assert_int_equal(ch_config_parse("t", text, (size_t)len, &doc, NULL, NULL, &e), 0);
	assert_string_equal(
		ch_json_str(json_array_get(ch_json_array(doc, "remotes"), 0), "ca_file"), path);
	json_decref(doc);

	assert_int_equal(fchmod(fd, geteuid() ? 0 : 0600), 0);
	(void)snprintf(want, sizeof(want), "t:8:14: ca_file: %s \"%s\"",
		       geteuid() ? "cannot read" : "only root can read", path);
	assert_int_equal(ch_config_parse("t", text, (size_t)len, &doc, NULL, NULL, &e), -EINVAL);
	assert_memory_equal(e.message, want, strlen(want));
	(void)close(fd);
	(void)unlink(path);
}

static void test_file(void **state)
{
	struct ch_error e = {0};
	json_t *doc;

	assert_int_equal(ch_config_load("/nonexistent/x.yaml", &doc, NULL, NULL, &e), -ENOENT);
	assert_int_equal(e.exit, CH_EXIT_NOT_FOUND);
	assert_non_null(strstr(e.message, "/nonexistent/x.yaml"));
	assert_true(ch_config_load("/tmp", &doc, NULL, NULL, &e) < 0);
	assert_int_equal(ch_config_load("/dev/zero", &doc, NULL, NULL, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_all_problems_are_told),
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_ca_file),
		cmocka_unit_test(test_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
