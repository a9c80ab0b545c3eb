/* What the files of verbs share: which call runs, and keys of the store with what the call has written on top. Nobody else includes it. */
#ifndef NP_HOST_LEDGER_PARTS_H
#define NP_HOST_LEDGER_PARTS_H

#include <lua.h>

#include "base/buf.h"
#include "host/task.h"

#define NP_IN(mode) (1u << (mode))
#define NP_IN_VENDORS (NP_IN(NP_SERVING) | NP_IN(NP_JOBBING) | NP_IN(NP_COMMANDING) | NP_IN(NP_DELIVERING))
#define NP_IN_RULES (NP_IN(NP_RULING) | NP_IN(NP_TIMING))
#define NP_IN_STORE (NP_IN_VENDORS | NP_IN_RULES | NP_IN(NP_MIGRATING))

/* The call that runs now, if the verb belongs in its mode and its set has room; otherwise raises, with what to do instead. */
struct np_task *np_acting(lua_State *L, const char *verb, unsigned modes, const char *instead);

struct np_spot { /* space 0 key, as the overlay's maps know it */
  char bytes[700];
  size_t len, space;
};
/* `verb` is named in what it raises: "plugin.store". */
void np_spot_find(lua_State *L, struct np_spot *s, const char *verb, const char *space, const char *key, size_t len);
void np_spot_own(lua_State *L, struct np_spot *s, const char *kind, const char *key,
                 size_t len); /* in this instance's space of that kind */
/* 1 and the value, 2 where it was sealed (it is opened), 0 where there is none. What the store said is noted as seen, so that a change between now and
 * the commit conflicts; in a call without a write set it is only read. Raises where the store cannot be read or a value does not open. */
int np_spot_get(lua_State *L, struct np_task *t, const struct np_spot *s, struct np_buf *value);
bool np_spot_push(lua_State *L, struct np_task *t,
                  const struct np_spot *s); /* pushes the value; false, and nothing, where there is none */
void np_spot_open(lua_State *L, struct np_task *t, const struct np_spot *s, struct np_buf *value); /* where np_seal_is(value) */
void np_spot_put(struct np_task *t, const struct np_spot *s, const char *value, size_t len, int64_t expires,
                 bool sealed); /* value NULL deletes */

/* A buffer that outlives a raise: a userdata with a finalizer, pushed. */
struct np_buf *np_box_new(lua_State *L);

/* Masks the strings and numbers in the value at idx, for the log and the errors of the call that runs. Shorter ones than `least` would mask ordinary text. */
void np_mask_value(lua_State *L, struct np_task *t, int idx, size_t least);
int np_store_get(lua_State *L), np_store_put(lua_State *L), np_store_delete(lua_State *L), np_store_throttle(lua_State *L),
    np_store_debounce(lua_State *L); /* ledger_store.c */
int np_store_list(lua_State *L);     /* plugin.store:list; store_list.c */
int np_history(lua_State *L);        /* ledger_history.c */
int np_window(lua_State *L);         /* ledger_window.c */
/* plugin:emit of a rule; the table is at 2. ledger_derive.c */
int np_derive(lua_State *L, struct np_task *t);
/* The key of a derived reading, as the overlay's map knows it. */
void np_derived_spot(struct np_buf *spot, const struct np_reading *r);
/* ledger_fields.c: fields of the table that a verb was given. The value is at the top, or at idx; they raise with verb and field. Times in ms, within the
 * years 1 to 9999; a duration's "15m" or seconds in ms. Texts have no zero byte and 4096 bytes at most, and belong to ws, as JSON does. */
int64_t np_field_time(lua_State *L, const char *verb, const char *field);
int64_t np_field_integer(lua_State *L, const char *verb, const char *field);
int64_t np_field_duration(lua_State *L, int idx, const char *verb, const char *what);
struct np_text np_field_text(lua_State *L, struct np_writeset *ws, const char *verb, const char *field);
struct np_text np_field_json(lua_State *L, struct np_writeset *ws, const char *verb, const char *field);
struct np_value np_field_value(lua_State *L, struct np_writeset *ws, const char *verb);
int np_field_word(lua_State *L, const char *verb, const char *field, const char *const *names,
                  int n); /* its place in names; NULL there is none */
/* The name of the field, below its value; and what is raised where there is none of that name. */
const char *np_field_name(lua_State *L, const char *verb);
void np_field_unknown(lua_State *L, const char *verb);
int np_people_open(lua_State *L); /* pushes plugin.people's functions; people.c */

#endif
