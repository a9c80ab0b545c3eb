/* HTTP out against a server of the test's own, one thread a connection, that does what the path says. */
#include "io/fetch.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <event2/event.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include "check.h"
#include "io/fetch_reach.h"

/* Names: a.test and b.test are this machine, stuck.test is a resolver that does not come back, and the rest is real. */

static sem_t resolver_stuck, resolver_free;

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **to) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
  if (node && strcmp(node, "stuck.test") == 0) {
    sem_wait(&resolver_stuck);
    sem_post(&resolver_free);
    return EAI_AGAIN;
  }
  if (node && strstr(node, ".invalid")) return EAI_NONAME;
  if (node && strcmp(node, "link.test") == 0) node = "169.254.169.254";
  if (node && strcmp(node, "six.test") == 0) node = "::1";
  if (node && strcmp(node, "mapped.test") == 0) node = "::ffff:127.0.0.1";
  if (node && strstr(node, ".test")) node = "127.0.0.1";
  return real(node, service, hints, to);
}

/* The server */

struct server {
  int fd, port;
  SSL_CTX *tls; /* NULL is plain */
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pthread_t workers[4096]; /* under lock, as all that follows */
  int fds[4096];
  int accepted, requests, now, most, gate;
  bool stopping, open;
};

struct conn {
  struct server *s;
  int fd;
  SSL *ssl;
  char in[65536];
  size_t len;
};

static ssize_t conn_read(struct conn *c, void *to, size_t n) { return c->ssl ? SSL_read(c->ssl, to, (int)n) : read(c->fd, to, n); }

static void conn_write(struct conn *c, const void *bytes, size_t n) {
  const char *at = bytes;
  while (n) {
    ssize_t w = c->ssl ? SSL_write(c->ssl, at, (int)n) : send(c->fd, at, n, MSG_NOSIGNAL);
    if (w <= 0) return;
    at += w;
    n -= (size_t)w;
  }
}

static void say(struct conn *c, const char *format, ...) {
  char text[4096];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  conn_write(c, text, (size_t)n);
}

