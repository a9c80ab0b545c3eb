/* An answer on its way out, and the refusal of a request. */
#ifndef NP_HOST_ANSWER_H
#define NP_HOST_ANSWER_H

#include <lua.h>

#include "base/buf.h"
#include "host/plugin.h"
#include "io/serve.h"

struct np_refusal { /* plugin:refuse's `problem` */
  int status;       /* 400 and up: what HTTP would say */
  char kind[64];    /* np_problem's kinds, "json" "encoding" "failed" "store", or the handler's own */
  bool numbered;    /* the handler's own is a number, in `number` */
  int64_t number;
  const char *where; /* static: "auth" "body" "query" "path" "handler" "store" */
  const char *route; /* borrowed from it: the pattern */
  char field[128];   /* "data.testId", or "" */
  char reason[300];
};
/* A handler's, or auth's, nil, why [, kind [, field]]: the n results from `first` on. */
void np_refusal_take(lua_State *L, struct np_refusal *r, const char *where, int first, int n);
/* neap's own short answer, in JSON. */
void np_answer_plain(struct np_request *req, int status, const char *text, const struct np_header *more, size_t count);
void np_refusal_set(struct np_refusal *r, int status, const char *kind, const char *where); /* clears the rest */
void np_refusal_push(lua_State *L, const struct np_refusal *r); /* a table, with `message` as "field: reason" */

struct np_answer {
  int status;
  struct np_buf headers; /* name 0 value 0 … */
  size_t header_count;
  struct np_buf body;
  int stream_ref; /* registry reference of the function that gives the body, or 0 */
};
void np_answer_free(struct np_answer *a); /* the function's reference goes with its stream */
/* What a handler returned: status [, body [, headers]], or body alone. A table is JSON, a string is itself, a function is called for one string after
 * another until it returns nil. Raises where it is none of these. */
void np_answer_take(lua_State *L, struct np_answer *a, int n);
void np_answer_problem(struct np_answer *a, const struct np_refusal *r); /* neap's own words */
void np_answer_header(struct np_answer *a, const char *name, const char *value);
void np_answer_send(const struct np_answer *a, struct np_request *req);
/* Starts to stream; goes on by itself until the end. *here is the stream while it goes on, then NULL. */
struct np_stream;
void np_answer_stream(struct np_answer *a, struct np_request *req, struct np_instance *in, struct np_stream **here);
void np_answer_stop(struct np_stream *s); /* the request is over before it: nothing more is written */

#endif
