/* Readings as text: what is written is read back as the same, whatever it is made of; what is broken is refused at its place, and never read past its end. */
#include "host/reading_text.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "check.h"

static uint64_t state = 88172645463325252u;
static uint64_t chance(uint64_t n) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state % n;
}

static struct np_text any_text(struct np_writeset *ws, bool may_be_absent) {
  static const char *const pieces[] = {"a",    "\"",          ",",    "\\", "\n",   "\r\n", "\xc3\xa4", "\xf0\x9f\x98\x80", " ",
                                       "\x01", "12",          "true", ";",  "\x7f", "\t",   "'",        "\xe2\x80\xa8",     "null",
                                       "{}",   "\xef\xbb\xbf"};
  struct np_buf b = {0};
  if (may_be_absent && !chance(3)) return (struct np_text){0};
  for (uint64_t n = 1 + chance(6); n; n--) np_buf_adds(&b, pieces[chance(sizeof pieces / sizeof *pieces)]);
  struct np_text t = np_writeset_text(ws, b.data, b.len);
  np_buf_free(&b);
  return t;
}

static struct np_value any_value(struct np_writeset *ws) {
  static const double reals[] = {
      0.1, -0.0, 5.0, 1e300, 4.9e-324, 1.7976931348623157e308, -123.456, 1e15, 1e16, 123456789012345680.0};
  static const int64_t ints[] = {0, -1, INT64_MAX, INT64_MIN, 9007199254740993, 42};
  switch (chance(5)) {
  case 0: return (struct np_value){.type = NP_NUMBER_INT, .i = ints[chance(6)]};
  case 1: return (struct np_value){.type = NP_NUMBER_REAL, .d = reals[chance(10)]};
  case 2: return (struct np_value){.type = NP_NUMBER_REAL, .d = (double)(int64_t)chance(1u << 30) / (double)(1 + chance(1000))};
  case 3: return (struct np_value){.type = NP_BOOL, .i = (int64_t)chance(2)};
  default: return (struct np_value){.type = NP_STRING, .s = chance(8) ? any_text(ws, false) : np_writeset_text(ws, "", 0)};
  }
}

static struct np_reading any_reading(struct np_writeset *ws) {
  static const char *const extras[] = {"{}", "{\"a\":[1,{\"b\":\"}\\\"\"}],\"c\":1.50}", "{\"\\u0041\":null, \"x\" : -0}"};
  static const int64_t times[] = {0, 1772352000123, -62135596800000, 253402300799999, 999, 1700000000000};
  const char *extra = chance(2) ? extras[chance(3)] : NULL;
  bool derived = !chance(6);
  return (struct np_reading){.vendor = any_text(ws, false),
                             .connection = any_text(ws, false),
                             .device = any_text(ws, false),
                             .metric = any_text(ws, false),
                             .unit = any_text(ws, true),
                             .value = any_value(ws),
                             .at = times[chance(6)],
                             .received = 1600000000000 + (int64_t)chance(100000000000),
                             .key = any_text(ws, !derived),
                             .depth = derived ? (int)chance(NP_DEPTH_MAX + 1) : 0,
                             .serial = chance(2) ? INT64_MIN : (int64_t)chance(1000) - 500,
                             .interval = (int64_t)(chance(2) * chance(1000000)),
                             .trend = (enum np_trend)chance(6),
                             .quality = (enum np_quality)chance(3),
                             .extra = np_writeset_text(ws, extra, extra ? strlen(extra) : 0)};
}

static bool same_text(struct np_text a, struct np_text b) {
  return !a.ptr == !b.ptr && a.len == b.len && (!a.len || !memcmp(a.ptr, b.ptr, a.len));
}

static bool same_value(const struct np_value *a, const struct np_value *b) {
  if (a->type != b->type) return false;
  if (a->type == NP_STRING) return same_text(a->s, b->s);
  return a->type == NP_NUMBER_REAL ? a->d == b->d && signbit(a->d) == signbit(b->d) : a->i == b->i;
}

static bool same(const struct np_reading *a, const struct np_reading *b) {
  return same_text(a->vendor, b->vendor) && same_text(a->connection, b->connection) && same_text(a->device, b->device) &&
         same_text(a->metric, b->metric) && same_text(a->unit, b->unit) && same_text(a->key, b->key) &&
         same_text(a->extra, b->extra) && same_value(&a->value, &b->value) && a->at == b->at && a->received == b->received &&
         a->serial == b->serial && a->depth == b->depth && a->interval == b->interval && a->trend == b->trend &&
         a->quality == b->quality;
}

static const struct np_reading_source nothing;

static int read_one(bool csv, const char *text, size_t len, struct np_writeset *ws, struct np_reading *r,
                    struct np_reading_fault *fault, struct np_error *err) {
  static struct np_reading_columns all;
  for (all.count = 0; all.count < NP_FIELD_TYPE; all.count++) all.fields[all.count] = (enum np_reading_field)all.count;
  char *exact = malloc(len ? len : 1); /* so that a sanitizer sees a byte read behind it */
  memcpy(exact, text, len);
  int result = csv ? np_reading_read_csv(&all, exact, len, &nothing, ws, r, fault, err)
                   : np_reading_read_json(exact, len, &nothing, ws, r, fault, err);
  free(exact);
  return result;
}