static void ok(struct conn *c, const char *body, size_t n) {
  say(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nX-Two:  a b \r\nX-TWO: c\r\nX-None:\r\n\r\n", n);
  conn_write(c, body, n);
}

static void gzipped(struct conn *c, size_t zeros) {
  z_stream z = {0};
  size_t room = zeros / 500 + 1000;
  unsigned char *in = calloc(1, zeros), *out = malloc(room);
  memset(in, 'z', zeros);
  deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  z.next_in = in, z.avail_in = (unsigned)zeros, z.next_out = out, z.avail_out = (unsigned)room;
  deflate(&z, Z_FINISH);
  say(c, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %lu\r\n\r\n", z.total_out);
  conn_write(c, out, z.total_out);
  deflateEnd(&z);
  free(in);
  free(out);
}

/* Holds until the test opens the gate or the server stops. */
static void hold(struct server *s) {
  pthread_mutex_lock(&s->lock);
  while (!s->open && !s->stopping) pthread_cond_wait(&s->changed, &s->lock);
  pthread_mutex_unlock(&s->lock);
}

/* Holds until as many requests as the gate says have been here at once, so that a limit is reached for certain. */
static void meet(struct server *s) {
  pthread_mutex_lock(&s->lock);
  while (s->most < s->gate && !s->stopping) pthread_cond_wait(&s->changed, &s->lock);
  pthread_mutex_unlock(&s->lock);
}

/* False: the connection is to be closed. */
static bool answer(struct conn *c, const char *path, const char *head, const char *body, size_t n) {
  int status, port, at = 0;
  char host[100];
  if (strcmp(path, "/ok") == 0) return ok(c, "fine", 4), true;
  if (strcmp(path, "/echo") == 0) {
    char text[8192];
    int len = snprintf(text, sizeof text, "%s|", head);
    memcpy(text + len, body, n);
    return ok(c, text, (size_t)len + n), true;
  }
  if (strcmp(path, "/meet") == 0) return meet(c->s), ok(c, "met", 3), true;
  if (strcmp(path, "/hold") == 0) return hold(c->s), ok(c, "held", 4), true;
  if (strcmp(path, "/close") == 0) return false;
  if (strcmp(path, "/half") == 0) return say(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), false;
  if (strcmp(path, "/halfchunk") == 0) return say(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf"), false;
  if (strcmp(path, "/halfhead") == 0) return say(c, "HTTP/1.1 200 OK\r\nContent-Le"), false;
  if (strcmp(path, "/drip") == 0) return say(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), hold(c->s), false;
  if (strcmp(path, "/noise") == 0) return say(c, "\x01\x02 this is not HTTP\r\n\r\n"), false;
  if (strcmp(path, "/huge") == 0) return say(c, "HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\nx"), hold(c->s), false;
  if (strcmp(path, "/head") == 0) return say(c, "HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n"), true;
  if (strcmp(path, "/gzip") == 0) return gzipped(c, 5000), true;
  if (strcmp(path, "/bomb") == 0) return gzipped(c, 50 << 20), false;
  if (strcmp(path, "/continue") == 0)
    return say(c, "HTTP/1.1 103 Early Hints\r\nLink: early\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\nLink: late\r\n\r\n"),
           true;
  if (strcmp(path, "/none") == 0) return say(c, "HTTP/1.1 204 No Content\r\n\r\n"), true;
  if (strcmp(path, "/fold") == 0) return say(c, "HTTP/1.1 200 OK\r\nX-Fold: one\r\n  two\r\nContent-Length: 0\r\n\r\n"), true;
  if (strcmp(path, "/chunked") == 0)
    return say(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n"
                  "4\r\nfine\r\n1\r\n!\r\n0\r\nX-Late: trailer\r\n\r\n"),
           true;
  if (strcmp(path, "/endless") == 0) {
    say(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 100000; i++) say(c, "a\r\n0123456789\r\n");
    return false;
  }
  if (strcmp(path, "/manyheaders") == 0) {
    say(c, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 10000; i++) say(c, "X-Header-%d: 0123456789012345678901234567890123456789\r\n", i);
    return say(c, "Content-Length: 0\r\n\r\n"), true;
  }
  if (strcmp(path, "/loop") == 0) return say(c, "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 4\r\n\r\nloop"), true;
  if (sscanf(path, "/go/%d/%99[^/]/%d%n", &status, host, &port, &at) == 3) /* to that host and port, path /echo */
    return say(c, "HTTP/1.1 %d Go\r\nLocation: http://%s:%d/echo\r\nContent-Length: 0\r\n\r\n", status, host, port), true;
  if (sscanf(path, "/here/%d%n", &status, &at) == 1)
    return say(c, "HTTP/1.1 %d Go\r\nLocation: ../echo\r\nContent-Length: 0\r\n\r\n", status), true;
  if (strcmp(path, "/file") == 0)
    return say(c, "HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"), true;
  if (strcmp(path, "/to-name") == 0)
    return say(c, "HTTP/1.1 302 Go\r\nLocation: http://a.test:1/\r\nContent-Length: 0\r\n\r\n"), true;
  if (strcmp(path, "/ftp") == 0) return say(c, "HTTP/1.1 302 Go\r\nLocation: ftp://127.0.0.1/x\r\nContent-Length: 0\r\n\r\n"), true;
  return say(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), true;
}

/* Reads one request, answers it. */
static bool serve_one(struct conn *c) {
  char *end;
  while (c->in[c->len] = 0, !(end = memmem(c->in, c->len, "\r\n\r\n", 4))) {
    ssize_t n = conn_read(c, c->in + c->len, sizeof c->in - 1 - c->len);
    if (n <= 0) return false;
    c->len += (size_t)n;
  }
  *end = 0;
  size_t head = (size_t)(end - c->in) + 4;
  const char *length = strcasestr(c->in, "\r\nContent-Length:");
  size_t body = length ? (size_t)atoi(length + 17) : 0;
  while (c->len < head + body) {
    ssize_t n = conn_read(c, c->in + c->len, sizeof c->in - 1 - c->len);
    if (n <= 0) return false;
    c->len += (size_t)n;
  }
  struct server *s = c->s;
  pthread_mutex_lock(&s->lock);
  s->requests++;
  if (++s->now > s->most) s->most = s->now;
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
  char path[300] = "";
  sscanf(c->in, "%*s %299s", path);
  size_t whole = head + body;
  /* Counted down before the answer leaves: once the client has it, the next request may come at once. */
  bool counts = strcmp(path, "/meet") == 0;
  if (counts) meet(s);
  pthread_mutex_lock(&s->lock);
  s->now--;
  pthread_mutex_unlock(&s->lock);
  bool goes_on = answer(c, path, c->in, c->in + head, body);
  memmove(c->in, c->in + whole, c->len - whole);
  c->len -= whole;
  return goes_on;
}

static void *conn_main(void *arg) {
  struct conn *c = arg;
  if (c->s->tls) {
    c->ssl = SSL_new(c->s->tls);
    SSL_set_fd(c->ssl, c->fd);
  }
  if (!c->ssl || SSL_accept(c->ssl) == 1)
    while (serve_one(c)) {}
  if (c->ssl) SSL_free(c->ssl);
  shutdown(c->fd, SHUT_RDWR);
  free(c);
  return NULL;
}

static void *server_main(void *arg) {
  struct server *s = arg;
  for (int fd; (fd = accept(s->fd, NULL, NULL)) >= 0;) {
    struct conn *c = calloc(1, sizeof *c);
    c->s = s;
    c->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    pthread_mutex_lock(&s->lock);
    s->fds[s->accepted] = fd;
    pthread_create(&s->workers[s->accepted++], NULL, conn_main, c);
    pthread_mutex_unlock(&s->lock);
  }
  return NULL;
}

static int listen_here(int *port, int backlog) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  if (bind(fd, (struct sockaddr *)&a, n) || (backlog && listen(fd, backlog))) abort();
  getsockname(fd, (struct sockaddr *)&a, &n);
  *port = ntohs(a.sin_port);
  return fd;
}

static struct server *server_new(SSL_CTX *tls) {
  struct server *s = calloc(1, sizeof *s);
  pthread_mutex_init(&s->lock, NULL);
  pthread_cond_init(&s->changed, NULL);
  s->tls = tls;
  s->fd = listen_here(&s->port, 1024);
  pthread_create(&s->thread, NULL, server_main, s);
  return s;
}

static void server_open(struct server *s, bool open) {
  pthread_mutex_lock(&s->lock);
  s->open = open;
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
}

static int server_count(struct server *s, const int *what) {
  pthread_mutex_lock(&s->lock);
  int n = *what;
  pthread_mutex_unlock(&s->lock);
  return n;
}

static void server_free(struct server *s) {
  shutdown(s->fd, SHUT_RDWR);
  pthread_join(s->thread, NULL);
  pthread_mutex_lock(&s->lock);
  s->stopping = true;
  pthread_cond_broadcast(&s->changed);
  for (int i = 0; i < s->accepted; i++) shutdown(s->fds[i], SHUT_RDWR);
  pthread_mutex_unlock(&s->lock);
  for (int i = 0; i < s->accepted; i++) {
    pthread_join(s->workers[i], NULL);
    close(s->fds[i]);
  }
  close(s->fd);
  pthread_cond_destroy(&s->changed);
  pthread_mutex_destroy(&s->lock);
  free(s);
}

/* The client's side */

static struct event_base *base;
static struct np_fetch *fetch;
static struct server *server;

struct got {
  int calls, status;
  char code[20], why[800], url[500], *headers, *body;
  size_t len;
};

static void keep(void *arg, const struct np_fetch_answer *a) {
  struct got *g = arg;
  g->calls++;
  g->status = a->status;
  snprintf(g->code, sizeof g->code, "%s", a->code ? a->code : "");
  snprintf(g->why, sizeof g->why, "%s", a->why ? a->why : "");
  snprintf(g->url, sizeof g->url, "%s", a->url);
  free(g->headers);
  free(g->body);
  g->headers = strdup(a->headers);
  g->body = malloc(a->body_len + 1);
  memcpy(g->body, a->body, a->body_len + 1);
  g->len = a->body_len;
}

static void drop(struct got *g) {
  free(g->headers);
  free(g->body);
  *g = (struct got){0};
}

static void give_up(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what, (void)arg;
  fprintf(stderr, "a condition did not come true\n");
  abort();
}

/* Runs the loop until *count has come to n. */
static void run_until(const int *count, int n) {
  struct event *guard = evtimer_new(base, give_up, NULL);
  event_add(guard, &(struct timeval){.tv_sec = 60});
  while (*count < n) event_base_loop(base, EVLOOP_ONCE);
  event_free(guard);
}

static const char *url_of(struct server *s, const char *path) {
  static char text[4][500];
  static unsigned turn;
  char *to = text[turn++ % 4];
  snprintf(to, sizeof text[0], "%s://127.0.0.1:%d%s", s->tls ? "https" : "http", s->port, path);
  return to;
}

static struct np_fetch_request request(const char *path) {
  return (struct np_fetch_request){.method = "GET", .url = url_of(server, path), .timeout = 30};
}

static struct np_fetch_call *start(struct np_fetch_request r, struct got *g) {
  struct np_error err = {""};
  struct np_fetch_call *c = np_fetch_start(fetch, &r, keep, g, &err);
  CHECK(c, "%s", err.text);
  CHECK(g->calls == 0, "called back from within start");
  return c;
}

static void ask(struct np_fetch_request r, struct got *g) {
  drop(g);
  if (start(r, g)) run_until(&g->calls, 1);
}

static void answers(void) {
  struct got g = {0};
  ask(request("/ok"), &g);
  CHECK(g.status == 200 && !*g.code && g.len == 4 && !strcmp(g.body, "fine"), "%d %s", g.status, g.why);
  CHECK(!strcmp(g.headers, "content-length: 4\nx-two: a b\nx-two: c\nx-none: \n"), "%s", g.headers);
  CHECK(!strcmp(g.url, url_of(server, "/ok")));
  ask(request("/missing"), &g);
  CHECK(g.status == 404 && !*g.code);
  ask(request("/chunked"), &g);
  CHECK(g.status == 200 && !strcmp(g.body, "fine!"), "%s", g.body);
  CHECK(!strstr(g.headers, "x-late: trailer"), "%s", g.headers);
  ask(request("/gzip"), &g);
  CHECK(g.status == 200 && g.len == 5000 && g.body[4999] == 'z');
  ask(request("/continue"), &g);
  CHECK(g.status == 201 && strstr(g.headers, "link: late") && !strstr(g.headers, "early"), "%s", g.headers);
  ask(request("/none"), &g);
  CHECK(g.status == 204 && g.len == 0);
  ask(request("/fold"), &g);
  CHECK(strstr(g.headers, "x-fold: one two\n"), "%s", g.headers);
  struct np_fetch_request r = request("/head");
  r.method = "HEAD";
  ask(r, &g);
  CHECK(g.status == 200 && g.len == 0, "%s", g.why);
  drop(&g);
}

static void requests(void) {
  struct got g = {0};
  struct np_fetch_request r = request("/echo");
  ask(r, &g);
  CHECK(!strncmp(g.body, "GET /echo HTTP/1.1\r\n", 20), "%s", g.body);
  CHECK(strstr(g.body, "User-Agent: neap\r\n") && strcasestr(g.body, "Accept-Encoding: ") && strcasestr(g.body, "gzip"), "%s",
        g.body);
  r.method = "POST";
  r.body = "a\0b";
  r.body_len = 3;
  const char *headers[] = {
      "X-One: 1",         "X-Empty:", "X-Empty2:  ", "Expect: 100-continue", "Content-Length: 99", "Transfer-Encoding: chunked",
      "User-Agent: other"};
  r.headers = headers;
  r.header_count = 7;
  ask(r, &g);
  CHECK(!strncmp(g.body, "POST /echo HTTP/1.1\r\n", 21), "%s", g.body);
  CHECK(strstr(g.body, "\r\nX-One: 1\r\n") && strstr(g.body, "\r\nX-Empty:\r\n") && strstr(g.body, "\r\nX-Empty2:\r\n"), "%s",
        g.body);
  CHECK(strstr(g.body, "\r\nContent-Length: 3") && !strstr(g.body, "99"), "%s", g.body);
  CHECK(!strcasestr(g.body, "expect") && !strcasestr(g.body, "transfer-") && !strcasestr(g.body, "content-type"), "%s", g.body);
  CHECK(strstr(g.body, "User-Agent: other") && !strstr(g.body, "neap"), "%s", g.body);
  CHECK(!memcmp(g.body + g.len - 4, "|a\0b", 4));
  r.header_count = 0;
  r.body = NULL;
  ask(r, &g);
  CHECK(strstr(g.body, "\r\nContent-Length: 0"), "%s", g.body);
  r.method = "DELETE";
  ask(r, &g);
  CHECK(!strncmp(g.body, "DELETE /echo HTTP/1.1\r\n", 23) && !strcasestr(g.body, "content-length"), "%s", g.body);
  r.method = "PATCH";
  r.body = "{}";
  r.body_len = 2;
  headers[0] = "Content-Type: application/json";
  r.header_count = 1;
  ask(r, &g);
  CHECK(!strncmp(g.body, "PATCH ", 6) && strstr(g.body, "\r\nContent-Type: application/json\r\n") &&
        !strcmp(g.body + g.len - 3, "|{}"));
  drop(&g);
}

static void must_not(void *arg, const struct np_fetch_answer *a) {
  (void)arg;
  CHECK(false, "called back with %d %s", a->status, a->why ? a->why : "");
}

static void senseless(void) {
  static const char *const bad[] = {"X: a\r\nY: b", "X: a\n", "X: a\r", "no colon", ": no name", "", "a b: c", "a\r\nb: c"};
  struct np_error err;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct np_fetch_request r = request("/ok");
    r.headers = &bad[i];
    r.header_count = 1;
    err.text[0] = 0;
    CHECK(!np_fetch_start(fetch, &r, must_not, NULL, &err) && err.text[0], "%zu", i);
  }
  struct np_fetch_request r = request("/ok");
  r.timeout = 0;
  CHECK(!np_fetch_start(fetch, &r, must_not, NULL, &err));
  static const char *const methods[] = {"", "GET /x HTTP/1.1\r\nX: y\r\n\r\nGET", "G T", "CONNECT", NULL};
  for (size_t i = 0; i < 5; i++) {
    r = request("/ok");
    r.method = methods[i];
    CHECK(!np_fetch_start(fetch, &r, must_not, NULL, &err), "%zu", i);
  }
  CHECK(np_fetch_running(fetch) == 0);
}

static void failing(void) {
  struct got g = {0};
  static const char *const urls[] = {
      "file:///etc/passwd",      "ftp://127.0.0.1/", "nonsense",           "", "http://", "http://a b/", "http://a/\r\nX: y",
      "http://127.0.0.1:99999/", "//127.0.0.1/x",    "gopher://127.0.0.1/"};
  for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
    struct np_fetch_request r = request("/ok");
    r.url = urls[i];
    ask(r, &g);
    CHECK(!strcmp(g.code, "bad_url") && g.status == 0 && g.why[0], "%s: %s %s", urls[i], g.code, g.why);
  }
  static const struct {
    const char *path, *code;
  } bad[] = {{"/half", "cut"},          {"/halfchunk", "cut"},         {"/close", "cut"},
             {"/halfhead", "cut"},      {"/huge", "too_large"},        {"/bomb", "too_large"},
             {"/endless", "too_large"}, {"/manyheaders", "too_large"}, {"/noise", "other"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct np_fetch_request r = request(bad[i].path);
    r.answer_max = strcmp(bad[i].path, "/endless") == 0 ? 1000 : 1 << 20;
    ask(r, &g);
    CHECK(!strcmp(g.code, bad[i].code) && g.status == 0 && g.len == 0 && g.why[0], "%s: %s %s", bad[i].path, g.code, g.why);
  }
  struct np_fetch_request r = request("/chunked");
  r.answer_max = 5;
  ask(r, &g);
  CHECK(g.status == 200 && g.len == 5, "%s", g.why);
  r.answer_max = 4;
  ask(r, &g);
  CHECK(!strcmp(g.code, "too_large"), "%s", g.code);
  int port, fd = listen_here(&port, 0); /* bound, not listening: refuses */
  char url[80];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
  r.url = url;
  ask(r, &g);
  CHECK(!strcmp(g.code, "connect") && strstr(g.why, "127.0.0.1:"), "%s %s", g.code, g.why);
  close(fd);
  r.url = "http://nowhere.invalid/";
  ask(r, &g);
  CHECK(!strcmp(g.code, "resolve") && strstr(g.why, "nowhere.invalid"), "%s %s", g.code, g.why);
  drop(&g);
}

static void deadlines(void) {
  struct got g = {0};
  static const char *const paths[] = {"/hold", "/drip"};
  for (size_t i = 0; i < 2; i++) {
    struct np_fetch_request r = request(paths[i]);
    r.timeout = 0.2;
    ask(r, &g);
    CHECK(!strcmp(g.code, "timeout") && strstr(g.why, "0.2 s"), "%s %s", g.code, g.why);
  }
  int port, fd = listen_here(&port, 1); /* nobody accepts */
  char url[80];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
  struct np_fetch_request r = request("/");
  r.url = url;
  r.timeout = 0.2;
  ask(r, &g);
  CHECK(!strcmp(g.code, "timeout"), "%s", g.code);
  close(fd);
  r.url = "http://stuck.test/"; /* the loop must not wait for the resolver */
  ask(r, &g);
  CHECK(!strcmp(g.code, "timeout"), "%s", g.code);
  sem_post(&resolver_stuck);
  sem_wait(&resolver_free);
  drop(&g);
}

/* Of five calls with two places, all held: the three that wait time out too, and nobody else is kept from going. */
static void waiting_counts(void) {
  struct got g[5] = {{0}}, other = {0};
  struct np_fetch_options two = {.per_host = 2, .names_lead_anywhere = true};
  struct np_fetch *usual = fetch;
  struct np_error err;
  fetch = np_fetch_new(base, &two, &err);
  struct np_fetch_request r = request("/hold");
  for (int i = 0; i < 5; i++) {
    r.timeout = i < 2 ? 30 : 0.2;
    start(r, &g[i]);
  }
  CHECK(np_fetch_running(fetch) == 5);
  for (int i = 2; i < 5; i++) {
    run_until(&g[i].calls, 1);
    CHECK(!strcmp(g[i].code, "timeout") && strstr(g[i].why, "free connection"), "%s %s", g[i].code, g[i].why);
  }
  char url[80];
  snprintf(url, sizeof url, "http://a.test:%d/ok", server->port);
  r.url = url;
  r.timeout = 30;
  ask(r, &other);
  CHECK(other.status == 200, "%s", other.why);
  server_open(server, true);
  for (int i = 0; i < 2; i++) {
    run_until(&g[i].calls, 1);
    CHECK(g[i].status == 200, "%s", g[i].why);
  }
  server_open(server, false);
  CHECK(np_fetch_running(fetch) == 0);
  np_fetch_free(fetch);
  fetch = usual;
  for (int i = 0; i < 5; i++) drop(&g[i]);
  drop(&other);
}

static char asked_redirect[500];
static bool allow_redirect;

static bool may(void *arg, const char *url) {
  (void)arg;
  snprintf(asked_redirect, sizeof asked_redirect, "%s", url);
  return allow_redirect;
}

static void redirects(void) {
  struct got g = {0};
  struct np_fetch_request r = request("/loop");
  ask(r, &g);
  CHECK(g.status == 302 && !strcmp(g.body, "loop"), "not asked to follow: %d", g.status);
  r.redirects = 3;
  int before = server_count(server, &server->requests);
  ask(r, &g);
  CHECK(!strcmp(g.code, "redirect") && server_count(server, &server->requests) == before + 4, "%s", g.code);
  static const struct {
    const char *path, *method, *becomes;
    bool body;
  } how[] = {{"/here/301", "POST", "GET", false}, {"/here/302", "POST", "GET", false}, {"/here/303", "POST", "GET", false},
             {"/here/303", "PUT", "GET", false},  {"/here/301", "PUT", "PUT", true},   {"/here/307", "POST", "POST", true},
             {"/here/308", "POST", "POST", true}};
  const char *headers[] = {"Content-Type: text/x", "Authorization: Bearer x", "cookie: a=b", "X-Kept: 1"};
  for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
    r = request(how[i].path);
    r.method = how[i].method;
    r.body = "body", r.body_len = 4;
    r.headers = headers, r.header_count = 4;
    r.redirects = 1;
    ask(r, &g);
    CHECK(g.status == 200 && !strncmp(g.body, how[i].becomes, strlen(how[i].becomes)), "%s: %s %s", how[i].path, g.why, g.body);
    CHECK((strstr(g.body, "|body") != NULL) == how[i].body && (strstr(g.body, "text/x") != NULL) == how[i].body, "%s: %s",
          how[i].path, g.body);
    CHECK(strstr(g.body, "Bearer") && strstr(g.body, "a=b") && strstr(g.body, "X-Kept"), "same host: %s", g.body);
    CHECK(!strcmp(g.url, url_of(server, "/echo")), "%s", g.url);
  }
  char path[80], to[80];
  snprintf(path, sizeof path, "/go/302/b.test/%d", server->port);
  snprintf(to, sizeof to, "http://b.test:%d/echo", server->port);
  r = request(path);
  r.headers = headers, r.header_count = 4;
  r.redirects = 5;
  r.may_redirect = may;
  allow_redirect = true;
  ask(r, &g);
  CHECK(g.status == 200 && !strcmp(asked_redirect, to), "%s %s", g.why, asked_redirect);
  CHECK(!strstr(g.body, "Bearer") && !strstr(g.body, "a=b") && strstr(g.body, "X-Kept"), "other host: %s", g.body);
  allow_redirect = false;
  before = server_count(server, &server->requests);
  ask(r, &g);
  CHECK(!strcmp(g.code, "redirect") && server_count(server, &server->requests) == before + 1, "%s", g.code);
  CHECK(!strcmp(g.url, url_of(server, path)), "%s", g.url);
  allow_redirect = true;
  static const char *const never[] = {"/file", "/ftp"};
  for (int i = 0; i < 2; i++) {
    r = request(never[i]);
    r.redirects = 5;
    ask(r, &g);
    CHECK(!strcmp(g.code, "redirect"), "%s %s", never[i], g.code);
  }
  drop(&g);
}

