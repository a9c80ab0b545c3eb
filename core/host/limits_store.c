/* The limit of what a plugin keeps in the store. The store knows the sizes; an instance asks for its own now and then, and counts what it puts on
 * top as if it replaced nothing. Only where that comes to the limit it is looked at closely. */
#include <inttypes.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/lane.h"
#include "host/ledger.h"
#include "host/ledger_parts.h"
#include "host/limits.h"
#include "host/task.h"

#define ASK_US 1000000    /* so often, */
#define ASK_NEAR_US 50000 /* and so often from half of the limit on */
#define COST 50           /* instructions, of one key that is looked up */

static bool is_own(const struct np_op *op, const char *name) {
  const char *colon = strchr(op->as.put.space.ptr, ':');
  return colon && strcmp(colon + 1, name) == 0;
}

/* What the set under way adds to what is stored, without what it puts under s. */
static int64_t growth(lua_State *L, struct np_task *t, const struct np_spot *s) {
  const char *name = t->in->env.name;
  struct np_reader *reader = t->in->lane->reader;
  struct np_map_entry *e;
  int64_t all = 0;
  const struct np_op *replaced = np_map_get(&t->overlay->puts, s->bytes, s->len);
  for (size_t i = 0; (e = np_map_next(&t->overlay->puts, &i));) {
    const struct np_op *op = e->value;
    if (op == replaced || !is_own(op, name)) continue;
    np_task_spend(L, COST);
    int64_t was = np_reader_key_size(reader, op->as.put.space.ptr, op->as.put.key.ptr, op->as.put.key.len);
    if (op->as.put.value.ptr) all += (int64_t)(op->as.put.key.len + op->as.put.value.len);
    if (was > 0) all -= was;
  }
  int64_t was = np_reader_key_size(reader, s->bytes, s->bytes + s->space + 1, s->len - s->space - 1);
  return was > 0 ? all - was : all;
}

void np_limit_store(lua_State *L, struct np_task *t, const struct np_spot *s, size_t bytes) {
  struct np_store_budget *b = &t->in->kept;
  int64_t limit = (int64_t)t->in->code->limits.store, now = np_mono_us();
  if (!b->at || now - b->at > (b->bytes > limit / 2 ? ASK_NEAR_US : ASK_US)) {
    b->bytes = np_reader_size(t->in->lane->reader, t->in->env.name);
    if (b->bytes < 0) luaL_error(L, "plugin.store: the store cannot be read");
    b->at = now;
  }
  if (b->bytes + (int64_t)bytes > limit) {
    int64_t kept = np_reader_size(t->in->lane->reader, t->in->env.name);
    if (kept < 0) luaL_error(L, "plugin.store: the store cannot be read");
    b->bytes = kept + growth(L, t, s);
    b->at = now;
    if (b->bytes + (int64_t)bytes > limit)
      np_limit_raise(L, "store",
                     "plugin.store: %.80s: with its %zu bytes it would keep %" PRId64 " bytes, and its limit is %" PRId64,
                     s->bytes + s->space + 1, bytes, b->bytes + (int64_t)bytes, limit);
  }
  b->bytes += (int64_t)bytes;
}
