/* An append on a thread of its own. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/append.h"
#include "io/aside.h"
#include "io/fetch.h"

#define PATIENCE 5.0 /* seconds that others may hold the lock */

struct job {
  struct np_aside_job job; /* first */
  struct np_append_result result;
  struct np_append work; /* owned: all that it points to, in `text` and `lines` */
  struct np_append_line *lines;
  char *text;
};

struct np_append_call { /* the loop's */
  struct np_aside *aside;
  np_append_done *done;
  void *arg;
  const struct np_appender *on;
};

static void drop(struct np_aside_job *job) {
  struct job *j = (struct job *)job;
  free(j->lines);
  free(j->text);
  free(j);
}

static void work(struct np_aside_job *job) {
  struct job *j = (struct job *)job;
  np_append_run(&j->work, PATIENCE, &j->result);
}

static void ask_script(const struct np_appender *on, struct job *j) {
  struct np_buf url = {0}, body = {0};
  struct np_fetch_scripted answer = {0};
  np_buf_addf(&url, "file://%s/%s", j->work.folder, j->work.name);
  for (size_t i = 0; i < j->work.count; i++) {
    np_buf_add(&body, j->work.lines[i].text, j->work.lines[i].len);
    np_buf_addc(&body, '\n');
  }
  struct np_fetch_request r = {.method = "APPEND", .url = np_buf_text(&url), .body = body.data, .body_len = body.len};
  on->script(on->script_arg, &r, &answer);
  j->result.written = (int64_t)j->work.count;
  if (answer.code || answer.status != 200) {
    j->result.code = "other";
    strncpy(j->result.why, answer.code ? answer.why : "the test says that it fails", sizeof j->result.why - 1);
  }
  np_buf_free(&answer.headers), np_buf_free(&answer.body), np_buf_free(&url), np_buf_free(&body);
}

static void on_done(void *arg, struct np_aside_job *job, bool finished) {
  struct np_append_call *c = arg;
  struct job *j = (struct job *)job;
  struct np_append_result late = {.code = "timeout", .why = "the disk has not answered in time"};
  if (c->on->script) ask_script(c->on, j);
  c->done(c->arg, finished || c->on->script ? &j->result : &late);
  free(c);
}

static char *put(char **to, const char *bytes, size_t len) {
  char *at = memcpy(*to, bytes, len);
  at[len] = 0;
  *to += len + 1;
  return at;
}

static struct job *copy(const struct np_append *a) {
  struct job *j = np_alloc(sizeof *j);
  size_t total = strlen(a->folder) + strlen(a->name) + (a->head ? strlen(a->head) : 0) + 3;
  for (size_t i = 0; i < a->count; i++) total += a->lines[i].id_len + a->lines[i].len + 2;
  char *at = j->text = np_alloc(total);
  j->lines = np_alloc((a->count + 1) * sizeof *j->lines);
  j->work = *a;
  j->work.folder = put(&at, a->folder, strlen(a->folder));
  j->work.name = put(&at, a->name, strlen(a->name));
  if (a->head) j->work.head = put(&at, a->head, strlen(a->head));
  for (size_t i = 0; i < a->count; i++) {
    j->lines[i] = a->lines[i];
    j->lines[i].id = put(&at, a->lines[i].id, a->lines[i].id_len);
    j->lines[i].text = put(&at, a->lines[i].text, a->lines[i].len);
  }
  j->work.lines = j->lines;
  return j;
}

struct np_append_call *np_append_start(const struct np_appender *on, const struct np_append *a, double timeout,
                                       np_append_done *done, void *arg, struct np_error *err) {
  struct job *j = copy(a);
  j->job = (struct np_aside_job){.work = on->script ? NULL : work, .drop = drop};
  struct np_append_call *c = np_alloc(sizeof *c);
  *c = (struct np_append_call){.done = done, .arg = arg, .on = on};
  c->aside = np_aside_start(on->base, &j->job, timeout, on_done, c, err);
  if (c->aside) return c;
  free(c);
  return NULL;
}

void np_append_cancel(struct np_append_call *c) {
  np_aside_cancel(c->aside);
  free(c);
}
