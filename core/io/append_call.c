/* An append on a thread of its own: a disk that hangs holds up the one who waits for it, and nobody else. The thread and the loop share the
 * call; who leaves last frees it. */
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/append.h"
#include "io/fetch.h"

#define PATIENCE 5.0 /* seconds that others may hold the lock */

struct np_append_call {
  atomic_int refs;      /* the loop's and the thread's */
  atomic_bool finished; /* result is there */
  int fd;               /* owned: an eventfd, by which the thread wakes the loop */
  struct event *event;  /* owned by the loop */
  struct np_append_result result;
  struct np_append work; /* owned: all that it points to, in `text` and `lines` */
  struct np_append_line *lines;
  char *text;
  np_append_done *done; /* the loop's */
  void *arg;
  const struct np_appender *on; /* the loop's */
};

static void leave(struct np_append_call *c) {
  if (atomic_fetch_sub(&c->refs, 1) > 1) return;
  if (c->fd >= 0) close(c->fd);
  free(c->lines);
  free(c->text);
  free(c);
}

static void *work(void *arg) {
  struct np_append_call *c = arg;
  np_append_run(&c->work, PATIENCE, &c->result);
  atomic_store(&c->finished, true);
  uint64_t one = 1;
  while (write(c->fd, &one, sizeof one) < 0 && errno == EINTR) {}
  leave(c);
  return NULL;
}

static void ask_script(struct np_append_call *c) {
  struct np_buf url = {0}, body = {0};
  struct np_fetch_scripted answer = {0};
  np_buf_addf(&url, "file://%s/%s", c->work.folder, c->work.name);
  for (size_t i = 0; i < c->work.count; i++) {
    np_buf_add(&body, c->work.lines[i].text, c->work.lines[i].len);
    np_buf_addc(&body, '\n');
  }
  struct np_fetch_request r = {.method = "APPEND", .url = np_buf_text(&url), .body = body.data, .body_len = body.len};
  c->on->script(c->on->script_arg, &r, &answer);
  c->result.written = (int64_t)c->work.count;
  if (answer.code || answer.status != 200) {
    c->result.code = "other";
    strncpy(c->result.why, answer.code ? answer.why : "the test says that it fails", sizeof c->result.why - 1);
  }
  np_buf_free(&answer.headers), np_buf_free(&answer.body), np_buf_free(&url), np_buf_free(&body);
}

static void on_event(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  struct np_append_call *c = arg;
  struct np_append_result late = {.code = "timeout", .why = "the disk has not answered in time"};
  const struct np_append_result *result = &c->result;
  if (c->on->script)
    ask_script(c);
  else if (what == EV_TIMEOUT && !atomic_load(&c->finished))
    result = &late;
  event_free(c->event);
  c->event = NULL;
  c->done(c->arg, result);
  leave(c);
}

static char *put(char **to, const char *bytes, size_t len) {
  char *at = memcpy(*to, bytes, len);
  at[len] = 0;
  *to += len + 1;
  return at;
}

static struct np_append_call *copy(const struct np_append *a) {
  struct np_append_call *c = np_alloc(sizeof *c);
  size_t total = strlen(a->folder) + strlen(a->name) + (a->head ? strlen(a->head) : 0) + 3;
  for (size_t i = 0; i < a->count; i++) total += a->lines[i].id_len + a->lines[i].len + 2;
  char *at = c->text = np_alloc(total);
  c->lines = np_alloc((a->count + 1) * sizeof *c->lines);
  c->work = *a;
  c->work.folder = put(&at, a->folder, strlen(a->folder));
  c->work.name = put(&at, a->name, strlen(a->name));
  if (a->head) c->work.head = put(&at, a->head, strlen(a->head));
  for (size_t i = 0; i < a->count; i++) {
    c->lines[i] = a->lines[i];
    c->lines[i].id = put(&at, a->lines[i].id, a->lines[i].id_len);
    c->lines[i].text = put(&at, a->lines[i].text, a->lines[i].len);
  }
  c->work.lines = c->lines;
  c->fd = -1;
  atomic_store(&c->refs, 1);
  return c;
}

static int start_thread(struct np_append_call *c) {
  pthread_attr_t attributes;
  pthread_t thread;
  if (pthread_attr_init(&attributes)) return -1;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 256 * 1024);
  atomic_store(&c->refs, 2);
  int bad = pthread_create(&thread, &attributes, work, c);
  if (bad) atomic_store(&c->refs, 1);
  pthread_attr_destroy(&attributes);
  return bad ? -1 : 0;
}

struct np_append_call *np_append_start(const struct np_appender *on, const struct np_append *a, double timeout,
                                       np_append_done *done, void *arg, struct np_error *err) {
  struct np_append_call *c = copy(a);
  c->on = on;
  c->done = done;
  c->arg = arg;
  if (!on->script) c->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct timeval tv = {.tv_sec = (time_t)timeout, .tv_usec = (suseconds_t)((timeout - (double)(time_t)timeout) * 1e6)};
  c->event = on->script || c->fd >= 0 ? event_new(on->base, c->fd, (short)(c->fd >= 0 ? EV_READ : 0), on_event, c) : NULL;
  if (!c->event || (!on->script && (event_add(c->event, &tv) || start_thread(c)))) {
    np_fail(err, "no descriptor or thread is to be had");
    if (c->event) event_free(c->event);
    leave(c);
    return NULL;
  }
  if (on->script) event_active(c->event, EV_TIMEOUT, 0);
  return c;
}

void np_append_cancel(struct np_append_call *c) {
  event_free(c->event);
  c->event = NULL;
  leave(c);
}
