/* What a plugin asks of neap.http in one call: its options, checked and put together. */
#ifndef NP_LIB_HTTP_ASKED_H
#define NP_LIB_HTTP_ASKED_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

#include "base/buf.h"
#include "base/error.h"

struct np_http_asked {
  char method[24];
  struct np_buf url;     /* owned: with the query */
  struct np_buf headers; /* owned: header_count of "Name: value\0" */
  size_t header_count;
  struct np_buf form; /* owned: an encoded form, where that is the body */
  const char *body;   /* borrowed from form, or from a string on the Lua stack; NULL is none */
  size_t body_len;
  bool gzip;                   /* the body is to be sent gzipped */
  const char *cert, *key, *ca; /* PEM, borrowed from strings on the Lua stack; NULL is none */
  double timeout;              /* seconds */
  size_t answer_max;           /* bytes; 0 is fetch's default */
  int redirects;
  int expect[16]; /* statuses that are no failure; none: all */
  size_t expect_count;
};

/* Reads the options at index 1, a table, or the URL as a string. method NULL: it is an option. Raises on misuse, so a is to be
 * where it is freed then. Leaves on the stack what a->body and the PEM texts borrow. */
void np_http_ask(lua_State *L, const char *method, struct np_http_asked *a);
void np_http_asked_free(struct np_http_asked *a);

struct np_http_place { /* where a URL leads, for messages: without userinfo, query and fragment */
  char shown[400];     /* "https://ward.example:8443/v2/readings", cut where longer */
  char host[280];      /* "ward.example:8443" */
};
/* -1 and err where it is no http or https URL. */
int np_http_place(const char *url, struct np_http_place *place, struct np_error *err);

#endif
