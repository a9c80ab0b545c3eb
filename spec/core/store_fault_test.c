/* The store where something goes wrong: sets left out, files refused, a full disk; and what must survive: opening again, pruning. */
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store_sets.h"

/* A conflict, or what cannot be written, is left out whole; the sets around it are not touched. */
static void all_or_nothing(struct np_store *s, struct np_reader *r) {
  struct np_writeset *sets[6];
  for (int i = 0; i < 6; i++) {
    char key[8];
    snprintf(key, sizeof key, "aon%d", i);
    sets[i] = reading("aon", i, NULL, i);
    add_put(sets[i], key, "x", 0);
    np_writeset_add(sets[i], NP_OP_SEND)->as.send =
        (struct np_message){.id = text(sets[i], "m"), .destination = text(sets[i], "aon"), .body = text(sets[i], "{}")};
  }
  add_seen(sets[1], "nothing", 1);                              /* never was */
  add_seen(sets[2], "aon0", 0);                                 /* an earlier set of this commit has put it */
  add_reading(sets[3], "aon", 100, NULL, 1)->device.ptr = NULL; /* told before anything is written */
  np_writeset_add(sets[4], NP_OP_GENERATION);                   /* told by the database, after something was written */
  int64_t before = np_reader_last_seq(r);
  CHECK(np_store_apply(s, sets, 6, NULL) == 0);
  const enum np_outcome expected[] = {NP_COMMITTED, NP_CONFLICT, NP_CONFLICT, NP_FAILED, NP_FAILED, NP_COMMITTED};
  for (int i = 0; i < 6; i++) {
    CHECK(sets[i]->outcome == expected[i], "set %d: %d %s", i, sets[i]->outcome, sets[i]->error);
    CHECK((sets[i]->first->as.reading.seq > before) == (expected[i] == NP_COMMITTED) &&
          sets[i]->fresh == (expected[i] == NP_COMMITTED));
    CHECK((sets[i]->error[0] != 0) == (expected[i] == NP_FAILED));
    np_writeset_unref(sets[i]);
  }
  CHECK(ask("SELECT count(*) FROM readings WHERE device = 'aon'") == 2 &&
        ask("SELECT count(*) FROM kv WHERE key LIKE 'aon%'") == 2);
  CHECK(np_reader_outbox_count(r, "aon", 'p') == 2);
  CHECK(version_of(r, "aon5", "x", NOW) > version_of(r, "aon0", "x", NOW));
}

/* A name that only a set that came to nothing had is not remembered as stored. */
static void forgets_what_was_undone(struct np_store *s) {
  struct np_writeset *ws = reading("undone", 1, NULL, 1);
  np_writeset_add(ws, NP_OP_GENERATION);
  CHECK(apply(s, ws) == NP_FAILED);
  store_reading(s, "another", 1, NULL);
  store_reading(s, "undone", 2, NULL);
  CHECK(ask("SELECT count(*) FROM readings WHERE device = 'undone' AND metric = 'level'") == 1);
  CHECK(ask("SELECT count(*) FROM readings WHERE device = 'another' AND metric = 'level'") == 1);
}

static size_t store_many(struct np_store *s, int from, int to) {
  struct np_writeset *ws = np_writeset_new();
  for (int i = from; i < to; i++) {
    char device[16], key[16];
    snprintf(device, sizeof device, "many%d", i % 5);
    snprintf(key, sizeof key, "%x", (unsigned)i * 2654435761u);
    add_reading(ws, device, i, key, i);
  }
  np_writeset_ref(ws);
  CHECK(apply(s, ws) == NP_COMMITTED);
  size_t fresh = ws->fresh;
  np_writeset_unref(ws);
  return fresh;
}

