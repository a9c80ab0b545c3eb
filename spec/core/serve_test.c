/* The HTTP server over real sockets. */
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <zlib.h>

#include "io/serve.h"
#include "serve_client.h"

#define H "Host: a\r\n"
#define MAX_PENDING 64

/* What the program under test has been called for. */
static struct {
  int heads, requests, refused, done, more;
  int status;                              /* of the last refusal */
  struct np_request *pending[MAX_PENDING]; /* of /later and /stream, in order */
  int pending_count;
  char last_path[256], last_remote[64];
  size_t streamed, stream_total;
  bool more_saw_gone;
} seen;

static struct np_server *server;

static bool is(const struct np_request *r, const char *path) { return strcmp(r->path, path) == 0; }

static void say(struct np_request *r, int status, const char *text) {
  static const struct np_header type = {"Content-Type", "text/plain"};
  np_request_reply(r, status, &type, 1, text, strlen(text));
}

static void on_head(void *arg, struct np_request *r) {
  (void)arg;
  seen.heads++;
  CHECK(!r->user && r->body_len == 0 && r->body_max == 1000, "a fresh request");
  r->user = &seen;
  snprintf(seen.last_path, sizeof seen.last_path, "%s", r->path);
  snprintf(seen.last_remote, sizeof seen.last_remote, "%s", r->remote);
  if (is(r, "/no")) say(r, 401, "no");
  if (is(r, "/max10")) r->body_max = 10;
  if (is(r, "/big")) r->body_max = 8 << 20;
  if (is(r, "/later-head")) seen.pending[seen.pending_count++] = r;
}

/* Numbered bytes, so that a hole would show. */
static void stream(void *arg, struct np_request *r) {
  (void)arg;
  seen.more++;
  if (np_request_gone(r)) {
    seen.more_saw_gone = true;
    np_request_finish(r);
    return;
  }
  char piece[1000];
  while (seen.streamed < seen.stream_total) {
    for (size_t i = 0; i < sizeof piece; i++) piece[i] = (char)('a' + (seen.streamed + i) % 23);
    seen.streamed += sizeof piece;
    if (!np_request_write(r, piece, sizeof piece)) return;
  }
  np_request_finish(r);
}

static void on_request(void *arg, struct np_request *r) {
  (void)arg;
  seen.requests++;
  CHECK(r->body[r->body_len] == 0, "the body is terminated");
  static const struct np_header odd[] = {{"X-Good", "1"},    {"X-Bad", "a\r\nX-Evil: 1"}, {"X-Evil\r\nY", "1"}, {"X Evil", "1"},
                                         {"", "1"},          {"Content-Length", "7"},     {"connection", "x"},  {"Date", "x"},
                                         {"X-Evil", "a\nb"}, {"Transfer-Encoding", "x"},  {"X-Last", "2"}};
  if (is(r, "/echo"))
    np_request_reply(r, 200, NULL, 0, r->body, r->body_len);
  else if (is(r, "/odd"))
    np_request_reply(r, 200, odd, sizeof odd / sizeof *odd, "odd", 3);
  else if (is(r, "/204"))
    np_request_reply(r, 204, NULL, 0, "dropped", 7);
  else if (is(r, "/304"))
    np_request_reply(r, 304, NULL, 0, "dropped", 7);
  else if (is(r, "/twice"))
    say(r, 200, "one"), say(r, 500, "two");
  else if (is(r, "/later"))
    seen.pending[seen.pending_count++] = r;
  else if (is(r, "/stream")) {
    np_request_start(r, 200, NULL, 0, stream, NULL);
    stream(NULL, r);
  } else if (is(r, "/open")) {
    np_request_start(r, 200, NULL, 0, stream, NULL);
    np_request_write(r, "first", 5);
    np_request_write(r, "", 0);
    seen.pending[seen.pending_count++] = r;
  } else if (is(r, "/large")) {
    char *large = calloc(1, 8 << 20);
    memset(large, 'x', 8 << 20);
    np_request_reply(r, 200, NULL, 0, large, 8 << 20);
    free(large);
  } else
    say(r, 200, "ok");
}

static void on_refused(void *arg, struct np_request *r, int status, const char *why) {
  (void)arg;
  seen.refused++;
  seen.status = status;
  if (!is(r, "/mute")) say(r, status, why);
}

static void on_done(void *arg, struct np_request *r) {
  (void)arg;
  CHECK(r->user == &seen, "done once for each head");
  r->user = NULL;
  seen.done++;
}

static const struct np_server_handler handler = {on_head, on_request, on_refused, on_done};

static void start(struct np_server_options o) {
  struct np_error err = {0};
  memset(&seen, 0, sizeof seen);
  seen.stream_total = 20000000;
  if (!o.address) o.address = "127.0.0.1:0";
  if (!o.body_max) o.body_max = 1000;
  server = np_server_new(loop, &o, &handler, NULL, &err);
  if (!server) {
    fprintf(stderr, "%s\n", err.text);
    exit(1);
  }
}

static struct client call(void) { return dial(np_server_port(server)); }

/* Every request that was shown is done once nobody is connected any more. */
static void stop(void) {
  UNTIL(NULL, np_server_connections(server) == 0);
  CHECK(seen.heads == seen.done, "%d heads, %d done", seen.heads, seen.done);
  np_server_free(server);
  CHECK(event_base_get_num_events(loop, EVENT_BASE_COUNT_ADDED | EVENT_BASE_COUNT_ACTIVE) == 0, "no event is left");
}

