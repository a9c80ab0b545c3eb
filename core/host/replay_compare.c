/* Comparing by identity, as the store does: the vendor's key, or where there is none, the time. */
#include "host/replay_compare.h"

#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "host/admin_line.h"
#include "host/canonical.h"
#include "host/rule.h"
#include "lib/json.h"

#define STEP 20         /* readings at once: one whose key is new may cost a millisecond */
#define CHANGES_MAX 100 /* that are told one by one */

struct own { /* a reading that the request has given */
  struct own *next;
  struct np_reading reading;
  bool met; /* it would give it now */
};

struct np_compare {
  struct np_reader *reader;  /* borrowed */
  struct np_writeset *set;   /* a reference; NULL */
  struct np_op *next;        /* of the set */
  struct np_writeset *ws;    /* owned: texts of what was stored */
  struct np_map own;         /* identity -> owned struct own */
  struct own *first, **last; /* the same, by seq */
  struct np_map given;       /* identity -> itself: what it would give, so far */
  struct np_buf identity;    /* scratch */
  struct np_buf changes;
  int told, more;
  int64_t counts[NP_READINGS_KINDS];
  struct np_reading stored; /* that was found */
};

static void name(struct np_compare *c, const struct np_reading *r) {
  const struct np_text *parts[] = {&r->vendor, &r->device, &r->metric};
  np_buf_clear(&c->identity);
  for (size_t i = 0; i < 3; i++) {
    np_buf_add(&c->identity, parts[i]->ptr, parts[i]->len);
    np_buf_addc(&c->identity, 0);
  }
  if (r->key.len)
    np_buf_add(&c->identity, r->key.ptr, r->key.len);
  else
    np_buf_addf(&c->identity, "%c%lld", 0, (long long)r->at);
}

static bool take_own(void *arg, const struct np_reading *r) {
  struct np_compare *c = arg;
  name(c, r);
  if (np_map_get(&c->own, c->identity.data, c->identity.len)) return true;
  struct own *own = np_alloc(sizeof *own);
  *own = (struct own){.reading = np_reading_copy(c->ws, r)};
  np_map_put(&c->own, c->identity.data, c->identity.len, own);
  *c->last = own;
  c->last = &own->next;
  return true;
}

struct np_compare *np_compare_new(struct np_reader *reader, int64_t request, struct np_writeset *set, struct np_error *err) {
  struct np_compare *c = np_alloc(sizeof *c);
  *c = (struct np_compare){.reader = reader, .set = set, .next = set ? set->first : NULL, .ws = np_writeset_new()};
  c->last = &c->first;
  if (set) np_writeset_ref(set);
  if (np_reader_request_readings(reader, request, take_own, c, err) == 0) return c;
  np_compare_free(c);
  return NULL;
}

/* Values. */

static void add_text(struct np_buf *b, struct np_text t) {
  if (t.len)
    np_buf_add_json(b, t.ptr, t.len);
  else
    np_buf_adds(b, "null");
}

static void add_int(struct np_buf *b, int64_t n, int64_t absent) {
  if (n == absent)
    np_buf_adds(b, "null");
  else
    np_buf_addf(b, "%lld", (long long)n);
}

static int sort_keys(lua_State *L) {
  struct np_text *t = lua_touserdata(L, 1);
  struct np_buf *out = lua_touserdata(L, 2);
  struct np_error err;
  if (np_json_decode(L, t->ptr, t->len, &err) < 0) return luaL_error(L, "%s", err.text);
  np_canonical_add(L, out);
  return 0;
}

/* Its keys sorted, for a table's order is chance. */
static void add_extra(struct np_buf *b, struct np_text t) {
  lua_State *L = t.len ? luaL_newstate() : NULL;
  struct np_buf sorted = {0};
  if (L) {
    lua_pushcfunction(L, sort_keys);
    lua_pushlightuserdata(L, &t);
    lua_pushlightuserdata(L, &sorted);
  }
  if (L && lua_pcall(L, 2, 0, 0) == LUA_OK)
    np_buf_add(b, sorted.data, sorted.len);
  else
    np_buf_adds(b, t.len ? t.ptr : "null");
  if (L) lua_close(L);
  np_buf_free(&sorted);
}

enum field { AT, VALUE, UNIT, SERIAL, INTERVAL, TREND, QUALITY, EXTRA, CONNECTION, FIELDS };
static const char *const field_names[FIELDS] = {"at",    "value",   "unit",  "serial",    "interval",
                                                "trend", "quality", "extra", "connection"};

static void add_word(struct np_buf *b, const char *word) {
  if (word)
    np_buf_addf(b, "\"%s\"", word);
  else
    np_buf_adds(b, "null");
}

static void add_field(struct np_buf *b, enum field f, const struct np_reading *r) {
  switch (f) {
  case AT: np_buf_addf(b, "%lld", (long long)r->at); break;
  case VALUE: np_value_add_json(b, &r->value); break;
  case UNIT: add_text(b, r->unit); break;
  case SERIAL: add_int(b, r->serial, INT64_MIN); break;
  case INTERVAL: add_int(b, r->interval, 0); break;
  case TREND: add_word(b, np_trend_names[r->trend]); break;
  case QUALITY: add_word(b, np_quality_names[r->quality]); break;
  case EXTRA: add_extra(b, r->extra); break;
  default: add_text(b, r->connection);
  }
}

