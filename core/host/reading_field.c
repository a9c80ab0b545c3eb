/* The fields of a reading from text: what each may be, and what a reading has to have. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/near.h"
#include "base/utf8.h"
#include "host/reading_parts.h"
#include "lib/json_sieve.h"
#include "lib/time_text.h"

#define TEXT_MAX 4096              /* as plugin:emit has it */
#define AT_MIN (-62135596800000LL) /* the years 1 to 9999 */
#define SECONDS_MAX 100000000000LL /* as ms this is March 1973, as seconds the year 5138 */
#define A_TIME "ms since 1970 or a time such as 2026-03-01T08:00:00Z"

void np_draft_begin(struct np_draft *d) {
  *d->r = (struct np_reading){.serial = INT64_MIN, .received = NP_RECEIVED_UNKNOWN};
  *d->fault = (struct np_reading_fault){0};
}

void np_draft_free(struct np_draft *d) { np_buf_free(&d->scratch); }

enum np_reading_field np_reading_field(const char *name, size_t len, bool csv, struct np_error *err) {
  size_t count = csv ? NP_FIELDS : NP_FIELD_TYPE;
  for (size_t i = 0; i < count; i++)
    if (strlen(np_reading_fields[i]) == len && memcmp(np_reading_fields[i], name, len) == 0) return (enum np_reading_field)i;
  const char *meant = np_near(name, len, np_reading_fields, count);
  struct np_buf all = {0};
  for (size_t i = 0; i < count; i++) np_buf_addf(&all, "%s%s", i ? " " : "", np_reading_fields[i]);
  if (meant)
    np_fail(err, "a reading has no \"%.*s\", did you mean \"%s\"?", (int)(len < 60 ? len : 60), name, meant);
  else
    np_fail(err, "a reading has no \"%.*s\"; it has %s", (int)(len < 60 ? len : 60), name, all.data);
  np_buf_free(&all);
  return NP_FIELDS;
}

static bool is_empty(const struct np_cell *c) { return c->kind == NP_CELL_NULL || (c->kind == NP_CELL_TEXT && !c->len); }

static int take_text(struct np_draft *d, const struct np_cell *c, struct np_text *to, struct np_error *err) {
  const char *s = c->ptr;
  size_t len = c->len;
  if (c->kind != NP_CELL_TEXT && c->kind != NP_CELL_STRING)
    return np_fail(err, "expected a text, got %.*s", (int)(len < 40 ? len : 40), s);
  if (c->kind == NP_CELL_STRING && memchr(s, '\\', len)) {
    np_buf_clear(&d->scratch);
    np_json_unescape(&d->scratch, s, len);
    s = np_buf_text(&d->scratch), len = d->scratch.len;
  }
  size_t utf8 = np_utf8_check(s, len);
  if (utf8 < len) return np_fail(err, "byte %zu of it is not UTF-8", utf8 + 1);
  if (memchr(s, 0, len)) return np_fail(err, "it holds a zero byte");
  if (len > TEXT_MAX) return np_fail(err, "it is longer than %d bytes", TEXT_MAX);
  *to = np_writeset_text(d->ws, s, len);
  return 0;
}

/* As JSON writes numbers. */
static bool is_number(const char *s, size_t len, bool *whole) {
  const char *p = s, *end = s + len;
  if (p < end && *p == '-') p++;
  const char *digits = p;
  while (p < end && *p >= '0' && *p <= '9') p++;
  if (p == digits || (p - digits > 1 && *digits == '0')) return false;
  *whole = p == end;
  if (p < end && *p == '.') {
    digits = ++p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    if (p == digits) return false;
  }
  if (p < end && (*p == 'e' || *p == 'E')) {
    if (++p < end && (*p == '+' || *p == '-')) p++;
    digits = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    if (p == digits) return false;
  }
  return p == end;
}

static int take_integer(const struct np_cell *c, int64_t *to, struct np_error *err) {
  bool whole = false;
  int shown = (int)(c->len < 40 ? c->len : 40);
  if ((c->kind != NP_CELL_TEXT && c->kind != NP_CELL_NUMBER) || !is_number(c->ptr, c->len, &whole) || !whole)
    return np_fail(err, "expected a whole number, got %.*s", shown, c->ptr);
  char digits[24];
  errno = 0;
  if (c->len < sizeof digits) {
    memcpy(digits, c->ptr, c->len);
    digits[c->len] = 0;
    *to = strtoll(digits, NULL, 10);
  }
  return c->len >= sizeof digits || errno ? np_fail(err, "%.*s does not fit into 64 bits", shown, c->ptr) : 0;
}

