/* neap import: readings from a file, or from standard input, into the store. */
#include "cli/import.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/ask.h"
#include "cli/import_to.h"
#include "cli/records.h"
#include "host/config.h"
#include "host/reading_text.h"

#define PATIENCE_MS 1000 /* what was read is committed when nothing more comes for so long */
#define PROGRESS_US 500000

struct import {
  const struct np_line *l;
  const char *file; /* "-" is standard input */
  bool json;
  struct np_reading_source from;
  struct np_records records;
  struct np_reading_columns columns; /* of CSV, once its first record was read */
  struct np_import_to to;
  struct np_writeset *ws; /* owned: the batch */
  FILE *bad_file;         /* owned: where lines go that cannot be taken; NULL: the first ends it all */
  struct np_import_count count;
  int64_t bad;
  struct np_reading_fault fault; /* of the line that ended it */
  int64_t line;                  /* 0: none did */
  int64_t shown;                 /* us: when progress was last told */
};

static void progress(struct import *im, bool last) {
  if (im->json || !isatty(STDERR_FILENO) || (!last && np_mono_us() - im->shown < PROGRESS_US)) return;
  im->shown = np_mono_us();
  const struct np_import_count *c = &im->count;
  if (last)
    fprintf(stderr, "\r\033[K");
  else
    fprintf(stderr, "\r\033[K%" PRId64 " readings, %" PRId64 " of them new", c->fresh + c->known + c->too_old, c->fresh);
}

static int commit(struct import *im, struct np_error *err) {
  struct np_import_count count;
  if (!im->ws->count) return 0;
  int result = np_import_put(&im->to, im->ws, &count, err);
  np_writeset_unref(im->ws);
  im->ws = np_writeset_new();
  if (result < 0) return -1;
  np_import_add(&im->count, &count);
  progress(im, false);
  return 0;
}

/* Lines */

/* The line and column, both from 1, of a byte of the record that was read last. */
static int64_t place(const struct import *im, const char *record, size_t at, size_t *column) {
  int64_t line = im->records.line;
  const char *start = record;
  for (const char *p = record; (p = memchr(p, '\n', (size_t)(record + at - p))); start = ++p) line++;
  *column = (size_t)(record + at - start) + 1;
  return line;
}

static int fail_at(struct import *im, const char *record, const struct np_error *why, struct np_error *err) {
  const char *field = im->fault.field;
  size_t column = 1;
  im->line = record ? place(im, record, im->fault.at, &column) : im->records.line;
  if (!im->line) return np_fail(err, "%s: %s", im->file, why->text);
  im->fault.at = column;
  return np_fail(err, "%s:%" PRId64 ":%zu: %s%s%s", im->file, im->line, column, field ? field : "", field ? ": " : "", why->text);
}

/* Puts a record aside that cannot be taken. */
static int pass_over(struct import *im, const char *record, size_t len, struct np_error *err) {
  const char *end = im->records.csv ? "\r\n" : "\n";
  progress(im, true);
  fprintf(stderr, "%s\n", err->text);
  im->bad++;
  im->line = 0;
  if (fwrite(record, 1, len, im->bad_file) == len && fputs(end, im->bad_file) >= 0) return 0;
  return np_fail(err, "%s: %s", im->l->values[SKIP_BAD], strerror(errno));
}

static int read_head(struct import *im, const char *record, size_t len, struct np_error *err) {
  struct np_error why;
  if (np_reading_read_head(record, len, &im->from, &im->columns, &im->fault, &why) < 0) return fail_at(im, record, &why, err);
  if (im->bad_file && (fwrite(record, 1, len, im->bad_file) != len || fputs("\r\n", im->bad_file) < 0))
    return np_fail(err, "%s: %s", im->l->values[SKIP_BAD], strerror(errno));
  return 0;
}

static int take(struct import *im, const char *record, size_t len, struct np_error *err) {
  struct np_reading r;
  struct np_error why;
  if (im->records.csv && !im->columns.count) return read_head(im, record, len, err);
  int result = im->records.csv ? np_reading_read_csv(&im->columns, record, len, &im->from, im->ws, &r, &im->fault, &why)
                               : np_reading_read_json(record, len, &im->from, im->ws, &r, &im->fault, &why);
  if (result < 0) {
    fail_at(im, record, &why, err);
    return im->bad_file ? pass_over(im, record, len, err) : -1;
  }
  np_writeset_add(im->ws, NP_OP_READING)->as.reading = r;
  bool complete = im->ws->count == NP_IMPORT_READINGS || im->ws->arena.total >= NP_IMPORT_BYTES;
  return complete ? commit(im, err) : 0;
}

static int take_all(struct import *im, struct np_error *err) {
  struct np_error why;
  const char *record;
  size_t len;
  for (;;) {
    switch (np_records_next(&im->records, im->ws->count ? PATIENCE_MS : -1, &record, &len, &why)) {
    case NP_RECORDS_ONE:
      if (take(im, record, len, err) < 0) return -1;
      break;
    case NP_RECORDS_LATE:
      if (commit(im, err) < 0) return -1;
      break;
    case NP_RECORDS_ERROR: im->fault = (struct np_reading_fault){0}; return fail_at(im, NULL, &why, err);
    case NP_RECORDS_END:
      if (im->records.csv && !im->columns.count)
        return np_fail(err, "%s: there is nothing in it: the first line names the columns", im->file);
      return commit(im, err);
    }
  }
}

