/* Time zones and the calendar. */
#include "base/zone.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/map.h"

#define DAY 86400
#define MAX_FILE (256u << 10)
#define MAX_NAME 64
#define MAX_OFFSET (26 * 3600) /* as RFC 8536 has it, nearly */

/* When a change of the rule comes, each year: Jn, n or Mm.w.d of POSIX's TZ. */
struct change {
  char kind;       /* 'J': day 1 to 365 without 29 February, 'D': day 0 to 365, 'M' */
  int day;         /* of the year; for 'M' of the week, 0 is Sunday */
  int month, week; /* for 'M'; week 5 is the last */
  int32_t time;    /* seconds after midnight, local; may be negative or more than a day */
};

struct rule {
  bool present, daylight;
  int32_t standard, summer; /* offsets */
  struct change start, end; /* of daylight saving time */
};

struct np_zone {
  size_t count;     /* transitions */
  int64_t *at;      /* owned; ascending, UTC */
  int32_t *offset;  /* owned; from at[i] on */
  int32_t first;    /* offset before at[0] */
  struct rule rule; /* from the last transition on */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct np_map zones; /* under lock; name to struct np_zone, never removed */

/* ---- the calendar; years begin in March, so that the leap day comes last ---- */

int64_t np_days(int64_t year, int month, int day) {
  year -= month <= 2;
  int64_t era = (year >= 0 ? year : year - 399) / 400, y = year - era * 400;
  int64_t d = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
  return era * 146097 + y * 365 + y / 4 - y / 100 + d - 719468;
}

struct np_date np_date(int64_t days) {
  days += 719468;
  int64_t era = (days >= 0 ? days : days - 146096) / 146097, d = days - era * 146097;
  int64_t y = (d - d / 1460 + d / 36524 - d / 146096) / 365;
  int of_year = (int)(d - (365 * y + y / 4 - y / 100)), m = (5 * of_year + 2) / 153;
  struct np_date r = {y + era * 400 + (m >= 10), m < 10 ? m + 3 : m - 9, of_year - (153 * m + 2) / 5 + 1};
  return r;
}

static bool leap(int64_t y) { return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0; }

int np_month_days(int64_t year, int month) {
  static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return days[month - 1] + (month == 2 && leap(year));
}

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* ---- the rule for the time after the last transition ---- */

/* Local seconds at which the change comes in that year. */
static int64_t change_at(const struct change *c, int64_t year) {
  int64_t day = np_days(year, 1, 1);
  if (c->kind == 'J') {
    day += c->day - 1 + (leap(year) && c->day >= 60);
  } else if (c->kind == 'D') {
    day += c->day;
  } else {
    int64_t first = np_days(year, c->month, 1), weekday = ((first + 4) % 7 + 7) % 7; /* 1970 began on a Thursday */
    day = first + (c->day - weekday + 7) % 7 + (c->week - 1) * 7;
    if (day >= first + np_month_days(year, c->month)) day -= 7;
  }
  return day * DAY + c->time;
}

static int32_t rule_offset(const struct rule *r, int64_t utc) {
  if (!r->daylight) return r->standard;
  int64_t year = np_date(floor_div(utc + r->standard, DAY)).year;
  int64_t start = change_at(&r->start, year) - r->standard, end = change_at(&r->end, year) - r->summer;
  bool summer = start < end ? utc >= start && utc < end : utc >= start || utc < end;
  return summer ? r->summer : r->standard;
}

static bool take(const char **p, char c) {
  if (**p != c) return false;
  ++*p;
  return true;
}

/* A number from low to high. */
static bool take_int(const char **p, int low, int high, int *value) {
  if (**p < '0' || **p > '9') return false;
  for (*value = 0; **p >= '0' && **p <= '9' && *value <= high; ++*p) *value = *value * 10 + (**p - '0');
  return *value >= low && *value <= high;
}

/* [+-]hh[:mm[:ss]] in seconds. */
static bool take_time(const char **p, int hours, int32_t *seconds) {
  int sign = take(p, '-') ? -1 : (take(p, '+'), 1), h, m = 0, s = 0;
  if (!take_int(p, 0, hours, &h)) return false;
  if (take(p, ':') && (!take_int(p, 0, 59, &m) || (take(p, ':') && !take_int(p, 0, 59, &s)))) return false;
  *seconds = sign * (h * 3600 + m * 60 + s);
  return true;
}

static bool take_name(const char **p) {
  const char *start = *p;
  if (take(p, '<')) {
    while (**p && **p != '>') ++*p;
    return take(p, '>');
  }
  while ((**p | 0x20) >= 'a' && (**p | 0x20) <= 'z') ++*p;
  return *p - start >= 3;
}

static bool take_change(const char **p, struct change *c) {
  if (!take(p, ',')) return false;
  c->time = 2 * 3600;
  if (take(p, 'M')) {
    c->kind = 'M';
    if (!take_int(p, 1, 12, &c->month) || !take(p, '.') || !take_int(p, 1, 5, &c->week) || !take(p, '.') ||
        !take_int(p, 0, 6, &c->day))
      return false;
  } else if (take(p, 'J')) {
    c->kind = 'J';
    if (!take_int(p, 1, 365, &c->day)) return false;
  } else {
    c->kind = 'D';
    if (!take_int(p, 0, 365, &c->day)) return false;
  }
  return !take(p, '/') || take_time(p, 167, &c->time);
}

static bool read_rule(const char *p, struct rule *r) {
  int32_t west;
  if (!*p) return true; /* none is known */
  if (!take_name(&p) || !take_time(&p, 24, &west)) return false;
  r->present = true;
  r->standard = -west;
  if (!*p) return true;
  r->daylight = true;
  if (!take_name(&p)) return false;
  r->summer = r->standard + 3600;
  if (*p != ',') {
    if (!take_time(&p, 24, &west)) return false;
    r->summer = -west;
  }
  return take_change(&p, &r->start) && take_change(&p, &r->end) && !*p;
}

/* ---- TZif ---- */

static uint64_t big_endian(const unsigned char *p, int n) {
  uint64_t v = 0;
  while (n-- > 0) v = v << 8 | *p++;
  return v;
}

struct header {
  uint32_t isut, isstd, leaps, times, types, chars;
};

/* Length of the block of data that a header announces, whose times are of `width` bytes. */
static size_t block_length(const struct header *h, size_t width) {
  return (size_t)h->times * (width + 1) + (size_t)h->types * 6 + h->chars + (size_t)h->leaps * (width + 4) + h->isstd + h->isut;
}

static const unsigned char *read_header(const unsigned char *p, const unsigned char *end, struct header *h) {
  if (end - p < 44 || memcmp(p, "TZif", 4) != 0 || p[4] < '2') return NULL;
  uint32_t *fields[] = {&h->isut, &h->isstd, &h->leaps, &h->times, &h->types, &h->chars};
  for (int i = 0; i < 6; i++)
    if ((*fields[i] = (uint32_t)big_endian(p + 20 + 4 * i, 4)) > MAX_FILE) return NULL;
  return p + 44;
}

/* The offset of the type'th kind of local time. */
static bool type_offset(const unsigned char *types, const struct header *h, unsigned type, int32_t *offset) {
  if (type >= h->types) return false;
  *offset = (int32_t)(uint32_t)big_endian(types + 6 * (size_t)type, 4);
  return *offset > -MAX_OFFSET && *offset < MAX_OFFSET;
}

static bool read_transitions(struct np_zone *z, const unsigned char *p, const struct header *h) {
  const unsigned char *kinds = p + (size_t)h->times * 8, *types = kinds + h->times;
  if (h->leaps || !type_offset(types, h, 0, &z->first)) return false; /* "right/" zones count leap seconds, Unix time does not */
  z->count = h->times;
  z->at = np_alloc(z->count * sizeof *z->at);
  z->offset = np_alloc(z->count * sizeof *z->offset);
  for (size_t i = 0; i < z->count; i++) {
    z->at[i] = (int64_t)big_endian(p + 8 * i, 8);
    if ((i && z->at[i] <= z->at[i - 1]) || !type_offset(types, h, kinds[i], &z->offset[i])) return false;
  }
  return true;
}

static bool read_zone(struct np_zone *z, const unsigned char *p, size_t len) {
  const unsigned char *end = p + len;
  struct header h;
  if (!(p = read_header(p, end, &h)) || (size_t)(end - p) < block_length(&h, 4)) return false;
  if (!(p = read_header(p + block_length(&h, 4), end, &h)) || (size_t)(end - p) < block_length(&h, 8)) return false;
  if (!read_transitions(z, p, &h)) return false;
  p += block_length(&h, 8);
  const unsigned char *close = end - p > 1 ? memchr(p + 1, '\n', (size_t)(end - p - 1)) : NULL;
  char text[128];
  if (!close || *p != '\n' || (size_t)(close - p) > sizeof text) return false;
  size_t n = (size_t)(close - p - 1);
  memcpy(text, p + 1, n);
  text[n] = 0;
  return read_rule(text, &z->rule);
}

/* ---- names ---- */

static bool name_ok(const char *name, size_t len) {
  if (len == 0 || len > MAX_NAME || name[0] == '/' || name[len - 1] == '/') return false;
  for (size_t i = 0; i < len; i++) {
    char c = name[i], low = (char)(c | 0x20);
    if (!((low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '+' || c == '-' ||
          (c == '/' && name[i - 1] != '/')))
      return false;
  }
  return true;
}

/* The file's text in *text; a sentence's second half where it cannot be had. */
static const char *load(const char *name, struct np_buf *text) {
  const char *dir = getenv("TZDIR"), *why = NULL;
  char path[512];
  struct stat st;
  if (!dir || !*dir) dir = "/usr/share/zoneinfo";
  if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path) return "TZDIR is too long";
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno != ENOENT && errno != ENOTDIR) return "its file cannot be read";
    return access(dir, X_OK) < 0 ? "there is no zone database (Debian: install tzdata)" : "there is none of this name";
  }
  if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > MAX_FILE) why = "there is none of this name";
  for (ssize_t n = 1; !why && n > 0 && text->len <= MAX_FILE; text->len += (size_t)n)
    if ((n = read(fd, np_buf_reserve(text, 16384), 16384)) < 0) {
      why = "its file cannot be read";
      n = 0;
    }
  close(fd);
  return why;
}

