/* A connection: from one request to the next, one at a time, in the order they came. */
#include "io/serve_conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"

#define LINGER_BYTES (16u << 20)
#define LINGER_TOTAL_US 10000000 /* and no longer than */
#define LINGER_SILENT_US 2000000 /* without a byte */
#define SLIM_AFTER_US 2000000    /* silent: its buffers are given back */

/* ---- bytes in and out ---- */

static void set_reading(struct np_conn *c, bool on) {
  if (c->reading == on || c->gone) return;
  c->reading = on;
  if (on)
    event_add(&c->readable, NULL);
  else
    event_del(&c->readable);
}

static void set_writing(struct np_conn *c, bool on) {
  if (c->writing == on || c->gone) return;
  c->writing = on;
  if (on)
    event_add(&c->writable, NULL);
  else
    event_del(&c->writable);
}

static void reuse(struct np_buf *b) {
  if (b->cap > NP_SERVE_KEPT)
    np_buf_free(b);
  else
    np_buf_clear(b);
}

void np_conn_lost(struct np_conn *c, bool reset) {
  if (c->gone) return;
  set_reading(c, false);
  set_writing(c, false);
  np_link_close(&c->link, reset);
  c->gone = true;
  c->wants_more = c->started && !c->finished && c->more;
  c->write_deadline = NP_SERVE_NEVER;
  np_buf_free(&c->out);
  c->out_at = 0;
  np_conn_queue(c);
}

/* Some of an answer was accepted, or the first of it was not. */
static void await_writing(struct np_conn *c) {
  c->write_deadline = np_mono_us() + np_serve_us(c->server->option.write_timeout);
  set_writing(c, true);
}

void np_conn_flush(struct np_conn *c) {
  bool moved = false;
  while (!c->gone && np_conn_buffered(c)) {
    ssize_t n = np_link_write(&c->link, c->out.data + c->out_at, np_conn_buffered(c));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      if (moved || !c->writing) await_writing(c);
      return;
    }
    if (n < 0) {
      np_conn_lost(c, false);
      return;
    }
    moved = true;
    c->out_at += (size_t)n;
  }
  if (c->gone) return;
  c->out_at = 0;
  reuse(&c->out);
  c->write_deadline = NP_SERVE_NEVER;
  set_writing(c, false);
}

/* What the kernel does not take at once is kept. */
void np_conn_send(struct np_conn *c, const void *bytes, size_t n) {
  if (c->gone) return;
  if (!np_conn_buffered(c)) {
    ssize_t sent = np_link_write(&c->link, bytes, n);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      np_conn_lost(c, false);
      return;
    }
    if (sent > 0) bytes = (const char *)bytes + sent, n -= (size_t)sent;
    if (!n) return;
  }
  np_buf_add(&c->out, bytes, n);
  await_writing(c);
}

/* ---- from request to request ---- */

static bool to_phase(struct np_conn *c, enum np_conn_phase phase, int64_t deadline) {
  c->phase = phase;
  c->deadline = deadline;
  c->since = c->server->now;
  return true; /* go on from there */
}

static bool close_now(struct np_conn *c) {
  np_conn_lost(c, false);
  to_phase(c, NP_CONN_CLOSED, NP_SERVE_NEVER);
  return false;
}

/* After the last answer. Closing while the client's bytes lie unread would make the kernel send a reset, which can take the
 * answer away from a client that has not read it yet. */
static bool hang_up(struct np_conn *c) {
  np_link_shutdown(&c->link);
  bool owes_bytes = c->body_due || c->left || c->head.keep_alive;
  if (c->eof || !owes_bytes) return close_now(c);
  c->left = 0;
  return to_phase(c, NP_CONN_LINGER, c->server->now + LINGER_SILENT_US);
}

static bool await_request(struct np_conn *c) {
  const struct np_server_options *o = &c->server->option;
  c->begun = c->left > 0;
  c->scanned = 0;
  double seconds = c->begun || !c->kept ? o->head_timeout : o->idle_timeout;
  return to_phase(c, NP_CONN_HEAD, c->server->now + np_serve_us(seconds));
}