static void check_answer(struct client *c, int status, const char *body, bool closes) {
  struct answer a = answer(c);
  CHECK(a.status == status, "%d, not %d: %s", a.status, status, a.head);
  if (body) CHECK(strcmp(np_buf_text(&a.body), body) == 0, "%s, not %s", np_buf_text(&a.body), body);
  const char *connection = field(&a, "Connection");
  CHECK((connection && strcmp(connection, "close") == 0) == closes, "Connection: %s", connection ? connection : "");
  CHECK(!a.cut && field(&a, "Date"));
  np_buf_free(&a.body);
  if (!closes) return;
  UNTIL(c, (take(c), c->closed));
  CHECK(!c->reset && c->in.len == 0, "%s", np_buf_text(&c->in));
}

/* One request on a connection of its own, in pieces. */
static void ask(const char *text, size_t n, size_t step, int status, const char *body, bool closes) {
  struct client c = call();
  for (size_t at = 0; at < n && !c.closed; at += step) {
    tell_bytes(&c, text + at, at + step < n ? step : n - at);
    event_base_loop(loop, EVLOOP_NONBLOCK);
  }
  check_answer(&c, status, body, closes);
  hang_up(&c, false);
}

static void ask_text(const char *text, int status, const char *body, bool closes) {
  ask(text, strlen(text), 1, status, body, closes);
  ask(text, strlen(text), 100000, status, body, closes);
}

static void test_plain(void) {
  start((struct np_server_options){0});
  ask_text("GET / HTTP/1.1\r\n" H "\r\n", 200, "ok", false);
  CHECK(strcmp(seen.last_remote, "127.0.0.1") == 0, "%s", seen.last_remote);
  ask_text("GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n", 200, "ok", true);
  ask_text("GET / HTTP/1.0\r\n\r\n", 200, "ok", true);
  ask_text("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, "ok", false);
  ask_text("GET /%41?b HTTP/1.1\r\n" H "\r\n", 200, "ok", false);
  CHECK(strcmp(seen.last_path, "/A") == 0, "%s", seen.last_path);
  ask_text("OPTIONS * HTTP/1.1\r\n" H "\r\n", 200, "ok", false);
  ask_text("GET /204 HTTP/1.1\r\n" H "\r\n", 204, "", false);
  ask_text("GET /304 HTTP/1.1\r\n" H "\r\n", 304, "", false);
  ask_text("GET /twice HTTP/1.1\r\n" H "\r\n", 200, "one", false);
  ask_text("POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello", 200, "hello", false);
  ask_text("POST /echo HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", 200, "", false);
  stop();
}

static void test_head_and_headers(void) {
  start((struct np_server_options){0});
  struct client c = call();
  tell(&c, "HEAD /odd HTTP/1.1\r\n" H "\r\nGET /odd HTTP/1.1\r\n" H "\r\nHEAD /204 HTTP/1.1\r\n" H "\r\nHEAD /stream HTTP/1.1\r\n" H
           "\r\nGET / HTTP/1.1\r\n" H "\r\n");
  struct answer head = answer_to(&c, true), get = answer(&c);
  CHECK(head.status == 200 && strcmp(field(&head, "Content-Length"), "3") == 0 && head.body.len == 0);
  CHECK(strcmp(head.head, get.head) == 0 && strcmp(np_buf_text(&get.body), "odd") == 0, "%s", get.head);
  CHECK(!strcasestr(get.head, "evil") && !strstr(get.head, "X-Bad") && field(&get, "X-Good") && field(&get, "X-Last"), "%s",
        get.head);
  CHECK(!field(&get, "Connection") && !field(&get, "Transfer-Encoding"), "%s", get.head);
  np_buf_free(&get.body);
  struct answer none = answer_to(&c, true);
  CHECK(none.status == 204 && !field(&none, "Content-Length"), "%s", none.head);
  struct answer streamed = answer_to(&c, true);
  CHECK(streamed.status == 200 && field(&streamed, "Transfer-Encoding"), "%s", streamed.head);
  check_answer(&c, 200, "ok", false);
  hang_up(&c, false);
  stop();
}

static void test_pipeline(void) {
  start((struct np_server_options){0});
  struct client c = call();
  tell(&c,
       "POST /later HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabcGET /later HTTP/1.1\r\n" H "\r\n\r\nGET /a HTTP/1.1\r\n" H "\r\n");
  UNTIL(&c, seen.pending_count == 1);
  for (int i = 0; i < 20; i++) event_base_loop(loop, EVLOOP_NONBLOCK);
  CHECK(seen.heads == 1, "the next one waits for the answer to this one");
  CHECK(strcmp(seen.pending[0]->body, "abc") == 0 && seen.done == 0);
  say(seen.pending[0], 200, "one");
  CHECK(seen.done == 0, "nothing is called back from inside an answer");
  UNTIL(&c, seen.pending_count == 2);
  CHECK(seen.done == 1);
  say(seen.pending[1], 201, "two");
  check_answer(&c, 200, "one", false);
  check_answer(&c, 201, "two", false);
  check_answer(&c, 200, "ok", false);
  hang_up(&c, false);
  stop();
}

/* While a request is pending, no more than a bounded amount is read ahead; then all is answered. */
static void test_pipeline_is_bounded(void) {
  start((struct np_server_options){0});
  struct client c = call();
  tell(&c, "GET /later HTTP/1.1\r\n" H "\r\n");
  UNTIL(&c, seen.pending_count == 1);
  char one[1000] = "GET /abc HTTP/1.1\r\n" H "Long: ";
  memset(one + strlen(one), 'x', sizeof one - strlen(one));
  strcpy(one + sizeof one - 5, "\r\n\r\n");
  size_t sent = 0, stuck = 0;
  while (stuck < 50) { /* until the server has taken nothing for a while */
    ssize_t n = send(c.fd, one + sent % (sizeof one - 1), sizeof one - 1 - sent % (sizeof one - 1), MSG_NOSIGNAL);
    if (n > 0)
      sent += (size_t)n, stuck = 0;
    else
      stuck++, event_base_loop(loop, EVLOOP_NONBLOCK);
    if (sent > (64u << 20)) break;
  }
  CHECK(sent < (64u << 20), "the server reads without end");
  size_t left = (sizeof one - 1 - sent % (sizeof one - 1)) % (sizeof one - 1);
  say(seen.pending[0], 200, "one");
  check_answer(&c, 200, "one", false);
  if (left) tell_bytes(&c, one + sizeof one - 1 - left, left);
  size_t expected = (sent + left) / (sizeof one - 1);
  for (size_t i = 0; i < expected; i++) {
    struct answer a = answer(&c);
    if (a.status != 200) CHECK(a.status == 200, "%d: %s", a.status, a.head);
    np_buf_free(&a.body);
  }
  CHECK(seen.requests == (int)expected + 1);
  hang_up(&c, false);
  stop();
}

static void test_chunked(void) {
#define CHUNKED "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
  static const struct {
    const char *text;
    int status;
    const char *body;
  } table[] = {
      {"0\r\n\r\n", 200, ""},
      {"5\r\nhello\r\n0\r\n\r\n", 200, "hello"},
      {"5;a=b;c=\"d\"\r\nhello\r\n1 ; x\r\n!\r\n00\r\nTrailer: x\r\nAnother: y\r\n\r\n", 200, "hello!"},
      {"00000000000000A\r\n0123456789\r\n0\r\n\r\n", 200, "0123456789"},
      {"0000000000000000\r\n\r\n", 400, NULL},
      {"\r\n0\r\n\r\n", 400, NULL},
      {"5\nhello\r\n0\r\n\r\n", 400, NULL},
      {"5\r\nhello0\r\n\r\n", 400, NULL},
      {"5\r\nhello\n0\r\n\r\n", 400, NULL},
      {"5\r\nhello\r\n0\r\n\n", 400, NULL},
      {"-5\r\nhello\r\n0\r\n\r\n", 400, NULL},
      {"0x5\r\nhello\r\n0\r\n\r\n", 400, NULL},
      {"g\r\n", 400, NULL},
      {";a\r\n", 400, NULL},
      {"5;\x01\r\nhello\r\n0\r\n\r\n", 400, NULL},
      {"5;a\rb\r\nhello\r\n0\r\n\r\n", 400, NULL},
      {"0\r\nA: \x01\r\n\r\n", 400, NULL},
      {"3e9\r\n", 413, "the body is too large"},
      {"fffffffffffffff\r\n", 413, "the body is too large"},
  };
  start((struct np_server_options){0});
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    char text[512];
    snprintf(text, sizeof text, "%s%s", CHUNKED, table[i].text);
    ask_text(text, table[i].status, table[i].body, table[i].status != 200);
  }
  struct np_buf long_one = {0};
  np_buf_adds(&long_one, CHUNKED "1;");
  for (int i = 0; i < 1100; i++) np_buf_addc(&long_one, 'x');
  ask(long_one.data, long_one.len, 100, 400, NULL, true);
  np_buf_clear(&long_one);
  np_buf_adds(&long_one, CHUNKED "0\r\n");
  for (int i = 0; i < 2000; i++) np_buf_adds(&long_one, "a: b\r\n");
  ask(long_one.data, long_one.len, 1000, 400, NULL, true);
  np_buf_free(&long_one);
  stop();
}