/* Calls that are cancelled, and calls that cancel, start and free from their callbacks. */

struct chain {
  struct np_fetch_call *other;
  struct got next;
  int calls;
  bool frees;
};

static void cancel_other(void *arg, const struct np_fetch_answer *a) {
  (void)a;
  struct chain *c = arg;
  c->calls++;
  if (c->other) np_fetch_cancel(c->other);
  c->other = NULL;
  if (c->frees) {
    np_fetch_free(fetch);
    fetch = NULL;
  } else {
    start(request("/ok"), &c->next);
  }
}

static void cancelling(void) {
  struct np_error err;
  struct np_fetch_request r = request("/hold");
  struct np_fetch_call *calls[20];
  for (int i = 0; i < 20; i++) calls[i] = np_fetch_start(fetch, &r, must_not, NULL, &err); /* 8 run, 12 wait */
  int before = server_count(server, &server->requests);
  struct timeval soon = {.tv_usec = 1000};
  while (server_count(server, &server->requests) < before + 1) {
    event_base_loopexit(base, &soon);
    event_base_dispatch(base);
  }
  CHECK(np_fetch_running(fetch) == 20);
  for (int i = 0; i < 20; i += 3) np_fetch_cancel(calls[i]);
  for (int i = 0; i < 20; i++)
    if (i % 3) np_fetch_cancel(calls[i]);
  CHECK(np_fetch_running(fetch) == 0);

  r.url = "nonsense"; /* both are finished in one turn: the second is cancelled before it has been told */
  struct chain c = {0};
  np_fetch_start(fetch, &r, cancel_other, &c, &err);
  c.other = np_fetch_start(fetch, &r, must_not, NULL, &err);
  run_until(&c.next.calls, 1);
  CHECK(c.calls == 1 && c.next.status == 200 && np_fetch_running(fetch) == 0);
  drop(&c.next);

  r = request("/hold");
  struct np_fetch_call *held = np_fetch_start(fetch, &r, must_not, NULL, &err);
  r = request("/ok");
  c = (struct chain){.other = held};
  np_fetch_start(fetch, &r, cancel_other, &c, &err);
  run_until(&c.next.calls, 1);
  CHECK(c.next.status == 200 && np_fetch_running(fetch) == 0);
  drop(&c.next);
}

