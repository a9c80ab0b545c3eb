/* The strict pass over a JSON text. */
#include "lib/json_sieve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define TAG "\"\\u0001"
#define EXACT_DIGITS 15 /* that a double always gives back */

struct sieve {
  struct np_json_sieve *r;
  const char *text, *end;
  const char *at;     /* next byte to read */
  const char *copied; /* what is before it stands in r->out already */
  int depth;
  struct np_error *err;
};

/* Bytes that stand for themselves within a string. */
static bool plain(unsigned char c) { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\'; }

static bool digit(const struct sieve *s, const char *p) { return p < s->end && *p >= '0' && *p <= '9'; }

static int refuse(struct sieve *s, const char *p, const char *why) {
  size_t line = 1;
  for (const char *q = s->text; q < p; q++) line += *q == '\n';
  return np_fail(s->err, "not JSON: %s at byte %zu (line %zu)", why, (size_t)(p - s->text) + 1, line);
}

static int unexpected(struct sieve *s, const char *p) {
  char what[32];
  if (p >= s->end) return refuse(s, s->end, "unexpected end");
  unsigned char c = (unsigned char)*p;
  snprintf(what, sizeof what, c > 0x20 && c < 0x7f ? "unexpected '%c'" : "unexpected byte 0x%02x", c);
  return refuse(s, p, what);
}

/* Brings the new text up to p. */
static void copy_to(struct sieve *s, const char *p) {
  np_buf_add(s->r->out, s->copied, (size_t)(p - s->copied));
  s->copied = p;
  s->r->rewritten = s->r->restore = true;
}

static void skip_space(struct sieve *s) {
  while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t')) s->at++;
}

/* The four hexadecimal digits at p, or -1. */
static int hex4(const struct sieve *s, const char *p) {
  int value = 0;
  if (s->end - p < 4) return -1;
  for (int i = 0; i < 4; i++) {
    int c = (unsigned char)p[i], low = c | 0x20;
    if (c >= '0' && c <= '9')
      value = value * 16 + (c - '0');
    else if (low >= 'a' && low <= 'f')
      value = value * 16 + (low - 'a' + 10);
    else
      return -1;
  }
  return value;
}

/* An escape, whose backslash is at s->at. */
static int escape(struct sieve *s) {
  const char *p = s->at;
  if (s->end - p < 2) return unexpected(s, s->end);
  if (p[1] != 'u') {
    if (!p[1] || !strchr("\"\\/bfnrt", p[1])) return refuse(s, p, "an escape that does not exist");
    s->at += 2;
    return 0;
  }
  int unit = hex4(s, p + 2);
  if (unit < 0) return refuse(s, p, "\\u without four hexadecimal digits");
  s->at += 6;
  if (unit < 0xd800 || unit > 0xdfff) return 0;
  int second = unit < 0xdc00 && s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u' ? hex4(s, s->at + 2) : -1;
  if (second < 0xdc00 || second > 0xdfff) return refuse(s, p, "half a surrogate pair");
  s->at += 6;
  return 0;
}

/* A string, whose quotation mark is at s->at. */
static int string(struct sieve *s) {
  s->at++;
  for (;;) {
    while (s->at < s->end && plain((unsigned char)*s->at)) s->at++;
    if (s->at == s->end) return unexpected(s, s->end);
    unsigned char c = (unsigned char)*s->at;
    if (c == '"') break;
    if (c == '\\') {
      if (escape(s) < 0) return -1;
    } else if (c < 0x20) {
      return refuse(s, s->at, "a control character within a string");
    } else {
      size_t n = np_utf8_len(s->at, (size_t)(s->end - s->at));
      if (!n) return refuse(s, s->at, "a string that is not UTF-8");
      s->at += n;
    }
  }
  s->at++;
  return 0;
}

static int string_value(struct sieve *s) {
  const char *first = s->at + 1;
  if (string(s) < 0) return -1;
  if (s->at - first < 6 || memcmp(first, "\\u0001", 6) != 0) return 0;
  copy_to(s, first);
  np_buf_adds(s->r->out, "\\u0001");
  return 0;
}

/* Puts the number from start to s->at into a tagged string. */
static int tag_number(struct sieve *s, const char *start) {
  copy_to(s, start);
  np_buf_adds(s->r->out, TAG);
  size_t from = s->r->out->len;
  np_buf_add(s->r->out, start, (size_t)(s->at - start));
  if (isinf(strtod(s->r->out->data + from, NULL))) return refuse(s, start, "a number too large for 64 bits");
  np_buf_addc(s->r->out, '"');
  s->copied = s->at;
  return 0;
}

/* cjson makes a double of each number. One of few digits survives: where that is integral, it was an integer here, as an integral one
 * with a point or an exponent is tagged. */
static int number(struct sieve *s) {
  const char *start = s->at, *p = start;
  bool fraction = false, exponent = false, whole = true;
  if (*p == '-') p++;
  if (!digit(s, p)) return unexpected(s, p);
  if (*p == '0')
    p++;
  else
    while (digit(s, p)) p++;
  if (p < s->end && *p == '.') {
    fraction = true;
    if (!digit(s, ++p)) return unexpected(s, p);
    for (; digit(s, p); p++) whole = whole && *p == '0';
  }
  if (p < s->end && (*p == 'e' || *p == 'E')) {
    exponent = true;
    p++;
    if (p < s->end && (*p == '+' || *p == '-')) p++;
    if (!digit(s, p)) return unexpected(s, p);
    while (digit(s, p)) p++;
  }
  s->at = p;
  if (!fraction) s->r->restore = true;
  if (!exponent && p - start <= EXACT_DIGITS && !(fraction && whole)) return 0;
  return tag_number(s, start);
}

static int word(struct sieve *s, const char *name, size_t n) {
  for (size_t i = 0; i < n; i++, s->at++)
    if (s->at == s->end || *s->at != name[i]) return unexpected(s, s->at);
  return 0;
}

static int value(struct sieve *s);

static int enter(struct sieve *s) {
  if (++s->depth > NP_JSON_DEPTH) return refuse(s, s->at, "nested deeper than 128");
  if (s->depth > s->r->depth) s->r->depth = s->depth;
  s->r->tables++;
  s->at++;
  skip_space(s);
  return 0;
}

static int leave(struct sieve *s) {
  s->depth--;
  s->at++;
  return 0;
}

static int array(struct sieve *s) {
  const char *start = s->at;
  s->r->restore = true;
  if (enter(s) < 0) return -1;
  if (s->at < s->end && *s->at == ']') {
    copy_to(s, start);
    np_buf_adds(s->r->out, TAG "\"");
    s->copied = s->at + 1;
    return leave(s);
  }
  for (;;) {
    if (value(s) < 0) return -1;
    skip_space(s);
    if (s->at < s->end && *s->at == ']') return leave(s);
    if (s->at == s->end || *s->at != ',') return unexpected(s, s->at);
    s->at++;
  }
}

static int object(struct sieve *s) {
  if (enter(s) < 0) return -1;
  if (s->at < s->end && *s->at == '}') return leave(s);
  for (;;) {
    skip_space(s);
    if (s->at == s->end || *s->at != '"') return unexpected(s, s->at);
    if (string(s) < 0) return -1;
    s->r->members++;
    skip_space(s);
    if (s->at == s->end || *s->at != ':') return unexpected(s, s->at);
    s->at++;
    if (value(s) < 0) return -1;
    skip_space(s);
    if (s->at < s->end && *s->at == '}') return leave(s);
    if (s->at == s->end || *s->at != ',') return unexpected(s, s->at);
    s->at++;
  }
}

static int value(struct sieve *s) {
  skip_space(s);
  if (s->at == s->end) return unexpected(s, s->at);
  s->r->values++;
  switch (*s->at) {
  case '"': return string_value(s);
  case '{': return object(s);
  case '[': return array(s);
  case 't': return word(s, "true", 4);
  case 'f': return word(s, "false", 5);
  case 'n': return word(s, "null", 4);
  default: return number(s);
  }
}

int np_json_sieve(struct np_json_sieve *r, const char *text, size_t len, struct np_error *err) {
  struct sieve s = {.r = r, .text = text, .end = text + len, .at = text, .copied = text, .err = err};
  r->rewritten = r->restore = false;
  r->depth = 0;
  r->values = r->members = r->tables = 0;
  if (value(&s) < 0) return -1;
  skip_space(&s);
  if (s.at < s.end) return unexpected(&s, s.at);
  if (r->rewritten) copy_to(&s, s.end);
  return 0;
}