/* The bound, one below, one above, by length and by chunks. */
static void test_body_max(void) {
  start((struct np_server_options){0});
  ask_text("POST /max10 HTTP/1.1\r\n" H "Content-Length: 9\r\n\r\n123456789", 200, "ok", false);
  ask_text("POST /max10 HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\n1234567890", 200, "ok", false);
  CHECK(seen.refused == 0);
  ask_text("POST /max10 HTTP/1.1\r\n" H "Content-Length: 11\r\n\r\n12345678901", 413, "the body is too large", true);
  ask_text("POST /max10 HTTP/1.1\r\n" H "Content-Length: 11\r\n\r\n", 413, "the body is too large", true);
  CHECK(seen.refused == 4 && seen.status == 413);
  ask_text("POST /max10 HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n", 200, "ok",
           false);
  ask_text("POST /max10 HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n6\r\n123456\r\n0\r\n\r\n", 413, NULL,
           true);
  ask_text("POST /mute HTTP/1.1\r\n" H "Content-Length: 1001\r\n\r\n", 413, "413 Content Too Large: the body is too large\n", true);
  /* a long body that nobody wants: the client still gets to read why */
  struct client c = call();
  tell(&c, "POST /max10 HTTP/1.1\r\n" H "Content-Length: 4000000\r\n\r\n");
  char *junk = calloc(1, 4000000);
  size_t took = tell_bytes(&c, junk, 4000000);
  CHECK(took == 4000000, "%zu taken", took);
  free(junk);
  check_answer(&c, 413, "the body is too large", true);
  hang_up(&c, false);
  stop();
}

