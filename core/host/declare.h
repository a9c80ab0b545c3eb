/* Reads what a chunk has declared into a struct np_code. Used by plugin.c alone, inside its protected call: functions that take a
 * lua_State may raise; what they allocate hangs on the code at once. */
#ifndef NP_HOST_DECLARE_H
#define NP_HOST_DECLARE_H

#include "host/place.h"
#include "host/plugin.h"

struct np_build {
  const struct np_order *order; /* borrowed */
  struct np_instance *in;
  struct np_code *code; /* being filled where first; else to be compared with */
  bool first;
  const struct np_library_under_way *libraries; /* that are being loaded, the innermost first */
  bool unconfigured;                            /* a setting is missing that only a person can give */
  char place[NP_PLACE_MAX];                     /* which line registered what is being read; "" where that is not known */
};

static inline void np_declare_stage(const struct np_build *b, enum np_gate_stage stage) {
  if (b->order->stage) *b->order->stage = stage;
}
struct np_code *np_declare_new(const struct np_order *order);
void np_declare_library(struct np_build *b, const char *name); /* the chunk has required it */
int np_declare_config(lua_State *L);                           /* core.config(schema) -> settings [, name of one that is unknown] */
int np_declare_terms(lua_State *L); /* core.terms(table) -> what is wrong with the terms in it, or nothing */
void np_declare_push_keys(lua_State *L, const struct np_code *code); /* core.keys, for the table at the top */
void np_declare_read(lua_State *L, struct np_build *b);              /* the declarations are at the top of the stack */

#endif
