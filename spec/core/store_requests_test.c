/* Kept requests that are run again: which ones are found, what stays on record, and whether what they give is known. */
#include "store_sets.h"

static struct np_store *s;
static struct np_reader *r;
static struct np_error err;

static void add_request(struct np_writeset *ws, const char *instance, const char *outcome, int64_t received) {
  struct np_op *op = np_writeset_add(ws, NP_OP_REQUEST);
  op->as.request.instance = text(ws, instance);
  op->as.request.method = text(ws, "POST");
  op->as.request.target = text(ws, "/v");
  op->as.request.headers = text(ws, "");
  op->as.request.body = text(ws, "{}");
  op->as.request.outcome = text(ws, outcome);
  op->as.request.received = received;
  op->as.request.generation = 1;
}

static enum np_outcome again(int64_t id, int runs, int64_t at, const char *key) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_REPLAYED);
  op->as.replayed.id = id;
  op->as.replayed.runs = runs;
  op->as.replayed.at = 5;
  op->as.replayed.generation = 2 + runs;
  op->as.replayed.outcome = text(ws, "done");
  if (key) add_reading(ws, "d", at, key, 1);
  return apply(s, ws);
}

static int64_t found[64];
static size_t found_count;

static void find(const char *instance, bool failed, int64_t after, int64_t upto, int64_t from, int64_t to) {
  struct np_request_filter f = {instance, failed, after, upto, from, to};
  int one = 0;
  found_count = 0;
  CHECK(np_reader_request_bounds(r, &f, &err) == 0, "%s", err.text);
  while (f.after < f.upto && (one = np_reader_next_request(r, &f, &err)) >= 0)
    if (one) found[found_count++] = f.after;
  CHECK(one >= 0, "%s", err.text);
}

#define FOUND(...)                                                                                                                 \
  do {                                                                                                                             \
    const int64_t expected[] = {__VA_ARGS__, 0};                                                                                   \
    CHECK(found_count == sizeof expected / sizeof *expected - 1 && memcmp(found, expected, sizeof expected - 8) == 0,              \
          "%zu, first %lld", found_count, (long long)found[0]);                                                                    \
  } while (0)

/* 1 … 5000, of which a's are few and far between; a minute apart, some ids gone. */
static void which_ones(void) {
  for (int i = 1; i <= 5000; i++) {
    struct np_writeset *ws = np_writeset_new();
    bool a = i == 10 || i == 11 || i == 2500 || i == 4999;
    add_request(ws, a ? "a" : "b", i == 11 || i == 12 ? "failed" : "done", i * 60000LL + (i % 2 ? 30000 * 60 : 0));
    apply(s, ws);
  }
  find("a", false, 0, INT64_MAX, 0, INT64_MAX);
  FOUND(10, 11, 2500, 4999);
  find("a", false, 10, 2500, 0, INT64_MAX);
  FOUND(11, 2500);
  find("a", true, 0, INT64_MAX, 0, INT64_MAX);
  FOUND(11);
  find("a", true, 11, INT64_MAX, 0, INT64_MAX);
  CHECK(found_count == 0);
  find("nobody", false, 0, INT64_MAX, 0, INT64_MAX);
  CHECK(found_count == 0);
  /* A request that came half an hour late into its row is found by its own time. */
  find("a", false, 0, INT64_MAX, 4999 * 60000LL + 30000 * 60, INT64_MAX);
  FOUND(4999);
  find("a", false, 0, INT64_MAX, 11 * 60000LL, 2500 * 60000LL);
  FOUND(11, 2500);
  find("a", false, 0, INT64_MAX, 11 * 60000LL, 2500 * 60000LL - 1);
  FOUND(11);
  find("a", false, 0, INT64_MAX, INT64_MAX, INT64_MAX);
  CHECK(found_count == 0);
}

static bool take_run(void *arg, const struct np_request_run *run) {
  snprintf((char *)arg + strlen(arg), 40, "%d %s %lld;", run->generation, run->outcome.ptr, (long long)run->until);
  return true;
}

