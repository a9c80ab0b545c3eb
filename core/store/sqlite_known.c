/* What the writer remembers of the file: ids of names, devices and series, and what is known of each device. A push of a known
 * device so looks nothing up, and news that say nothing new write nothing.
 *
 * When a device was last heard of, and how recent its news are, is written once a minute at most, when something else of it is
 * written, and at the end; after a crash old news may pass for new ones for that minute. Readings carry their own times. */
#include <stdlib.h>
#include <string.h>

#include "store/sqlite.h"

enum { MOST = 200000, MOST_BYTES = 64 << 20, SAVE_US = 60000000 };

static void forget_device(void *value) {
  struct np_known_device *d = value;
  for (int i = 0; i < NP_DEVICE_FIELDS; i++) free(d->fields[i]);
  free(d->writers);
  free(d);
}

/* Only what spares a look-up: the newest keys stay. */
static void forget_known(struct np_store *s) {
  np_map_free(&s->names, NULL);
  np_map_free(&s->series, free);
  np_map_free(&s->devices, forget_device);
  s->known_bytes = 0;
}

void np_known_forget(struct np_store *s) {
  forget_known(s);
  np_keys_forget(s);
}

int np_known_bound(struct np_store *s) {
  if (s->names.count < MOST && s->series.count < MOST && s->devices.count < MOST && s->known_bytes < MOST_BYTES) return SQLITE_OK;
  int rc = np_known_save(s);
  if (rc == SQLITE_OK) forget_known(s);
  return rc;
}

static void remember(struct np_store *s, struct np_map *map, const char *key, size_t len, void *value) {
  np_map_put(map, key, len, value);
  s->known_bytes += len + 64;
}

int np_known_name(struct np_store *s, const struct np_text *name, int64_t *id) {
  *id = 0;
  if (!name->ptr) return SQLITE_OK;
  void *known = np_map_get(&s->names, name->ptr, name->len);
  if (known) {
    *id = (int64_t)(intptr_t)known;
    return SQLITE_OK;
  }
  int rc = np_sql_one(&s->sql, W_NAME, id, "t", name);
  if (rc == SQLITE_DONE) {
    rc = np_sql_run(&s->sql, W_ADD_NAME, "t", name);
    if (rc != SQLITE_OK) return rc;
    *id = sqlite3_last_insert_rowid(s->sql.db);
  } else if (rc != SQLITE_ROW) {
    return rc;
  }
  remember(s, &s->names, name->ptr, name->len, (void *)(intptr_t)*id);
  return SQLITE_OK;
}

static void add_key(struct np_store *s, const struct np_text *t) {
  np_buf_add(&s->key, t->ptr, t->len);
  np_buf_addc(&s->key, 0);
}

static void set_field(struct np_store *s, struct np_known_device *d, int i, struct np_text t) {
  free(d->fields[i]);
  d->fields[i] = t.ptr ? np_strndup(t.ptr, t.len) : NULL;
  d->lens[i] = t.len;
  s->known_bytes += t.len;
}

/* Reads the device's row. SQLITE_DONE where there is none. */
static int load_device(struct np_store *s, int64_t vendor, const struct np_text *device, struct np_known_device *d) {
  sqlite3_stmt *st = np_sql_start(&s->sql, W_DEVICE, "ti", device, vendor);
  if (!st) return np_sql_code(&s->sql);
  int rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) {
    d->id = sqlite3_column_int64(st, 0);
    d->seen = sqlite3_column_int64(st, 1);
    d->news = sqlite3_column_type(st, 2) == SQLITE_NULL ? INT64_MIN : sqlite3_column_int64(st, 2);
    d->online = sqlite3_column_type(st, 3) == SQLITE_NULL ? -1 : sqlite3_column_int(st, 3);
    for (int i = 0; i < NP_DEVICE_FIELDS; i++) set_field(s, d, i, np_sql_text(st, 4 + i));
  }
  int end = sqlite3_reset(st);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? rc : end;
}

static int add_device(struct np_store *s, int64_t vendor, const struct np_text *device, const struct np_text *connection,
                      int64_t at, struct np_known_device *d) {
  int rc = np_sql_run(&s->sql, W_ADD_DEVICE, "tiiit", device, vendor, at, at, connection);
  d->id = sqlite3_last_insert_rowid(s->sql.db);
  d->seen = at;
  d->news = INT64_MIN;
  d->online = -1;
  set_field(s, d, 0, *connection);
  return rc;
}

int np_known_device(struct np_store *s, const struct np_text *vendor, const struct np_text *device,
                    const struct np_text *connection, int64_t at, struct np_known_device **out) {
  np_buf_clear(&s->key);
  add_key(s, vendor);
  add_key(s, device);
  if ((*out = np_map_get(&s->devices, s->key.data, s->key.len))) return SQLITE_OK;
  int64_t vendor_id;
  int rc = np_known_name(s, vendor, &vendor_id);
  if (rc != SQLITE_OK) return rc;
  struct np_known_device *d = np_alloc(sizeof *d);
  d->saved_us = s->mono;
  rc = load_device(s, vendor_id, device, d);
  if (rc == SQLITE_DONE)
    rc = add_device(s, vendor_id, device, connection, at, d);
  else if (rc == SQLITE_ROW)
    rc = SQLITE_OK;
  if (rc != SQLITE_OK) {
    forget_device(d);
    return rc;
  }
  s->known_bytes += sizeof *d;
  remember(s, &s->devices, s->key.data, s->key.len, d);
  *out = d;
  return SQLITE_OK;
}

