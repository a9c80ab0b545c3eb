/* Redaction: what nobody is to see of a JSON text or of an HTTP message's head, wherever it is shown. */
#ifndef NP_BASE_REDACT_H
#define NP_BASE_REDACT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* Appends the text with "***" for the value of each member that is named: "name" is a member of that name at any depth, "patient.name" one inside a
 * member "patient"; a list between does not count. Of what is no JSON nothing is shown but "***". `value`, where given, is called with each string
 * that was left out, unescaped, and where they differ as JSON in ASCII and percent-encoded; and with each number. */
void np_redact(struct np_buf *out, const char *json, size_t len, const char *const *names, size_t count,
               void (*value)(void *arg, const char *text, size_t len), void *arg);

/* Appends the JSON text with what `mask` makes of each string in it, names too: a new string, which is freed. Of what is no JSON nothing is shown but "***". */
void np_redact_strings(struct np_buf *out, const char *json, size_t len, char *(*mask)(const char *text, size_t len));

/* Whether the name of a header or a parameter says that its value is a secret: "authorization", "x-api-key", "sig". redact_head.c */
bool np_redact_is_secret(const char *name, size_t len);
/* Appends the lines, "Name: value\n", and the URL, or a path and query, with "***" for the value of each header or parameter whose name says that it is a
 * secret, or is one of `names`, whatever its case; and for what stands before a host's "@". */
void np_redact_headers(struct np_buf *out, const char *lines, size_t len, const char *const *names, size_t count);
void np_redact_url(struct np_buf *out, const char *url, size_t len, const char *const *names, size_t count);
/* In any text, in place: "***" for what stands before the host's "@" of each URL in it. Also where the password has a "/" that should have been written as
 * %2F, unless that looks like a port and a path. `value`: the text is a value that is none of those that were expected, so that "user:password@host" counts
 * without "://" before it. */
void np_redact_userinfo(struct np_buf *text, bool value);

#endif
