/* Connections and statements of the SQLite engine. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "store/sqlite.h"

/* Memory statistics take a lock that all threads would share at every allocation. */
static void configure(void) { sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); }

bool np_sql_in_memory(const char *path) { return strncmp(path, NP_STORE_MEMORY, strlen(NP_STORE_MEMORY)) == 0; }

/* Connections to memory that were closed: a test opens three of them, and to make them ready takes longer than all else. One thread. */
static struct np_sql rested[8];
static int rested_count;

static bool take_rested(struct np_sql *q) {
  for (int i = 0; i < rested_count; i++) {
    if (rested[i].texts != q->texts || rested[i].write != q->write) continue;
    free(q->kept);
    *q = rested[i];
    rested[i] = rested[--rested_count];
    sqlite3_busy_timeout(q->db, 5000);
    return true;
  }
  return false;
}

static bool rest(struct np_sql *q) {
  if (!q->memory || !q->db || rested_count == sizeof rested / sizeof *rested) return false;
  for (int i = 0; i < q->count; i++) sqlite3_reset(q->kept[i]);
  rested[rested_count++] = *q;
  *q = (struct np_sql){0};
  return true;
}

/* Shared by all connections of the process to that name. */
static int open_memory(const char *path, sqlite3 **db, bool write) {
  char uri[200];
  sqlite3_snprintf(sizeof uri, uri, "file:/%s?vfs=memdb", path + strlen(NP_STORE_MEMORY));
  int flags = SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READWRITE | (write ? SQLITE_OPEN_CREATE : 0);
  return sqlite3_open_v2(uri, db, flags, NULL);
}

int np_sql_open(struct np_sql *q, const char *path, bool write, int cache_kb, const char *const *texts, int count,
                struct np_error *err) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, configure);
  *q = (struct np_sql){.texts = texts, .count = count, .kept = np_alloc((size_t)count * sizeof *q->kept)};
  q->write = write;
  q->memory = np_sql_in_memory(path);
  if (q->memory && take_rested(q)) return 0;
  int flags = (write ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY) | SQLITE_OPEN_NOMUTEX;
  int rc = q->memory ? open_memory(path, &q->db, write) : sqlite3_open_v2(path, &q->db, flags, NULL);
  char setup[200];
  sqlite3_snprintf(sizeof setup, setup,
                   "PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA cache_size = -%d; PRAGMA synchronous = FULL",
                   cache_kb);
  if (rc == SQLITE_OK) {
    sqlite3_extended_result_codes(q->db, 1);
    sqlite3_busy_timeout(q->db, 5000);
    rc = np_sql_exec(q, setup);
  }
  if (rc == SQLITE_OK) return 0;
  if (rc == SQLITE_NOTADB)
    np_fail(err, "store: %s is not a neap store, nor any SQLite file", path);
  else if ((rc & 0xff) == SQLITE_CANTOPEN)
    np_fail(err, "store: cannot open %s: %s", path, strerror(sqlite3_system_errno(q->db)));
  else
    np_sql_fail(q, rc, err);
  np_sql_close(q);
  return -1;
}

void np_sql_close(struct np_sql *q) {
  if (rest(q)) return;
  for (int i = 0; i < q->count; i++) sqlite3_finalize(q->kept[i]);
  free(q->kept);
  sqlite3_close(q->db);
  *q = (struct np_sql){0};
}

/* Whether the bytes are UTF-8 without a 0, so that the sqlite3 shell shows them whole. */
static bool is_text(const char *s, size_t n) {
  size_t i = 0;
  for (uint64_t w; i + 8 <= n; i += 8) {
    memcpy(&w, s + i, 8);
    if ((w | (w - 0x0101010101010101ULL)) & 0x8080808080808080ULL) break;
  }
  return np_utf8_check(s + i, n - i) == n - i && (i == n || !memchr(s + i, 0, n - i));
}

static int bind_text(sqlite3_stmt *st, int i, const struct np_text *t, bool any) {
  if (!t || !t->ptr) return sqlite3_bind_null(st, i);
  if (any && !is_text(t->ptr, t->len)) return sqlite3_bind_blob64(st, i, t->ptr, t->len, SQLITE_STATIC);
  return sqlite3_bind_text64(st, i, t->ptr, t->len, SQLITE_STATIC, SQLITE_UTF8);
}

static int bind_key(sqlite3_stmt *st, int i, const struct np_text *t) {
  static const struct np_text empty = {"", 0};
  return bind_text(st, i, t->ptr ? t : &empty, false);
}

