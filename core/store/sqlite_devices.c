/* Queries over devices: the statement is made of what the filter asks for, so that SQLite finds the index that serves it. */
#include <stdlib.h>
#include <string.h>

#include "store/sqlite.h"

enum { BOUND_MAX = 3 * 1000 + 10 };

struct query {
  sqlite3_str *sql;
  const struct np_text *bound[BOUND_MAX]; /* borrowed: parameters in their order */
  int count;
  char *ids; /* owned: the scope as "1,2,3"; NULL: all */
};

static void add(struct query *q, const char *sql) { sqlite3_str_appendall(q->sql, sql); }

static bool add_value(struct query *q, const struct np_text *value) {
  if (q->count == BOUND_MAX) return false;
  q->bound[q->count++] = value;
  add(q, "?");
  return true;
}

static bool add_list(struct query *q, const struct np_texts *list) {
  bool room = true;
  add(q, "(");
  for (size_t i = 0; i < list->count && room; i++) {
    if (i) add(q, ", ");
    room = add_value(q, &list->list[i]);
  }
  add(q, ")");
  return room;
}

/* Details are told only where the connection that gave them is in the scope. */
static void add_ours(struct query *q) {
  if (q->ids)
    sqlite3_str_appendf(q->sql, "d.connection IN (SELECT name FROM names WHERE id IN (%s))", q->ids);
  else
    add(q, "1");
}

static bool add_text(struct query *q, const char *before, const struct np_text *value, const char *behind) {
  if (!value->ptr) return true;
  add(q, before);
  bool room = add_value(q, value);
  add(q, behind);
  return room;
}

static bool add_details(struct query *q, const struct np_device_filter *f) {
  const struct np_text *details[] = {&f->connection, &f->name, &f->name_has, &f->owner, &f->place, &f->model};
  bool any = f->statuses.count > 0;
  for (size_t i = 0; i < sizeof details / sizeof *details; i++) any |= details[i]->ptr != NULL;
  if (any && q->ids) {
    add(q, " AND ");
    add_ours(q);
  }
  bool room = add_text(q, " AND d.connection = ", &f->connection, "") && add_text(q, " AND d.label = ", &f->name, "") &&
              add_text(q, " AND instr(d.label, ", &f->name_has, ") > 0") && add_text(q, " AND d.owner = ", &f->owner, "") &&
              add_text(q, " AND d.place = ", &f->place, "") && add_text(q, " AND d.model = ", &f->model, "");
  if (room && f->statuses.count) {
    add(q, " AND d.status IN ");
    room = add_list(q, &f->statuses);
  }
  if (room && f->except_statuses.count) {
    add(q, " AND NOT (");
    add_ours(q);
    add(q, " AND d.status IS NOT NULL AND d.status IN ");
    room = add_list(q, &f->except_statuses);
    add(q, ")");
  }
  return room;
}

/* FROM and WHERE. Where one connection asks for no device in particular, its own devices are walked in the order of their ids. */
static bool add_source(struct query *q, const struct np_device_filter *f, bool one) {
  bool picked = f->devices.count || f->owner.ptr, room = true;
  if (one && !picked)
    sqlite3_str_appendf(
        q->sql, " FROM device_writers w CROSS JOIN device_rows d ON d.id = w.device WHERE w.connection = %s AND w.device > %lld",
        q->ids, f->after);
  else
    sqlite3_str_appendf(q->sql, " FROM device_rows d WHERE %sd.id > %lld", picked ? "+" : "", f->after);
  if (q->ids && !one && !picked)
    sqlite3_str_appendf(q->sql, " AND d.id IN (SELECT device FROM device_writers WHERE connection IN (%s) AND device > %lld)",
                        q->ids, f->after);
  if (q->ids && picked)
    sqlite3_str_appendf(q->sql, " AND EXISTS(SELECT 1 FROM device_writers w WHERE w.device = d.id AND w.connection IN (%s))",
                        q->ids);
  if (f->devices.count) {
    add(q, " AND d.name IN ");
    room = add_list(q, &f->devices);
  }
  return room && add_text(q, " AND d.vendor = (SELECT id FROM names WHERE name = ", &f->vendor, ")") && add_details(q, f);
}

/* When the newest was received that is not older than what else is known. */
static void add_last_seen(struct query *q, const char *rows, const char *otherwise) {
  sqlite3_str_appendf(
      q->sql,
      "max(%s, coalesce((SELECT max((SELECT r.received FROM reading_rows r WHERE r.series = s.id%s ORDER BY r.at DESC"
      " LIMIT 1)) FROM series s WHERE s.device = d.id), %s))",
      otherwise, rows, otherwise);
}

