/* A schema under construction. Used by schema_compile.c and schema_options.c alone. All return 0, or -1 with the error told. */
#ifndef NP_HOST_SCHEMA_COMPILE_H
#define NP_HOST_SCHEMA_COMPILE_H

#include "host/schema_field.h"

struct np_where { /* the way to a field; on the C stack */
  const struct np_where *up;
  const char *name; /* NULL: the items of an array */
};

struct np_compiling {
  lua_State *L;
  struct np_schema *s;
  struct np_error *err;
  size_t fields, values; /* what remains of the bounds */
  int status;
};

int np_compile_fail(struct np_compiling *c, const struct np_where *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* `, did you mean "min"?`, or nothing. Returns text. */
const char *np_compile_suggestion(const struct np_nearest *n, char text[static 64]);

/* Each reads the declaration, or the table of fields, at the top of the stack, which stays. */
int np_compile_field(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth);
int np_compile_fields(struct np_compiling *c, const struct np_where *at, struct np_field *object, int depth);
/* Whether it has only options that there are. */
int np_options_check(struct np_compiling *c, const struct np_where *at);
/* All but the default, which needs the rest. f's type is known. */
int np_options_read(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth);

#endif
