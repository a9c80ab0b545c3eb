/* The head's reader: what is understood, what is refused and how, and that it does not matter in which pieces it comes. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "io/http_head.h"

#define H "Host: a\r\n"

struct outcome {
  int status;
  size_t len;
};

/* Feeds text in pieces of `step` bytes, each from memory of exactly that size, and reads the head once it is whole. */
static struct outcome feed(struct np_http_head *h, const char *text, size_t n, size_t step, size_t max, size_t headers) {
  size_t scanned = 0, len = 0;
  const char *why = NULL;
  for (size_t have = step < n ? step : n;; have = have + step < n ? have + step : n) {
    char *piece = malloc(have ? have : 1);
    memcpy(piece, text, have);
    int found = np_http_head_find(piece, have, max, &scanned, &len);
    if (found == 1)
      found = np_http_head_read(h, piece, len, headers, &why);
    else if (found == 0)
      found = -1;
    free(piece);
    if (found > 0 && why) CHECK(*why, "says why");
    if (found != -1 || have == n) return (struct outcome){found, len};
  }
}

struct bad {
  const char *text;
  int status; /* -1: not whole */
};

static const struct bad bads[] = {
    {"", -1},
    {"GET / HTTP/1.1\r\n" H, -1},
    {"GET / HTTP/1.1\r\n" H "\r", -1},
    {"\r\n", -1},
    {" GET / HTTP/1.1\r\n" H "\r\n", 400},
    {"\n\nGET / HTTP/1.1\r\n" H "\r\n", 400},
    {"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 400},
    {"\x16\x03\x01", 400},
    {"GET / HTTP/1.1\n" H "\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", 400},
    {"GET  / HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /  HTTP/1.1\r\n" H "\r\n", 400},
    {"GET / HTTP/1.1 \r\n" H "\r\n", 400},
    {"GET / a HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /\r\n\r\n", 400},
    {"GET\r\n\r\n", 400},
    {"GET \r\n\r\n", 400},
    {"G(T / HTTP/1.1\r\n" H "\r\n", 400},
    {"GET / http/1.1\r\n" H "\r\n", 400},
    {"GET / HTTP/1\r\n" H "\r\n", 400},
    {"GET / HTTP/1.10\r\n" H "\r\n", 400},
    {"GET / HTTP/2.0\r\n" H "\r\n", 505},
    {"GET / HTTP/0.9\r\n" H "\r\n", 505},
    {"GET / HTTP/1.2\r\n" H "\r\n", 505},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
    {"GET /\ta HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /a#b HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /\x7f HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /\ra HTTP/1.1\r\n" H "\r\n", 400},
    {"GET a HTTP/1.1\r\n" H "\r\n", 400},
    {"GET * HTTP/1.1\r\n" H "\r\n", 400},
    {"GET ftp://a/ HTTP/1.1\r\n" H "\r\n", 400},
    {"GET http:///x HTTP/1.1\r\n" H "\r\n", 400},
    {"CONNECT a:443 HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /% HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /%4 HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /%4?1 HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /%g1 HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /a%00 HTTP/1.1\r\n" H "\r\n", 400},
    {"GET / HTTP/1.1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H H "\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "a : b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H ": b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "a(: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "a: b\r\n c\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "a: b\r\n\tc\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n a: b\r\n" H "\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "a: b\rc\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "a: b\r\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "a: \x01\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "a: \x7f\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1, 1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: +1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0x1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1 2\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 9999999999999999999\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: \x0b"
     "chunked\r\n\r\n",
     400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", 501},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" H "Expect: 200-ok\r\n\r\n", 417},
};

struct good {
  const char *text, *method, *target, *path, *query;
  int minor, length; /* of the body: -1 none, -2 chunked */
  bool keep_alive, expects;
  enum np_http_coding coding;
};

#define GET(target, path, query)                                                                                                   \
  { "GET " target " HTTP/1.1\r\n" H "\r\n", "GET", target, path, query, 1, -1, true, false, NP_CODING_IDENTITY }
#define WITH(fields, length, keep, expects, coding)                                                                                \
  { "PUT / HTTP/1.1\r\n" H fields "\r\n", "PUT", "/", "/", "", 1, length, keep, expects, coding }
#define WITH10(fields, length, keep)                                                                                               \
  { "PUT / HTTP/1.0\r\n" fields "\r\n", "PUT", "/", "/", "", 0, length, keep, false, NP_CODING_IDENTITY }

static const struct good goods[] = {
    GET("/", "/", ""),
    GET("/a%20b/%E6%b0%94?x=%31&y", "/a b/\xe6\xb0\x94", "x=%31&y"),
    GET("/a?b?c", "/a", "b?c"),
    GET("/?", "/", ""),
    GET("/a//b/../c", "/a//b/../c", ""),
    GET("/\xe6\xb0\x94", "/\xe6\xb0\x94", ""),
    GET("/%2f%25", "//%", ""),
    GET("http://host:80/p%41th?q", "/pAth", "q"),
    GET("HTTPS://host", "/", ""),
    GET("http://host?q", "/", "q"),
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS", "*", "*", "", 1, -1, true, false, NP_CODING_IDENTITY},
    {"\r\nM-SEARCH / HTTP/1.1\r\nhOST:\r\n\r\n", "M-SEARCH", "/", "/", "", 1, -1, true, false, NP_CODING_IDENTITY},
    WITH("Content-Length: 0\r\n", 0, true, false, NP_CODING_IDENTITY),
    WITH("content-length:  0012\t \r\n", 12, true, false, NP_CODING_IDENTITY),
    WITH("Transfer-Encoding: Chunked\r\n", -2, true, false, NP_CODING_IDENTITY),
    WITH("Connection: close\r\n", -1, false, false, NP_CODING_IDENTITY),
    WITH("Connection: keep-alive, Close\r\n", -1, false, false, NP_CODING_IDENTITY),
    WITH("Connection: close\r\nConnection: keep-alive\r\n", -1, false, false, NP_CODING_IDENTITY),
    WITH("Connection: closed,xclose\r\n", -1, true, false, NP_CODING_IDENTITY),
    WITH("Expect: 100-Continue\r\nContent-Length: 3\r\n", 3, true, true, NP_CODING_IDENTITY),
    WITH("Content-Encoding: gzip\r\n", -1, true, false, NP_CODING_GZIP),
    WITH("Content-Encoding: X-GZIP\r\n", -1, true, false, NP_CODING_GZIP),
    WITH("Content-Encoding: identity\r\n", -1, true, false, NP_CODING_IDENTITY),
    WITH("Content-Encoding: br\r\n", -1, true, false, NP_CODING_OTHER),
    WITH("Content-Encoding: gzip, gzip\r\n", -1, true, false, NP_CODING_OTHER),
    WITH("Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", -1, true, false, NP_CODING_OTHER),
    WITH("Content-Encoding: br\r\nContent-Encoding: gzip\r\n", -1, true, false, NP_CODING_OTHER),
    WITH10("", -1, false),
    WITH10("Connection: Keep-Alive\r\n", -1, true),
    WITH10("Connection: keep-alive, close\r\n", -1, false),
    WITH10("Expect: 100-continue\r\nContent-Length: 3\r\n", 3, false),
};

static void test_bad(void) {
  struct np_http_head h = {0};
  for (size_t i = 0; i < sizeof bads / sizeof *bads; i++)
    for (size_t step = 1; step <= 1000; step = step == 1 ? 7 : step == 7 ? 1000 : 1001) {
      struct outcome o = feed(&h, bads[i].text, strlen(bads[i].text), step, 4096, 10);
      CHECK(o.status == bads[i].status, "%d for %s", o.status, bads[i].text);
    }
  static const char nul[] = "GET /\0 HTTP/1.1\r\n" H "\r\n", in_name[] = "GET / HTTP/1.1\r\n" H "a\0b: c\r\n\r\n",
                    in_value[] = "GET / HTTP/1.1\r\n" H "a: b\0c\r\n\r\n";
  CHECK(feed(&h, nul, sizeof nul - 1, 1, 4096, 10).status == 400);
  CHECK(feed(&h, in_name, sizeof in_name - 1, 1, 4096, 10).status == 400);
  CHECK(feed(&h, in_value, sizeof in_value - 1, 1, 4096, 10).status == 400);
  np_http_head_free(&h);
}

static void test_good(void) {
  struct np_http_head h = {0};
  for (size_t i = 0; i < sizeof goods / sizeof *goods; i++)
    for (size_t step = 1; step <= 1000; step = step == 1 ? 5 : step == 5 ? 1000 : 1001) {
      const struct good *g = &goods[i];
      struct outcome o = feed(&h, g->text, strlen(g->text), step, 4096, 10);
      CHECK(o.status == 0 && o.len == strlen(g->text), "%d for %s", o.status, g->text);
      if (o.status) continue;
      CHECK(strcmp(h.method, g->method) == 0 && strcmp(h.target, g->target) == 0, "%s %s", h.method, h.target);
      CHECK(strcmp(h.path, g->path) == 0 && h.path_len == strlen(g->path) && strcmp(h.query, g->query) == 0, "%s ? %s", h.path,
            h.query);
      CHECK(h.minor == g->minor && h.keep_alive == g->keep_alive && h.expects == g->expects, "%s", g->text);
      CHECK((h.chunked ? -2 : h.length) == g->length && h.coding == g->coding, "%s", g->text);
    }
  np_http_head_free(&h);
}

static void test_headers(void) {
  static const char text[] = "GET / HTTP/1.1\r\n" H "X-a:b c \t\r\nx-A: \r\n!#$%&'*+-.^_`|~9:\xe6\xb0\x94\t;\r\n\r\nGET / rest";
  struct np_http_head h = {0};
  struct outcome o = feed(&h, text, sizeof text - 1, 3, 4096, 10);
  CHECK(o.status == 0 && o.len == sizeof text - 1 - strlen("GET / rest"));
  CHECK(h.header_count == 4, "%zu", h.header_count);
  CHECK(strcmp(h.headers[1].name, "X-a") == 0 && strcmp(h.headers[1].value, "b c") == 0, "%s", h.headers[1].value);
  CHECK(strcmp(h.headers[2].name, "x-A") == 0 && strcmp(h.headers[2].value, "") == 0, "%s", h.headers[2].value);
  CHECK(strcmp(h.headers[3].name, "!#$%&'*+-.^_`|~9") == 0 && strcmp(h.headers[3].value, "\xe6\xb0\x94\t;") == 0);
  np_http_head_free(&h);
}

/* At the bound, one below, one above, however it comes. */
static void test_limits(void) {
  static const char text[] = "GET /abc HTTP/1.1\r\n" H "x: y\r\n\r\n";
  size_t n = sizeof text - 1, line = strlen("GET /abc HTTP/1.1\r\n");
  struct np_http_head h = {0};
  for (size_t step = 1; step <= n; step += n - 1) {
    CHECK(feed(&h, text, n, step, n + 1, 10).status == 0);
    CHECK(feed(&h, text, n, step, n, 10).status == 0);
    CHECK(feed(&h, text, n, step, n - 1, 10).status == 431);
    CHECK(feed(&h, text, n, step, line, 10).status == 431, "the line fits");
    CHECK(feed(&h, text, n, step, line - 1, 10).status == 414, "the line does not");
    CHECK(feed(&h, text, n, step, n, 3).status == 0);
    CHECK(feed(&h, text, n, step, n, 2).status == 0);
    CHECK(feed(&h, text, n, step, n, 1).status == 431);
  }
  char many[4096] = "GET / HTTP/1.1\r\n" H;
  for (int i = 0; i < 99; i++) strcat(many, "a: b\r\n");
  strcat(many, "\r\n");
  CHECK(feed(&h, many, strlen(many), 1000, 4096, 100).status == 0 && h.header_count == 100);
  CHECK(feed(&h, many, strlen(many), 1000, 4096, 99).status == 431);
  np_http_head_free(&h);
}

int main(void) {
  test_bad();
  test_good();
  test_headers();
  test_limits();
  return check_end();
}