static void test_expect(void) {
  start((struct np_server_options){0});
  struct client c = call();
  tell(&c, "POST /echo HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
  struct answer a = answer(&c);
  CHECK(a.status == 100 && seen.requests == 0, "%s", a.head);
  tell(&c, "hello");
  check_answer(&c, 200, "hello", false);
  tell(&c, "POST /no HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
  check_answer(&c, 401, "no", true);
  hang_up(&c, false);
  ask_text("POST /echo HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n", 413, NULL, true);
  ask_text("POST /echo HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", 200, "", false);
  ask_text("POST /echo HTTP/1.1\r\n" H "Expect: more\r\nContent-Length: 0\r\n\r\n", 417, NULL, true);
  stop();
}

/* Answered at its head: a body that is there is skipped, one that is not ends the connection. */
static void test_answered_at_head(void) {
  start((struct np_server_options){0});
  static const char both[] = "POST /no HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n" H "\r\n";
  struct client c = call();
  tell(&c, both);
  check_answer(&c, 401, "no", false);
  check_answer(&c, 200, "ok", false);
  hang_up(&c, false);
  ask_text("GET /no HTTP/1.1\r\n" H "\r\n", 401, "no", false);
  static const char part[] = "POST /no HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhell";
  ask(part, sizeof part - 1, 1000, 401, "no", true);
  ask_text("POST /no HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 401, "no", true);
  c = call();
  tell(&c, "POST /later-head HTTP/1.1\r\n" H "Content-Length: 500\r\n\r\nabc");
  UNTIL(&c, seen.pending_count == 1);
  say(seen.pending[0], 403, "later");
  check_answer(&c, 403, "later", true);
  CHECK(seen.requests == 1, "no request was shown whose body was not there");
  hang_up(&c, false);
  stop();
}

static void test_refused_heads(void) {
  static const struct {
    const char *text;
    int status;
  } table[] = {
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"\x16\x03\x01\x02", 400},
      {"GET / HTTP/3.0\r\n\r\n", 505},
      {"GET /%zz HTTP/1.1\r\n" H "\r\n", 400},
      {"POST / HTTP/1.1\r\n" H "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: br\r\n\r\n", 501},
      {"GET / HTTP/1.1\r\n" H "a: 1\r\na: 2\r\na: 3\r\na: 4\r\n\r\n", 431},
      {"GET / HTTP/1.1\r\n" H "a: 1234567890123456789012345678901234567890\r\na: 12345678901234567890\r\n\r\n", 431},
      {"GET /12345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 HTTP/1.1\r\n", 414},
  };
  start((struct np_server_options){.head_max = 90, .header_count_max = 4});
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) ask_text(table[i].text, table[i].status, NULL, true);
  CHECK(seen.heads == 0, "the program has not seen any");
  struct client c = call();
  tell(&c, "GET / HTTP/1.1\r\n" H "\r\nnonsense\n\n");
  check_answer(&c, 200, "ok", false);
  check_answer(&c, 400, NULL, true);
  hang_up(&c, false);
  stop();
}

static struct np_buf gzip(const char *bytes, size_t n) {
  struct np_buf out = {0};
  z_stream z = {0};
  deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  size_t room = deflateBound(&z, n);
  z.next_in = (Bytef *)(uintptr_t)bytes;
  z.avail_in = (uInt)n;
  z.next_out = (Bytef *)np_buf_reserve(&out, room);
  z.avail_out = (uInt)room;
  deflate(&z, Z_FINISH);
  out.len = room - z.avail_out;
  deflateEnd(&z);
  return out;
}

static void ask_gzip(const struct np_buf *body, const char *coding, int status, const char *wanted) {
  struct np_buf text = {0};
  np_buf_addf(&text, "POST /echo HTTP/1.1\r\n" H "Content-Encoding: %s\r\nContent-Length: %zu\r\n\r\n", coding, body->len);
  np_buf_add(&text, body->data, body->len);
  ask(text.data, text.len, 1, status, wanted, status != 200);
  ask(text.data, text.len, 1000000, status, wanted, status != 200);
  np_buf_clear(&text);
  np_buf_addf(&text, "POST /echo HTTP/1.1\r\n" H "Content-Encoding: %s\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n", coding,
              body->len);
  np_buf_add(&text, body->data, body->len);
  np_buf_adds(&text, "\r\n0\r\n\r\n");
  ask(text.data, text.len, 7, status, wanted, status != 200);
  np_buf_free(&text);
}

static void test_gzip(void) {
  start((struct np_server_options){0});
  struct np_buf one = gzip("hello", 5), empty = gzip("", 0), whole = {0}, plain = {0};
  ask_gzip(&one, "gzip", 200, "hello");
  ask_gzip(&empty, "gzip", 200, "");
  np_buf_add(&whole, one.data, one.len);
  np_buf_add(&whole, empty.data, empty.len);
  np_buf_add(&whole, one.data, one.len);
  ask_gzip(&whole, "x-gzip", 200, "hellohello");
  whole.len = one.len - 1;
  ask_gzip(&whole, "gzip", 400, NULL);
  whole.len = one.len + 3;
  ask_gzip(&whole, "gzip", 400, NULL);
  np_buf_adds(&plain, "hello");
  ask_gzip(&plain, "gzip", 400, NULL);
  ask_gzip(&plain, "identity", 200, "hello");
  CHECK(seen.status == 400);
  ask_gzip(&plain, "br", 415, NULL);
  ask_gzip(&one, "gzip, gzip", 415, NULL);
  char *zeros = calloc(1, 4 << 20);
  memset(zeros, 'z', 4 << 20);
  for (size_t n = 999; n <= 1001; n++) { /* the bound is 1000 */
    struct np_buf body = gzip(zeros, n);
    ask_gzip(&body, "gzip", n <= 1000 ? 200 : 413, NULL);
    np_buf_free(&body);
  }
  struct np_buf bomb = gzip(zeros, 4 << 20); /* 4 KB on the wire are 4 MB */
  ask_gzip(&bomb, "gzip", 413, NULL);
  np_buf_clear(&whole); /* members that hold nothing add up too */
  for (int i = 0; i < 200; i++) np_buf_add(&whole, empty.data, empty.len);
  ask_gzip(&whole, "gzip", 413, NULL);
  free(zeros);
  np_buf_free(&bomb);
  np_buf_free(&one);
  np_buf_free(&empty);
  np_buf_free(&whole);
  np_buf_free(&plain);
  stop();
}

static void check_streamed(struct answer *a) {
  CHECK(a->status == 200 && !a->cut && a->body.len == seen.stream_total, "%zu bytes", a->body.len);
  size_t wrong = 0;
  for (size_t i = 0; i < a->body.len; i++) wrong += a->body.data[i] != (char)('a' + i % 23);
  CHECK(wrong == 0, "%zu bytes are not where they belong", wrong);
  np_buf_free(&a->body);
}

static void test_stream(void) {
  start((struct np_server_options){0});
  struct client c = call();
  tell(&c, "GET /stream HTTP/1.1\r\n" H "\r\n");
  UNTIL(&c, seen.requests == 1);
  for (int i = 0; i < 100; i++) event_base_loop(loop, EVLOOP_NONBLOCK);
  size_t ahead = seen.streamed;
  CHECK(ahead < seen.stream_total || seen.more > 1, "it was asked to wait");
  struct answer a = answer(&c);
  CHECK(field(&a, "Transfer-Encoding") && !field(&a, "Content-Length"), "%s", a.head);
  check_streamed(&a);
  tell(&c, "GET / HTTP/1.1\r\n" H "\r\n");
  check_answer(&c, 200, "ok", false);
  hang_up(&c, false);
  seen.streamed = 0;
  c = call();
  tell(&c, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  a = answer(&c);
  CHECK(!field(&a, "Transfer-Encoding") && strcmp(field(&a, "Connection"), "close") == 0, "%s", a.head);
  CHECK(!c.reset);
  check_streamed(&a);
  hang_up(&c, false);
  c = call();
  tell(&c, "GET /open HTTP/1.1\r\n" H "\r\n");
  UNTIL(&c, (take(&c), strstr(np_buf_text(&c.in), "first")));
  np_request_write(seen.pending[0], "second", 6);
  UNTIL(&c, (take(&c), strstr(np_buf_text(&c.in), "second")));
  CHECK(seen.done == 3);
  np_request_finish(seen.pending[0]);
  check_answer(&c, 200, "firstsecond", false);
  CHECK(seen.done == 4);
  hang_up(&c, false);
  stop();
}

static void test_abort(void) {
  start((struct np_server_options){0});
  for (int minor = 0; minor < 2; minor++) {
    struct client c = call();
    tell(&c, minor ? "GET /open HTTP/1.1\r\n" H "\r\n" : "GET /open HTTP/1.0\r\n\r\n");
    UNTIL(&c, (take(&c), strstr(np_buf_text(&c.in), "first")));
    np_request_abort(seen.pending[minor]);
    struct answer a = answer(&c);
    CHECK(minor ? a.cut : c.reset, "the client can tell that it is not whole");
    np_buf_free(&a.body);
    hang_up(&c, false);
  }
  stop();
}

static void test_large_answer(void) {
  start((struct np_server_options){0});
  struct client c = call();
  tell(&c, "GET /large HTTP/1.1\r\n" H "\r\nGET / HTTP/1.1\r\n" H "\r\n");
  UNTIL(&c, seen.requests == 1);
  CHECK(seen.done == 0, "not done before it is written");
  struct answer a = answer(&c);
  CHECK(a.status == 200 && a.body.len == 8 << 20 && a.body.data[a.body.len - 1] == 'x');
  np_buf_free(&a.body);
  check_answer(&c, 200, "ok", false);
  hang_up(&c, false);
  stop();
}

/* The client vanishes: in the head, in the body, while pending, in the middle of an answer. */
static void test_vanishing(bool reset) {
  static const char *const texts[] = {"",
                                      "GET / HT",
                                      "POST /echo HTTP/1.1\r\n" H "Content-Length: 50\r\n\r\nhalf",
                                      "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
                                      "GET /large HTTP/1.1\r\n" H "\r\n",
                                      "GET /stream HTTP/1.1\r\n" H "\r\n",
                                      "GET / HTTP/1.1\r\n" H "\r\n"};
  start((struct np_server_options){0});
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct client c = call();
    tell(&c, texts[i]);
    UNTIL(&c, np_server_connections(server) == 1);
    for (int j = 0; j < 5; j++) event_base_loop(loop, EVLOOP_NONBLOCK);
    seen.streamed = 0;
    hang_up(&c, reset);
    UNTIL(NULL, np_server_connections(server) == 0);
    CHECK(seen.heads == seen.done, "%s: %d heads, %d done", texts[i], seen.heads, seen.done);
  }
  CHECK(seen.more_saw_gone, "a stream is told");
  stop();
  for (int how = 0; how < 4; how++) { /* pending: it stays valid until it is answered */
    start((struct np_server_options){0});
    struct client c = call();
    tell(&c, "POST /later HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc");
    UNTIL(&c, seen.pending_count == 1);
    struct np_request *r = seen.pending[0];
    CHECK(!np_request_gone(r));
    hang_up(&c, reset);
    UNTIL(NULL, np_request_gone(r));
    CHECK(seen.done == 0 && strcmp(r->body, "abc") == 0 && strcmp(r->path, "/later") == 0 && np_server_connections(server) == 1);
    if (how == 0) say(r, 200, "late");
    if (how == 1) np_request_abort(r);
    if (how >= 2) np_request_start(r, 200, NULL, 0, how == 3 ? stream : NULL, NULL);
    if (how == 2) np_request_write(r, "x", 1), np_request_finish(r);
    UNTIL(NULL, seen.done == 1);
    stop();
  }
}

/* A client that has sent all it will still gets its answers. */
static void test_half_closed(void) {
  start((struct np_server_options){0});
  struct client c = call();
  tell(&c, "GET /later HTTP/1.1\r\n" H "\r\nGET /a HTTP/1.1\r\n" H "\r\n");
  shutdown(c.fd, SHUT_WR);
  UNTIL(&c, seen.pending_count == 1 && np_request_gone(seen.pending[0]));
  say(seen.pending[0], 200, "one");
  check_answer(&c, 200, "one", false);
  check_answer(&c, 200, "ok", false);
  UNTIL(&c, (take(&c), c.closed));
  hang_up(&c, false);
  stop();
}

static void test_deadlines(void) {
  start((struct np_server_options){.head_timeout = 0.05, .body_timeout = 0.05, .idle_timeout = 0.05, .write_timeout = 0.05});
  struct client c = call(); /* silent from the start, and silent after a request */
  UNTIL(&c, (take(&c), c.closed));
  CHECK(c.in.len == 0);
  hang_up(&c, false);
  c = call();
  tell(&c, "GET / HTTP/1.1\r\n" H "\r\n");
  check_answer(&c, 200, "ok", false);
  UNTIL(&c, (take(&c), c.closed));
  CHECK(c.in.len == 0);
  hang_up(&c, false);
  c = call();
  tell(&c, "GET / HTTP/1.1\r\nHo");
  check_answer(&c, 408, NULL, true);
  hang_up(&c, false);
  c = call();
  tell(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhel");
  check_answer(&c, 408, NULL, true);
  CHECK(seen.heads == 2 && seen.done == 2 && seen.refused == 0);
  hang_up(&c, false);
  c = call();
  tell(&c, "GET /large HTTP/1.1\r\n" H "\r\n");
  UNTIL(NULL, seen.heads == 3 && np_server_connections(server) == 0); /* it never reads */
  CHECK(seen.done == 3);
  hang_up(&c, false);
  c = call();
  tell(&c, "GET /later HTTP/1.1\r\n" H "\r\n"); /* the program may take its time */
  UNTIL(&c, seen.pending_count == 1);
  struct client idle = call();
  UNTIL(&idle, (take(&idle), idle.closed));
  CHECK(np_server_connections(server) == 1);
  say(seen.pending[0], 200, "at last");
  check_answer(&c, 200, "at last", false);
  hang_up(&idle, false);
  hang_up(&c, false);
  stop();
}

/* Bytes that trickle in do not prolong a deadline. */
static void test_slow_loris(void) {
  start((struct np_server_options){.head_timeout = 0.3});
  struct client c = call();
  int sent = 0;
  for (; !c.closed && !c.in.len && sent < 30000; sent++) {
    send(c.fd, sent ? "x" : "G", 1, MSG_NOSIGNAL);
    turn(&c);
    take(&c);
    poll(NULL, 0, 5);
  }
  struct answer a = answer(&c);
  CHECK(a.status == 408, "%d", a.status);
  np_buf_free(&a.body);
  hang_up(&c, true);
  stop();
}

static void test_drain(void) {
  start((struct np_server_options){0});
  struct client idle = call(), busy = call(), half = call(), fresh = call();
  tell(&idle, "GET / HTTP/1.1\r\n" H "\r\n");
  check_answer(&idle, 200, "ok", false);
  tell(&busy, "GET /later HTTP/1.1\r\n" H "\r\n");
  tell(&half, "GET / HTTP/1.1\r\n");
  UNTIL(&busy, seen.pending_count == 1 && np_server_connections(server) == 4);
  for (int i = 0; i < 5; i++) event_base_loop(loop, EVLOOP_NONBLOCK);
  tell(&fresh, "GET /fresh HTTP/1.1\r\n" H "\r\n"); /* lies in the socket, unread */
  struct client queued = call();                    /* lies in the kernel's queue */
  tell(&queued, "GET /queued HTTP/1.1\r\n" H "\r\n");
  np_server_drain(server);
  np_server_drain(server);
  UNTIL(&idle, (take(&idle), idle.closed));
  CHECK(idle.in.len == 0 && !idle.reset);
  check_answer(&fresh, 200, "ok", true);
  check_answer(&queued, 200, "ok", true);
  struct sockaddr_in to = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)np_server_port(server)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno == ECONNREFUSED, "it no longer listens");
  close(fd);
  tell(&half, H "\r\n");
  check_answer(&half, 200, "ok", true);
  say(seen.pending[0], 200, "late");
  check_answer(&busy, 200, "late", true);
  hang_up(&idle, false);
  hang_up(&busy, false);
  hang_up(&half, false);
  hang_up(&fresh, false);
  hang_up(&queued, false);
  stop();
}