/* The answer is written, or goes nowhere. */
static bool end_request(struct np_conn *c) {
  struct np_server *s = c->server;
  if (c->shown) {
    c->shown = false;
    s->handler.done(s->arg, &c->req);
  }
  np_http_body_free(&c->reader);
  reuse(&c->body);
  if (c->gone) return close_now(c);
  if (c->close) return hang_up(c);
  const char *remote = c->req.remote;
  c->req = (struct np_request){.remote = remote};
  c->body_due = c->skips = c->started = c->finished = c->chunked = c->bodiless = c->wants_more = false;
  c->more = NULL;
  c->kept = true;
  return await_request(c);
}

/* ---- the head ---- */

static bool refuse(struct np_conn *c, int status, const char *why) {
  c->body_due = true; /* for where this message would end is not known */
  np_conn_refuse(c, status, why);
  return to_phase(c, NP_CONN_PENDING, NP_SERVE_NEVER);
}

static void show_fields(struct np_conn *c) {
  struct np_request *r = &c->req;
  const struct np_http_head *h = &c->head;
  r->method = h->method;
  r->target = h->target;
  r->path = h->path;
  r->path_len = h->path_len;
  r->query = h->query;
  r->headers = h->headers;
  r->header_count = h->header_count;
  r->body = "";
  r->received = np_now_ms();
  r->body_max = c->server->option.body_max;
}

static bool show_request(struct np_conn *c) {
  struct np_server *s = c->server;
  c->body_due = false;
  c->req.body = np_buf_text(&c->body);
  c->req.body_len = c->body.len;
  to_phase(c, NP_CONN_PENDING, NP_SERVE_NEVER);
  s->handler.request(s->arg, &c->req);
  return true;
}

/* The body cannot be had: the program says so in its own words. */
static bool show_refused(struct np_conn *c, int status, const char *why) {
  struct np_server *s = c->server;
  c->close = true;
  to_phase(c, NP_CONN_PENDING, NP_SERVE_NEVER);
  s->handler.refused(s->arg, &c->req, status, why);
  if (!c->started) np_conn_refuse(c, status, why);
  return true;
}

static bool body_verdict(struct np_conn *c, enum np_http_body_state state) {
  switch (state) {
  case NP_BODY_MORE: return true;
  case NP_BODY_WHOLE: return show_request(c);
  case NP_BODY_TOO_BIG: return show_refused(c, 413, "the body is too large");
  case NP_BODY_BROKEN: return show_refused(c, 400, "the body is not the gzip that Content-Encoding says it is");
  case NP_BODY_MALFORMED: break;
  }
  return refuse(c, 400, "the body's chunks are malformed");
}

static void set_body_deadline(struct np_conn *c) {
  uint64_t bytes = c->head.length > 0 ? (uint64_t)c->head.length : c->reader.raw;
  uint64_t mib = bytes ? (bytes + (1u << 20) - 1) >> 20 : 1;
  c->deadline = c->since + (int64_t)mib * np_serve_us(c->server->option.body_timeout);
}

static bool begin_body(struct np_conn *c) {
  static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
  if (!c->body_due) return show_request(c);
  if (c->head.coding == NP_CODING_OTHER)
    return show_refused(c, 415, "the body's Content-Encoding is not known here: gzip and identity are");
  bool gzip = c->head.coding == NP_CODING_GZIP;
  enum np_http_body_state state = np_http_body_start(&c->reader, c->head.chunked ? -1 : c->head.length, gzip, c->req.body_max);
  if (state != NP_BODY_MORE) return body_verdict(c, state);
  if (c->head.expects && !c->left) np_conn_send(c, go_on, sizeof go_on - 1);
  to_phase(c, NP_CONN_BODY, 0);
  set_body_deadline(c);
  return true;
}

static bool take_head(struct np_conn *c) {
  struct np_server *s = c->server;
  if (c->gone) return close_now(c);
  if (!c->left && (c->eof || s->draining)) return close_now(c);
  size_t len;
  int found = np_http_head_find(c->at, c->left, s->option.head_max, &c->scanned, &len);
  if (found == 0) return c->eof ? close_now(c) : false;
  if (found > 1)
    return refuse(c, found,
                  found == 414   ? "the target is too long"
                  : found == 431 ? "the head is too long"
                                 : "the head is malformed");
  const char *why = NULL;
  int status = np_http_head_read(&c->head, c->at, len, s->option.header_count_max, &why);
  c->at += len;
  c->left -= len;
  if (status) return refuse(c, status, why);
  c->body_due = c->head.chunked || c->head.length > 0;
  show_fields(c);
  c->shown = true;
  s->handler.head(s->arg, &c->req);
  if (!c->started) return begin_body(c);
  if (c->skips) c->at += c->head.length, c->left -= (size_t)c->head.length;
  return to_phase(c, NP_CONN_PENDING, NP_SERVE_NEVER);
}

