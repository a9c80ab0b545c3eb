/* Which handler a method and path lead to. Immutable once built, so any number of threads may match.
 * A pattern is "/device/v1/mn/{devEui}": each segment is literal or one parameter, which takes one non-empty segment; the last may be
 * "{rest...}", which takes all that follows, also nothing. Literal segments win over parameters and these over a rest, at each step
 * from the left, with going back where that leads nowhere.
 * The method "*" stands for every method that its pattern has no route of its own for; for OPTIONS only where no other method knows the path. */
#ifndef NP_IO_ROUTES_H
#define NP_IO_ROUTES_H

#include <stddef.h>

#include "base/error.h"

#define NP_ROUTE_PARAMS 16

struct np_routes;

struct np_route_match {
  void *value;                         /* borrowed: what was added; NULL where nothing answers this method and path */
  size_t count;                        /* parameters, in the pattern's order */
  const char *names[NP_ROUTE_PARAMS];  /* borrowed from the routes */
  const char *values[NP_ROUTE_PARAMS]; /* borrowed from the path given; not terminated */
  size_t lens[NP_ROUTE_PARAMS];
  char allow[128]; /* where value is NULL: "GET, HEAD, OPTIONS" if other methods know the path (405), else "" (404) */
};

struct np_routes *np_routes_new(void);
void np_routes_free(struct np_routes *r);
/* Adds; value must not be NULL, the method is in capitals or "*". -1 where the pattern is malformed (must start with '/', names [A-Za-z_][A-Za-z0-9_]*, none twice, at most 16),
 * or where another value stands at the same method and shape: then *clash, where given, is that value. */
int np_routes_add(struct np_routes *r, const char *method, const char *pattern, void *value, void **clash, struct np_error *err);
/* path is decoded, without its query. HEAD finds GET's value where HEAD was not added. A trailing '/' is significant. */
void np_routes_match(const struct np_routes *r, const char *method, const char *path, size_t len, struct np_route_match *m);

#endif
