/* plugin:emit of a rule: a reading that it derives. It stands with the device that it is about, and comes by a connection that is the rule itself. All that
 * it is by itself, its key too, follows from what led to it: so the same rule on the same reading gives the same, whenever it is run. */
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/lane.h"
#include "host/ledger.h"
#include "host/ledger_parts.h"
#include "host/sources.h"
#include "host/task.h"

static void check_metric(lua_State *L, const struct np_code *code, const struct np_reading *r) {
  for (size_t i = 0; i < code->derive_count; i++)
    if (strcmp(code->derives[i], r->metric.ptr) == 0) return;
  luaL_error(L,
             "plugin:emit: the metric \"%s\" is not declared: say plugin:derives \"%s\" while the file is loaded, so that rules "
             "whose readings would come back to them are found before they run",
             r->metric.ptr, r->metric.ptr);
}

/* Rules that are in force make no circle; what is under way may have been made by others. */
static void set_depth(lua_State *L, const struct np_task *t, struct np_reading *r) {
  r->depth = t->reading ? t->reading->depth + 1 : 1;
  if (r->depth > NP_DEPTH_MAX)
    luaL_error(L,
               "plugin:emit: %d rules stand between this reading and what a vendor sent, which is the most: have the filter take "
               "less, such as derived = false",
               NP_DEPTH_MAX);
}

/* Whose a device is. */

struct owner {
  struct np_writeset *ws;
  struct np_text vendor;
  int count;
};

static bool take_owner(void *arg, const struct np_device *d) {
  struct owner *o = arg;
  if (!o->count++) o->vendor = np_writeset_text(o->ws, d->vendor.ptr, d->vendor.len);
  return true;
}

/* Where neither the cause nor the rule says it, the vendor is that of the one device of that name. */
static void find_vendor(lua_State *L, struct np_task *t, struct np_reading *r) {
  struct np_device_filter f = {.scope = {.all = true}, .devices = {&r->device, 1}, .vendor = r->vendor};
  struct owner o = {.ws = t->ws};
  struct np_error err;
  if (np_reader_find_devices(t->in->lane->reader, &f, 2, take_owner, &o, &err) < 0) luaL_error(L, "plugin:emit: %s", err.text);
  if (o.count == 0 && r->vendor.ptr)
    luaL_error(L, "plugin:emit: vendor \"%s\" has no device \"%s\" that is known", r->vendor.ptr, r->device.ptr);
  if (o.count == 0)
    luaL_error(L, "plugin:emit: there is no device \"%s\" that is known: of which one is the reading?", r->device.ptr);
  if (o.count > 1) luaL_error(L, "plugin:emit: several vendors have a device \"%s\": say which by vendor", r->device.ptr);
  r->vendor = o.vendor;
}

static void set_device(lua_State *L, struct np_task *t, struct np_reading *r) {
  const struct np_reading *cause = t->reading;
  if (!r->device.ptr) r->device = cause ? cause->device : (struct np_text){t->key, strlen(t->key)};
  bool same = cause && (!r->vendor.ptr || strcmp(r->vendor.ptr, cause->vendor.ptr) == 0);
  if (!r->device.len) luaL_error(L, "plugin:emit: device is missing");
  if (same)
    r->vendor = cause->vendor;
  else
    find_vendor(L, t, r);
  r->device = np_writeset_text(t->ws, r->device.ptr, r->device.len);
  r->vendor = np_writeset_text(t->ws, r->vendor.ptr, r->vendor.len);
}

/* The key: of the rule, and of what led to it as that is identified, and not by its number in this store, for an import gives other numbers. */

static void add_part(struct np_buf *b, const char *s, size_t n) {
  np_buf_addf(b, "%zu:", n);
  np_buf_add(b, s, n);
}

static void add_cause(struct np_buf *b, const struct np_task *t) {
  const struct np_reading *c = t->reading;
  if (!c) {
    add_part(b, t->timer, strlen(t->timer));
    add_part(b, t->key, strlen(t->key));
    np_buf_addf(b, "timer %lld ", (long long)t->now);
    return;
  }
  add_part(b, c->vendor.ptr, c->vendor.len);
  add_part(b, c->device.ptr, c->device.len);
  add_part(b, c->metric.ptr, c->metric.len);
  np_buf_addf(b, "%d ", c->depth > 0);
  if (c->key.len)
    add_part(b, c->key.ptr, c->key.len);
  else
    np_buf_addf(b, "at %lld ", (long long)c->at);
}

void np_derived_spot(struct np_buf *spot, const struct np_reading *r) {
  np_buf_clear(spot);
  add_part(spot, r->vendor.ptr, r->vendor.len);
  add_part(spot, r->device.ptr, r->device.len);
  add_part(spot, r->metric.ptr, r->metric.len);
  add_part(spot, r->key.ptr, r->key.len);
}

static void refuse_second(lua_State *L, struct np_task *t, const struct np_reading *r) {
  struct np_buf spot = {0};
  np_derived_spot(&spot, r);
  bool there = np_map_get(&t->overlay->derived, spot.data, spot.len);
  np_buf_free(&spot);
  if (there)
    luaL_error(L, "plugin:emit: \"%s\" of \"%s\" was emitted already for this %s and the same moment: give each a key of its own",
               r->metric.ptr, r->device.ptr, t->reading ? "reading" : "timer");
}

/* Raises with nothing allocated. */
static void set_key(lua_State *L, struct np_task *t, struct np_reading *r) {
  const char *rule = t->in->code->instance;
  char hex[65];
  struct np_buf b = {0};
  bool own = r->key.len;
  if (own) {
    np_buf_addf(&b, "%s:=%s", rule, r->key.ptr);
  } else {
    add_cause(&b, t);
    np_buf_addf(&b, "%lld", (long long)r->at);
    np_sha256_hex(b.data, b.len, hex);
    np_buf_clear(&b);
    np_buf_addf(&b, "%s:%.32s", rule, hex);
  }
  r->key = np_writeset_text(t->ws, b.data, b.len);
  np_buf_free(&b);
  if (!own) refuse_second(L, t, r);
}

static struct np_derivation *derivation(struct np_task *t) {
  struct np_derivation *d = np_arena_alloc(&t->ws->arena, sizeof *d);
  *d = (struct np_derivation){.cause = t->reading ? t->reading->seq : 0, .generation = t->in->code->number};
  if (t->reading) return d;
  d->timer = np_writeset_text(t->ws, t->timer, strlen(t->timer));
  d->key = np_writeset_text(t->ws, t->key, strlen(t->key));
  return d;
}

int np_derive(lua_State *L, struct np_task *t) {
  struct np_reading r;
  unsigned says = np_take_reading(L, 2, t->ws, &r, true);
  check_metric(L, t->in->code, &r);
  set_depth(L, t, &r);
  set_device(L, t, &r);
  r.connection = np_writeset_text(t->ws, t->in->code->instance, strlen(t->in->code->instance));
  r.received = t->now;
  if (!(says & NP_SAYS_AT)) r.at = t->reading ? t->reading->at : t->now;
  if (!(says & NP_SAYS_QUALITY) && t->reading) r.quality = t->reading->quality;
  set_key(L, t, &r);
  r.partition = np_partition(r.device.ptr, r.device.len);
  np_limit_emit(L, t, "emit");
  r.derivation = derivation(t);
  struct np_op *op = np_writeset_add(t->ws, NP_OP_READING);
  op->as.reading = r;
  struct np_buf spot = {0};
  np_derived_spot(&spot, &r);
  np_map_put(&t->overlay->derived, spot.data, spot.len, op);
  np_buf_free(&spot);
  return 0;
}
