/* The log, and masking by value. A line is built whole in memory, so that lines never mix. */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/redact.h"

static enum np_log_level least = NP_INFO;
static bool as_json = true, coloured;
static np_log_taken *diverted;
static void *diverted_arg;

static pthread_rwlock_t secrets_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct np_mask *secrets; /* under secrets_lock; lives as long as the process */
static _Thread_local const struct np_mask *people;
static _Thread_local bool hush;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void np_log_setup(enum np_log_level level, bool json) {
  const char *never = getenv("NO_COLOR"), *always = getenv("CLICOLOR_FORCE");
  least = level;
  as_json = json;
  coloured = !(never && *never) && (isatty(STDERR_FILENO) || (always && *always && strcmp(always, "0") != 0));
}

bool np_log_is_json(void) { return as_json; }

void np_mask_people(const struct np_mask *list) { people = list; }

void np_log_hush(bool hushed) { hush = hushed; }

void np_mask_secret(const char *value, size_t len) {
  if (len < 4) return;
  pthread_rwlock_wrlock(&secrets_lock);
  const struct np_mask *s = secrets;
  while (s && (s->len != len || memcmp(s->value, value, len) != 0)) s = s->next;
  if (!s) {
    struct np_mask *m = np_alloc(sizeof *m);
    *m = (struct np_mask){.next = secrets, .value = np_strndup(value, len), .len = len};
    secrets = m;
  }
  pthread_rwlock_unlock(&secrets_lock);
}

static void mask_one(struct np_buf *text, const struct np_mask *m) {
  if (!m->len || !text->len) return;
  char *at = text->data;
  while ((at = memmem(at, text->len - (size_t)(at - text->data), m->value, m->len))) {
    size_t offset = (size_t)(at - text->data), rest = text->len - offset - m->len;
    np_buf_reserve(text, 3);
    memmove(text->data + offset + 3, text->data + offset + m->len, rest + 1);
    memcpy(text->data + offset, "***", 3);
    text->len = offset + 3 + rest;
    at = text->data + offset + 3;
  }
}

static int longer_first(const void *a, const void *b) {
  const struct np_mask *x = *(const struct np_mask *const *)a, *y = *(const struct np_mask *const *)b;
  return (x->len < y->len) - (x->len > y->len);
}

/* The longest first: "Ann" masked before "Ann Miller" would leave half of her name. */
static void mask(struct np_buf *text) {
  size_t n = 0, most = 1;
  pthread_rwlock_rdlock(&secrets_lock);
  for (const struct np_mask *m = people; m; m = m->next) most++;
  for (const struct np_mask *m = secrets; m; m = m->next) most++;
  const struct np_mask **list = np_alloc(most * sizeof *list);
  for (const struct np_mask *m = people; m; m = m->next) list[n++] = m;
  for (const struct np_mask *m = secrets; m; m = m->next) list[n++] = m;
  qsort(list, n, sizeof *list, longer_first);
  for (size_t i = 0; i < n; i++) mask_one(text, list[i]);
  pthread_rwlock_unlock(&secrets_lock);
  free(list);
  np_redact_userinfo(text, false);
}

static char *masked(const char *text, size_t len, bool value) {
  struct np_buf b = {0};
  np_buf_add(&b, text, len);
  mask(&b);
  if (value) np_redact_userinfo(&b, true);
  return b.data;
}

char *np_mask_text(const char *text, size_t len) { return masked(text, len, false); }

char *np_mask_quoted(const char *text, size_t len) { return masked(text, len, true); }

/* The writer. */

#define WAITING_MAX (1u << 20)

static pthread_mutex_t writer_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t writer_wake = PTHREAD_COND_INITIALIZER, writer_done = PTHREAD_COND_INITIALIZER;
static struct np_buf writer_waiting; /* under writer_lock, as the rest */
static unsigned long writer_dropped;
static bool writer_runs, writer_ends, writer_busy;
static pthread_t writer;

static void write_all(const char *bytes, size_t n) {
  while (n) {
    ssize_t w = write(STDERR_FILENO, bytes, n);
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) return; /* nowhere left to complain */
    bytes += w, n -= (size_t)w;
  }
}

static void add_dropped(struct np_buf *b) {
  if (!writer_dropped) return;
  if (as_json)
    np_buf_addf(b, "{\"level\":\"warn\",\"event\":\"log lines were dropped: nobody reads them\",\"count\":\"%lu\"}\n",
                writer_dropped);
  else
    np_buf_addf(b, "▲ %lu log lines were dropped: nobody reads them\n", writer_dropped);
  writer_dropped = 0;
}

static void *write_lines(void *arg) {
  (void)arg;
  pthread_mutex_lock(&writer_lock);
  for (;;) {
    while (!writer_waiting.len && !writer_ends) pthread_cond_wait(&writer_wake, &writer_lock);
    if (!writer_waiting.len) break;
    struct np_buf lines = writer_waiting;
    writer_waiting = (struct np_buf){0};
    add_dropped(&lines);
    writer_busy = true;
    pthread_mutex_unlock(&writer_lock);
    write_all(lines.data, lines.len);
    np_buf_free(&lines);
    pthread_mutex_lock(&writer_lock);
    writer_busy = false;
    pthread_cond_broadcast(&writer_done);
  }
  pthread_mutex_unlock(&writer_lock);
  return NULL;
}