/* Keys are remembered wherever they stand: in memory, in the index, in a file that was opened again, after something was undone. */
static void keys_for_ever(void) {
  struct np_store *s = open_store();
  enum { STEP = 700, ALL = 14 * STEP };
  for (int i = 0; i < ALL; i += STEP) {
    CHECK(store_many(s, i, i + STEP) == STEP);
    CHECK(store_many(s, i > STEP ? i - STEP : 0, i + STEP) == 0, "those of just now");
    struct np_writeset *bad = reading("many0", 1, "bad", 1);
    np_writeset_add(bad, NP_OP_GENERATION);
    if (i % 3 == 0)
      CHECK(apply(s, bad) == NP_FAILED);
    else
      np_writeset_unref(bad);
    if (i / STEP % 4 == 3) np_store_close(s), s = open_store();
    if (i / STEP % 5 == 4) CHECK(store_many(s, 0, i + STEP) == 0, "all of them");
  }
  CHECK(ask("SELECT count(*) FROM readings") == ALL && ask("SELECT count(*) FROM reading_keys") > ALL / 2);
  CHECK(ask("SELECT count(*) FROM reading_keys") < ALL, "some are in memory only");
  CHECK(store_reading(s, "many0", 1, "bad") > 0, "what was undone is not remembered");
  np_store_close(s);
  test_clear();
}

static void another_writes(struct np_store *s) {
  ask("DELETE FROM device_rows WHERE name = 'dev'");
  store_reading(s, "dev", 1, "after");
  CHECK(ask("SELECT count(*) FROM readings WHERE device = 'dev' AND key = 'after'") == 1, "what a person removed is made anew");
}

static void opens_again(void) {
  struct np_store *s = open_store();
  struct np_reader *r = open_reader();
  int64_t newest = np_reader_last_seq(r), messages = send_to(s, "re", "d");
  CHECK(newest > 0 && store_reading(s, "g1", 5, "k1") == 0, "still a duplicate");
  CHECK(store_reading(s, "reopened", 5, NULL) == newest + 1);
  np_store_close(s);
  s = open_store();
  CHECK(np_reader_last_seq(r) == newest + 1 && send_to(s, "re", "d") == messages + 1);
  ask("DELETE FROM reading_rows WHERE seq = (SELECT max(seq) FROM reading_rows)");
  CHECK(store_reading(s, "reopened", 6, NULL) == newest + 2, "a number is not given twice");
  np_reader_close(r);
  np_store_close(s);
  struct stat st;
  char wal[80];
  snprintf(wal, sizeof wal, "%s-wal", test_path);
  CHECK(stat(wal, &st) < 0 || st.st_size == 0, "closed cleanly");
  CHECK(stat(test_path, &st) == 0 && (st.st_mode & 0777) == 0600);
}

static void refuses(const char *sql, const char *because) {
  struct np_error err = {""};
  ask(sql);
  CHECK(!np_store_open(test_path, &err) && strstr(err.text, because), "%s", err.text);
  CHECK(!np_reader_open(test_path, &err), "neither does a reader");
}

static void refusals(void) {
  struct np_error err = {""};
  struct np_store *s = open_store();
  CHECK(!np_store_open(test_path, &err) && strstr(err.text, "in use"), "%s", err.text);
  np_store_close(s);
  refuses("PRAGMA user_version = 99", "newer neap");
  refuses("PRAGMA application_id = 7", "another program");
  test_clear();
  FILE *f = fopen(test_path, "w");
  for (int i = 0; i < 1000; i++) fputs("this is a letter\n", f);
  fclose(f);
  CHECK(!np_store_open(test_path, &err) && strstr(err.text, "not a neap store"), "%s", err.text);
  test_clear();
  CHECK(!np_reader_open(test_path, &err) && strstr(err.text, "No such file"), "%s", err.text);
  CHECK(access(test_path, F_OK) != 0);
  CHECK(!np_store_open("/nonexistent/dir/s.db", &err) && strstr(err.text, "/nonexistent/dir"), "%s", err.text);
  f = fopen(test_path, "w");
  fclose(f);
  np_store_close(open_store()); /* an empty file is a new one */
  test_clear();
}

static struct np_writeset *large(int i) {
  char device[20];
  snprintf(device, sizeof device, "large%d", i);
  struct np_writeset *ws = reading(device, i, NULL, i);
  char *body = malloc(200001);
  memset(body, 'x', 200000);
  body[200000] = 0;
  add_put(ws, device, body, 0);
  free(body);
  return ws;
}

