// SPDX-License-Identifier: MIT
/* The configuration reader on anything: a document or a problem with its place. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_problem(void *arg, const char *problem)
{
	if (strncmp(problem, "f:", 2))
		abort();
	++*(unsigned int *)arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int problems = 0;
	struct ch_error e = {0};
	json_t *doc = NULL;
	int rc = ch_config_parse("f", (const char *)data, size, &doc, on_problem, &problems, &e);

	if (rc == 0 && (problems || !json_is_object(doc)))
		abort();
	if (rc == -EINVAL && (doc || (!problems && size == 0)))
		abort();
	json_decref(doc);
	return 0;
}
