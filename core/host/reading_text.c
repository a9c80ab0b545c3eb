/* Readings written as text. */
#include "host/reading_text.h"

#include <inttypes.h>
#include <string.h>

#include "lib/time_text.h"

const char *const np_reading_fields[NP_FIELDS] = {"at",  "vendor", "connection", "device", "metric",  "value", "unit",  "received",
                                                  "key", "serial", "interval",   "trend",  "quality", "extra", "depth", "type"};

static void add_name(struct np_buf *b, enum np_reading_field field) {
  np_buf_addf(b, "%s\"%s\":", b->data[b->len - 1] == '{' ? "" : ",", np_reading_fields[field]);
}

static void add_text(struct np_buf *b, enum np_reading_field field, struct np_text t) {
  if (!t.ptr) return;
  add_name(b, field);
  np_buf_add_json(b, t.ptr, t.len);
}

static void add_word(struct np_buf *b, enum np_reading_field field, const char *word) {
  if (word) add_text(b, field, (struct np_text){word, strlen(word)});
}

static void add_int(struct np_buf *b, enum np_reading_field field, int64_t n) {
  add_name(b, field);
  np_buf_addf(b, "%" PRId64, n);
}

void np_reading_write_json(struct np_buf *b, const struct np_reading *r) {
  np_buf_addc(b, '{');
  add_text(b, NP_FIELD_VENDOR, r->vendor);
  add_text(b, NP_FIELD_CONNECTION, r->connection);
  add_text(b, NP_FIELD_DEVICE, r->device);
  add_text(b, NP_FIELD_METRIC, r->metric);
  add_name(b, NP_FIELD_VALUE);
  np_value_add_json(b, &r->value);
  add_text(b, NP_FIELD_UNIT, r->unit);
  add_int(b, NP_FIELD_AT, r->at);
  if (r->received != NP_RECEIVED_UNKNOWN) add_int(b, NP_FIELD_RECEIVED, r->received);
  add_text(b, NP_FIELD_KEY, r->key);
  if (r->serial != INT64_MIN) add_int(b, NP_FIELD_SERIAL, r->serial);
  if (r->interval) add_int(b, NP_FIELD_INTERVAL, r->interval);
  add_word(b, NP_FIELD_TREND, np_trend_names[r->trend]);
  add_word(b, NP_FIELD_QUALITY, np_quality_names[r->quality]);
  if (r->extra.len) {
    add_name(b, NP_FIELD_EXTRA);
    for (size_t i = 0; i < r->extra.len; i++)
      np_buf_addc(b, r->extra.ptr[i] == '\n' || r->extra.ptr[i] == '\r' ? ' ' : r->extra.ptr[i]);
  }
  if (r->depth) add_int(b, NP_FIELD_DEPTH, r->depth);
  np_buf_adds(b, "}\n");
}

/* Quoted where it has to be. */
static void add_cell(struct np_buf *b, const char *s, size_t n) {
  bool plain = true;
  for (size_t i = 0; i < n; i++)
    if (strchr(",\"\r\n", s[i])) plain = false;
  if (plain) {
    np_buf_add(b, s, n);
    return;
  }
  np_buf_addc(b, '"');
  for (size_t i = 0; i < n; i++) {
    if (s[i] == '"') np_buf_addc(b, '"');
    np_buf_addc(b, s[i]);
  }
  np_buf_addc(b, '"');
}

static void add_text_cell(struct np_buf *b, struct np_text t) {
  np_buf_addc(b, ',');
  add_cell(b, t.ptr ? t.ptr : "", t.len);
}

/* The value as JSON has it: "12" is a text, 12 a number. */
static void add_value_cell(struct np_buf *b, const struct np_value *v) {
  struct np_buf value = {0};
  np_value_add_json(&value, v);
  add_text_cell(b, (struct np_text){value.data, value.len});
  np_buf_free(&value);
}

static void add_time(struct np_buf *b, int64_t ms) {
  const struct np_zone *utc = np_zone_get("UTC", 3, NULL);
  if (ms < NP_TIME_MIN || ms > NP_TIME_MAX || np_time_write(b, ms, NULL, 0, utc) < 0) np_buf_addf(b, "%" PRId64, ms);
}

void np_reading_write_head(struct np_buf *b) {
  for (int i = 0; i < NP_FIELD_TYPE; i++) np_buf_addf(b, "%s%s", i ? "," : "", np_reading_fields[i]);
  np_buf_adds(b, "\r\n");
}

void np_reading_write_csv(struct np_buf *b, const struct np_reading *r) {
  const char *trend = np_trend_names[r->trend];
  add_time(b, r->at);
  add_text_cell(b, r->vendor);
  add_text_cell(b, r->connection);
  add_text_cell(b, r->device);
  add_text_cell(b, r->metric);
  add_value_cell(b, &r->value);
  add_text_cell(b, r->unit);
  np_buf_addc(b, ',');
  if (r->received != NP_RECEIVED_UNKNOWN) add_time(b, r->received);
  add_text_cell(b, r->key);
  np_buf_addc(b, ',');
  if (r->serial != INT64_MIN) np_buf_addf(b, "%" PRId64, r->serial);
  np_buf_addc(b, ',');
  if (r->interval) np_buf_addf(b, "%" PRId64, r->interval);
  np_buf_addf(b, ",%s,%s", trend ? trend : "", np_quality_names[r->quality]);
  add_text_cell(b, r->extra);
  np_buf_addc(b, ',');
  if (r->depth) np_buf_addf(b, "%d", r->depth);
  np_buf_adds(b, "\r\n");
}
