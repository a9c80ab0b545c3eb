/* neap.lua's own lua_State, and typed fields of the tables that it returns. Private to the configuration. */
#ifndef NP_HOST_CONFIG_LUA_H
#define NP_HOST_CONFIG_LUA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#include "base/error.h"

struct np_config_run {
  const char *shown;  /* borrowed: how messages call the file */
  const char *folder; /* borrowed: where paths given to `file` start */
  const char *text;   /* borrowed: Lua source */
  size_t len;
  bool lenient; /* variables and files that are missing become NP_CONFIG_MISSING */
  void (*take)(lua_State *L,
               void *arg); /* reads the table at index 1. May raise; then what arg points to is the caller's to clean */
  void *arg;
};
#define NP_CONFIG_MISSING "\1"

/* Runs it and takes what it returns, in at most 50 million instructions and 64 MiB. 0, or -1 and err, which starts with `shown` and names
 * the line where there is one; secrets are masked in it. */
int np_config_run(const struct np_config_run *run, struct np_error *err);

/* A table that is being read. Functions raise a message that names the field; false: there is none. Strings are borrowed from the table. */
struct np_table {
  lua_State *L;
  int at;         /* absolute index */
  char name[192]; /* "timeouts"; "" at the top */
};
_Noreturn void np_table_raise(const struct np_table *t, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool np_table_string(const struct np_table *t, const char *key, const char *example, const char **value);
bool np_table_integer(const struct np_table *t, const char *key, int64_t min, int64_t max, int64_t *value);
bool np_table_boolean(const struct np_table *t, const char *key, bool *value);
bool np_table_duration(const struct np_table *t, const char *key, int64_t min, int64_t *ms); /* at most ten years */
bool np_table_bytes(const struct np_table *t, const char *key, size_t min, size_t max, size_t *value);
bool np_table_table(const struct np_table *t, const char *key, struct np_table *inner); /* leaves it on the stack */
/* Raises where a key is none of the n words. */
void np_table_known(const struct np_table *t, const char *const *words, size_t n);

#endif