static int take_time(struct np_draft *d, const struct np_cell *c, int64_t *to, bool *counted, struct np_error *err) {
  bool whole = false;
  const struct np_cell text = {.kind = NP_CELL_TEXT, .ptr = c->ptr, .len = c->len};
  *counted = c->kind == NP_CELL_NUMBER || (c->kind == NP_CELL_TEXT && is_number(c->ptr, c->len, &whole));
  if (*counted) {
    if (take_integer(&text, to, err) < 0) return -1;
  } else if (c->kind != NP_CELL_TEXT && c->kind != NP_CELL_STRING) {
    return np_fail(err, "expected " A_TIME);
  } else if (np_time_read(c->ptr, c->len, NULL, 0, d->from->zone, to, err) < 0) {
    struct np_error other;
    bool zone_alone = !d->from->zone && np_time_read(c->ptr, c->len, NULL, 0, np_zone_get("UTC", 3, &other), to, &other) == 0;
    return zone_alone
               ? np_fail(err, "not a time that is known: it has no offset (Z or +hh:mm), and no --zone says where it is meant")
               : -1;
  }
  return *to < AT_MIN || *to > NP_TIME_MAX ? np_fail(err, "it is outside the years 1 to 9999") : 0;
}

static int take_number(const struct np_cell *c, struct np_value *v, struct np_error *err) {
  bool whole = false;
  if (!is_number(c->ptr, c->len, &whole))
    return np_fail(err, "expected a number, got %.*s", (int)(c->len < 40 ? c->len : 40), c->ptr);
  v->type = whole ? NP_NUMBER_INT : NP_NUMBER_REAL;
  if (whole) return take_integer(c, &v->i, err);
  char *digits = np_strndup(c->ptr, c->len);
  v->d = strtod(digits, NULL);
  free(digits);
  return isfinite(v->d) ? 0 : np_fail(err, "it is larger than any number that can be kept");
}

static int take_json_value(struct np_draft *d, const struct np_cell *c, struct np_error *err) {
  struct np_value *v = &d->r->value;
  switch (c->kind) {
  case NP_CELL_NUMBER: return take_number(c, v, err);
  case NP_CELL_TRUE:
  case NP_CELL_FALSE: *v = (struct np_value){.type = NP_BOOL, .i = c->kind == NP_CELL_TRUE}; return 0;
  case NP_CELL_STRING: v->type = NP_STRING; return take_text(d, c, &v->s, err);
  default: return np_fail(err, "expected a number, a text, true or false");
  }
}

static bool is_json(const char *text, size_t len) {
  struct np_buf out = {0};
  struct np_json_sieve sieve = {.out = &out};
  struct np_error err;
  bool ok = np_json_sieve(&sieve, text, len, &err) == 0;
  np_buf_free(&out);
  return ok;
}

static int take_cell_value(struct np_draft *d, const struct np_cell *c, struct np_error *err) {
  int shown = (int)(c->len < 40 ? c->len : 40);
  const char *at = c->ptr;
  if (d->type.len == 4 && memcmp(d->type.ptr, "text", 4) == 0) {
    d->r->value.type = NP_STRING;
    return take_text(d, c, &d->r->value.s, err);
  }
  if (!is_json(c->ptr, c->len))
    return np_fail(
        err, "%.*s is neither a number nor true or false; a text stands in quotes, as in JSON, or has \"text\" in a column type",
        shown, c->ptr);
  struct np_cell inner = np_json_cell(c->ptr, &at, c->ptr + c->len);
  bool number = inner.kind == NP_CELL_NUMBER, truth = inner.kind == NP_CELL_TRUE || inner.kind == NP_CELL_FALSE;
  if (d->type.len && memcmp(d->type.ptr, "number", d->type.len) == 0 && !number)
    return np_fail(err, "%.*s is not a number", shown, c->ptr);
  if (d->type.len && memcmp(d->type.ptr, "boolean", d->type.len) == 0 && !truth)
    return np_fail(err, "%.*s is neither true nor false", shown, c->ptr);
  return take_json_value(d, &inner, err);
}

static int take_type(struct np_draft *d, const struct np_cell *c, struct np_error *err) {
  static const char *const types[] = {"number", "text", "boolean"};
  d->type = *c;
  for (int i = 0; i < 3; i++)
    if (c->len == strlen(types[i]) && memcmp(types[i], c->ptr, c->len) == 0) return 0;
  return np_fail(err, "expected number, text or boolean, got %.*s", (int)(c->len < 40 ? c->len : 40), c->ptr);
}

static int take_word(struct np_draft *d, const struct np_cell *c, const char *const *words, int n, int *which,
                     struct np_error *err) {
  struct np_text word;
  if (take_text(d, c, &word, err) < 0) return -1;
  for (int i = 0; i < n; i++) {
    if (!words[i] || strcmp(words[i], word.ptr) != 0) continue;
    *which = i;
    return 0;
  }
  struct np_buf all = {0};
  for (int i = 0; i < n; i++)
    if (words[i]) np_buf_addf(&all, "%s%s", all.len ? ", " : "", words[i]);
  np_fail(err, "expected one of %s, got \"%.40s\"", all.data, word.ptr);
  np_buf_free(&all);
  return -1;
}

static int take_extra(struct np_draft *d, const struct np_cell *c, struct np_error *err) {
  const char *s = c->ptr, *end = s + c->len;
  while (s < end && (*s == ' ' || *s == '\t' || *s == '\r' || *s == '\n')) s++;
  bool table = c->kind == NP_CELL_TABLE || c->kind == NP_CELL_TEXT;
  if (!table || s == end || *s != '{' || (c->kind == NP_CELL_TEXT && !is_json(c->ptr, c->len)))
    return np_fail(err, "expected a JSON object");
  d->r->extra = np_writeset_text(d->ws, c->ptr, c->len);
  return 0;
}