/* Telling */

static void tell_json(const struct import *im, const char *error) {
  struct np_buf b = {0};
  np_buf_addc(&b, '{');
  if (error) np_buf_adds(&b, "\"error\":"), np_buf_add_json(&b, error, strlen(error)), np_buf_addc(&b, ',');
  if (im->line) np_buf_addf(&b, "\"line\":%" PRId64 ",\"column\":%zu,", im->line, im->fault.at);
  if (im->line && im->fault.field) np_buf_addf(&b, "\"field\":\"%s\",", im->fault.field);
  np_buf_addf(&b, "\"new\":%" PRId64 ",\"known\":%" PRId64 ",\"too_old\":%" PRId64 ",\"bad\":%" PRId64 ",\"rules\":%s}",
              im->count.fresh, im->count.known, im->count.too_old, im->bad, im->to.rules ? "true" : "false");
  puts(b.data);
  np_buf_free(&b);
}

static void tell(const struct import *im, const char *error) {
  const struct np_import_count *c = &im->count;
  int64_t all = c->fresh + c->known + c->too_old;
  if (error) fprintf(stderr, "neap import: %s\n", error);
  if (error && all)
    fprintf(stderr,
            "%" PRId64
            " readings before it are in the store. Once that is mended run the import again: they are passed over then.\n",
            all);
  if (error && !all) return;
  printf("%" PRId64 " reading%s: %" PRId64 " new, %" PRId64 " known", all, all == 1 ? "" : "s", c->fresh, c->known);
  if (c->too_old) printf(", %" PRId64 " older than what is kept", c->too_old);
  if (im->bad) printf("; %" PRId64 " line%s passed over, in %s now", im->bad, im->bad == 1 ? "" : "s", im->l->values[SKIP_BAD]);
  putchar('\n');
}

static int finish(struct import *im, struct np_error *err, int result) {
  progress(im, true);
  if (im->bad_file && fclose(im->bad_file) != 0 && result == 0)
    result = np_fail(err, "%s: %s", im->l->values[SKIP_BAD], strerror(errno));
  if (im->bad_file && !im->bad) unlink(im->l->values[SKIP_BAD]);
  const char *error = result < 0 ? err->text : NULL;
  if (im->json)
    tell_json(im, error);
  else
    tell(im, error);
  return error || im->bad ? 1 : 0;
}

/* Opening */

static bool is_csv(const char *file) {
  size_t n = strlen(file);
  return n > 4 && strcmp(file + n - 4, ".csv") == 0;
}

static int open_bad_file(struct import *im, struct np_error *err) {
  const char *path = im->l->values[SKIP_BAD];
  if (!path) return 0;
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 && errno == EEXIST) return np_fail(err, "%s is there already: give another name", path);
  if (fd < 0) return np_fail(err, "%s: %s", path, strerror(errno));
  im->bad_file = fdopen(fd, "w");
  return 0;
}

static int open_all(struct import *im, struct np_error *err) {
  const struct np_line *l = im->l;
  struct np_config_flags flags = {.store = l->values[STORE]};
  if (l->values[ZONE] && !(im->from.zone = np_zone_get(l->values[ZONE], strlen(l->values[ZONE]), err))) return -1;
  im->records.fd = strcmp(im->file, "-") == 0 ? STDIN_FILENO : open(im->file, O_RDONLY | O_CLOEXEC);
  if (im->records.fd < 0) return np_fail(err, "%s: %s", im->file, strerror(errno));
  char *store = np_config_store(l->values[CONFIG], &flags, err);
  int result = store ? np_import_open(&im->to, store, l->values[RULES] != NULL, err) : -1;
  free(store);
  return result < 0 ? -1 : open_bad_file(im, err);
}

int np_cli_import(const struct np_line *l) {
  static const char *const formats[] = {"ndjson", "csv"};
  struct import im = {.l = l, .json = l->values[JSON], .records = {.fd = -1}, .to = {.fd = -1}};
  struct np_error err;
  if (l->word_count != 1) return np_line_wrong(l, l->word_count ? "too many arguments" : "from which file? - is standard input");
  im.file = l->words[0];
  int format = is_csv(im.file);
  if (np_line_word(l, FORMAT, formats, 2, "ndjson or csv", &format) < 0) return 2;
  im.records.csv = format == 1;
  im.from = (struct np_reading_source){.vendor = l->values[VENDOR], .connection = l->values[CONNECTION]};
  im.ws = np_writeset_new();
  signal(SIGPIPE, SIG_IGN);
  int result = open_all(&im, &err);
  if (result == 0) result = take_all(&im, &err);
  int code = finish(&im, &err, result);
  np_import_close(&im.to);
  np_writeset_unref(im.ws);
  np_records_free(&im.records);
  if (im.records.fd > STDIN_FILENO) close(im.records.fd);
  return code;
}
