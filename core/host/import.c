/* Imports into a host that runs. */
#include "host/import.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "host/admin_line.h"
#include "host/host.h"
#include "host/reading_text.h"

#define BATCH_MAX ((size_t)64 << 20) /* bytes on the wire: one reading may be as long as NP_READING_TEXT_MAX */
#define BACKLOG 1000                 /* readings that lanes may still have to deal with when another batch comes */
#define LOOK_MS 5
#define ENDS_MS 100
#define TOGETHER 250 /* readings in one commit: others wait for it */

struct np_importer {
  struct np_host *host; /* borrowed */
  int fd;               /* owned */
  bool rules;
  char by[100];
  pthread_t thread;
  atomic_bool ending, done;
  struct np_import_count count;
  struct np_buf in; /* owned: the batch */
};

void np_import_add(struct np_import_count *to, const struct np_import_count *more) {
  to->fresh += more->fresh, to->known += more->known, to->too_old += more->too_old;
}

void np_import_prepare(struct np_writeset *ws, bool rules, int64_t now) {
  for (struct np_op *op = ws->first; op; op = op->next) {
    struct np_reading *r = &op->as.reading;
    if (rules || r->received == NP_RECEIVED_UNKNOWN) r->received = now;
    r->quiet = !rules;
    r->partition = np_partition(r->device.ptr, r->device.len);
  }
}

struct np_import_count np_import_counted(const struct np_writeset *ws) {
  return (struct np_import_count){
      .fresh = (int64_t)ws->fresh, .known = (int64_t)(ws->count - ws->fresh - ws->too_old), .too_old = (int64_t)ws->too_old};
}

/* The client. Its socket does not block, as the main thread's do. */

static bool wait_for(const struct np_importer *im, short what) {
  struct pollfd p = {.fd = im->fd, .events = what};
  while (!atomic_load(&im->ending) && poll(&p, 1, ENDS_MS) < 1) {} /* nobody wakes who waits for a client that does not read */
  return !atomic_load(&im->ending);
}

