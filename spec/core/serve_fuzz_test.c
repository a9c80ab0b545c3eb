/* 20,000 requests, mutated and cut at random points, against a live server: each connection ends with well-formed answers or
 * with none, every request that was shown is done, and a good request is still answered. The seed is fixed. */
#include "io/serve.h"
#include "serve_client.h"

#define ROUNDS 20000

static int shown, done;
static size_t body_bytes;

static uint64_t state = 0x9e3779b97f4a7c15;

/* xorshift64* */
static size_t below(size_t n) {
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return (size_t)((state * 0x2545f4914f6cdd1d) >> 33) % n;
}

static void on_head(void *arg, struct np_request *r) {
  (void)arg;
  shown++;
  if (strstr(r->path, "no")) np_request_reply(r, 401, NULL, 0, "no", 2);
}

/* Reads all it is given, so that ASan sees what is not there. */
static void on_request(void *arg, struct np_request *r) {
  (void)arg;
  for (size_t i = 0; i <= r->body_len; i++) body_bytes += r->body[i] != 0;
  body_bytes += strlen(r->method) + strlen(r->target) + strlen(r->query) + strlen(r->remote);
  CHECK(strlen(r->path) == r->path_len, "no 0 byte in a path");
  for (size_t i = 0; i < r->header_count; i++) body_bytes += strlen(r->headers[i].name) + strlen(r->headers[i].value);
  if (strstr(r->path, "stream")) {
    np_request_start(r, 200, r->headers, r->header_count, NULL, NULL); /* what came goes back, as far as it may */
    np_request_write(r, r->body, r->body_len);
    np_request_finish(r);
  } else
    np_request_reply(r, 200, r->headers, r->header_count, r->body, r->body_len);
}

static void on_refused(void *arg, struct np_request *r, int status, const char *why) {
  (void)arg;
  np_request_reply(r, status, NULL, 0, why, strlen(why));
}

static void on_done(void *arg, struct np_request *r) {
  (void)arg, (void)r;
  done++;
}

#define H "Host: a\r\n"
static const struct {
  const char *text;
  size_t n;
} seeds[] = {
#define SEED(text)                                                                                                                 \
  { text, sizeof text - 1 }
    SEED("GET /a%20b?x=1 HTTP/1.1\r\n" H "Accept: */*\r\n\r\n"),
    SEED("POST /echo HTTP/1.1\r\n" H "Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"value\":5.6}"),
    SEED("POST /stream HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nT: x\r\n\r\n"),
    SEED("POST /gzip HTTP/1.1\r\n" H "Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n"
         "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\x07\x00\x86\xa6\x10\x36\x05\x00\x00\x00"),
    SEED("GET /1 HTTP/1.1\r\n" H "\r\nHEAD /2 HTTP/1.1\r\n" H "\r\nGET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    SEED("PUT /no HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
    SEED("OPTIONS * HTTP/1.1\r\n" H "Connection: close\r\n\r\n"),
};

/* Pieces that matter to a parser. */
static const char *const spice[] = {"\r\n",
                                    "\r",
                                    "\n",
                                    "\r\n\r\n",
                                    " ",
                                    "\t",
                                    ":",
                                    ";",
                                    "%",
                                    "%00",
                                    "0\r\n\r\n",
                                    "Content-Length: 5\r\n",
                                    "Transfer-Encoding: chunked\r\n",
                                    "Content-Encoding: gzip\r\n",
                                    "Expect: 100-continue\r\n",
                                    "Connection: close\r\n",
                                    "HTTP/1.0",
                                    "HTTP/1.1",
                                    "ffffffffffffffff",
                                    "-1",
                                    "HEAD ",
                                    "/stream",
                                    "99999999999999999999",
                                    "\x1f\x8b\x08",
                                    "\xff\xfe"};

static void patch(struct np_buf *b, size_t at, size_t cut, const char *bytes, size_t n) {
  struct np_buf to = {0};
  np_buf_add(&to, b->data, at);
  np_buf_add(&to, bytes, n);
  np_buf_add(&to, b->data + at + cut, b->len - at - cut);
  np_buf_free(b);
  *b = to;
}

static void mutate(struct np_buf *b) {
  size_t at = below(b->len + 1), left = b->len - at;
  const char *piece = spice[below(sizeof spice / sizeof *spice)];
  switch (below(6)) {
  case 0:
    if (left) b->data[at] = (char)below(256);
    break;
  case 1:
    if (left) b->data[at] = (char)(b->data[at] ^ 1 << below(8));
    break;
  case 2: patch(b, at, 0, piece, strlen(piece)); break;
  case 3: patch(b, at, left ? below(left < 20 ? left : 20) : 0, "", 0); break;
  case 4: patch(b, at, left ? below(left < 8 ? left : 8) : 0, piece, strlen(piece)); break;
  default: { /* a part once more, now and then very often */
    struct np_buf part = {0};
    size_t n = left ? below(left < 40 ? left : 40) : 0, times = below(20) ? 1 : below(100);
    for (size_t i = 0; i < times; i++) np_buf_add(&part, b->data + at, n);
    patch(b, at, 0, np_buf_text(&part), part.len);
    np_buf_free(&part);
  }
  }
}

/* Another address of the client for each, so that ports do not run out. */
static struct client dial_from(int port, int i) {
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)i % 200)},
                     to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct client c = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  bind(c.fd, (struct sockaddr *)&from, sizeof from);
  if (connect(c.fd, (struct sockaddr *)&to, sizeof to) < 0) {
    perror("connect");
    exit(1);
  }
  fcntl(c.fd, F_SETFL, O_NONBLOCK);
  return c;
}