static void freeing(const struct np_fetch_options *options) {
  struct np_error err;
  for (int way = 0; way < 3; way++) {
    struct np_fetch_request r = request("/hold");
    for (int i = 0; i < 12; i++) np_fetch_start(fetch, &r, must_not, NULL, &err);
    struct chain c = {.frees = true};
    r = request("/ok");
    if (way == 1) {
      char url[80];
      snprintf(url, sizeof url, "http://a.test:%d/ok", server->port);
      r.url = url;
      np_fetch_start(fetch, &r, cancel_other, &c, &err);
      run_until(&c.calls, 1);
    } else if (way == 2) {
      r.url = "nonsense";
      for (int i = 0; i < 3; i++) np_fetch_start(fetch, &r, i ? must_not : cancel_other, &c, &err);
      run_until(&c.calls, 1);
    } else {
      event_base_loop(base, EVLOOP_NONBLOCK);
      np_fetch_free(fetch);
    }
    for (int i = 0; i < 5; i++) event_base_loop(base, EVLOOP_NONBLOCK);
    fetch = np_fetch_new(base, options, &err);
  }
}

static void count(void *arg, const struct np_fetch_answer *a) {
  int *n = arg;
  ++*n;
  CHECK(a->status == 200 && a->body_len == 3, "%s", a->why ? a->why : "");
}

