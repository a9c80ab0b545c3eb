/* A connection's way from one request to the next: one at a time, in the order they came. Each step returns whether there is
 * a further one to take now. */
#include "base/clock.h"
#include "io/serve_conn.h"

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
  return to_phase(c, NP_CONN_LINGER, c->server->now + NP_SERVE_LINGER_US);
}

bool np_conn_await(struct np_conn *c) {
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
  np_conn_reuse(&c->body);
  if (c->gone) return close_now(c);
  if (c->close) return hang_up(c);
  const char *remote = c->req.remote;
  c->req = (struct np_request){.remote = remote};
  c->body_due = c->skips = c->started = c->finished = c->chunked = c->bodiless = c->wants_more = false;
  c->more = NULL;
  c->kept = true;
  return np_conn_await(c);
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

bool np_conn_step(struct np_conn *c) {
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

bool np_conn_too_late(struct np_conn *c) {
  if (c->phase == NP_CONN_HEAD && c->begun) return refuse(c, 408, "the head took too long");
  if (c->phase == NP_CONN_BODY) return refuse(c, 408, "the body took too long");
  return false;
}
