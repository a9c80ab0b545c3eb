/* What a declaration says of its fields, checked before Lua sees a value. One schema serves query, path, body, configuration and options.
 *
 * A schema in Lua is a table of fields: { name = { TYPE, option = … }, … }. TYPE is one of
 *   "string" "number" "integer" "boolean" "object" "array" "any"   JSON's types ("number" takes integers too)
 *   "secret"       a string that logs, tail, console and errors mask
 *   "duration"     "15m" or a number of seconds; becomes a number of seconds
 *   "destination"  the name of a configured destination
 * Options: about (text), unit (text), optional (may be absent), null (may be null; then it is json.null), default (of the type; implies optional),
 *   min, max (of a number; of a string's length in characters; of an array's length), values (list of allowed values), pattern (a Lua
 *   pattern that the whole string has to match), items (a field, for each element of an array), fields (a schema, for an object),
 *   lenient (take a number where a string is declared and the reverse, where the meaning is plain: "12" for 12), person (the value is somebody's
 *   detail: masked in logs and errors), only (for an object: unknown fields are refused; otherwise they pass).
 * "string" alone stands for { "string" }, and type = "string" may be written instead of the first element, as np_schema_push does.
 * A null where it is not allowed is as if absent: removed where optional, the default where there is one, "missing" otherwise.
 * A pattern is tried on at most 4096 bytes; a slow one holds its lane, so give it a max.
 * Immutable once compiled: any number of lanes may check against it at once, each with its own lua_State. */
#ifndef NP_HOST_SCHEMA_H
#define NP_HOST_SCHEMA_H

#include <stdbool.h>

#include <lua.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"

struct np_schema;

/* Compiles the table at idx. NULL and err ("field data.low: unknown option \"mim\", did you mean \"min\"?"). Raises nothing but out of memory. */
struct np_schema *np_schema_compile(lua_State *L, int idx, struct np_error *err);
void np_schema_free(struct np_schema *s);
/* The compiled schema as a Lua table of the same form, normalised, for documents: pushes one value. A default that holds a secret or a
 * person's detail is left out. */
void np_schema_push(lua_State *L, const struct np_schema *s);

struct np_problem { /* what is wrong with a value */
  char field[128];  /* "data.readings[3].value", counted from 1 as Lua does; "" for the value itself */
  char reason
      [256]; /* "expected a string, got a number"; names limits and allowed values; never quotes a secret's or a person's value */
  const char *kind; /* "missing" "type" "range" "length" "values" "pattern" "unknown" — static */
};

struct np_schema_check {
  bool from_text; /* query, path and form: values are strings; numbers, booleans are read from them */
  /* Tells whether a destination is configured; NULL takes any name. */
  bool (*destination)(void *arg, const char *name);
  void *arg;
  /* Where person values found on the way are listed, newest first, their text copied into arena; NULL: not wanted. */
  struct np_arena *arena;
  struct np_mask **people;
};

/* Checks the table at idx and completes it in place: defaults filled in, durations in seconds, lenient values in the declared type. A secret is registered with np_mask_secret.
 * 0, or -1 and *problem. A value that is not a table: problem with field "".
 * The problem told is the first by name: of an object, an unknown field (where `only`), then what declares neither fields nor items, then
 * what does. After -1 the table may be partly completed and is not to be used; secrets and people's details in it are masked and listed all the same. Completing twice changes nothing.
 * An empty table is an object or an array, as declared. May raise out of memory. */
int np_schema_check(lua_State *L, const struct np_schema *s, int idx, const struct np_schema_check *how,
                    struct np_problem *problem);
/* Whether {} passes: no field is required. */
bool np_schema_all_optional(const struct np_schema *s);

/* Whether a field, at any depth, is a secret or a person's detail. NULL: no. */
bool np_schema_is_private(const struct np_schema *s);

#endif
