/* The words for what is wrong with a value, and what must not be among them. Used by schema*.c alone. */
#ifndef NP_HOST_SCHEMA_PROBLEM_H
#define NP_HOST_SCHEMA_PROBLEM_H

#include "host/schema_field.h"

struct np_checking {
  lua_State *L;
  const struct np_schema_check *how;
  struct np_problem *problem;
};

struct np_at { /* where a value stands; on the C stack */
  const struct np_at *up;
  const char *name; /* of a field; NULL for an element, and for the value itself */
  size_t len;
  lua_Integer index; /* of an element, from 1 */
  bool private;      /* it, or what it lies in, must not be quoted */
};

enum np_got { NP_GOT_NOTHING, NP_GOT_TYPE, NP_GOT_VALUE };

/* The check of one field, for the value at the top of the stack: 0, 1 where another took its place, -1. */
int np_check_field(struct np_checking *c, const struct np_field *f, const struct np_at *at);

/* Each fills the problem and returns -1, and raises nothing but out of memory. The sentence ends with what the value at the top of the stack is: nothing, its type, or
 * itself (shortened, masked; of a private value nothing, or its type where that is what is wrong). */
int np_problem_tell(struct np_checking *c, const struct np_at *at, const char *kind, enum np_got got, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
int np_problem_values(struct np_checking *c, const struct np_field *f, const struct np_at *at);
int np_problem_unknown(struct np_checking *c, const struct np_field *object, const struct np_at *at, const char *name, size_t len);

/* Registers every secret and lists every person's detail in the value at the top of the stack, before anything about it is said: a check that
 * stops at its first problem must not leave the rest unmasked. 0, or -1 where there is too much of it. */
int np_private_gather(struct np_checking *c, const struct np_field *f, const struct np_at *at);

#endif