/* ---- the body and the answer ---- */

static bool take_body(struct np_conn *c) {
  if (c->started) return to_phase(c, NP_CONN_PENDING, NP_SERVE_NEVER); /* answered ahead of its body */
  if (c->gone) return end_request(c);
  size_t used = 0;
  enum np_http_body_state state = np_http_body_feed(&c->reader, c->at, c->left, &used, &c->body);
  c->at += used;
  c->left -= used;
  if (state != NP_BODY_MORE) return body_verdict(c, state);
  set_body_deadline(c);
  if (c->eof) np_conn_lost(c, false);
  return c->eof;
}

/* The program's turn, or its answer is on the way. */
static bool settle(struct np_conn *c) {
  if (c->eof && c->started && !c->finished) np_conn_lost(c, false); /* nobody seems to listen to this stream any more */
  if (!c->writing) np_conn_flush(c);
  bool room = c->gone || np_conn_buffered(c) < NP_SERVE_BUFFERED / 2;
  if (c->wants_more && !c->finished && room) {
    c->wants_more = false;
    c->more(c->more_arg, &c->req);
    return true;
  }
  if (!c->finished || np_conn_buffered(c)) return false;
  return end_request(c);
}

static bool step(struct np_conn *c) {
  switch (c->phase) {
  case NP_CONN_HEAD: return take_head(c);
  case NP_CONN_BODY: return take_body(c);
  case NP_CONN_PENDING: return settle(c);
  case NP_CONN_LINGER: c->left = 0; return c->eof || c->gone ? close_now(c) : false;
  case NP_CONN_HANDSHAKE: return c->eof || c->gone ? close_now(c) : false;
  case NP_CONN_CLOSED: break;
  }
  return false;
}

/* ---- running ---- */

static size_t waiting(const struct np_conn *c) { return c->in.len - c->in_at; }

/* Keeps what was not consumed. */
static void stash(struct np_conn *c) {
  if (!c->left) {
    c->in_at = 0;
    reuse(&c->in);
  } else if (waiting(c)) {
    c->in_at = (size_t)(c->at - c->in.data);
  } else {
    c->in_at = 0;
    np_buf_clear(&c->in);
    np_buf_add(&c->in, c->at, c->left);
  }
}

static void unqueue(struct np_conn *c) {
  if (!c->queued) return;
  c->queued = false;
  TAILQ_REMOVE(&c->server->ready, c, ready);
}

static void run(struct np_conn *c) {
  unqueue(c);
  c->running = true;
  while (step(c)) {}
  c->running = false;
  if (c->phase == NP_CONN_CLOSED) {
    np_conn_free(c);
    return;
  }
  stash(c);
  set_reading(c, !c->eof && !(c->phase == NP_CONN_PENDING && waiting(c) >= c->server->option.head_max));
}

void np_conn_run(struct np_conn *c) {
  c->at = c->in.data + c->in_at;
  c->left = waiting(c);
  run(c);
}

/* n bytes have come into the server's scratch. */
static void receive(struct np_conn *c, size_t n) {
  struct np_server *s = c->server;
  if (c->phase == NP_CONN_HEAD && !c->begun) {
    c->begun = true;
    c->deadline = s->now + np_serve_us(s->option.head_timeout);
  }
  if (!waiting(c)) {
    c->at = s->scratch;
    c->left = n;
    run(c);
    return;
  }
  if (c->in_at) {
    memmove(c->in.data, c->in.data + c->in_at, waiting(c));
    c->in.len -= c->in_at;
    c->in_at = 0;
  }
  np_buf_add(&c->in, s->scratch, n);
  np_conn_run(c);
}

void np_conn_queue(struct np_conn *c) {
  struct np_server *s = c->server;
  if (c->running || c->queued || s->freeing) return;
  if (TAILQ_EMPTY(&s->ready)) event_active(&s->wake, 0, 0);
  TAILQ_INSERT_TAIL(&s->ready, c, ready);
  c->queued = true;
}