static void test_free_with_requests(void) {
  start((struct np_server_options){0});
  struct client a = call(), b = call(), c = call(), d = call();
  tell(&a, "GET /later HTTP/1.1\r\n" H "\r\n");
  tell(&b, "GET /open HTTP/1.1\r\n" H "\r\n");
  tell(&c, "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\na");
  tell(&d, "GET /la");
  UNTIL(&a, seen.heads == 3 && seen.pending_count == 2);
  np_server_free(server);
  CHECK(seen.done == 3, "%d done", seen.done);
  CHECK(event_base_get_num_events(loop, EVENT_BASE_COUNT_ADDED | EVENT_BASE_COUNT_ACTIVE) == 0);
  hang_up(&a, false);
  hang_up(&b, false);
  hang_up(&c, false);
  hang_up(&d, false);
  np_server_free(NULL);
}

static void test_connections_max(void) {
  start((struct np_server_options){.connections_max = 2});
  struct client c[4];
  for (int i = 0; i < 4; i++) {
    c[i] = call();
    tell(&c[i], "GET / HTTP/1.1\r\n" H "\r\n");
  }
  check_answer(&c[0], 200, "ok", false);
  check_answer(&c[1], 200, "ok", false);
  for (int i = 0; i < 20; i++) turn(NULL);
  CHECK(np_server_connections(server) == 2 && seen.heads == 2, "the others wait");
  hang_up(&c[0], false);
  check_answer(&c[2], 200, "ok", false);
  hang_up(&c[1], false);
  check_answer(&c[3], 200, "ok", false);
  hang_up(&c[2], false);
  hang_up(&c[3], false);
  stop();
}