static void many(void) {
  struct np_error err;
  struct np_fetch_options four = {.per_host = 4};
  struct np_fetch *f = np_fetch_new(base, &four, &err);
  struct server *usual = server;
  server = server_new(NULL);
  server->gate = 4;
  struct np_fetch_request r = request("/meet");
  int done = 0;
  for (int i = 0; i < 500; i++) np_fetch_start(f, &r, count, &done, &err);
  CHECK(np_fetch_running(f) == 500);
  run_until(&done, 500);
  CHECK(server_count(server, &server->most) == 4, "%d at once", server->most);
  CHECK(server_count(server, &server->accepted) == 4, "%d connections", server->accepted);
  CHECK(np_fetch_running(f) == 0);
  np_fetch_free(f);
  server_free(server);
  server = usual;
}

/* A server that closes a kept connection does not make the next request fail. */
static void reuse(void) {
  struct server *usual = server;
  server = server_new(NULL);
  struct got g = {0};
  for (int i = 0; i < 20; i++) ask(request("/ok"), &g);
  CHECK(server_count(server, &server->accepted) == 1, "%d", server->accepted);
  pthread_mutex_lock(&server->lock);
  shutdown(server->fds[0], SHUT_RDWR);
  pthread_mutex_unlock(&server->lock);
  pthread_join(server->workers[0], NULL);
  pthread_create(&server->workers[0], NULL, (void *(*)(void *))(void *)pthread_self, NULL); /* something to join */
  ask(request("/ok"), &g);
  CHECK(g.status == 200 && server_count(server, &server->accepted) == 2, "%s", g.why);
  drop(&g);
  server_free(server);
  server = usual;
}