static void shake_hands(struct np_conn *c) {
  int rc = np_link_handshake(&c->link);
  if (rc < 0) np_conn_lost(c, false);
  set_writing(c, rc == 0 && c->link.wants_write);
  if (rc > 0) await_request(c);
  np_conn_run(c);
}

/* Reads past TLS: nobody is interested in what it is. */
static void discard(struct np_conn *c) {
  struct np_server *s = c->server;
  ssize_t n = recv(c->link.fd, s->scratch, sizeof s->scratch, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  c->lingered += n > 0 ? (size_t)n : 0;
  int64_t end = c->since + LINGER_TOTAL_US;
  c->deadline = s->now + LINGER_SILENT_US < end ? s->now + LINGER_SILENT_US : end;
  if (n <= 0 || c->lingered > LINGER_BYTES) np_conn_lost(c, false);
  np_conn_run(c);
}

static void on_readable(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_conn *c = arg;
  struct np_server *s = c->server;
  s->now = np_mono_us();
  if (c->phase == NP_CONN_HANDSHAKE)
    shake_hands(c);
  else if (c->phase == NP_CONN_LINGER)
    discard(c);
  else {
    ssize_t n = np_link_read(&c->link, s->scratch, sizeof s->scratch);
    if (n > 0) {
      receive(c, (size_t)n);
      return;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      if (c->link.wants_write) set_writing(c, true);
      if (s->draining) np_conn_run(c);
      return;
    }
    if (n == 0)
      c->eof = true;
    else
      np_conn_lost(c, false);
    np_conn_run(c);
  }
}

static void on_writable(evutil_socket_t fd, short what, void *arg) {
  struct np_conn *c = arg;
  c->server->now = np_mono_us();
  if (c->phase == NP_CONN_HANDSHAKE) {
    shake_hands(c);
  } else if (np_conn_buffered(c)) {
    np_conn_flush(c);
    np_conn_run(c);
  } else { /* TLS had something of its own to send before it could read */
    set_writing(c, false);
    on_readable(fd, what, arg);
  }
}

/* A request may lie in the socket already, so it is looked into once more. */
void np_conn_drain(struct np_conn *c) {
  if (c->phase == NP_CONN_HEAD && !c->begun) event_active(&c->readable, EV_READ, 0);
}

/* ---- beginning and end ---- */

struct np_conn *np_conn_new(struct np_server *s, int fd) {
  struct np_conn *c = np_alloc(sizeof *c);
  c->server = s;
  np_link_open(&c->link, fd, s->tls);
  event_assign(&c->readable, s->base, fd, EV_READ | EV_PERSIST, on_readable, c);
  event_assign(&c->writable, s->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
  c->write_deadline = NP_SERVE_NEVER;
  TAILQ_INSERT_TAIL(&s->all, c, all);
  s->count++;
  await_request(c);
  if (s->tls) c->phase = NP_CONN_HANDSHAKE;
  set_reading(c, true);
  return c;
}

void np_conn_free(struct np_conn *c) {
  struct np_server *s = c->server;
  unqueue(c);
  np_conn_lost(c, false);
  unqueue(c);
  TAILQ_REMOVE(&s->all, c, all);
  s->count--;
  np_buf_free(&c->in);
  np_buf_free(&c->body);
  np_buf_free(&c->out);
  np_http_head_free(&c->head);
  np_http_body_free(&c->reader);
  free((char *)(uintptr_t)c->req.remote);
  free(c);
  np_serve_left(s);
}

/* A deadline has passed. */
static void expire(struct np_conn *c) {
  c->at = c->in.data + c->in_at; /* for hang_up, which asks whether something is left */
  c->left = waiting(c);
  if (c->phase == NP_CONN_HEAD && c->begun)
    refuse(c, 408, "the head took too long");
  else if (c->phase == NP_CONN_BODY)
    refuse(c, 408, "the body took too long");
  else
    np_conn_lost(c, false);
  np_conn_run(c);
}

static void slim(struct np_conn *c) {
  np_buf_free(&c->in);
  np_buf_free(&c->body);
  np_http_head_free(&c->head);
}

void np_conn_sweep(struct np_conn *c) {
  int64_t now = c->server->now;
  if (now >= c->write_deadline) {
    np_conn_lost(c, true);
    np_conn_run(c);
  } else if (now >= c->deadline) {
    expire(c);
  } else if (c->phase == NP_CONN_HEAD && !c->begun && now - c->since > SLIM_AFTER_US) {
    slim(c);
  }
}
