/* A copy of a store, which may be in use: one moment of it, for all is read in one transaction. A writer is not held up by that; its WAL grows as
 * long as it takes. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/sqlite.h"

#define PAGES 4096 /* a step */

/* The first column of the first row of a statement; NULL where there is none. The caller frees. */
static char *ask(sqlite3 *db, const char *text) {
  sqlite3_stmt *st = NULL;
  char *found = NULL;
  if (sqlite3_prepare_v2(db, text, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW && sqlite3_column_text(st, 0))
    found = np_strdup((const char *)sqlite3_column_text(st, 0));
  sqlite3_finalize(st);
  return found;
}

static int fail(sqlite3 *db, const char *path, struct np_error *err) {
  struct np_sql q = {.db = db};
  struct np_error why;
  np_sql_fail(&q, sqlite3_extended_errcode(db), &why);
  return np_fail(err, "%s: %s", path, why.text + strlen("store: "));
}

/* Of any schema: it is often an old one that is to be kept. */
static int open_source(const char *path, sqlite3 **db, struct np_error *err) {
  if (sqlite3_open_v2(path, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
    return np_fail(err, "store: cannot open %s: %s", path, strerror(sqlite3_system_errno(*db)));
  sqlite3_busy_timeout(*db, 5000);
  char *id = ask(*db, "PRAGMA application_id");
  bool ours = id && atoll(id) == NP_SCHEMA_ID;
  free(id);
  if (!ours) return np_fail(err, "store: %s is not a neap store", path);
  return sqlite3_exec(*db, "BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(*db, path, err);
}

static int copy_pages(sqlite3 *from, sqlite3 *to, const char *path, struct np_error *err) {
  sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
  if (!b) return fail(to, path, err);
  int rc;
  do rc = sqlite3_backup_step(b, PAGES);
  while (rc == SQLITE_OK); /* nobody else has the copy, and the store is being read already: neither can be busy */
  return sqlite3_backup_finish(b) == SQLITE_OK && rc == SQLITE_DONE ? 0 : fail(to, path, err);
}

/* That it can be read, all of it. Leaves one file, without a WAL. */
static int check_copy(sqlite3 *to, const char *path, struct np_error *err) {
  sqlite3_exec(to, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
  char *found = ask(to, "PRAGMA quick_check(1)");
  int status =
      found && strcmp(found, "ok") == 0 ? 0 : np_fail(err, "%s: the copy is damaged: %s", path, found ? found : "unreadable");
  free(found);
  return status;
}

static int sync_file(const char *path, int flags, struct np_error *err) {
  int fd = open(path, flags | O_CLOEXEC), status = fd >= 0 ? fsync(fd) : -1;
  if (status < 0) np_fail(err, "%s: %s", path, strerror(errno));
  if (fd >= 0) close(fd);
  return status;
}

/* Into a file of that name that is there already, and empty. */
static int copy_into(const char *store, const char *part, struct np_error *err) {
  sqlite3 *from = NULL, *to = NULL;
  int status = open_source(store, &from, err);
  if (status == 0 && sqlite3_open_v2(part, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
    status = fail(to, part, err);
  if (status == 0) status = copy_pages(from, to, part, err);
  if (status == 0) status = check_copy(to, part, err);
  sqlite3_close(to);
  sqlite3_close(from);
  return status;
}

/* A link, for it does not replace what somebody has put there meanwhile. */
static int give_name(const char *part, const char *path, struct np_error *err) {
  if (link(part, path) < 0) return np_fail(err, "%s: %s", path, strerror(errno));
  unlink(part);
  char *copy = np_strdup(path);
  int status = sync_file(dirname(copy), O_RDONLY | O_DIRECTORY, err);
  free(copy);
  return status;
}

int np_store_backup(const char *store, const char *path, struct np_error *err) {
  struct np_buf part = {0};
  if (access(path, F_OK) == 0) return np_fail(err, "%s is there already: give another name", path);
  np_buf_addf(&part, "%s.part", path);
  int fd = open(part.data, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
      status = 0; /* what an earlier try has left is written over */
  if (fd < 0) status = np_fail(err, "%s: %s", part.data, strerror(errno));
  if (fd >= 0) close(fd);
  if (status == 0) {
    status = copy_into(store, part.data, err);
    if (status == 0) status = sync_file(part.data, O_RDONLY, err);
    if (status == 0) status = give_name(part.data, path, err);
    if (status < 0) unlink(part.data);
  }
  np_buf_free(&part);
  return status;
}
