/* The compiled form of a declaration: shared by schema*.c, nobody else's. All of it lies in the schema's arena, and none of it changes
 * or refers to a lua_State once compiled. */
#ifndef NP_HOST_SCHEMA_FIELD_H
#define NP_HOST_SCHEMA_FIELD_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

#include "base/arena.h"
#include "host/schema.h"

enum {
  NP_SCHEMA_DEPTH = 16,     /* levels of fields and items; levels of a default */
  NP_SCHEMA_FIELDS = 4096,  /* in one schema, nested ones included: tables that share others could unfold without end */
  NP_SCHEMA_VALUES = 10000, /* in all defaults and lists of values of a schema */
  NP_SCHEMA_PATTERN = 256,  /* bytes of a pattern */
  NP_SCHEMA_MATCHED = 4096, /* bytes of a string that a pattern is tried on */
};

enum np_value_kind {
  NP_VALUE_NULL,
  NP_VALUE_BOOLEAN,
  NP_VALUE_INTEGER,
  NP_VALUE_FLOAT,
  NP_VALUE_STRING,
  NP_VALUE_ARRAY,
  NP_VALUE_OBJECT
};

struct np_value_entry;
struct np_value { /* a JSON value outside any lua_State */
  enum np_value_kind kind;
  size_t len; /* bytes of a string, entries of an array or object */
  union {
    bool boolean;
    lua_Integer integer;
    lua_Number number;
    const char *text; /* terminated */
    struct np_value_entry *entries;
  };
};
struct np_value_entry {
  const char *key; /* NULL in an array */
  size_t len;
  struct np_value value;
};

/* Copies the value at the top of the stack, which stays. NULL, or what is wrong with it. *budget is what remains of NP_SCHEMA_VALUES. */
const char *np_value_read(lua_State *L, struct np_arena *arena, struct np_value *v, size_t *budget, int depth);
/* Pushes a fresh copy; takes 2 stack slots a level. */
void np_value_push(lua_State *L, const struct np_value *v);
/* Writes a number as people do: 5 for 5.0, otherwise the fewest digits that read back the same. Returns the length. */
size_t np_value_number(lua_State *L, int idx, char text[static 40]);

enum np_field_type {
  NP_FIELD_STRING,
  NP_FIELD_NUMBER,
  NP_FIELD_INTEGER,
  NP_FIELD_BOOLEAN,
  NP_FIELD_OBJECT,
  NP_FIELD_ARRAY,
  NP_FIELD_ANY,
  NP_FIELD_SECRET,
  NP_FIELD_DURATION,
  NP_FIELD_DESTINATION,
  NP_FIELD_TYPES
};
extern const char *const np_field_types[NP_FIELD_TYPES];    /* "string", as declared */
extern const char *const np_field_expected[NP_FIELD_TYPES]; /* "a string", in a sentence */

struct np_field {
  const char *name; /* terminated, without a 0 inside; NULL for the items of an array */
  size_t len;
  enum np_field_type type;
  bool optional, null, lenient, person, only;
  bool private;           /* a secret or somebody's detail: never quoted */
  bool holds_private;     /* itself or something below it is */
  bool holds_destination; /* the same */
  bool any_object;        /* no fields are declared */
  const char *about, *unit;
  const struct np_value *min, *max; /* numbers; NULL: no limit */
  const struct np_value *fallback;  /* the default, checked and completed; NULL: none */
  const struct np_value *values;    /* n_values of them; NULL: any */
  const char *pattern, *whole;      /* as declared, and anchored at both ends */
  const struct np_field *items;     /* NULL: any */
  struct np_field *fields;          /* n_fields of them, by name */
  size_t n_values, n_fields;
};

struct np_schema {
  struct np_arena arena; /* owns all that the fields point to */
  struct np_field root;  /* an object without a name */
  int depth;             /* levels */
};

/* Byte order, a prefix first: what fields are sorted by. */
int np_field_compare(const char *a, size_t a_len, const char *b, size_t b_len);
/* The field of this name among those of an object, or NULL. */
const struct np_field *np_field_find(const struct np_field *object, const char *name, size_t len);

/* Which of some words was meant: offer them one by one; best is NULL where none is near. */
struct np_nearest {
  const char *given;
  size_t len;
  const char *best;
  int distance;
};
void np_nearest_offer(struct np_nearest *n, const char *word);

/* Checks the value at the top of the stack against one field and puts the completed one in its place. */
int np_field_check(lua_State *L, const struct np_field *f, const struct np_schema_check *how, struct np_problem *problem);

#endif