/* Writes until the disk is full, and checks that nothing of what failed is there, and that it goes on by itself. */
static void fill(const char *expect, void (*make_room)(void)) {
  struct np_store *s = open_store();
  struct np_reader *r = open_reader();
  struct np_error err = {""};
  int good = 0, bad = 0;
  for (int i = 0; i < 60 && bad < 3; i++) {
    struct np_writeset *sets[2] = {large(2 * i), large(2 * i + 1)};
    int rc = np_store_apply(s, sets, 2, &err);
    for (int j = 0; j < 2; j++) {
      CHECK(sets[j]->outcome == (rc == 0 ? NP_COMMITTED : NP_FAILED) && (sets[j]->first->as.reading.seq != 0) == (rc == 0));
      if (rc) CHECK(strstr(sets[j]->error, expect), "%s", sets[j]->error);
      np_writeset_unref(sets[j]);
    }
    if (rc == 0)
      good++;
    else
      bad++;
    CHECK(np_reader_last_seq(r) == 2 * good, "what failed is not seen");
  }
  CHECK(good > 0 && bad == 3, "%d committed, %d failed", good, bad);
  make_room();
  CHECK(store_reading(s, "afterwards", 1, NULL) == 2 * good + 1, "it goes on by itself");
  CHECK(np_reader_last_seq(r) == 2 * good + 1);
  np_reader_close(r);
  np_store_close(s);
  np_store_close(open_store());
  CHECK(ask("SELECT count(*) FROM readings") == 2 * good + 1 && ask("SELECT count(*) FROM kv") == 2 * good);
  CHECK(ask("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1);
}

static void lift_limit(void) { setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}); }

static void file_limit(void) {
  struct rlimit was;
  getrlimit(RLIMIT_FSIZE, &was);
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){3 << 20, was.rlim_max});
  fill("disk I/O error", lift_limit);
  test_clear();
}

/* What the WAL has grown to is all the room that there is, and the file is small: the same keys are written again and again. What is in the WAL is moved
 * into the file and it begins anew, for ever. A reader that stands in it makes no difference but for as long as it does. */
static void wal_without_room(void) {
  struct np_store *s = open_store();
  struct rlimit was;
  struct stat st;
  char wal[80], value[3000];
  memset(value, 'v', sizeof value - 1);
  value[sizeof value - 1] = 0;
  for (int i = 0; i < 300; i++) {
    struct np_writeset *ws = np_writeset_new();
    add_put(ws, i % 2 ? "a" : "b", value, 0);
    CHECK(apply(s, ws) == NP_COMMITTED);
  }
  snprintf(wal, sizeof wal, "%s-wal", test_path);
  CHECK(stat(wal, &st) == 0 && st.st_size > 1 << 20, "%lld", (long long)st.st_size);
  CHECK(stat(test_path, &st) == 0 && st.st_size < 1 << 20, "%lld", (long long)st.st_size);
  CHECK(stat(wal, &st) == 0);
  getrlimit(RLIMIT_FSIZE, &was);
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){(rlim_t)st.st_size, was.rlim_max});
  for (int i = 0; i < 300; i++) {
    struct np_writeset *ws = np_writeset_new();
    value[0] = (char)('a' + i % 26);
    add_put(ws, i % 2 ? "a" : "b", value, 0);
    CHECK(apply(s, ws) == NP_COMMITTED, "%d", i);
  }
  lift_limit();
  np_store_close(s);
  s = open_store();
  CHECK(ask("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1);
  CHECK(ask("SELECT count(*) FROM kv WHERE key IN ('a', 'b')") == 2);
  np_store_close(s);
  test_clear();
}

static void remove_ballast(void) {
  char path[80];
  snprintf(path, sizeof path, "%s/ballast", test_dir);
  CHECK(unlink(path) == 0);
}

/* A real full disk, in a mount namespace of a child's own; where that is not permitted, the limit above has to do. */
static void full_disk(void) {
  pid_t child = fork();
  if (child == 0) {
    check_passed = check_failed = 0;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, "") < 0 ||
        mount("none", test_dir, "tmpfs", 0, "size=6m") < 0)
      _exit(0);
    char path[80];
    snprintf(path, sizeof path, "%s/ballast", test_dir);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 1000; i++) fprintf(f, "%2047d\n", i);
    fclose(f);
    fill("store: no space left on device", remove_ballast);
    _exit(check_failed != 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

int main(void) {
  test_begin();
  refusals();
  struct np_store *s = open_store();
  struct np_reader *r = open_reader();
  store_reading(s, "g1", 100, "k1");
  all_or_nothing(s, r);
  forgets_what_was_undone(s);
  another_writes(s);
  np_reader_close(r);
  np_store_close(s);
  opens_again();
  test_clear();
  keys_for_ever();
  file_limit();
  wal_without_room();
  full_disk();
  return test_end();
}
