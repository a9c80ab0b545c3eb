/* Records of a file. */
#include "cli/records.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "host/reading_text.h"

enum { CHUNK = 1 << 16 };
enum { START, PLAIN, QUOTED, CLOSED }; /* of a field of CSV: before it, in it, in its quotes, behind a quote that may close it */

static int step(int state, char c) {
  switch (state) {
  case START: return c == '"' ? QUOTED : c == ',' ? START : PLAIN;
  case PLAIN: return c == ',' ? START : PLAIN;
  case QUOTED: return c == '"' ? CLOSED : QUOTED;
  default: return c == '"' ? QUOTED : c == ',' ? START : PLAIN;
  }
}

/* The line break that ends the record; NULL: it has not been read. */
static const char *find_end(struct np_records *r) {
  const char *from = r->in.data + r->looked, *end = r->in.data + r->in.len;
  const char *p = from;
  if (!r->csv) {
    p = r->looked < r->in.len ? memchr(from, '\n', (size_t)(end - from)) : NULL;
    r->looked = p ? (size_t)(p - r->in.data) : r->in.len;
    return p;
  }
  for (; p < end && (*p != '\n' || r->state == QUOTED); p++) r->state = step(r->state, *p);
  r->looked = (size_t)(p - r->in.data);
  return p < end ? p : NULL;
}

/* More of the file: 1, 0 where it ends, 2 where nothing comes in time, -1. */
static int read_more(struct np_records *r, int wait_ms, struct np_error *err) {
  struct pollfd p = {.fd = r->fd, .events = POLLIN};
  int ready;
  while ((ready = poll(&p, 1, wait_ms)) < 0 && errno == EINTR) {}
  if (ready == 0) return 2;
  if (r->at) {
    r->in.len -= r->at;
    memmove(r->in.data, r->in.data + r->at, r->in.len + 1);
    r->looked -= r->at;
    r->at = 0;
  }
  char *to = np_buf_reserve(&r->in, CHUNK);
  ssize_t n;
  while ((n = read(r->fd, to, CHUNK)) < 0 && errno == EINTR) {}
  if (n < 0) return np_fail(err, "%s", strerror(errno));
  r->in.len += (size_t)n;
  r->in.data[r->in.len] = 0;
  return n > 0;
}

static void skip_mark(struct np_records *r) {
  r->next = 1;
  if (r->in.len >= 3 && memcmp(r->in.data, "\xEF\xBB\xBF", 3) == 0) r->at = r->looked = 3;
}

static enum np_records_next give(struct np_records *r, const char *end, const char **record, size_t *len) {
  const char *start = r->in.data + r->at;
  r->line = r->next;
  for (const char *p = start; (p = memchr(p, '\n', (size_t)(end - p))); p++) r->next++;
  r->next++;
  r->at = (size_t)(end - r->in.data) + (end < r->in.data + r->in.len);
  r->looked = r->at;
  r->state = START;
  *record = start;
  *len = (size_t)(end - start);
  if (*len && end[-1] == '\r') --*len;
  return NP_RECORDS_ONE;
}

/* A number that is cut off is another number. Of NDJSON the brace that closes says that a line is whole. */
static enum np_records_next give_rest(struct np_records *r, const char **record, size_t *len, struct np_error *err) {
  if (r->at == r->in.len) return NP_RECORDS_END;
  r->line = r->next;
  if (r->csv && r->state == QUOTED)
    return np_fail(err, "the file ends within quotes, which begin in this record or were never closed");
  if (r->csv) return np_fail(err, "the file ends within a line: is all of it there? If it is, end it with a line break");
  return give(r, r->in.data + r->in.len, record, len);
}

static enum np_records_next next(struct np_records *r, int wait_ms, const char **record, size_t *len, struct np_error *err) {
  for (;;) {
    const char *end = r->next && r->in.len ? find_end(r) : NULL;
    if (end) return give(r, end, record, len);
    if (r->ended) return give_rest(r, record, len, err);
    if (r->in.len - r->at > NP_READING_TEXT_MAX) {
      r->line = r->next;
      return np_fail(err, "longer than %d MiB%s", NP_READING_TEXT_MAX >> 20, r->csv ? ": is a quote not closed?" : "");
    }
    int more = read_more(r, wait_ms, err);
    if (more < 0) return NP_RECORDS_ERROR;
    if (more == 2) return NP_RECORDS_LATE;
    r->ended = !more;
    if (!r->next && (r->in.len >= 3 || r->ended)) skip_mark(r);
  }
}

enum np_records_next np_records_next(struct np_records *r, int wait_ms, const char **record, size_t *len, struct np_error *err) {
  enum np_records_next got;
  do got = next(r, wait_ms, record, len, err);
  while (got == NP_RECORDS_ONE && !*len);
  return got;
}

void np_records_free(struct np_records *r) { np_buf_free(&r->in); }