/* "UTC", "Z" and offsets "+08:00", "-0330", "+08". */
static bool fixed_offset(const char *name, size_t len, int32_t *offset) {
  char digits[5] = "0000";
  *offset = 0;
  if ((len == 3 && memcmp(name, "UTC", 3) == 0) || (len == 1 && *name == 'Z')) return true;
  if ((*name != '+' && *name != '-') || (len != 3 && len != 5 && len != 6) || (len == 6 && name[3] != ':')) return false;
  memcpy(digits, name + 1, 2);
  if (len > 3) memcpy(digits + 2, name + len - 2, 2);
  for (int i = 0; i < 4; i++)
    if (digits[i] < '0' || digits[i] > '9') return false;
  int n = atoi(digits), h = n / 100, m = n % 100;
  *offset = (*name == '-' ? -1 : 1) * (h * 3600 + m * 60);
  return h < 24 && m < 60;
}

static void zone_free(struct np_zone *z) {
  free(z->at);
  free(z->offset);
  free(z);
}

static struct np_zone *make(const char *name, size_t len, struct np_error *err) {
  struct np_zone *z = np_alloc(sizeof *z);
  if (fixed_offset(name, len, &z->first)) return z;
  struct np_buf file = {0};
  char copy[MAX_NAME + 1];
  memcpy(copy, name, len);
  copy[len] = 0;
  const char *why = load(copy, &file);
  if (!why && !read_zone(z, (const unsigned char *)np_buf_text(&file), file.len)) why = "its file is not one of the zone database";
  np_buf_free(&file);
  if (!why) return z;
  np_fail(err, "zone '%s': %s", copy, why);
  zone_free(z);
  return NULL;
}