static int take_depth(const struct np_cell *c, int *depth, struct np_error *err) {
  int64_t n;
  if (take_integer(c, &n, err) < 0) return -1;
  *depth = (int)n;
  return n < 0 || n > NP_DEPTH_MAX ? np_fail(err, "expected 0 to %d, got %lld", NP_DEPTH_MAX, (long long)n) : 0;
}

static int take(struct np_draft *d, enum np_reading_field field, const struct np_cell *c, struct np_error *err) {
  struct np_reading *r = d->r;
  bool counted;
  int which = 0, result;
  switch (field) {
  case NP_FIELD_AT: d->at_place = c->at; return take_time(d, c, &r->at, &d->counted, err);
  case NP_FIELD_VENDOR: return take_text(d, c, &r->vendor, err);
  case NP_FIELD_CONNECTION: return take_text(d, c, &r->connection, err);
  case NP_FIELD_DEVICE: return take_text(d, c, &r->device, err);
  case NP_FIELD_METRIC: return take_text(d, c, &r->metric, err);
  case NP_FIELD_VALUE: return c->kind == NP_CELL_TEXT ? take_cell_value(d, c, err) : take_json_value(d, c, err);
  case NP_FIELD_UNIT: return take_text(d, c, &r->unit, err);
  case NP_FIELD_KEY: return take_text(d, c, &r->key, err);
  case NP_FIELD_SERIAL: return take_integer(c, &r->serial, err);
  case NP_FIELD_EXTRA: return take_extra(d, c, err);
  case NP_FIELD_DEPTH: return take_depth(c, &r->depth, err);
  case NP_FIELD_TYPE: return take_type(d, c, err);
  case NP_FIELD_RECEIVED:
    if (take_time(d, c, &r->received, &counted, err) < 0) return -1;
    return np_is_ahead(r->received) ? np_fail(err, "it is still to come") : 0;
  case NP_FIELD_INTERVAL:
    if (take_integer(c, &r->interval, err) < 0) return -1;
    return r->interval < 0 ? np_fail(err, "expected ms between readings, got %lld", (long long)r->interval) : 0;
  case NP_FIELD_TREND:
    result = take_word(d, c, np_trend_names, 6, &which, err);
    r->trend = (enum np_trend)which;
    return result;
  case NP_FIELD_QUALITY:
    result = take_word(d, c, np_quality_names, 3, &which, err);
    r->quality = (enum np_quality)which;
    return result;
  case NP_FIELDS: break;
  }
  return np_fail(err, "there is no such field");
}

int np_draft_take(struct np_draft *d, enum np_reading_field field, const struct np_cell *cell, struct np_error *err) {
  *d->fault = (struct np_reading_fault){cell->at, np_reading_fields[field]};
  if (d->seen & 1u << field) return np_fail(err, "it is given twice");
  if (is_empty(cell)) return 0;
  d->seen |= 1u << field;
  return take(d, field, cell, err);
}

static int missing(struct np_draft *d, enum np_reading_field field, struct np_error *err) {
  *d->fault = (struct np_reading_fault){.field = np_reading_fields[field]};
  return np_fail(err, field == NP_FIELD_VENDOR ? "whose device is it? It is missing, here and on the command line (--vendor)"
                                               : "it is missing");
}

int np_draft_end(struct np_draft *d, struct np_error *err) {
  const struct np_reading_source *from = d->from;
  struct np_reading *r = d->r;
  if (!r->device.len) return missing(d, NP_FIELD_DEVICE, err);
  if (!r->metric.len) return missing(d, NP_FIELD_METRIC, err);
  if (!(d->seen & 1u << NP_FIELD_VALUE)) return missing(d, NP_FIELD_VALUE, err);
  if (!(d->seen & 1u << NP_FIELD_AT)) return missing(d, NP_FIELD_AT, err);
  if (!r->vendor.len && !from->vendor) return missing(d, NP_FIELD_VENDOR, err);
  if (r->depth && !r->key.len) {
    *d->fault = (struct np_reading_fault){.field = np_reading_fields[NP_FIELD_KEY]};
    return np_fail(err, "it is missing, of a reading that a rule derived (depth)");
  }
  bool near_1970 = d->counted && r->at >= 0 && r->at < SECONDS_MAX && r->received == NP_RECEIVED_UNKNOWN;
  if (near_1970 && !from->checked) {
    *d->fault = (struct np_reading_fault){d->at_place, np_reading_fields[NP_FIELD_AT]};
    return np_fail(err, "%lld ms after 1970 is before 1974: are these seconds? Expected " A_TIME, (long long)r->at);
  }
  if (!r->vendor.len) r->vendor = np_writeset_text(d->ws, from->vendor, strlen(from->vendor));
  if (!r->connection.len && from->connection) r->connection = np_writeset_text(d->ws, from->connection, strlen(from->connection));
  if (!r->connection.len) r->connection = r->vendor;
  *d->fault = (struct np_reading_fault){0};
  return 0;
}