static bool take(struct np_importer *im, char *to, size_t n) {
  while (n && wait_for(im, POLLIN)) {
    ssize_t got = recv(im->fd, to, n, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (got > 0) to += got, n -= (size_t)got;
  }
  return n == 0;
}

static bool say(struct np_importer *im, const struct np_buf *b) {
  for (size_t sent = 0; sent < b->len;) {
    ssize_t n = send(im->fd, b->data + sent, b->len - sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (n > 0) sent += (size_t)n;
    if (n < 0 && !wait_for(im, POLLOUT)) return false;
  }
  return true;
}

static bool refuse(struct np_importer *im, const char *why) {
  struct np_buf b = {0};
  np_line_error(&b, why);
  say(im, &b);
  np_buf_free(&b);
  return false;
}

/* The line that says how long the batch is; 0: there is none. */
static size_t take_length(struct np_importer *im) {
  char digits[16];
  for (size_t n = 0; n < sizeof digits; n++) {
    if (!take(im, digits + n, 1)) return 0;
    if (digits[n] != '\n') continue;
    digits[n] = 0;
    char *end;
    unsigned long length = strtoul(digits, &end, 10);
    if (end != digits && !*end && length && length <= BATCH_MAX) return length;
    break;
  }
  refuse(im, "expected the length of a batch, in bytes");
  return 0;
}

/* Batches. */

static void free_sets(struct np_writeset *ws) {
  for (struct np_writeset *next; ws; ws = next) {
    next = (struct np_writeset *)ws->node.next;
    np_writeset_unref(ws);
  }
}

/* The lines as sets, chained by their nodes: all of them are read before the first is committed. */
static struct np_writeset *read_batch(const struct np_importer *im, struct np_error *err) {
  static const struct np_reading_source from = {.checked = true};
  struct np_writeset *first = NULL, **last = &first, *ws = NULL;
  const char *at = im->in.data, *end = at + im->in.len;
  for (const char *stop; at < end; at = stop + 1) {
    struct np_reading_fault fault = {0};
    struct np_error why;
    struct np_reading r;
    if (!ws || ws->count == TOGETHER) {
      if (ws) last = (struct np_writeset **)&ws->node.next;
      *last = ws = np_writeset_new();
    }
    stop = memchr(at, '\n', (size_t)(end - at));
    int result = stop ? np_reading_read_json(at, (size_t)(stop - at), &from, ws, &r, &fault, &why)
                      : np_fail(&why, "a batch ends within a line");
    if (result < 0) {
      np_fail(err, "%s%s%s", fault.field ? fault.field : "", fault.field ? ": " : "", why.text);
      free_sets(first);
      return NULL;
    }
    np_writeset_add(ws, NP_OP_READING)->as.reading = r;
  }
  return first;
}

static bool is_busy(const struct np_importer *im) {
  const struct np_host *host = im->host;
  long backlog = 0, letters = 0;
  for (int i = 0; i < host->lane_count; i++) {
    backlog += atomic_load_explicit(&host->lanes[i]->backlog, memory_order_relaxed);
    letters += (long)np_mailbox_count(&host->lanes[i]->letters);
  }
  return backlog > BACKLOG || letters > BACKLOG || np_keeper_full(host->keeper);
}

/* What comes in now goes first, and rules over it: an import waits until they have it behind them. */
static bool wait_for_turn(const struct np_importer *im) {
  while (is_busy(im) && !atomic_load(&im->ending)) poll(NULL, 0, LOOK_MS);
  return !atomic_load(&im->ending);
}

static bool answer(struct np_importer *im, const struct np_import_count *c) {
  struct np_buf b = {0};
  np_line_begin(&b);
  np_line_int(&b, "new", c->fresh);
  np_line_int(&b, "known", c->known);
  np_line_int(&b, "too_old", c->too_old);
  np_line_end(&b);
  bool said = say(im, &b);
  np_buf_free(&b);
  return said;
}

/* Takes over the set. It rests for as long as the commit took, so that the keeper and the disk are its own for half of the time at the most. */
static bool commit(struct np_importer *im, struct np_writeset *ws, struct np_import_count *count) {
  struct np_error err;
  ws->node.next = NULL;
  np_import_prepare(ws, im->rules, np_now_ms());
  np_writeset_ref(ws);
  int64_t began = np_mono_us();
  bool committed = np_keeper_apply(im->host->keeper, ws, &err) == NP_COMMITTED;
  struct np_import_count c = np_import_counted(ws);
  np_writeset_unref(ws);
  if (!committed) return refuse(im, err.text);
  np_import_add(count, &c);
  np_import_add(&im->count, &c);
  poll(NULL, 0, (int)((np_mono_us() - began) / 1000));
  return true;
}

static bool take_batch(struct np_importer *im) {
  struct np_error err;
  struct np_import_count count = {0};
  size_t length = take_length(im);
  if (!length) return false;
  np_buf_clear(&im->in);
  if (!take(im, np_buf_reserve(&im->in, length), length)) return false;
  im->in.len = length;
  struct np_writeset *ws = read_batch(im, &err);
  if (!ws) return refuse(im, err.text);
  bool more = true;
  while (ws && more) {
    struct np_writeset *next = (struct np_writeset *)ws->node.next;
    more = wait_for_turn(im);
    if (!more) break;
    more = commit(im, ws, &count);
    ws = next;
  }
  free_sets(ws);
  if (length > NP_IMPORT_BYTES * 4) np_buf_free(&im->in);
  return more && answer(im, &count);
}

static void tell_log(const struct np_importer *im) {
  char fresh[24], known[24], too_old[24];
  snprintf(fresh, sizeof fresh, "%" PRId64, im->count.fresh);
  snprintf(known, sizeof known, "%" PRId64, im->count.known);
  snprintf(too_old, sizeof too_old, "%" PRId64, im->count.too_old);
  np_log(NP_INFO, "readings were imported", "new", fresh, "known", known, "too_old", too_old, "rules",
         im->rules ? "run" : "not run", "by", im->by, NULL);
}

static void *import(void *arg) {
  struct np_importer *im = arg;
  pthread_setname_np(pthread_self(), "neap-import");
  setpriority(PRIO_PROCESS, (id_t)gettid(), 10); /* lanes come first */
  while (take_batch(im)) {}
  if (atomic_load(&im->ending)) refuse(im, "the host is stopping");
  tell_log(im);
  shutdown(im->fd, SHUT_RDWR);
  atomic_store(&im->done, true);
  return NULL;
}

struct np_importer *np_importer_start(struct np_host *host, int fd, bool rules, const char *by, struct np_error *err) {
  struct np_importer *im = np_alloc(sizeof *im);
  im->host = host;
  im->fd = fd;
  im->rules = rules;
  snprintf(im->by, sizeof im->by, "%s", by);
  if (pthread_create(&im->thread, NULL, import, im) == 0) return im;
  np_fail(err, "no thread can be started");
  close(fd);
  free(im);
  return NULL;
}

bool np_importer_done(const struct np_importer *im) { return atomic_load(&im->done); }

void np_importer_end(struct np_importer *im) {
  atomic_store(&im->ending, true);
  shutdown(im->fd, SHUT_RD);
}

void np_importer_free(struct np_importer *im) {
  if (!im) return;
  np_importer_end(im);
  pthread_join(im->thread, NULL);
  close(im->fd);
  np_buf_free(&im->in);
  free(im);
}