static void reads_what_it_wrote(void) {
  for (int i = 0; i < 20000; i++) {
    struct np_writeset *ws = np_writeset_new();
    struct np_reading_fault fault;
    struct np_error err = {0};
    struct np_buf text = {0}, again = {0};
    struct np_reading r = any_reading(ws), back;
    bool csv = chance(2);
    (csv ? np_reading_write_csv : np_reading_write_json)(&text, &r);
    int result = read_one(csv, text.data, text.len - (csv ? 2 : 1), ws, &back, &fault, &err);
    bool ok = result == 0 && same(&r, &back);
    (csv ? np_reading_write_csv : np_reading_write_json)(&again, ok ? &back : &r);
    if (!ok || again.len != text.len || memcmp(again.data, text.data, text.len) != 0) {
      CHECK(false, "%s: %s: %s", text.data, fault.field ? fault.field : "", err.text);
      i = 20000;
    }
    np_buf_free(&text), np_buf_free(&again);
    np_writeset_unref(ws);
  }
  CHECK(true);
}

static void survives_anything(void) {
  long taken = 0, refused = 0;
  for (int i = 0; i < 60000; i++) {
    struct np_writeset *ws = np_writeset_new();
    struct np_reading_fault fault;
    struct np_error err = {0};
    struct np_buf text = {0};
    struct np_reading r = any_reading(ws), back;
    bool csv = chance(2);
    (csv ? np_reading_write_csv : np_reading_write_json)(&text, &r);
    for (uint64_t n = 1 + chance(3); n && text.len; n--) {
      size_t at = chance(text.len);
      if (chance(4) == 0)
        text.len = at;
      else
        text.data[at] = "\",\\{}[]:0 \x80\n\xffu-"[chance(16)];
    }
    bool ok = read_one(csv, text.data, text.len, ws, &back, &fault, &err) == 0;
    taken += ok, refused += !ok;
    if (ok ? !back.device.len || !back.metric.len || !back.vendor.len || memchr(back.device.ptr, 0, back.device.len) != NULL ||
                 np_utf8_check(back.device.ptr, back.device.len) != back.device.len
           : fault.at > text.len || !*err.text)
      CHECK(false, "%.*s", (int)text.len, text.data);
    np_buf_free(&text);
    np_writeset_unref(ws);
  }
  CHECK(taken > 300 && refused > 1000, "%ld %ld", taken, refused);
}

static void refuses(const char *line, size_t at, const char *field, const char *why) {
  struct np_writeset *ws = np_writeset_new();
  struct np_reading_fault fault;
  struct np_reading r;
  struct np_error err = {0};
  CHECK(read_one(false, line, strlen(line), ws, &r, &fault, &err) < 0, "%s", line);
  CHECK(fault.at == at, "%s: at %zu: %s", line, fault.at, err.text);
  CHECK(!field == !fault.field && (!field || strcmp(field, fault.field) == 0), "%s", line);
  CHECK(strstr(err.text, why), "%s: %s", line, err.text);
  np_writeset_unref(ws);
}

int main(void) {
  reads_what_it_wrote();
  survives_anything();
  refuses("", 0, NULL, "not JSON: unexpected end");
  refuses("[]", 0, NULL, "expected a JSON object");
  refuses("{\"devise\":1}", 1, NULL, "did you mean \"device\"?");
  refuses("{\"type\":\"text\"}", 1, NULL, "a reading has no \"type\"");
  refuses("{\"device\":\"d\",\"device\":\"e\"}", 23, "device", "given twice");
  refuses("{\"device\":5}", 10, "device", "expected a text, got 5");
  refuses("{\"serial\":1.5}", 10, "serial", "expected a whole number, got 1.5");
  refuses("{\"serial\":9223372036854775808}", 10, "serial", "does not fit into 64 bits");
  refuses("{\"depth\":8}", 9, "depth", "expected 0 to 7, got 8");
  refuses("{\"vendor\":\"v\",\"device\":\"d\",\"metric\":\"m\",\"value\":1,\"at\":1772352000000,\"depth\":1}", 0, "key",
          "it is missing");
  refuses("{\"interval\":-1}", 12, "interval", "expected ms between readings");
  refuses("{\"value\":{}}", 9, "value", "expected a number, a text, true or false");
  refuses("{\"value\": 1e309}", 10, NULL, "too large");
  refuses("{\"extra\":\"{}\"}", 9, "extra", "expected a JSON object");
  refuses("{\"at\":253402300800000}", 6, "at", "outside the years 1 to 9999");
  refuses("{\"at\":\"2026-03-01T08:00:00\"}", 6, "at", "no offset");
  refuses("{\"received\":32503680000000}", 12, "received", "still to come");
  refuses("{\"device\":\"d\",\"metric\":\"m\",\"value\":1,\"at\":1772352000000}", 0, "vendor", "whose device");
  refuses("{\"vendor\":\"v\",\"device\":\"d\",\"metric\":\"m\",\"value\":1,\"at\":1772352000}", 55, "at", "are these seconds?");
  return check_end();
}
