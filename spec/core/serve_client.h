/* A client for the server's tests: in the same thread and loop as the server, so nothing has to be waited for by the clock. */
#ifndef NP_SPEC_SERVE_CLIENT_H
#define NP_SPEC_SERVE_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "check.h"

struct client {
  int fd;
  SSL *ssl;         /* owned; NULL in the clear */
  struct np_buf in; /* what came, from `at` on not yet taken by answer() */
  size_t at;
  bool closed; /* the server has ended, or reset, the connection */
  bool reset;
};

struct answer {
  int status;      /* 0: the connection ended before one, -1: what came is no answer */
  char head[2048]; /* terminated */
  struct np_buf body;
  bool cut; /* it ended before its end */
};

static struct event_base *loop;

/* Lets the server do what it has to, and waits a moment for the client's socket where it did nothing. */
static void turn(struct client *c) {
  event_base_loop(loop, EVLOOP_NONBLOCK);
  if (c && c->fd >= 0)
    poll(&(struct pollfd){.fd = c->fd, .events = POLLIN}, 1, 1);
  else
    poll(NULL, 0, 1);
}

/* Until a condition holds; a test that would wait for ever is ended. */
#define UNTIL(client, condition)                                                                                                   \
  for (int turns_ = 0; !(condition); turns_++) {                                                                                   \
    turn(client);                                                                                                                  \
    if (turns_ > 30000) {                                                                                                          \
      fprintf(stderr, "%s:%d: never: %s\n", __FILE__, __LINE__, #condition);                                                       \
      exit(1);                                                                                                                     \
    }                                                                                                                              \
  }

static struct client dial(int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct client c = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (connect(c.fd, (struct sockaddr *)&to, sizeof to) < 0) {
    perror("connect");
    exit(1);
  }
  fcntl(c.fd, F_SETFL, O_NONBLOCK);
  return c;
}

static void hang_up(struct client *c, bool reset) {
  if (c->fd < 0) return;
  if (reset) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
  SSL_free(c->ssl);
  close(c->fd);
  c->fd = -1;
  np_buf_free(&c->in);
}

static void again(struct client *c) { c->closed = c->closed || !(errno == EAGAIN || errno == EINTR); }

/* Takes in what is there. */
static void take(struct client *c) {
  char bytes[65536];
  while (!c->closed) {
    ssize_t n;
    if (c->ssl) {
      int rc = SSL_read(c->ssl, bytes, sizeof bytes);
      n = rc > 0 ? rc : -1;
      if (rc <= 0) {
        int why = SSL_get_error(c->ssl, rc);
        c->closed = why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE;
        c->reset = c->closed && why != SSL_ERROR_ZERO_RETURN;
        return;
      }
    } else {
      n = recv(c->fd, bytes, sizeof bytes, 0);
    }
    if (n == 0) c->closed = true;
    if (n < 0) again(c), c->reset = c->closed;
    if (n <= 0) return;
    np_buf_add(&c->in, bytes, (size_t)n);
  }
}

/* Sends all, as long as the server takes it. Returns how much it took. */
static size_t tell_bytes(struct client *c, const char *bytes, size_t n) {
  size_t done = 0;
  for (int turns = 0; done < n && !c->reset && turns < 30000; turns++) {
    ssize_t sent = c->ssl ? SSL_write(c->ssl, bytes + done, (int)(n - done)) : send(c->fd, bytes + done, n - done, MSG_NOSIGNAL);
    if (sent > 0)
      done += (size_t)sent;
    else if (!c->ssl && errno != EAGAIN)
      break;
    if (done < n) turn(c), take(c);
  }
  return done;
}

static void tell(struct client *c, const char *text) { tell_bytes(c, text, strlen(text)); }

static const char *field(const struct answer *a, const char *name) {
  static char value[512];
  for (const char *line = strstr(a->head, "\r\n"); line && line[2] && line[2] != '\r'; line = strstr(line + 2, "\r\n")) {
    size_t n = strlen(name);
    if (strncasecmp(line + 2, name, n) != 0 || line[2 + n] != ':') continue;
    const char *at = line + 2 + n + 1 + strspn(line + 2 + n + 1, " ");
    snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\r"), at);
    return value;
  }
  return NULL;
}

/* Takes chunks off text[0..n). The bytes they are, 0 while they are not whole, SIZE_MAX where they are malformed. */
static size_t dechunk(const char *text, size_t n, struct np_buf *out) {
  np_buf_clear(out);
  for (size_t at = 0;;) {
    const char *lf = memchr(text + at, '\n', n - at);
    if (!lf) return 0;
    char *end;
    size_t size = strtoul(text + at, &end, 16), start = (size_t)(lf - text) + 1;
    if (end == text + at || end[0] != '\r' || end + 1 != lf) return SIZE_MAX;
    if (start + size + 2 > n) return 0;
    if (memcmp(text + start + size, "\r\n", 2) != 0) return SIZE_MAX;
    np_buf_add(out, text + start, size);
    at = start + size + 2;
    if (!size) return at;
  }
}

static bool is_answer(const char *s) {
  return strncmp(s, "HTTP/1.1 ", 9) == 0 && strspn(s + 9, "0123456789") == 3 && s[12] == ' ' && s[13] != '\r';
}

static const char *rest(const struct client *c) { return np_buf_text(&c->in) + c->at; }

/* One answer off what has come, if it is whole or the connection has ended. to_head: it is an answer to HEAD. */
static bool parse(struct client *c, struct answer *a, bool to_head) {
  const char *text = rest(c), *blank = strstr(text, "\r\n\r\n");
  if (!blank) {
    a->status = *text ? -1 : 0;
    return c->closed;
  }
  size_t head = (size_t)(blank + 4 - text), used = head, have = c->in.len - c->at - head;
  snprintf(a->head, sizeof a->head, "%.*s", (int)head, text);
  a->status = is_answer(text) ? atoi(text + 9) : -1;
  bool none = to_head || a->status < 200 || a->status == 204 || a->status == 304;
  const char *length = field(a, "Content-Length");
  if (none) {
  } else if (length) {
    size_t n = strtoul(length, NULL, 10);
    if (have < n && !c->closed) return false;
    a->cut = have < n;
    np_buf_add(&a->body, text + head, a->cut ? have : n);
    used += a->cut ? have : n;
  } else if (field(a, "Transfer-Encoding")) {
    size_t n = dechunk(text + head, have, &a->body);
    if (!n && !c->closed) return false;
    if (n == SIZE_MAX) a->status = -1;
    a->cut = !n;
    used += n && n != SIZE_MAX ? n : have;
  } else {
    if (!c->closed) return false;
    np_buf_add(&a->body, text + head, have);
    used += have;
  }
  c->at += used;
  if (c->at == c->in.len) {
    np_buf_clear(&c->in);
    c->at = 0;
  }
  return true;
}

static struct answer answer_to(struct client *c, bool to_head) {
  struct answer a = {0};
  UNTIL(c, (take(c), parse(c, &a, to_head)));
  return a;
}

static struct answer answer(struct client *c) { return answer_to(c, false); }

#endif