static bool take_key(void *arg, const struct np_reading *reading) {
  snprintf((char *)arg + strlen(arg), 20, "%s;", reading->key.ptr);
  return true;
}

static void what_they_were(void) {
  char runs[200] = "", keys[200] = "";
  struct np_writeset *ws = np_writeset_new();
  add_request(ws, "c", "done", 1);
  add_reading(ws, "d", 100, "one", 1);
  apply(s, ws);
  const int64_t id = 5001;
  CHECK(again(id, 1, 0, NULL) == NP_CONFLICT && again(9999, 0, 0, NULL) == NP_CONFLICT);
  CHECK(again(id, 0, 101, "two") == NP_COMMITTED && again(id, 0, 102, "never") == NP_CONFLICT);
  CHECK(again(id, 1, 0, NULL) == NP_COMMITTED); /* gives nothing */
  ws = np_writeset_new();
  add_reading(ws, "d", 103, "another's", 1);
  apply(s, ws);
  CHECK(again(id, 2, 104, "three") == NP_COMMITTED && again(id, 3, 105, "four") == NP_COMMITTED);
  CHECK(np_reader_request_run_count(r, id) == 4 && np_reader_request_run_count(r, 9999) == -1);
  CHECK(np_reader_request_runs(r, id, take_run, runs, &err) == 0 && strcmp(runs, "1 done 5;2 done 5;3 done 5;4 done 5;") == 0, "%s",
        runs);
  CHECK(np_reader_request_readings(r, id, take_key, keys, &err) == 0 && strcmp(keys, "one;two;three;four;") == 0, "%s", keys);
}

static bool take_at(void *arg, const struct np_reading *reading) {
  *(int64_t *)arg = reading->at;
  return false;
}

static enum np_same same(int64_t at, const char *key, int64_t *stored) {
  struct np_writeset *ws = np_writeset_new();
  enum np_same result;
  CHECK(np_reader_same(r, add_reading(ws, "d", at, key, 1), &result, take_at, stored, &err) == 0, "%s", err.text);
  np_writeset_unref(ws);
  return result;
}

static void what_is_known(void) {
  struct np_writeset *ws = np_writeset_new();
  int64_t at = 0;
  struct np_pruned pruned;
  add_reading(ws, "d", 50, NULL, 1);
  apply(s, ws);
  CHECK(same(100, "one", &at) == NP_SAME_STORED && at == 100);
  CHECK(same(99, "one", &at) == NP_SAME_ELSEWHEN);
  CHECK(same(100, "fresh", &at) == NP_SAME_NONE && same(100, NULL, &at) == NP_SAME_NONE && same(50, "fresh", &at) == NP_SAME_NONE);
  CHECK(same(50, NULL, &at) == NP_SAME_STORED && at == 50);
  for (int p = 0; p < NP_PARTITIONS; p++) { /* rules have dealt with all, so that they may be removed */
    ws = np_writeset_new();
    add_cursor(ws, p, 0, 1000);
    apply(s, ws);
  }
  struct np_keep keep[NP_KEPT_KINDS] = {[NP_KEPT_READINGS] = {.age = 1000}, [NP_KEPT_REQUESTS] = {.age = 1000}};
  while (np_store_prune(s, keep, INT64_C(4000000000000), 0, &pruned, &err) > 0) {}
  CHECK(same(99, "gone", &at) == NP_SAME_TOO_OLD && same(99, NULL, &at) == NP_SAME_TOO_OLD &&
        same(200, "gone", &at) == NP_SAME_NONE);
  CHECK(np_reader_request_run_count(r, 5001) == -1);
  char runs[200] = "";
  CHECK(np_reader_request_runs(r, 5001, take_run, runs, &err) == 0 && !*runs, "%s", runs); /* they go with it */
  find("c", false, 0, INT64_MAX, 0, INT64_MAX);
  CHECK(found_count == 0);
}

int main(void) {
  test_begin();
  s = open_store();
  r = open_reader();
  which_ones();
  what_they_were();
  what_is_known();
  np_reader_close(r);
  np_store_close(s);
  return test_end();
}