static int bind_value(sqlite3_stmt *st, int i, const struct np_value *v) {
  if (v->type == NP_NUMBER_REAL) return sqlite3_bind_double(st, i, v->d);
  if (v->type == NP_STRING) return bind_text(st, i, &v->s, true);
  return sqlite3_bind_int64(st, i, v->i);
}

static int bind(sqlite3_stmt *st, const char *format, va_list args) {
  int rc = SQLITE_OK;
  for (int i = 1; *format && rc == SQLITE_OK; format++, i++) {
    switch (*format) {
    case 'i': rc = sqlite3_bind_int64(st, i, va_arg(args, int64_t)); break;
    case 'w': rc = sqlite3_bind_int(st, i, va_arg(args, int)); break;
    case 't': rc = bind_text(st, i, va_arg(args, const struct np_text *), false); break;
    case 'k': rc = bind_key(st, i, va_arg(args, const struct np_text *)); break;
    case 'b': rc = bind_text(st, i, va_arg(args, const struct np_text *), true); break;
    case 'v': rc = bind_value(st, i, va_arg(args, const struct np_value *)); break;
    default: rc = sqlite3_bind_text(st, i, va_arg(args, const char *), -1, SQLITE_STATIC);
    }
  }
  return rc;
}

static sqlite3_stmt *start(struct np_sql *q, int which, const char *format, va_list args) {
  sqlite3_stmt **st = &q->kept[which];
  if (!*st && sqlite3_prepare_v3(q->db, q->texts[which], -1, SQLITE_PREPARE_PERSISTENT, st, NULL) != SQLITE_OK) return NULL;
  return bind(*st, format, args) == SQLITE_OK ? *st : NULL;
}

sqlite3_stmt *np_sql_start(struct np_sql *q, int which, const char *format, ...) {
  va_list args;
  va_start(args, format);
  sqlite3_stmt *st = start(q, which, format, args);
  va_end(args);
  return st;
}

int np_sql_code(const struct np_sql *q) {
  int rc = sqlite3_extended_errcode(q->db);
  return rc == SQLITE_OK || rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_ERROR : rc;
}

static int finish(sqlite3_stmt *st, int rc) {
  int end = sqlite3_reset(st);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? rc : end != SQLITE_OK ? end : rc;
}

int np_sql_run(struct np_sql *q, int which, const char *format, ...) {
  va_list args;
  va_start(args, format);
  sqlite3_stmt *st = start(q, which, format, args);
  va_end(args);
  if (!st) return np_sql_code(q);
  int rc = sqlite3_step(st);
  while (rc == SQLITE_ROW) rc = sqlite3_step(st);
  rc = finish(st, rc);
  return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int np_sql_one(struct np_sql *q, int which, int64_t *out, const char *format, ...) {
  va_list args;
  va_start(args, format);
  sqlite3_stmt *st = start(q, which, format, args);
  va_end(args);
  if (!st) return np_sql_code(q);
  int rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) *out = sqlite3_column_int64(st, 0);
  return finish(st, rc);
}

int np_sql_exec(struct np_sql *q, const char *text) { return sqlite3_exec(q->db, text, NULL, NULL, NULL); }

int np_sql_end(struct np_sql *q, sqlite3_stmt *st, int rc, struct np_error *err) {
  if (!st) return np_sql_fail(q, np_sql_code(q), err);
  rc = finish(st, rc);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : np_sql_fail(q, rc, err);
}

struct np_text np_sql_text(sqlite3_stmt *st, int column) {
  const char *text = (const char *)sqlite3_column_text(st, column);
  return (struct np_text){text, text ? (size_t)sqlite3_column_bytes(st, column) : 0};
}

bool np_sql_is_store_failure(int rc) {
  switch (rc & 0xff) {
  case SQLITE_ERROR:
  case SQLITE_CONSTRAINT:
  case SQLITE_MISMATCH:
  case SQLITE_RANGE:
  case SQLITE_TOOBIG: return false;
  default: return rc != SQLITE_OK;
  }
}

/* SQLite tells a full disk from others; a quota or a limit of a file's size is a write that failed. */
bool np_sql_is_space(int rc) { return (rc & 0xff) == SQLITE_FULL || rc == SQLITE_IOERR_WRITE; }

int np_sql_fail(const struct np_sql *q, int rc, struct np_error *err) {
  int why = q->db && (rc & 0xff) == SQLITE_IOERR ? sqlite3_system_errno(q->db) : 0;
  if ((rc & 0xff) == SQLITE_FULL || why == ENOSPC || why == EDQUOT) return np_fail(err, "store: no space left on device");
  if (why) return np_fail(err, "store: disk I/O error: %s", strerror(why));
  return np_fail(err, "store: %s", q->db ? sqlite3_errmsg(q->db) : sqlite3_errstr(rc));
}
