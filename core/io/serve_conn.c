/* A connection: its bytes in and out, its events, its deadlines. What the bytes mean is serve_request.c's. */
#include "io/serve_conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"

#define LINGER_BYTES (16u << 20)
#define LINGER_TOTAL_US 10000000 /* and no longer than */
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
  np_conn_reuse(&c->out);
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

/* ---- running ---- */

static size_t waiting(const struct np_conn *c) { return c->in.len - c->in_at; }

/* Keeps what was not consumed. */
static void stash(struct np_conn *c) {
  if (!c->left) {
    c->in_at = 0;
    np_conn_reuse(&c->in);
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
  while (np_conn_step(c)) {}
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
  if (rc > 0) np_conn_await(c);
  np_conn_run(c);
}

/* Reads past TLS: nobody is interested in what it is. */
static void discard(struct np_conn *c) {
  struct np_server *s = c->server;
  ssize_t n = recv(c->link.fd, s->scratch, sizeof s->scratch, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  c->lingered += n > 0 ? (size_t)n : 0;
  int64_t end = c->since + LINGER_TOTAL_US;
  c->deadline = s->now + NP_SERVE_LINGER_US < end ? s->now + NP_SERVE_LINGER_US : end;
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
  np_conn_await(c);
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
  if (!np_conn_too_late(c)) np_conn_lost(c, false);
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
