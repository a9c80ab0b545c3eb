/* Times as text. */
#include "lib/time_text.h"

#include <stdio.h>
#include <string.h>

/* What a run of pattern is about. */
enum part { YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, MILLI, OFFSET, LITERAL, UNKNOWN };

static const struct {
  char letter;
  int width;
  const char *name;
} parts[] = {{'y', 4, "year"},   {'M', 2, "month"},  {'d', 2, "day"},          {'H', 2, "hour"},
             {'m', 2, "minute"}, {'s', 2, "second"}, {'S', 3, "milliseconds"}, {'X', 3, "offset"}};

struct token {
  enum part part;
  const char *text; /* the run; of a literal the bytes that stand for themselves */
  size_t len;
};

static bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* The token at *p, past which *p goes. An unclosed quote is UNKNOWN. *quoted: p is within quotes. */
static struct token next_token(const char **p, const char *end, bool *quoted) {
  const char *start = *p;
  struct token t = {LITERAL, start, 1};
  if (*start == '\'') {
    bool twice = start + 1 < end && start[1] == '\'';
    *p += twice ? 2 : 1;
    if (!twice) {
      *quoted = !*quoted;
      t.len = 0;
    }
    return t;
  }
  if (*quoted || !letter(*start)) {
    *p += 1;
    return t;
  }
  while (*p < end && **p == *start) ++*p;
  t.len = (size_t)(*p - start);
  t.part = UNKNOWN;
  for (int i = YEAR; i <= OFFSET; i++)
    if (parts[i].letter == *start && (i == OFFSET ? t.len <= 3 : (int)t.len == parts[i].width)) t.part = (enum part)i;
  return t;
}

int np_time_pattern_check(const char *pattern, size_t len, bool reads, struct np_error *err) {
  const char *p = pattern, *end = pattern + len;
  bool quoted = false, year = false;
  while (p < end) {
    struct token t = next_token(&p, end, &quoted);
    if (t.part == UNKNOWN)
      return np_fail(err, "pattern: '%.*s' is none of yyyy MM dd HH mm ss SSS X XX XXX (text with letters stands in '...')",
                     (int)(t.len < 20 ? t.len : 20), t.text);
    if (t.part == YEAR) year = true;
  }
  if (quoted) return np_fail(err, "pattern: a quote is not closed");
  return reads && !year ? np_fail(err, "pattern: there is no year (yyyy) in it") : 0;
}

/* ---- reading ---- */

struct reader {
  const char *text, *at, *end;
  struct np_time_fields f;
  struct np_error *err;
};

static int expected(struct reader *r, const char *what) {
  return np_fail(r->err, "not a time: expected %s at byte %zu", what, (size_t)(r->at - r->text) + 1);
}

static bool digit(const struct reader *r, const char *p) { return p < r->end && *p >= '0' && *p <= '9'; }

static int digits(struct reader *r, int n, const char *name, int *value) {
  char what[48];
  *value = 0;
  for (int i = 0; i < n; i++) {
    if (!digit(r, r->at + i)) {
      snprintf(what, sizeof what, "%d digits of the %s", n, name);
      return expected(r, what);
    }
    *value = *value * 10 + (r->at[i] - '0');
  }
  r->at += n;
  return 0;
}

static int part(struct reader *r, enum part which, int *value) { return digits(r, parts[which].width, parts[which].name, value); }

static bool skip(struct reader *r, char c) {
  if (r->at == r->end || *r->at != c) return false;
  r->at++;
  return true;
}

static int literal(struct reader *r, char c) {
  char what[8];
  if (skip(r, c)) return 0;
  unsigned char u = (unsigned char)c;
  snprintf(what, sizeof what, u >= 0x20 && u < 0x7f ? "'%c'" : "0x%02x", u);
  return expected(r, what);
}

/* Z, or a sign, hours and minutes; `colon`: 1 between them, 0 none, -1 none and the minutes may be missing. */
static int offset(struct reader *r, int colon) {
  int h = 0, m = 0;
  r->f.zoned = true;
  r->f.offset = 0;
  if (skip(r, 'Z') || (colon == 1 && skip(r, 'z'))) return 0;
  int sign = skip(r, '-') ? -1 : skip(r, '+') ? 1 : 0;
  if (!sign) return expected(r, "an offset (Z or +hh:mm)");
  if (digits(r, 2, "offset", &h) < 0) return -1;
  if (colon == 1 && literal(r, ':') < 0) return -1;
  if (colon >= 0 || digit(r, r->at))
    if (digits(r, 2, "offset", &m) < 0) return -1;
  if (h > 23 || m > 59) return np_fail(r->err, "not a time: offset %02d:%02d", h, m);
  r->f.offset = sign * (h * 3600 + m * 60);
  return 0;
}

static int read_pattern(struct reader *r, const char *p, size_t len) {
  int *fields[] = {&r->f.year, &r->f.month, &r->f.day, &r->f.hour, &r->f.minute, &r->f.second, &r->f.ms};
  const char *end = p + len;
  bool quoted = false;
  while (p < end) {
    struct token t = next_token(&p, end, &quoted);
    int failed = 0;
    if (t.part == LITERAL)
      failed = t.len && literal(r, *t.text) < 0;
    else if (t.part == OFFSET)
      failed = offset(r, t.len == 3 ? 1 : t.len == 2 ? 0 : -1) < 0;
    else
      failed = part(r, t.part, fields[t.part]) < 0;
    if (failed) return -1;
  }
  return 0;
}

