/* Redaction: members of a JSON text whose values nobody is to see, wherever it is shown. */
#ifndef NP_BASE_REDACT_H
#define NP_BASE_REDACT_H

#include <stddef.h>

#include "base/buf.h"

/* Appends the text with "***" for the value of each member that is named: "name" is a member of that name at any depth, "patient.name" one inside a
 * member "patient"; a list between does not count. Of what is no JSON nothing is shown but "***". `value`, where given, is called with each string
 * that was left out, unescaped. */
void np_redact(struct np_buf *out, const char *json, size_t len, const char *const *names, size_t count,
               void (*value)(void *arg, const char *text, size_t len), void *arg);

#endif
