// SPDX-License-Identifier: MIT
/* The XML of S3: listings and errors, by expat. No DTDs: nothing we ask for has one. */
#include <errno.h>
#include <expat.h>
#include <stdio.h>

#include "cohostd/sync/s3.h"

#define TEXT_MAX  2048
#define DEPTH_MAX 8

struct parse {
	XML_Parser xml;
	unsigned int depth;
	bool is_listing, is_error, in_contents;
	char text[TEXT_MAX];
	size_t text_len;
	bool overflow;
	/* listing */
	struct ch_s3_listing *listing;
	ch_bucket_list_fn fn;
	void *arg;
	char key[TEXT_MAX];
	uint64_t size_bytes;
	int result;
	/* error */
	char *code, *message;
	size_t code_size, message_size;
};

/* Names may come as "http://...doc/2006-03-01/:Key" from servers with a namespace. */
static const char *local_name(const char *name)
{
	const char *colon = strrchr(name, ':');

	return colon ? colon + 1 : name;
}

static void stop(struct parse *p, int result)
{
	if (!p->result)
		p->result = result;
	XML_StopParser(p->xml, XML_FALSE);
}

static void XMLCALL on_start(void *user, const char *name, const char **attributes)
{
	struct parse *p = user;

	(void)attributes;
	name = local_name(name);
	if (p->depth == 0) {
		p->is_listing = p->listing && !strcmp(name, "ListBucketResult");
		p->is_error = !strcmp(name, "Error");
	} else if (p->depth == 1 && !strcmp(name, "Contents")) {
		p->in_contents = true;
		p->key[0] = 0;
		p->size_bytes = 0;
	}
	if (++p->depth > DEPTH_MAX)
		stop(p, -EBADMSG);
	p->text_len = 0;
	p->overflow = false;
}

static void listing_end(struct parse *p, const char *name)
{
	int err;

	if (p->depth == 2 && p->in_contents) {
		if (!strcmp(name, "Key"))
			snprintf(p->key, sizeof(p->key), "%s", p->text);
		else if (!strcmp(name, "Size"))
			p->size_bytes = strtoull(p->text, NULL, 10);
	} else if (p->depth == 1 && !strcmp(name, "Contents")) {
		p->in_contents = false;
		err = p->fn ? p->fn(p->arg, p->key, p->size_bytes) : 0;
		if (err)
			stop(p, err);
	} else if (p->depth == 1 && !strcmp(name, "IsTruncated")) {
		p->listing->truncated = !strcmp(p->text, "true");
	} else if (p->depth == 1 && !strcmp(name, "NextContinuationToken")) {
		snprintf(p->listing->token, sizeof(p->listing->token), "%s", p->text);
	}
}

static void XMLCALL on_end(void *user, const char *name)
{
	struct parse *p = user;

	name = local_name(name);
	p->depth--;
	p->text[p->text_len] = 0;
	if (p->is_listing) {
		if (p->overflow)
			stop(p, -EBADMSG);
		else
			listing_end(p, name);
	} else if (p->is_error && p->depth == 1) {
		if (!strcmp(name, "Code") && p->code)
			snprintf(p->code, p->code_size, "%s", p->text);
		else if (!strcmp(name, "Message") && p->message)
			snprintf(p->message, p->message_size, "%s", p->text);
	}
	p->text_len = 0;
}

static void XMLCALL on_text(void *user, const char *text, int len)
{
	struct parse *p = user;

	if ((size_t)len >= sizeof(p->text) - p->text_len) {
		p->overflow = true;
		return;
	}
	memcpy(p->text + p->text_len, text, (size_t)len);
	p->text_len += (size_t)len;
}

static void XMLCALL on_doctype(void *user, const char *name, const char *sysid, const char *pubid,
			       int has_internal)
{
	(void)name;
	(void)sysid;
	(void)pubid;
	(void)has_internal;
	stop(user, -EBADMSG);
}

static int run(struct parse *p, const void *xml, size_t len)
{
	enum XML_Status status;

	p->xml = XML_ParserCreate(NULL);
	if (!p->xml)
		return -ENOMEM;
	XML_SetUserData(p->xml, p);
	XML_SetElementHandler(p->xml, on_start, on_end);
	XML_SetCharacterDataHandler(p->xml, on_text);
	XML_SetStartDoctypeDeclHandler(p->xml, on_doctype);
	status = len > INT32_MAX ? XML_STATUS_ERROR : XML_Parse(p->xml, xml, (int)len, 1);
	XML_ParserFree(p->xml);
	if (p->result)
		return p->result;
	return status == XML_STATUS_OK ? 0 : -EBADMSG;
}

int ch_s3_parse_listing(const void *xml, size_t len, struct ch_s3_listing *ret,
			ch_bucket_list_fn fn, void *arg)
{
	struct parse p = {.listing = ret, .fn = fn, .arg = arg};
	int err;

	memset(ret, 0, sizeof(*ret));
	err = run(&p, xml, len);
	if (!err && !p.is_listing)
		err = -EBADMSG;
	return err;
}

void ch_s3_parse_error(const void *xml, size_t len, char *ret_code, size_t code_size,
		       char *ret_message, size_t message_size)
{
	struct parse p = {.code = ret_code,
			  .code_size = code_size,
			  .message = ret_message,
			  .message_size = message_size};

	ret_code[0] = 0;
	ret_message[0] = 0;
	if (len)
		(void)run(&p, xml, len);
}
