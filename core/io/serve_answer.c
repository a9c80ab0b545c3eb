/* Answering requests. Nothing here calls back into the program: see serve_conn.h. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "io/serve_conn.h"

const char *np_request_header(const struct np_request *req, const char *name) {
  for (size_t i = 0; i < req->header_count; i++)
    if (strcasecmp(req->headers[i].name, name) == 0) return req->headers[i].value;
  return NULL;
}

static const char *date(struct np_server *s) {
  int64_t second = np_now_ms() / 1000;
  if (second != s->date_second) {
    np_http_date(s->date, second);
    s->date_second = second;
  }
  return s->date;
}

/* Whether the connection can go on after this answer. The body of a request that is answered at its head is not taken in,
 * but where it has come along with the head it is skipped, which spares the client a new connection. */
static void decide(struct np_conn *c) {
  c->skips = c->phase == NP_CONN_HEAD && c->shown && c->body_due && !c->head.chunked && c->left >= (uint64_t)c->head.length;
  if (c->skips) c->body_due = false;
  if (!c->head.keep_alive || c->server->draining || c->body_due) c->close = true;
}

static void add_head(struct np_conn *c, struct np_buf *to, int status, const struct np_header *headers, size_t count,
                     int64_t length) {
  const char *connection = c->close ? "close" : c->head.minor == 0 ? "keep-alive" : NULL;
  np_http_reply_head(to, &(struct np_http_reply){status, headers, count, date(c->server), connection, length});
}

/* Sends a whole answer, at once where the socket takes it. */
static void answer(struct np_conn *c, int status, const struct np_header *headers, size_t count, const void *body, size_t n) {
  struct np_buf *to = &c->server->answer;
  c->started = c->finished = true;
  if (c->gone) return;
  if (status < 200 || status > 999) { /* nothing after it could be understood */
    c->close = true;
    if (status < 100 || status > 999) status = 500;
  }
  decide(c);
  add_head(c, to, status, headers, count, (int64_t)n);
  if (np_http_has_body(status) && strcmp(c->req.method ? c->req.method : "", "HEAD") != 0) np_buf_add(to, body, n);
  np_conn_send(c, to->data, to->len);
  if (to->cap > 4 * NP_SERVE_KEPT)
    np_buf_free(to);
  else
    np_buf_clear(to);
}

void np_conn_refuse(struct np_conn *c, int status, const char *why) {
  static const struct np_header type = {"Content-Type", "text/plain; charset=utf-8"};
  char text[256];
  if (c->started) return;
  int n = snprintf(text, sizeof text, "%d %s: %s\n", status, np_http_reason(status), why);
  c->close = true;
  answer(c, status, &type, 1, text, (size_t)n);
}

void np_request_reply(struct np_request *req, int status, const struct np_header *headers, size_t header_count, const void *body,
                      size_t body_len) {
  struct np_conn *c = np_conn_of(req);
  if (c->started) return;
  answer(c, status, headers, header_count, body, body_len);
  np_conn_queue(c);
}

void np_request_start(struct np_request *req, int status, const struct np_header *headers, size_t header_count,
                      void (*more)(void *arg, struct np_request *req), void *arg) {
  struct np_conn *c = np_conn_of(req);
  if (c->started) return;
  c->started = true;
  c->more = more;
  c->more_arg = arg;
  c->wants_more = c->gone && more;
  if (status < 200 || status > 999) status = 500;
  c->bodiless = !np_http_has_body(status) || strcmp(req->method, "HEAD") == 0;
  c->chunked = c->head.minor == 1 && !c->bodiless;
  if (c->head.minor == 0) c->close = true; /* its end is the connection's */
  if (!c->gone) {
    decide(c);
    add_head(c, &c->out, status, headers, header_count, c->head.minor == 1 ? NP_REPLY_CHUNKED : NP_REPLY_UNTIL_CLOSE);
  }
  np_conn_queue(c);
}

static void add_chunk(struct np_conn *c, const void *bytes, size_t n) {
  if (c->out_at > NP_SERVE_BUFFERED) { /* what has been sent makes room */
    memmove(c->out.data, c->out.data + c->out_at, np_conn_buffered(c));
    c->out.len -= c->out_at;
    c->out_at = 0;
  }
  if (c->chunked) np_buf_addf(&c->out, "%zx\r\n", n);
  np_buf_add(&c->out, bytes, n);
  if (c->chunked) np_buf_add(&c->out, "\r\n", 2);
}

bool np_request_write(struct np_request *req, const void *bytes, size_t n) {
  struct np_conn *c = np_conn_of(req);
  if (!c->started || c->finished) return true;
  if (!c->gone && n && !c->bodiless) add_chunk(c, bytes, n);
  if (np_conn_buffered(c) >= NP_SERVE_BUFFERED && !c->writing) np_conn_flush(c);
  bool room = !c->gone && np_conn_buffered(c) < NP_SERVE_BUFFERED;
  if (!room) c->wants_more = c->more != NULL;
  np_conn_queue(c);
  return room;
}

void np_request_finish(struct np_request *req) {
  struct np_conn *c = np_conn_of(req);
  if (!c->started) {
    np_request_reply(req, 500, NULL, 0, NULL, 0);
    return;
  }
  if (c->finished) return;
  c->finished = true;
  if (!c->gone && c->chunked) np_buf_add(&c->out, "0\r\n\r\n", 5);
  np_conn_queue(c);
}

void np_request_abort(struct np_request *req) {
  struct np_conn *c = np_conn_of(req);
  if (c->started && c->finished) return;
  c->started = c->finished = true;
  np_conn_lost(c, c->head.minor == 0); /* without chunks, an end would look like the end */
  np_conn_queue(c);
}

bool np_request_gone(const struct np_request *req) {
  const struct np_conn *c = np_conn_of(req);
  return c->gone || c->eof;
}
