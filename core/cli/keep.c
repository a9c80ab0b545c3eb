/* Taking a store's content elsewhere. Both read the store's file themselves, whether or not a host runs on it. */
#include "cli/keep.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/duration.h"
#include "cli/ask.h"
#include "host/client.h"
#include "host/config.h"
#include "host/filter.h"
#include "host/reading_text.h"
#include "lib/time_text.h"
#include "store/store.h"

static int told(const struct np_line *l, const char *why) {
  struct np_error err;
  np_fail(&err, "%s", why);
  return np_ask_config_failed(&err, l->values[JSON]);
}

int np_cli_backup(const struct np_line *l) {
  struct np_config_flags flags = {.store = l->values[STORE]};
  struct np_error err;
  struct stat st;
  if (l->word_count != 1) return np_line_wrong(l, l->word_count ? "too many arguments" : "into which file?");
  char *store = np_config_store(l->values[CONFIG], &flags, &err);
  int status = store ? np_store_backup(store, l->words[0], &err) : -1;
  free(store);
  if (status < 0) return told(l, err.text);
  if (stat(l->words[0], &st) < 0) return told(l, strerror(errno));
  if (l->values[JSON]) {
    struct np_buf b = {0};
    np_buf_add_json(&b, l->words[0], strlen(l->words[0]));
    printf("{\"file\":%s,\"bytes\":%lld}\n", b.data, (long long)st.st_size);
    np_buf_free(&b);
  } else {
    printf("%s: %.1f MiB, checked. What is encrypted in it needs the key file, which is not in it.\n", l->words[0],
           (double)st.st_size / (1 << 20));
  }
  return 0;
}

/* Export */

enum { PAGE = 1000 };

struct export {
  const struct np_line *l;
  bool csv, any;
  bool left; /* nobody reads on */
  int64_t since, until, last, seen, count;
  struct np_buf out;
};

static bool passes(const struct np_line *l, enum option o, struct np_text t) {
  const char *pattern = l->values[o];
  return !pattern || np_glob_match(pattern, strlen(pattern), t.ptr ? t.ptr : "", t.len);
}

static bool export_one(void *arg, const struct np_reading *r) {
  struct export *e = arg;
  e->seen = r->seq;
  e->any = true;
  if (r->seq > e->last) return false;
  if (r->at < e->since || r->at > e->until || !passes(e->l, DEVICE, r->device) || !passes(e->l, METRIC, r->metric) ||
      !passes(e->l, VENDOR, r->vendor) || !passes(e->l, CONNECTION, r->connection))
    return true;
  e->count++;
  if (e->csv)
    np_reading_write_csv(&e->out, r);
  else
    np_reading_write_json(&e->out, r);
  return true;
}

static int write_out(struct export *e) {
  if (e->out.len && (fwrite(e->out.data, 1, e->out.len, stdout) != e->out.len || fflush(stdout) != 0)) {
    e->left = errno == EPIPE;
    return -1;
  }
  np_buf_clear(&e->out);
  return 0;
}

/* All that there are now; what comes meanwhile is left out. */
static int export_all(struct export *e, struct np_reader *r, struct np_error *err) {
  e->last = np_reader_last_seq(r);
  if (e->last < 0) return np_fail(err, "store: it cannot be read");
  if (e->csv) np_reading_write_head(&e->out);
  for (e->any = true; e->any && e->seen < e->last;) {
    e->any = false;
    if (np_reader_scan(r, e->seen, PAGE, export_one, e, err) < 0) return -1;
    if (write_out(e) < 0) return np_fail(err, "standard output: %s", strerror(errno));
  }
  return write_out(e) < 0 ? np_fail(err, "standard output: %s", strerror(errno)) : 0;
}

int np_cli_time(const struct np_line *l, enum option o, int64_t *ms) {
  struct np_error err;
  const char *text = l->values[o];
  int64_t ago;
  if (!text || np_time_read(text, strlen(text), NULL, 0, np_zone_get("UTC", 3, &err), ms, &err) == 0) return 0;
  if (np_duration_parse(text, strlen(text), &ago) < 0)
    return np_line_bad_value(l, o, "a time such as 2026-03-01T08:00:00Z, or how long ago, such as 24h");
  *ms = np_now_ms() - ago;
  return 0;
}

int np_cli_export(const struct np_line *l) {
  static const char *const formats[] = {"ndjson", "csv"};
  struct np_config_flags flags = {.store = l->values[STORE]};
  struct export e = {.l = l, .since = INT64_MIN, .until = INT64_MAX};
  struct np_error err;
  int format = 0;
  if (l->word_count) return np_line_wrong(l, "too many arguments: it writes to standard output");
  if (np_line_word(l, FORMAT, formats, 2, "ndjson or csv", &format) < 0 || np_cli_time(l, SINCE, &e.since) < 0 ||
      np_cli_time(l, UNTIL, &e.until) < 0)
    return 2;
  e.csv = format == 1;
  char *store = np_config_store(l->values[CONFIG], &flags, &err);
  struct np_reader *r = store ? np_reader_open(store, &err) : NULL;
  free(store);
  signal(SIGPIPE, SIG_IGN);
  int status = r ? export_all(&e, r, &err) : -1;
  np_reader_close(r);
  np_buf_free(&e.out);
  if (status < 0) {
    if (!e.left && l->values[JSON])
      np_client_error(stderr, err.text); /* standard output is for readings alone */
    else if (!e.left)
      fprintf(stderr, "neap export: %s\n", err.text);
    return 1;
  }
  if (l->values[JSON])
    fprintf(stderr, "{\"summary\":{\"readings\":%" PRId64 "}}\n", e.count);
  else
    fprintf(stderr, "%" PRId64 " reading%s\n", e.count, e.count == 1 ? "" : "s");
  return 0;
}