static void add_columns(struct query *q) {
  static const char *const details[] = {"serial", "model", "label", "owner", "place", "status", "extra", "online"};
  if (!q->ids) {
    add(q, "SELECT d.id, (SELECT name FROM names WHERE id = d.vendor), d.connection, d.name, d.serial, d.model, d.label, d.owner,"
           " d.place, d.status, d.extra, d.online, d.first_seen, ");
    add_last_seen(q, "", "d.seen");
    add(q, ", d.tags, (SELECT group_concat(t.tag, char(10)) FROM device_tags t WHERE t.device = d.id), 1");
    return;
  }
  add(q, "SELECT d.id, (SELECT name FROM names WHERE id = d.vendor), CASE WHEN ");
  add_ours(q);
  sqlite3_str_appendf(q->sql,
                      " THEN d.connection ELSE (SELECT n.name FROM device_writers w JOIN names n ON n.id = w.connection"
                      " WHERE w.device = d.id AND w.connection IN (%s) ORDER BY w.connection LIMIT 1) END, d.name",
                      q->ids);
  for (size_t i = 0; i < sizeof details / sizeof *details; i++) {
    add(q, ", CASE WHEN ");
    add_ours(q);
    sqlite3_str_appendf(q->sql, " THEN d.%s END", details[i]);
  }
  char *first =
      sqlite3_mprintf("(SELECT min(w.first_seen) FROM device_writers w WHERE w.device = d.id AND w.connection IN (%s))", q->ids);
  char *rows = sqlite3_mprintf(" AND r.connection IN (%s)", q->ids);
  sqlite3_str_appendf(
      q->sql, ", %s, CASE WHEN EXISTS(SELECT 1 FROM device_writers w WHERE w.device = d.id AND w.connection NOT IN (%s)) THEN ",
      first, q->ids);
  add_last_seen(q, rows, first);
  add(q, " ELSE ");
  add_last_seen(q, "", "d.seen");
  add(q, " END, CASE WHEN ");
  add_ours(q);
  add(q, " THEN d.tags END, NULL, "); /* what operators have added is not a connection's to show */
  add_ours(q);
  sqlite3_free(first);
  sqlite3_free(rows);
}

/* Sets q->ids; *nothing where no row can be in the scope. */
static int find_scope(struct np_reader *r, struct query *q, const struct np_scope *scope, bool *one, bool *nothing,
                      struct np_error *err) {
  struct np_ids ids = {0};
  int done = np_find_scope(r, scope, &ids, err);
  struct np_buf list = {0};
  for (size_t i = 0; i < ids.count; i++) np_buf_addf(&list, "%s%lld", i ? "," : "", (long long)ids.list[i]);
  *one = ids.count == 1;
  *nothing = !scope->all && !ids.count;
  q->ids = list.data;
  free(ids.list);
  return done;
}

static sqlite3_stmt *prepare(struct np_reader *r, struct query *q, struct np_error *err) {
  char *text = sqlite3_str_finish(q->sql);
  sqlite3_stmt *st = NULL;
  q->sql = NULL;
  int rc = text ? sqlite3_prepare_v2(r->sql.db, text, -1, &st, NULL) : SQLITE_NOMEM;
  sqlite3_free(text);
  for (int i = 0; i < q->count && rc == SQLITE_OK; i++)
    rc = sqlite3_bind_text64(st, i + 1, q->bound[i]->ptr, q->bound[i]->len, SQLITE_STATIC, SQLITE_UTF8);
  if (rc == SQLITE_OK) return st;
  np_sql_fail(&r->sql, rc, err);
  sqlite3_finalize(st);
  return NULL;
}

static int finish(struct np_reader *r, sqlite3_stmt *st, int rc, struct np_error *err) {
  int end = sqlite3_finalize(st);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : np_sql_fail(&r->sql, end != SQLITE_OK ? end : rc, err);
}

static int give(struct np_reader *r, sqlite3_stmt *st, np_device_fn *fn, void *arg, struct np_error *err) {
  struct np_device d;
  int rc;
  while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
    np_read_device_row(st, &d);
    d.details = sqlite3_column_int(st, 16);
    if (!fn(arg, &d)) break;
  }
  return finish(r, st, rc, err);
}

static bool take_count(struct np_reader *r, sqlite3_stmt *st, int64_t *n, struct np_error *err) {
  int rc = sqlite3_step(st);
  *n = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
  return finish(r, st, rc, err) == 0;
}

/* The statement of a filter; with limit 0 it counts. NULL and err, or NULL and *nothing where no device can be in the scope. */
static sqlite3_stmt *make(struct np_reader *r, struct query *q, const struct np_device_filter *f, int limit, bool *nothing,
                          struct np_error *err) {
  bool one, picked = f->devices.count || f->owner.ptr;
  if (find_scope(r, q, &f->scope, &one, nothing, err) < 0 || *nothing) return NULL;
  q->sql = sqlite3_str_new(r->sql.db);
  if (limit)
    add_columns(q);
  else
    add(q, "SELECT count(*)");
  if (!add_source(q, f, one)) {
    sqlite3_free(sqlite3_str_finish(q->sql));
    np_fail(err, "store: more than %d words in one query", BOUND_MAX);
    return NULL;
  }
  if (limit) sqlite3_str_appendf(q->sql, " ORDER BY %s LIMIT %d", one && !picked ? "w.device" : "d.id", limit);
  return prepare(r, q, err);
}

static void forget(struct query *q) {
  np_buf_free(&(struct np_buf){.data = q->ids});
  free(q);
}

int np_reader_find_devices(struct np_reader *r, const struct np_device_filter *f, int limit, np_device_fn *fn, void *arg,
                           struct np_error *err) {
  bool nothing = false;
  if (limit < 1) return 0;
  if (np_find_begin(r, err) < 0) return -1;
  struct query *q = np_alloc(sizeof *q);
  sqlite3_stmt *st = make(r, q, f, limit, &nothing, err);
  int done = st ? give(r, st, fn, arg, err) : nothing ? 0 : -1;
  forget(q);
  return np_find_end(r, done, err);
}

int64_t np_reader_count_devices(struct np_reader *r, const struct np_device_filter *f, struct np_error *err) {
  struct np_device_filter whole = *f;
  bool nothing = false;
  int64_t n = 0;
  whole.after = 0;
  if (np_find_begin(r, err) < 0) return -1;
  struct query *q = np_alloc(sizeof *q);
  sqlite3_stmt *st = make(r, q, &whole, 0, &nothing, err);
  int done = st ? (take_count(r, st, &n, err) ? 0 : -1) : nothing ? 0 : -1;
  forget(q);
  return np_find_end(r, done, err) < 0 ? -1 : n;
}
