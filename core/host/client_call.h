/* A command's call on the command line: its request, and its result for a person. Private to the client and to main.c. */
#ifndef NP_HOST_CLIENT_CALL_H
#define NP_HOST_CLIENT_CALL_H

#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

/* Appends the request of admin.h. name NULL asks for the connection's commands. words are "name=value"; args is JSON or NULL. -1 and err where
 * one of these is not as it should be. */
int np_call_request(struct np_buf *request, const char *connection, const char *name, const char *const *words, size_t n,
                    const char *args, struct np_error *err);
/* Appends JSON on lines of its own, indented; characters that could steer a terminal are written as \u escapes. */
void np_call_pretty(struct np_buf *out, const char *json, size_t len);

#endif
