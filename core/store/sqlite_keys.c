/* Which keys a series' readings have had, which is what makes a reading a duplicate.
 *
 * Writing each key into its index at once would dirty a page of its own for nearly every reading, and that would be half of the cost of
 * storing one. So the newest readings' keys are kept in memory and put into the index some thousand at a time, sorted. The
 * readings themselves are the record: what is in memory is read from them again at the start and whenever something was undone.
 *
 * The key of what a rule derived is indexed behind a zero byte, which no vendor's key holds: so the one never takes the other's place. */
#include <stdlib.h>
#include <string.h>

#include "store/sqlite.h"

enum { MANY = 4096 };

void np_keys_forget(struct np_store *s) {
  np_map_free(&s->recent, NULL);
  s->recent_known = false;
}

/* The map's key, in the scratch: the series, and what is indexed. */
static struct np_text make_key(struct np_store *s, const struct np_series_key *key) {
  np_buf_clear(&s->key);
  np_buf_add(&s->key, &key->series, sizeof key->series);
  if (key->derived) np_buf_addc(&s->key, 0);
  np_buf_add(&s->key, key->key.ptr, key->key.len);
  return (struct np_text){s->key.data + sizeof key->series, s->key.len - sizeof key->series};
}

static void add(struct np_store *s) { np_map_put(&s->recent, s->key.data, s->key.len, s); }

static int load(struct np_store *s) {
  sqlite3_stmt *st = np_sql_start(&s->sql, W_RECENT, "i", s->count.indexed);
  if (!st) return np_sql_code(&s->sql);
  int rc;
  while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
    const struct np_series_key key = {sqlite3_column_int64(st, 0), np_sql_text(st, 1), sqlite3_column_int(st, 2)};
    make_key(s, &key);
    add(s);
  }
  s->recent_known = rc == SQLITE_DONE;
  return sqlite3_reset(st);
}

int np_keys_take(struct np_store *s, const struct np_series_key *key, bool *fresh) {
  int64_t found;
  int rc = s->recent_known ? SQLITE_OK : load(s);
  *fresh = false;
  if (rc != SQLITE_OK) return rc;
  const struct np_text indexed = make_key(s, key);
  if (np_map_get(&s->recent, s->key.data, s->key.len)) return SQLITE_OK;
  rc = np_sql_one(&s->sql, W_SAME_KEY, &found, "it", key->series, &indexed);
  if (rc == SQLITE_ROW) return SQLITE_OK;
  if (rc != SQLITE_DONE) return rc;
  add(s);
  *fresh = true;
  return SQLITE_OK;
}

int np_keys_drop(struct np_store *s, const struct np_series_key *key) {
  int rc = s->recent_known ? SQLITE_OK : load(s);
  if (rc != SQLITE_OK) return rc;
  const struct np_text indexed = make_key(s, key);
  np_map_remove(&s->recent, s->key.data, s->key.len);
  return np_sql_run(&s->sql, W_DROP_KEY, "it", key->series, &indexed);
}

static int64_t series_of(const struct np_map_entry *e) {
  int64_t series;
  memcpy(&series, e->key, sizeof series);
  return series;
}

/* The index's own order, so that each of its pages is met once. */
static int in_order(const void *a, const void *b) {
  const struct np_map_entry *x = *(const struct np_map_entry *const *)a, *y = *(const struct np_map_entry *const *)b;
  int64_t i = series_of(x), j = series_of(y);
  if (i != j) return i < j ? -1 : 1;
  int by_key = memcmp(x->key + sizeof i, y->key + sizeof j, (x->len < y->len ? x->len : y->len) - sizeof i);
  return by_key ? by_key : x->len < y->len ? -1 : x->len > y->len;
}

int np_keys_index(struct np_store *s) {
  if (s->count.reading - s->count.indexed < MANY) return SQLITE_OK;
  int rc = s->recent_known ? SQLITE_OK : load(s);
  if (rc != SQLITE_OK) return rc;
  struct np_map_entry **sorted = np_alloc(s->recent.count * sizeof(struct np_map_entry *)), *e;
  size_t n = 0;
  for (size_t i = 0; (e = np_map_next(&s->recent, &i));) sorted[n++] = e;
  qsort(sorted, n, sizeof *sorted, in_order);
  for (size_t i = 0; i < n && rc == SQLITE_OK; i++) {
    struct np_text key = {sorted[i]->key + sizeof(int64_t), sorted[i]->len - sizeof(int64_t)};
    rc = np_sql_run(&s->sql, W_ADD_KEY, "it", series_of(sorted[i]), &key);
  }
  free(sorted);
  if (rc != SQLITE_OK) return rc;
  s->count.indexed = s->count.reading;
  np_map_free(&s->recent, NULL);
  return SQLITE_OK;
}