static void send_in_pieces(struct client *c, const struct np_buf *b) {
  size_t pieces = 1 + below(4);
  for (size_t at = 0, i = 1; at < b->len && !c->closed; i++) {
    size_t n = i >= pieces ? b->len - at : below(b->len - at + 1);
    ssize_t sent = send(c->fd, b->data + at, n, MSG_NOSIGNAL);
    if (sent > 0) at += (size_t)sent;
    if (sent < 0 && errno != EAGAIN) break;
    event_base_loop(loop, EVLOOP_NONBLOCK);
    take(c);
  }
}

/* Whether an answer's start line and headers are what they have to be, in as far as the server answers for them. */
static bool is_well_formed(const struct np_buf *b, size_t end) {
  const char *text = np_buf_text(b);
  if (!is_answer(text)) return false;
  for (const char *line = strstr(text, "\r\n") + 2; line < text + end - 2; line = strstr(line, "\r\n") + 2) {
    size_t n = strcspn(line, "\r\n");
    if (line[n] != '\r' || line[n + 1] != '\n' || !memchr(line, ':', n)) return false;
  }
  return true;
}

/* Walks the answers. HEAD cannot be told from here, so what follows a head may be the body or the next answer. */
static bool are_answers(const struct np_buf *in) {
  struct np_buf b = {0};
  np_buf_add(&b, in->data, in->len);
  bool good = true;
  while (b.len && good) {
    const char *blank = strstr(b.data, "\r\n\r\n");
    size_t head = blank ? (size_t)(blank - b.data) + 4 : 0;
    good = head && is_well_formed(&b, head);
    if (!good) break;
    struct answer a = {0};
    struct client c = {.fd = -1, .closed = true, .in = b};
    bool next = is_answer(b.data + head) || head == b.len;
    parse(&c, &a, next);
    good = a.status > 0 && !a.cut;
    size_t used = c.in.len ? c.at : b.len;
    struct np_buf left = {0};
    np_buf_add(&left, c.in.data + used, c.in.len ? b.len - used : 0);
    np_buf_free(&a.body);
    np_buf_free(&c.in);
    b = left;
  }
  np_buf_free(&b);
  return good;
}

static void round_trip(int port, int i) {
  size_t seed = below(sizeof seeds / sizeof *seeds);
  struct np_buf b = {0};
  np_buf_add(&b, seeds[seed].text, seeds[seed].n);
  for (size_t n = below(5); n; n--) mutate(&b);
  struct client c = dial_from(port, i);
  send_in_pieces(&c, &b);
  bool vanish = below(10) == 0;
  if (!vanish) {
    shutdown(c.fd, SHUT_WR);
    UNTIL(&c, (take(&c), c.closed));
    bool good = !c.in.len || are_answers(&c.in);
    if (!good) CHECK(good, "round %d: %s\n--- answered ---\n%s", i, np_buf_text(&b), np_buf_text(&c.in));
    check_passed += good;
  }
  hang_up(&c, true);
  np_buf_free(&b);
}

int main(void) {
  static const struct np_server_handler handler = {on_head, on_request, on_refused, on_done};
  struct np_server_options o = {.address = "127.0.0.1:0", .body_max = 30, .head_max = 600, .header_count_max = 12};
  struct np_error err = {0};
  loop = event_base_new();
  struct np_server *s = np_server_new(loop, &o, &handler, NULL, &err);
  CHECK(s, "%s", err.text);
  if (!s) return check_end();
  for (int i = 0; i < ROUNDS; i++) round_trip(np_server_port(s), i);
  CHECK(shown > ROUNDS / 4 && body_bytes, "%d requests were understood", shown);
  struct client c = dial(np_server_port(s));
  tell(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello");
  struct answer a = answer(&c);
  CHECK(a.status == 200 && strcmp(np_buf_text(&a.body), "hello") == 0, "a good request is still answered");
  np_buf_free(&a.body);
  hang_up(&c, false);
  UNTIL(NULL, np_server_connections(s) == 0);
  CHECK(shown == done, "%d shown, %d done", shown, done);
  np_server_free(s);
  event_base_free(loop);
  return check_end();
}