/* TLS */

static SSL_CTX *make_tls(char *ca_file) {
  EVP_PKEY *key = EVP_EC_gen("P-256");
  X509 *cert = X509_new();
  X509_set_version(cert, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
  X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
  X509_set_pubkey(cert, key);
  X509_NAME *name = X509_get_subject_name(cert);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"a.test", -1, -1, 0);
  X509_set_issuer_name(cert, name);
  X509_EXTENSION *alt = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:a.test,IP:127.0.0.1");
  X509_add_ext(cert, alt, -1);
  X509_EXTENSION_free(alt);
  X509_sign(cert, key, EVP_sha256());
  SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
  SSL_CTX_use_certificate(ctx, cert);
  SSL_CTX_use_PrivateKey(ctx, key);
  int fd = mkstemp(ca_file);
  FILE *file = fdopen(fd, "w");
  PEM_write_X509(file, cert);
  fclose(file);
  X509_free(cert);
  EVP_PKEY_free(key);
  return ctx;
}

static void tls(void) {
  char ca_file[] = "/tmp/neap_fetch_test_XXXXXX";
  SSL_CTX *ctx = make_tls(ca_file);
  struct server *usual = server;
  struct np_fetch *strict = fetch;
  struct np_error err = {""};
  server = server_new(ctx);
  struct got g = {0};
  ask(request("/ok"), &g);
  CHECK(!strcmp(g.code, "tls") && g.why[0], "%s %s", g.code, g.why);
  struct np_fetch_options trusting = {.ca_file = ca_file, .names_lead_anywhere = true};
  fetch = np_fetch_new(base, &trusting, &err);
  CHECK(fetch, "%s", err.text);
  for (int i = 0; i < 3; i++) {
    ask(request("/ok"), &g);
    CHECK(g.status == 200, "%s %s", g.code, g.why);
  }
  CHECK(server_count(server, &server->accepted) == 2, "%d", server->accepted); /* the failed one, and one for all three */
  struct np_fetch_request r = request("/ok");
  char url[80];
  snprintf(url, sizeof url, "https://b.test:%d/ok", server->port);
  r.url = url;
  ask(r, &g);
  CHECK(!strcmp(g.code, "tls"), "trusted under another name: %s %s", g.code, g.why);
  ask(request("/half"), &g);
  CHECK(!strcmp(g.code, "cut"), "%s %s", g.code, g.why);
  np_fetch_free(fetch);
  fetch = strict;
  server_free(server);
  server = usual;
  struct np_fetch_options bad = {.ca_file = "/nonexistent/ca.pem"};
  CHECK(!np_fetch_new(base, &bad, &err) && strstr(err.text, "/nonexistent/ca.pem"), "%s", err.text);
  bad.ca_file = "/proc/self/status";
  CHECK(!np_fetch_new(base, &bad, &err) && strstr(err.text, "PEM"), "%s", err.text);
  unlink(ca_file);
  SSL_CTX_free(ctx);
  drop(&g);
}

