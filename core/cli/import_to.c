/* The two ways of an import. */
#include "cli/import_to.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "host/client.h"
#include "host/client_show.h"
#include "host/reading_text.h"
#include "store/store.h"

/* A line of the host's answer, without its newline, in to->in. */
static int read_answer(struct np_import_to *to, struct np_error *err) {
  np_buf_clear(&to->in);
  for (;;) {
    char c;
    ssize_t n = recv(to->fd, &c, 1, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return np_fail(err, "the host went away");
    if (c == '\n') return 0;
    np_buf_addc(&to->in, c);
  }
}

/* Where the host refuses it does not read on, and its answer says why. */
static int ask(struct np_import_to *to, struct np_error *err) {
  for (size_t sent = 0; sent < to->out.len;) {
    ssize_t n = send(to->fd, to->out.data + sent, to->out.len - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    sent += (size_t)n;
  }
  if (read_answer(to, err) < 0) return -1;
  struct np_show *show = np_show_new("import", false, true); /* it knows what an error looks like */
  int result = np_show_line(show, np_buf_text(&to->in), to->in.len, err);
  np_show_free(show);
  return result;
}

int np_import_open(struct np_import_to *to, const char *store, bool rules, struct np_error *err) {
  bool none;
  *to = (struct np_import_to){.rules = rules};
  to->fd = np_client_connect(store, &none, err);
  if (to->fd < 0) {
    to->store = none ? np_store_open(store, err) : NULL;
    return to->store ? 0 : -1;
  }
  np_buf_addf(&to->out, "{\"command\":\"import\",\"rules\":%s}\n", rules ? "true" : "false");
  if (ask(to, err) == 0) return 0;
  np_import_close(to);
  return -1;
}

static int put_host(struct np_import_to *to, struct np_writeset *ws, struct np_import_count *count, struct np_error *err) {
  struct np_buf lines = {0};
  long long fresh, known, too_old;
  for (const struct np_op *op = ws->first; op; op = op->next) np_reading_write_json(&lines, &op->as.reading);
  np_buf_clear(&to->out);
  np_buf_addf(&to->out, "%zu\n", lines.len);
  np_buf_add(&to->out, lines.data, lines.len);
  np_buf_free(&lines);
  if (ask(to, err) < 0) return -1;
  if (sscanf(to->in.data, "{\"new\":%lld,\"known\":%lld,\"too_old\":%lld}", &fresh, &known, &too_old) != 3)
    return np_fail(err, "the host answers what this neap does not know: %.200s", to->in.data);
  *count = (struct np_import_count){fresh, known, too_old};
  return 0;
}

static int put_store(struct np_import_to *to, struct np_writeset *ws, struct np_import_count *count, struct np_error *err) {
  np_import_prepare(ws, to->rules, np_now_ms());
  if (np_store_apply(to->store, &ws, 1, err) < 0) return -1;
  if (ws->outcome != NP_COMMITTED) return np_fail(err, "%s", ws->error);
  *count = np_import_counted(ws);
  return 0;
}

int np_import_put(struct np_import_to *to, struct np_writeset *ws, struct np_import_count *count, struct np_error *err) {
  return to->store ? put_store(to, ws, count, err) : put_host(to, ws, count, err);
}

void np_import_close(struct np_import_to *to) {
  if (to->fd >= 0) close(to->fd);
  np_store_close(to->store);
  np_buf_free(&to->out);
  np_buf_free(&to->in);
  *to = (struct np_import_to){.fd = -1};
}