static int find_series(struct np_store *s, const struct np_reading *r, struct np_known_series *k) {
  int64_t metric;
  int rc = np_known_device(s, &r->vendor, &r->device, &r->connection, r->received, &k->device);
  if (rc == SQLITE_OK) rc = np_known_name(s, &r->metric, &metric);
  if (rc != SQLITE_OK) return rc;
  rc = np_sql_one(&s->sql, W_SERIES, &k->id, "ii", k->device->id, metric);
  if (rc != SQLITE_DONE) return rc == SQLITE_ROW ? SQLITE_OK : rc;
  rc = np_sql_run(&s->sql, W_ADD_SERIES, "ii", k->device->id, metric);
  k->id = sqlite3_last_insert_rowid(s->sql.db);
  return rc;
}

static void series_key(struct np_store *s, const struct np_reading *r) {
  np_buf_clear(&s->key);
  add_key(s, &r->vendor);
  add_key(s, &r->device);
  add_key(s, &r->metric);
}

int np_known_series(struct np_store *s, const struct np_reading *r, struct np_known_series **out) {
  series_key(s, r);
  if ((*out = np_map_get(&s->series, s->key.data, s->key.len))) return SQLITE_OK;
  struct np_known_series *k = np_alloc(sizeof *k);
  int rc = find_series(s, r, k);
  if (rc != SQLITE_OK) {
    free(k);
    return rc;
  }
  series_key(s, r); /* the scratch was used */
  remember(s, &s->series, s->key.data, s->key.len, k);
  *out = k;
  return SQLITE_OK;
}

int np_known_writer(struct np_store *s, struct np_known_device *d, int64_t connection, int64_t at) {
  for (size_t i = 0; i < d->writer_count; i++)
    if (d->writers[i] == connection) return SQLITE_OK;
  int rc = np_sql_run(&s->sql, W_WRITER, "iii", d->id, connection, at);
  if (rc != SQLITE_OK) return rc;
  d->writers = np_realloc(d->writers, (d->writer_count + 1) * sizeof *d->writers);
  d->writers[d->writer_count++] = connection;
  s->known_bytes += sizeof *d->writers;
  return SQLITE_OK;
}

static int save_device(struct np_store *s, struct np_known_device *d) {
  struct np_text f[NP_DEVICE_FIELDS];
  for (int i = 0; i < NP_DEVICE_FIELDS; i++) f[i] = (struct np_text){d->fields[i], d->lens[i]};
  sqlite3_stmt *st = np_sql_start(&s->sql, W_SET_DEVICE, "iiiwttttttttt", d->id, d->seen, d->news, d->online, &f[0], &f[1], &f[2],
                                  &f[3], &f[4], &f[5], &f[6], &f[7], &f[8]);
  if (!st) return np_sql_code(&s->sql);
  if (d->news == INT64_MIN) sqlite3_bind_null(st, 3);
  if (d->online < 0) sqlite3_bind_null(st, 4);
  sqlite3_step(st);
  int rc = sqlite3_reset(st);
  if (rc == SQLITE_OK) d->dirty = false;
  d->saved_us = s->mono;
  return rc;
}

int np_known_save(struct np_store *s) {
  struct np_map_entry *e;
  int rc = SQLITE_OK;
  for (size_t i = 0; rc == SQLITE_OK && (e = np_map_next(&s->devices, &i));) {
    struct np_known_device *d = e->value;
    if (d->dirty) rc = save_device(s, d);
  }
  return rc;
}

/* A device that another connection speaks of now: what the one before said is not the other's to show. */
static void change_hands(struct np_store *s, struct np_known_device *d) {
  for (int i = 1; i < NP_DEVICE_FIELDS; i++) set_field(s, d, i, (struct np_text){0});
  d->online = -1;
}

/* Whether it says something new. An empty text clears. */
static bool take_field(struct np_store *s, struct np_known_device *d, int i, const struct np_text *now) {
  if (!now->ptr || (!now->len && !d->fields[i])) return false;
  if (d->fields[i] && d->lens[i] == now->len && memcmp(d->fields[i], now->ptr, now->len) == 0) return false;
  set_field(s, d, i, now->len ? *now : (struct np_text){0});
  return true;
}

int np_known_news(struct np_store *s, const struct np_op *op) {
  const struct np_text *now[NP_DEVICE_FIELDS] = {
      &op->as.device.connection, &op->as.device.serial, &op->as.device.model, &op->as.device.name, &op->as.device.owner,
      &op->as.device.place,      &op->as.device.status, &op->as.device.extra, &op->as.device.tags,
  };
  struct np_known_device *d;
  int64_t connection;
  int rc = np_known_device(s, &op->as.device.vendor, &op->as.device.device, now[0], op->as.device.at, &d);
  if (rc == SQLITE_OK) rc = np_known_name(s, now[0], &connection);
  if (rc == SQLITE_OK && connection) rc = np_known_writer(s, d, connection, op->as.device.at);
  if (rc != SQLITE_OK || op->as.device.at < d->news) return rc;
  bool changed = d->news == INT64_MIN;
  if (take_field(s, d, 0, now[0])) {
    change_hands(s, d);
    changed = true;
  }
  for (int i = 1; i < NP_DEVICE_FIELDS; i++) changed |= take_field(s, d, i, now[i]);
  if (op->as.device.online >= 0 && op->as.device.online != d->online) {
    d->online = op->as.device.online;
    changed = true;
  }
  if (op->as.device.at > d->news) {
    d->news = op->as.device.at;
    d->dirty = true;
  }
  if (op->as.device.at > d->seen) d->seen = op->as.device.at;
  return changed || (d->dirty && s->mono - d->saved_us > SAVE_US) ? save_device(s, d) : SQLITE_OK;
}