/* Out of file descriptors: the server waits rather than spins, and takes the connection once it can. */
static void test_no_descriptors(void) {
  start((struct np_server_options){0});
  struct client c = call();
  tell(&c, "GET / HTTP/1.1\r\n" H "\r\n");
  struct rlimit old, none;
  getrlimit(RLIMIT_NOFILE, &old);
  none = old;
  none.rlim_cur = (rlim_t)c.fd; /* the lowest free one is above it */
  setrlimit(RLIMIT_NOFILE, &none);
  int turns = 0;
  event_base_loop(loop, EVLOOP_ONCE); /* accept fails */
  CHECK(np_server_connections(server) == 0);
  while (np_server_connections(server) == 0 && turns < 10) {
    if (turns++ == 2) setrlimit(RLIMIT_NOFILE, &old);
    event_base_loop(loop, EVLOOP_ONCE); /* returns at once where the loop spins */
  }
  CHECK(turns <= 5 && np_server_connections(server) == 1, "%d turns", turns);
  setrlimit(RLIMIT_NOFILE, &old);
  check_answer(&c, 200, "ok", false);
  hang_up(&c, false);
  stop();
}

/* ---- addresses and TLS ---- */

/* The kernel shares a port among programs of one user: two hosts by mistake would each have got a part of the readings. */
static void test_alone(void) {
  char address[32];
  struct np_error err = {0};
  start((struct np_server_options){0});
  snprintf(address, sizeof address, "127.0.0.1:%d", np_server_port(server));
  struct np_server_options o = {.address = address, .alone = true};
  CHECK(!np_server_new(loop, &o, &handler, NULL, &err) && strstr(err.text, "in use"), "%s", err.text);
  o.alone = false;
  struct np_server *shares = np_server_new(loop, &o, &handler, NULL, &err);
  CHECK(shares, "%s", err.text);
  np_server_free(shares);
  struct client left = call();
  tell(&left, "GET / HTTP/1.1\r\n" H "\r\n");
  check_answer(&left, 200, "ok", false);
  np_server_free(server); /* its end of the connection goes on for a while in the kernel */
  o.alone = true;
  server = np_server_new(loop, &o, &handler, NULL, &err);
  CHECK(server, "%s", err.text);
  hang_up(&left, false);
  stop();
}