static void write_line(const char *line, size_t n) {
  pthread_mutex_lock(&writer_lock);
  if (!writer_runs) {
    write_all(line, n);
  } else if (writer_waiting.len + n > WAITING_MAX) {
    writer_dropped++;
  } else {
    np_buf_add(&writer_waiting, line, n);
    pthread_cond_signal(&writer_wake);
  }
  pthread_mutex_unlock(&writer_lock);
}

void np_log_start(void) {
  pthread_mutex_lock(&writer_lock);
  if (!writer_runs) writer_runs = pthread_create(&writer, NULL, write_lines, NULL) == 0;
  pthread_mutex_unlock(&writer_lock);
}

void np_log_stop(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec++;
  pthread_mutex_lock(&writer_lock);
  int late = 0;
  while (writer_runs && (writer_waiting.len || writer_busy) && late != ETIMEDOUT)
    late = pthread_cond_timedwait(&writer_done, &writer_lock, &until);
  bool join = writer_runs && late != ETIMEDOUT;
  writer_runs = false;
  writer_ends = true;
  pthread_cond_signal(&writer_wake);
  pthread_mutex_unlock(&writer_lock);
  if (join) pthread_join(writer, NULL);
}

static void add_time(struct np_buf *b, bool whole) {
  int64_t now = np_now_ms();
  time_t s = now / 1000;
  struct tm t;
  char text[40];
  if (whole)
    gmtime_r(&s, &t);
  else
    localtime_r(&s, &t);
  strftime(text, sizeof text, whole ? "%Y-%m-%dT%H:%M:%S" : "%H:%M:%S", &t);
  np_buf_addf(b, "%s.%03d%s", text, (int)(now % 1000), whole ? "Z" : "");
}

/* A value is masked before it is quoted: escaping could hide what is looked for. */
static void add_value(struct np_buf *b, const char *value, bool json) {
  struct np_buf v = {0};
  np_buf_adds(&v, value);
  mask(&v);
  if (json || (!strchr(value, '\n') && (v.len == 0 || strpbrk(v.data, " \"=\t")))) {
    np_buf_add_json(b, np_buf_text(&v), v.len);
  } else {
    for (size_t i = 0; i < v.len; i++) { /* a traceback keeps its lines; other control characters cannot reach a terminal */
      if (v.data[i] == '\n')
        np_buf_adds(b, "\n    ");
      else if ((unsigned char)v.data[i] < 0x20 && v.data[i] != '\t')
        np_buf_addc(b, '?');
      else
        np_buf_addc(b, v.data[i]);
    }
  }
  np_buf_free(&v);
}

void np_log_divert(np_log_taken *taken, void *arg) {
  diverted = taken;
  diverted_arg = arg;
}

static void divert(enum np_log_level level, const char *event, const char *const *pairs, size_t n) {
  const char **masked = np_alloc(2 * (n + 1) * sizeof *masked);
  for (size_t i = 0; i < n; i++) {
    masked[2 * i] = pairs[2 * i];
    masked[2 * i + 1] = pairs[2 * i + 1] ? np_mask_text(pairs[2 * i + 1], strlen(pairs[2 * i + 1])) : NULL;
  }
  char *said = np_mask_text(event, strlen(event));
  diverted(diverted_arg, level, said, masked, n);
  free(said);
  for (size_t i = 0; i < n; i++) free((char *)masked[2 * i + 1]);
  free(masked);
}

bool np_log_wants(enum np_log_level level) { return level >= least; }

void np_log_pairs(enum np_log_level level, const char *event, const char *const *pairs, size_t n) {
  if (level < least || hush) return;
  if (diverted) {
    divert(level, event, pairs, n);
    return;
  }
  struct np_buf b = {0};
  if (as_json) {
    np_buf_adds(&b, "{\"time\":\"");
    add_time(&b, true);
    np_buf_addf(&b, "\",\"level\":\"%s\",\"event\":", level_names[level]);
  } else {
    static const char *const colours[] = {"\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[31m"}, *const marks[] = {"·", "●", "▲", "■"};
    add_time(&b, false);
    np_buf_addf(&b, " %s%s%s ", coloured ? colours[level] : "", marks[level], coloured ? "\x1b[0m" : "");
  }
  struct np_buf e = {0};
  np_buf_adds(&e, event);
  mask(&e);
  if (as_json)
    np_buf_add_json(&b, e.data, e.len);
  else
    np_buf_add(&b, e.data, e.len);
  np_buf_free(&e);
  for (size_t i = 0; i < n; i++) {
    if (!pairs[2 * i + 1]) continue;
    if (as_json) {
      np_buf_addc(&b, ',');
      np_buf_add_json(&b, pairs[2 * i], strlen(pairs[2 * i]));
      np_buf_addc(&b, ':');
    } else {
      np_buf_addf(&b, "  %s%s=%s", coloured ? "\x1b[2m" : "", pairs[2 * i], coloured ? "\x1b[0m" : "");
    }
    add_value(&b, pairs[2 * i + 1], as_json);
  }
  np_buf_adds(&b, as_json ? "}\n" : "\n");
  write_line(b.data, b.len);
  np_buf_free(&b);
}

void np_log(enum np_log_level level, const char *event, ...) {
  if (level < least) return;
  const char *pairs[32];
  size_t n = 0;
  va_list args;
  va_start(args, event);
  for (const char *name; n < 16 && (name = va_arg(args, const char *)); n++) {
    pairs[2 * n] = name;
    pairs[2 * n + 1] = va_arg(args, const char *);
  }
  va_end(args);
  np_log_pairs(level, event, pairs, n);
}