const struct np_zone *np_zone_get(const char *name, size_t len, struct np_error *err) {
  bool sign = len && (*name == '+' || *name == '-');
  if (sign ? !fixed_offset(name, len, &(int32_t){0}) : !name_ok(name, len)) {
    np_fail(err, "a zone is named like \"Asia/Shanghai\", \"UTC\" or \"+08:00\"");
    return NULL;
  }
  pthread_mutex_lock(&lock);
  struct np_zone *z = np_map_get(&zones, name, len);
  if (!z && (z = make(name, len, err))) np_map_put(&zones, name, len, z);
  pthread_mutex_unlock(&lock);
  return z;
}

int32_t np_zone_offset(const struct np_zone *z, int64_t utc) {
  if (z->count == 0 || utc < z->at[0]) return z->count == 0 && z->rule.present ? rule_offset(&z->rule, utc) : z->first;
  if (utc >= z->at[z->count - 1]) return z->rule.present ? rule_offset(&z->rule, utc) : z->offset[z->count - 1];
  size_t low = 0, high = z->count - 1; /* at[low] <= utc < at[high] */
  while (high - low > 1) {
    size_t mid = low + (high - low) / 2;
    if (z->at[mid] <= utc)
      low = mid;
    else
      high = mid;
  }
  return z->offset[low];
}

int64_t np_zone_utc(const struct np_zone *z, int64_t local) {
  int32_t before = np_zone_offset(z, local - DAY - MAX_OFFSET / 2), after = np_zone_offset(z, local + DAY);
  int32_t between = np_zone_offset(z, local - before);
  int32_t tries[] = {before, between, after};
  int64_t best = INT64_MAX;
  for (int i = 0; i < 3; i++)
    if (local - tries[i] < best && np_zone_offset(z, local - tries[i]) == tries[i]) best = local - tries[i];
  return best != INT64_MAX ? best : local - before;
}
