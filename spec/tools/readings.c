/* Fills a store with millions of readings, by the store's own functions, and measures what queries cost in it.
 *
 *   readings PATH [MILLIONS]
 *
 * 100 devices send glucose every 5 minutes, interleaved as they would; a store that is there already is only measured. Each line: how many were
 * asked, the median and the 99th percentile of the time that passed, and the CPU time of one on average, in us. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/store.h"

enum { DEVICES = 100, STEP = 300000, DAY = 86400000, ASKED = 1000, IN_A_SET = 5000 };
static const int64_t first_at = INT64_C(1700000000000);

static _Noreturn void die(const char *why) {
  fprintf(stderr, "readings: %s\n", why);
  exit(1);
}

static struct np_text words(struct np_writeset *ws, const char *s) { return np_writeset_text(ws, s, strlen(s)); }

static void add(struct np_writeset *ws, int64_t i) {
  char device[24], key[24];
  snprintf(device, sizeof device, "SN-%05d", (int)(i % DEVICES));
  snprintf(key, sizeof key, "t-%lld", (long long)i);
  int64_t at = first_at + i / DEVICES * STEP;
  np_writeset_add(ws, NP_OP_READING)->as.reading =
      (struct np_reading){.vendor = words(ws, "sinocare"),
                          .connection = words(ws, i % DEVICES < 50 ? "ward-3" : "ward-4"),
                          .device = words(ws, device),
                          .metric = words(ws, "glucose"),
                          .unit = words(ws, "mmol/L"),
                          .at = at,
                          .received = at + 2000,
                          .key = words(ws, key),
                          .serial = INT64_MIN,
                          .value = {.type = NP_NUMBER_REAL, .d = 4 + (double)(i % 90) / 10}};
}

static void fill(const char *path, int64_t total) {
  struct np_error err;
  struct np_store *s = np_store_open(path, &err);
  if (!s) die(err.text);
  int64_t start = np_mono_us();
  for (int64_t i = 0; i < total;) {
    struct np_writeset *ws = np_writeset_new();
    for (int n = 0; n < IN_A_SET && i < total; n++) add(ws, i++);
    if (np_store_apply(s, &ws, 1, &err) < 0) die(err.text);
    np_writeset_unref(ws);
  }
  np_store_close(s);
  printf("%lld readings stored in %.0f s\n", (long long)total, (double)(np_mono_us() - start) / 1e6);
}

static int64_t per_device;
static struct np_reader *reader;
static unsigned random_state = 7;
static int64_t draw(int64_t n) {
  random_state = random_state * 1664525u + 1013904223u;
  return (int64_t)((double)random_state / 4294967296.0 * (double)n);
}

static int64_t rows;
static bool count_row(void *arg, const struct np_reading *r) {
  *(int64_t *)arg = r->at;
  rows++;
  return true;
}

static struct np_row_filter of_device(struct np_text *name, char *text) {
  static const char *const ward[] = {"ward-3", "ward-4"};
  *name = (struct np_text){text, (size_t)sprintf(text, "SN-%05d", (int)draw(DEVICES))};
  return (struct np_row_filter){.scope = {ward, 2, false}, .devices = {name, 1}, .from = INT64_MIN, .to = INT64_MAX};
}

static int a_day(struct np_error *err) {
  struct np_text name;
  char text[24];
  int64_t at;
  struct np_row_filter f = of_device(&name, text);
  f.from = first_at + draw(per_device) * STEP;
  f.to = f.from + DAY - 1;
  return np_reader_find_readings(reader, &f, 10000, count_row, &at, err);
}

/* A page of 100, anywhere. */
static int a_page(struct np_error *err) {
  struct np_text name;
  char text[24];
  int64_t at;
  struct np_row_filter f = of_device(&name, text);
  f.after = true;
  f.after_at = first_at + draw(per_device) * STEP;
  f.after_seq = draw(per_device * DEVICES);
  return np_reader_find_readings(reader, &f, 100, count_row, &at, err);
}

static int newest(struct np_error *err) {
  struct np_text name;
  char text[24];
  int64_t at;
  struct np_row_filter f = of_device(&name, text);
  return np_reader_latest(reader, &f, count_row, &at, err);
}

static int a_count(struct np_error *err) {
  struct np_text name;
  char text[24];
  struct np_row_filter f = of_device(&name, text);
  int64_t n = np_reader_count_readings(reader, &f, err);
  rows += n;
  return n < 0 ? -1 : 0;
}

static int up(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

static int64_t cpu_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void measure(const char *what, int asked, int (*query)(struct np_error *err)) {
  static int64_t took[ASKED];
  struct np_error err;
  rows = 0;
  int64_t cpu = cpu_us();
  for (int i = 0; i < asked; i++) {
    int64_t start = np_mono_us();
    if (query(&err) < 0) die(err.text);
    took[i] = np_mono_us() - start;
  }
  cpu = cpu_us() - cpu;
  qsort(took, (size_t)asked, sizeof *took, up);
  printf("%-32s %5d times %8lld us, p99 %8lld us, CPU %8.0f us, %.0f rows each\n", what, asked, (long long)took[asked / 2],
         (long long)took[asked * 99 / 100], (double)cpu / asked, (double)rows / asked);
}

int main(int argc, char **argv) {
  if (argc < 2) die("usage: readings PATH [MILLIONS]");
  int64_t total = (int64_t)((argc > 2 ? atof(argv[2]) : 10) * 1e6);
  struct np_error err;
  if (access(argv[1], F_OK) < 0) fill(argv[1], total);
  reader = np_reader_open(argv[1], &err);
  if (!reader) die(err.text);
  per_device = np_reader_last_seq(reader) / DEVICES;
  printf("%lld readings of %d devices\n", (long long)per_device * DEVICES, DEVICES);
  measure("a device's day", ASKED, a_day);
  measure("a page of 100 behind a cursor", ASKED, a_page);
  measure("each metric's newest", ASKED, newest);
  measure("all of a device's counted", 50, a_count);
  np_reader_close(reader);
  return 0;
}