static void test_addresses(void) {
  static const char *const bad[] = {"",       "8080",  "127.0.0.1", "127.0.0.1:", "127.0.0.1:x",  "127.0.0.1:65536",
                                    "::1:80", "[::1]", "[::1:80",   "[::1]x:80",  "127.0.0.1:-1", "203.0.113.7:0"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct np_error err = {0};
    struct np_server_options o = {.address = bad[i]};
    CHECK(!np_server_new(loop, &o, &handler, NULL, &err) && strstr(err.text, bad[i]), "%s: %s", bad[i], err.text);
  }
  int six = socket(AF_INET6, SOCK_STREAM, 0);
  struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  if (six >= 0 && bind(six, (struct sockaddr *)&loopback, sizeof loopback) == 0) { /* not every machine has IPv6 */
    start((struct np_server_options){.address = "[::]:0"});
    struct client c = call();
    tell(&c, "GET / HTTP/1.1\r\n" H "\r\n");
    check_answer(&c, 200, "ok", false);
    CHECK(strcmp(seen.last_remote, "127.0.0.1") == 0, "an IPv4 client is shown as one: %s", seen.last_remote);
    hang_up(&c, false);
    stop();
  }
  if (six >= 0) close(six);
  start((struct np_server_options){.address = "localhost:0"});
  CHECK(np_server_port(server) > 0);
  stop();
}

static char dir[] = "/tmp/neap-serve-XXXXXX", certificate[64], key_file[64], other_key[64];

static EVP_PKEY *write_key(const char *path) {
  EVP_PKEY *key = EVP_EC_gen("P-256");
  FILE *f = fopen(path, "w");
  PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
  fclose(f);
  return key;
}

static void make_certificate(void) {
  if (!mkdtemp(dir)) exit(1);
  snprintf(certificate, sizeof certificate, "%s/cert.pem", dir);
  snprintf(key_file, sizeof key_file, "%s/key.pem", dir);
  snprintf(other_key, sizeof other_key, "%s/other.pem", dir);
  EVP_PKEY_free(write_key(other_key));
  EVP_PKEY *key = write_key(key_file);
  X509 *x = X509_new();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
  X509_gmtime_adj(X509_getm_notBefore(x), -60);
  X509_gmtime_adj(X509_getm_notAfter(x), 3600);
  X509_set_pubkey(x, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0);
  X509_set_issuer_name(x, X509_get_subject_name(x));
  X509_sign(x, key, EVP_sha256());
  FILE *f = fopen(certificate, "w");
  PEM_write_X509(f, x);
  fclose(f);
  X509_free(x);
  EVP_PKEY_free(key);
}

static void remove_certificate(void) {
  unlink(certificate);
  unlink(key_file);
  unlink(other_key);
  rmdir(dir);
}

static struct client call_tls(SSL_CTX *ctx) {
  struct client c = call();
  c.ssl = SSL_new(ctx);
  SSL_set_fd(c.ssl, c.fd);
  int rc;
  UNTIL(&c, (rc = SSL_connect(c.ssl)) == 1 || SSL_get_error(c.ssl, rc) != SSL_ERROR_WANT_READ);
  if (rc != 1) c.closed = true;
  return c;
}