static int read_clock(struct reader *r) {
  if (part(r, HOUR, &r->f.hour) < 0 || literal(r, ':') < 0 || part(r, MINUTE, &r->f.minute) < 0 || literal(r, ':') < 0 ||
      part(r, SECOND, &r->f.second) < 0)
    return -1;
  if (skip(r, '.')) {
    if (!digit(r, r->at)) return expected(r, "digits of the second");
    for (int scale = 100; digit(r, r->at); scale /= 10) r->f.ms += (*r->at++ - '0') * scale;
  }
  return r->at < r->end ? offset(r, 1) : 0;
}

static int read_rfc3339(struct reader *r) {
  if (part(r, YEAR, &r->f.year) < 0) return -1;
  bool dashes = skip(r, '-');
  if (part(r, MONTH, &r->f.month) < 0 || (dashes && literal(r, '-') < 0) || part(r, DAY, &r->f.day) < 0) return -1;
  if (r->at == r->end || !dashes) return 0;
  return skip(r, 'T') || skip(r, ' ') || skip(r, 't') ? read_clock(r) : expected(r, "'T'");
}

int np_time_read(const char *text, size_t len, const char *pattern, size_t pattern_len, const struct np_zone *z, int64_t *ms,
                 struct np_error *err) {
  struct reader r = {.text = text, .at = text, .end = text + len, .f = {.month = 1, .day = 1}, .err = err};
  if ((pattern ? read_pattern(&r, pattern, pattern_len) : read_rfc3339(&r)) < 0) return -1;
  if (r.at < r.end) return np_fail(err, "not a time: unexpected text at byte %zu", (size_t)(r.at - text) + 1);
  return np_time_join(&r.f, z, ms, err);
}

int np_time_join(const struct np_time_fields *f, const struct np_zone *z, int64_t *ms, struct np_error *err) {
  if (f->year < 0 || f->year > 9999) return np_fail(err, "not a time: year %d", f->year);
  if (f->month < 1 || f->month > 12) return np_fail(err, "not a time: month %d", f->month);
  if (f->day < 1 || f->day > np_month_days(f->year, f->month))
    return np_fail(err, "not a time: no day %d in %04d-%02d", f->day, f->year, f->month);
  if (f->hour < 0 || f->hour > 23) return np_fail(err, "not a time: hour %d", f->hour);
  if (f->minute < 0 || f->minute > 59) return np_fail(err, "not a time: minute %d", f->minute);
  if (f->second < 0 || f->second > 59) return np_fail(err, "not a time: second %d", f->second);
  if (f->ms < 0 || f->ms > 999) return np_fail(err, "not a time: millisecond %d", f->ms);
  if (!f->zoned && !z) return np_fail(err, "not a time that is known: it has no offset (Z or +hh:mm)");
  int64_t local = np_days(f->year, f->month, f->day) * 86400 + f->hour * 3600 + f->minute * 60 + f->second;
  *ms = (f->zoned ? local - f->offset : np_zone_utc(z, local)) * 1000 + f->ms;
  return 0;
}

/* ---- writing ---- */

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

struct np_time_fields np_time_split(int64_t ms, const struct np_zone *z, bool whole) {
  int64_t utc = floor_div(ms, 1000);
  int32_t ahead = np_zone_offset(z, utc);
  if (whole) ahead -= ahead % 60;
  int64_t local = utc + ahead, days = floor_div(local, 86400);
  int second = (int)(local - days * 86400);
  struct np_date d = np_date(days);
  struct np_time_fields f = {(int)d.year, d.month, d.day, second / 3600, second / 60 % 60, second % 60, (int)(ms - utc * 1000),
                             true,        ahead};
  return f;
}

static void write_offset(struct np_buf *out, int32_t seconds, size_t letters) {
  int minutes = (seconds < 0 ? -seconds : seconds) / 60;
  char sign = seconds < 0 ? '-' : '+';
  if (seconds == 0)
    np_buf_addc(out, 'Z');
  else if (letters == 1 && minutes % 60 == 0)
    np_buf_addf(out, "%c%02d", sign, minutes / 60);
  else
    np_buf_addf(out, "%c%02d%s%02d", sign, minutes / 60, letters == 3 ? ":" : "", minutes % 60);
}

static void write_number(struct np_buf *out, int value, int width) {
  char *p = np_buf_reserve(out, (size_t)width);
  for (int i = width; i-- > 0; value /= 10) p[i] = (char)('0' + value % 10);
  out->len += (size_t)width;
  out->data[out->len] = 0;
}

static bool has_offset(const char *p, size_t len) {
  const char *end = p + len;
  bool quoted = false;
  while (p < end)
    if (next_token(&p, end, &quoted).part == OFFSET) return true;
  return false;
}

int np_time_write(struct np_buf *out, int64_t ms, const char *p, size_t len, const struct np_zone *z) {
  if (!p) {
    p = ms % 1000 ? "yyyy-MM-dd'T'HH:mm:ss.SSSXXX" : "yyyy-MM-dd'T'HH:mm:ssXXX";
    len = strlen(p);
  }
  struct np_time_fields f = np_time_split(ms, z, has_offset(p, len));
  if (f.year < 0 || f.year > 9999) return -1;
  const int fields[] = {f.year, f.month, f.day, f.hour, f.minute, f.second, f.ms};
  const char *end = p + len;
  bool quoted = false;
  while (p < end) {
    struct token t = next_token(&p, end, &quoted);
    if (t.part == LITERAL)
      np_buf_add(out, t.text, t.len);
    else if (t.part == OFFSET)
      write_offset(out, f.offset, t.len);
    else if (t.part != UNKNOWN)
      write_number(out, fields[t.part], parts[t.part].width);
  }
  return 0;
}