static bool is_same_text(struct np_text a, struct np_text b) {
  return a.len == b.len && (!a.len || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Adds "field":{"stored":…,"now":…} for each that differs. How many. */
static int add_differences(struct np_buf *b, const struct np_reading *stored, const struct np_reading *now) {
  int n = 0;
  for (int f = 0; f < FIELDS; f++) {
    if (f == EXTRA && is_same_text(stored->extra, now->extra)) continue;
    struct np_buf old = {0}, fresh = {0};
    add_field(&old, f, stored);
    add_field(&fresh, f, now);
    if (strcmp(old.data, fresh.data) != 0)
      np_buf_addf(b, "%s\"%s\":{\"stored\":%s,\"now\":%s}", n++ ? "," : "", field_names[f], old.data, fresh.data);
    np_buf_free(&old);
    np_buf_free(&fresh);
  }
  return n;
}

/* A change: what, of which reading, and more fields of JSON. */
static void note(struct np_compare *c, int what, const struct np_reading *r, const char *more) {
  struct np_buf *b = &c->changes;
  c->counts[what]++;
  if (c->told == CHANGES_MAX) {
    c->more++;
    return;
  }
  np_buf_addf(b, "%s{\"what\":\"%s\"", c->told++ ? "," : "", np_requests_readings[what]);
  if (r->seq) np_buf_addf(b, ",\"seq\":%lld", (long long)r->seq);
  np_line_text(b, "device", r->device.ptr);
  np_line_text(b, "metric", r->metric.ptr);
  np_line_int(b, "at", r->at);
  np_buf_adds(b, ",\"value\":");
  np_value_add_json(b, &r->value);
  np_line_text(b, "unit", r->unit.ptr);
  np_buf_addf(b, "%s}", more);
}

static void compare(struct np_compare *c, const struct np_reading *stored, const struct np_reading *now) {
  struct np_buf more = {0};
  struct np_reading shown = *now;
  shown.seq = stored->seq;
  np_buf_adds(&more, ",\"fields\":{");
  if (add_differences(&more, stored, now)) {
    np_buf_addc(&more, '}');
    note(c, NP_READINGS_DIFFERENT, &shown, more.data);
  } else {
    c->counts[NP_READINGS_SAME]++;
  }
  np_buf_free(&more);
}

static bool take_stored(void *arg, const struct np_reading *r) {
  struct np_compare *c = arg;
  c->stored = np_reading_copy(c->ws, r);
  return false;
}

static int look(struct np_compare *c, const struct np_reading *r, struct np_error *err) {
  enum np_same same;
  name(c, r);
  if (np_map_put(&c->given, c->identity.data, c->identity.len, c)) { /* it gives it twice: the first counts */
    c->counts[NP_READINGS_SAME]++;
    return 0;
  }
  struct own *own = np_map_get(&c->own, c->identity.data, c->identity.len);
  if (own) {
    own->met = true;
    compare(c, &own->reading, r);
    return 0;
  }
  if (np_reader_same(c->reader, r, &same, take_stored, c, err) < 0) return -1;
  switch (same) {
  case NP_SAME_NONE: note(c, NP_READINGS_NEW, r, ""); break;
  case NP_SAME_STORED: compare(c, &c->stored, r); break;
  case NP_SAME_ELSEWHEN: note(c, NP_READINGS_DIFFERENT, r, ",\"fields\":{\"at\":{}}"); break;
  case NP_SAME_TOO_OLD: note(c, NP_READINGS_TOO_OLD, r, ""); break;
  }
  return 0;
}

static void note_missing(struct np_compare *c) {
  for (const struct own *own = c->first; own; own = own->next)
    if (!own->met) note(c, NP_READINGS_MISSING, &own->reading, "");
}

int np_compare_step(struct np_compare *c, struct np_error *err) {
  for (int n = 0; c->next && n < STEP; c->next = c->next->next) {
    if (c->next->kind != NP_OP_READING) continue;
    if (look(c, &c->next->as.reading, err) < 0) return -1;
    n++;
  }
  if (c->next) return 1;
  note_missing(c);
  return 0;
}

void np_compare_tell(struct np_compare *c, struct np_buf *line, int64_t sums[NP_READINGS_KINDS]) {
  np_buf_adds(line, ",\"readings\":{");
  for (int i = 0; i < NP_READINGS_KINDS; i++) {
    np_buf_addf(line, "%s\"%s\":%lld", i ? "," : "", np_requests_readings[i], (long long)c->counts[i]);
    sums[i] += c->counts[i];
  }
  np_buf_addf(line, "},\"changes\":[%s]", np_buf_text(&c->changes));
  if (c->more) np_buf_addf(line, ",\"more_changes\":%d", c->more);
}

void np_compare_free(struct np_compare *c) {
  if (!c) return;
  if (c->set) np_writeset_unref(c->set);
  np_writeset_unref(c->ws);
  np_map_free(&c->own, free);
  np_map_free(&c->given, NULL);
  np_buf_free(&c->identity);
  np_buf_free(&c->changes);
  free(c);
}