static void test_tls_conversation(SSL_CTX *ctx) {
  struct client c = call_tls(ctx);
  seen.streamed = 0;
  const unsigned char *alpn = NULL;
  unsigned alpn_len = 0;
  SSL_get0_alpn_selected(c.ssl, &alpn, &alpn_len);
  CHECK(alpn_len == 8 && memcmp(alpn, "http/1.1", 8) == 0);
  tell(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhelloGET /large HTTP/1.1\r\n" H "\r\nGET /stream HTTP/1.1\r\n" H
           "\r\n");
  check_answer(&c, 200, "hello", false);
  struct answer a = answer(&c);
  CHECK(a.status == 200 && a.body.len == 8 << 20, "%zu", a.body.len);
  np_buf_free(&a.body);
  a = answer(&c);
  check_streamed(&a);
  char *body = calloc(1, 3 << 20);
  memset(body, 'b', 3 << 20);
  tell(&c, "POST /big HTTP/1.1\r\n" H "Content-Length: 3145728\r\n\r\n");
  CHECK(tell_bytes(&c, body, 3 << 20) == 3 << 20);
  free(body);
  check_answer(&c, 200, "ok", false);
  tell(&c, "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
  check_answer(&c, 200, "ok", true); /* with TLS's own end, or it would count as reset */
  hang_up(&c, false);
}

static void test_tls(void) {
  static const unsigned char protocols[] = "\x02h2\x08http/1.1";
  start((struct np_server_options){.certificate = certificate, .key = key_file});
  SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_alpn_protos(ctx, protocols, sizeof protocols - 1);
  test_tls_conversation(ctx);
  SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
  test_tls_conversation(ctx);
  SSL_CTX_set_max_proto_version(ctx, TLS1_1_VERSION);
  SSL_CTX_set_security_level(ctx, 0);
  struct client old = call_tls(ctx);
  CHECK(old.closed, "TLS 1.1 is refused");
  hang_up(&old, false);
  SSL_CTX_free(ctx);
  struct client plain = call();
  tell(&plain, "GET / HTTP/1.1\r\n" H "\r\n");
  UNTIL(&plain, (take(&plain), plain.closed));
  CHECK(!strstr(np_buf_text(&plain.in), "HTTP/1.1 "), "no answer in the clear");
  hang_up(&plain, false);
  stop();
  start((struct np_server_options){.certificate = certificate, .key = key_file, .head_timeout = 0.05});
  struct client silent = call();
  UNTIL(&silent, (take(&silent), silent.closed));
  hang_up(&silent, false);
  stop();
}

static void test_tls_mistakes(void) {
  const struct {
    const char *certificate, *key, *names;
  } table[] = {{"/nowhere/cert.pem", key_file, "/nowhere/cert.pem: No such file"},
               {certificate, "/nowhere/key.pem", "/nowhere/key.pem: No such file"},
               {certificate, NULL, "without a key"},
               {key_file, key_file, key_file},
               {certificate, certificate, certificate},
               {certificate, other_key, other_key}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    struct np_error err = {0};
    struct np_server_options o = {.address = "127.0.0.1:0", .certificate = table[i].certificate, .key = table[i].key};
    CHECK(!np_server_new(loop, &o, &handler, NULL, &err) && strstr(err.text, table[i].names), "%s", err.text);
  }
}

/* ---- two lanes on one port ---- */

struct lane {
  struct event_base *base;
  struct np_server *server;
  int requests, done;
};

static void lane_head(void *arg, struct np_request *r) { (void)arg, (void)r; }
static void lane_request(void *arg, struct np_request *r) {
  struct lane *l = arg;
  l->requests++;
  np_request_reply(r, 200, NULL, 0, "lane", 4);
  if (strcmp(r->path, "/stop") == 0) np_server_drain(l->server);
}
static void lane_refused(void *arg, struct np_request *r, int status, const char *why) {
  (void)arg;
  np_request_reply(r, status, NULL, 0, why, strlen(why));
}
static void lane_done(void *arg, struct np_request *r) {
  (void)r;
  ((struct lane *)arg)->done++;
}

static void *lane_run(void *arg) {
  struct lane *l = arg;
  event_base_dispatch(l->base); /* ends when nothing is left to wait for: drained, and nobody connected */
  return NULL;
}

static void test_lanes(void) {
  struct lane lanes[2] = {0};
  pthread_t threads[2];
  char address[32] = "127.0.0.1:0";
  const struct np_server_handler h = {lane_head, lane_request, lane_refused, lane_done};
  for (int i = 0; i < 2; i++) {
    struct np_error err = {0};
    struct np_server_options o = {.address = address};
    lanes[i].base = event_base_new();
    lanes[i].server = np_server_new(lanes[i].base, &o, &h, &lanes[i], &err);
    CHECK(lanes[i].server, "%s", err.text);
    snprintf(address, sizeof address, "127.0.0.1:%d", np_server_port(lanes[0].server));
  }
  int port = np_server_port(lanes[0].server), sent = 0, stops = 0;
  CHECK(port == np_server_port(lanes[1].server));
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, lane_run, &lanes[i]);
  for (int i = 0; i < 200; i++, sent++) {
    struct client c = dial(port);
    tell(&c, "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    check_answer(&c, 200, "lane", true);
    hang_up(&c, false);
  }
  for (; stops < 2; stops++, sent++) { /* the first one drains one of them, then the other gets them all */
    struct client c = dial(port);
    tell(&c, "GET /stop HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    check_answer(&c, 200, "lane", true);
    hang_up(&c, false);
  }
  for (int i = 0; i < 2; i++) {
    pthread_join(threads[i], NULL);
    CHECK(lanes[i].requests > 0 && lanes[i].requests == lanes[i].done, "%d requests", lanes[i].requests);
    np_server_free(lanes[i].server);
    event_base_free(lanes[i].base);
  }
  CHECK(lanes[0].requests + lanes[1].requests == sent);
}

int main(void) {
  loop = event_base_new();
  test_plain();
  test_head_and_headers();
  test_pipeline();
  test_pipeline_is_bounded();
  test_chunked();
  test_body_max();
  test_expect();
  test_answered_at_head();
  test_refused_heads();
  test_gzip();
  test_stream();
  test_abort();
  test_large_answer();
  test_vanishing(false);
  test_vanishing(true);
  test_half_closed();
  test_deadlines();
  test_slow_loris();
  test_drain();
  test_free_with_requests();
  test_connections_max();
  test_no_descriptors();
  test_alone();
  test_addresses();
  make_certificate();
  test_tls();
  test_tls_mistakes();
  remove_certificate();
  test_lanes();
  event_base_free(loop);
  return check_end();
}