/* Whoever runs a name's DNS cannot have it lead to this machine; an address, or localhost, says itself what it is. */
static void names_that_lead_near(void) {
  struct np_fetch *usual = fetch;
  struct np_error err;
  struct np_fetch_options strict = {0};
  struct got g = {0};
  char url[80];
  fetch = np_fetch_new(base, &strict, &err);
  int before = server_count(server, &server->accepted);
  static const char *const near[] = {"a.test", "link.test", "six.test", "mapped.test", "a.test."};
  for (size_t i = 0; i < sizeof near / sizeof *near; i++) {
    struct np_fetch_request r = request("/ok");
    snprintf(url, sizeof url, "http://%s:%d/ok", near[i], server->port);
    r.url = url;
    ask(r, &g);
    CHECK(!strcmp(g.code, "near") && strstr(g.why, near[i]), "%s: %s %s", near[i], g.code, g.why);
  }
  CHECK(server_count(server, &server->accepted) == before, "somebody connected");
  static const char *const said[] = {"127.0.0.1", "localhost"};
  for (size_t i = 0; i < 2; i++) {
    struct np_fetch_request r = request("/ok");
    snprintf(url, sizeof url, "http://%s:%d/ok", said[i], server->port);
    r.url = url;
    ask(r, &g);
    CHECK(g.status == 200, "%s: %s", said[i], g.why);
  }
  struct np_fetch_request r = request("/ok"); /* a redirect is another name */
  snprintf(url, sizeof url, "http://127.0.0.1:%d/to-name", server->port);
  r.url = url;
  r.redirects = 1;
  ask(r, &g);
  CHECK(!strcmp(g.code, "near"), "%s %s", g.code, g.why);
  np_fetch_free(fetch);
  fetch = usual;
  drop(&g);
  static const struct {
    const char *address;
    bool near;
  } addresses[] = {{"127.0.0.1", true},
                   {"127.255.255.254", true},
                   {"0.0.0.0", true},
                   {"169.254.1.1", true},
                   {"169.253.1.1", false},
                   {"10.0.0.1", false},
                   {"192.168.1.1", false},
                   {"126.0.0.1", false},
                   {"128.0.0.1", false},
                   {"::1", true},
                   {"::", true},
                   {"fe80::1", true},
                   {"febf::1", true},
                   {"fec0::1", false},
                   {"::ffff:127.0.0.1", true},
                   {"::ffff:10.0.0.1", false},
                   {"2001:db8::1", false},
                   {"fd00::1", false},
                   {"::ffff:169.254.169.254", true},
                   {"::127.0.0.1", true},
                   {"::10.0.0.1", false},
                   {"64:ff9b::169.254.169.254", true},
                   {"64:ff9b::10.0.0.1", false},
                   {"64:ff9b:1::7f00:1", false},
                   {"2002:7f00:1::", true},
                   {"2002:a9fe:a9fe::1", true},
                   {"2002:a00:1::", false}};
  for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    bool six = strchr(addresses[i].address, ':') != NULL;
    inet_pton(six ? AF_INET6 : AF_INET, addresses[i].address, six ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr);
    CHECK(np_fetch_is_near(six ? (void *)&v6 : (void *)&v4) == addresses[i].near, "%s", addresses[i].address);
  }
  static const struct {
    const char *name;
    bool says;
  } names[] = {{"localhost:80", true},     {"LOCALHOST:80", true},       {"a.localhost:1", true}, {"localhost.:80", true},
               {"notlocalhost:80", false}, {"localhost.evil:80", false}, {"127.0.0.1:80", true},  {"10.1.2.3:80", true},
               {"[::1]:80", true},         {"127.0.0.1.evil:80", false}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    CHECK(np_fetch_says_near(names[i].name) == names[i].says, "%s", names[i].name);
}

static void environment(void) {
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
  struct got g = {0};
  ask(request("/ok"), &g);
  CHECK(g.status == 200, "%s", g.why);
  unsetenv("http_proxy");
  unsetenv("ALL_PROXY");
  drop(&g);
}

int main(void) {
  struct np_error err;
  sem_init(&resolver_stuck, 0, 0);
  sem_init(&resolver_free, 0, 0);
  if (np_fetch_global_init(&err)) abort();
  base = event_base_new();
  server = server_new(NULL);
  struct np_fetch_options options = {.names_lead_anywhere = true};
  fetch = np_fetch_new(base, &options, &err);
  answers();
  requests();
  senseless();
  failing();
  deadlines();
  waiting_counts();
  redirects();
  cancelling();
  freeing(&options);
  many();
  reuse();
  tls();
  names_that_lead_near();
  environment();
  CHECK(np_fetch_running(fetch) == 0);
  np_fetch_free(fetch);
  server_free(server);
  event_base_free(base);
  libevent_global_shutdown();
  return check_end();
}
