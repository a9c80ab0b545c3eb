/* The HTTP server: listening, accepting, deadlines, draining. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "io/serve_conn.h"

#define ACCEPT_AT_ONCE 64
#define BACKLOG 4096
/* One timer looks at all connections, rather than a timer each that would be set anew for every request. */
static const struct timeval sweep_every = {0, 250000};
static const struct timeval retry_after = {0, 100000};

/* ---- the address ---- */

/* "host:port" or "[host]:port" into its parts. */
static int split(const char *address, char *host, size_t size, const char **port, struct np_error *err) {
  const char *start = address, *colon = strrchr(address, ':'), *end = colon;
  if (address[0] == '[') {
    start = address + 1;
    end = strchr(address, ']');
    if (end && end + 1 != colon) end = NULL;
  } else if (colon && memchr(address, ':', (size_t)(colon - address))) {
    end = NULL; /* an IPv6 address without brackets */
  }
  if (!colon || !end || (size_t)(end - start) >= size) goto malformed;
  *port = colon + 1;
  size_t digits = strspn(*port, "0123456789");
  if (!digits || (*port)[digits] || digits > 5 || strtol(*port, NULL, 10) > 65535) goto malformed;
  memcpy(host, start, (size_t)(end - start));
  host[end - start] = 0;
  return 0;
malformed:
  return np_fail(err, "cannot listen on \"%s\": write it as 127.0.0.1:8080 or [::1]:8080", address);
}

/* Of two programs that share a port, each gets a part of the requests: without SO_REUSEPORT the kernel says whether there is one. */
static bool is_taken(const struct addrinfo *ai) {
  int one = 1, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false; /* the listener's own socket will say why */
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  bool taken = bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 && errno == EADDRINUSE;
  close(fd);
  return taken;
}

static int listen_at(const struct addrinfo *ai, const char *address, bool alone, struct np_error *err) {
  if (alone && is_taken(ai)) return np_fail(err, "cannot listen on %s: %s", address, strerror(EADDRINUSE));
  int one = 1, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return np_fail(err, "cannot listen on %s: %s", address, strerror(errno));
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one); /* what is accepted inherits this and the next */
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return fd;
  np_fail(err, "cannot listen on %s: %s", address, strerror(errno));
  close(fd);
  return -1;
}

static int open_listener(const char *address, bool alone, struct np_error *err) {
  char host[256] = "";
  const char *port = NULL;
  if (split(address, host, sizeof host, &port, err) < 0) return -1;
  struct addrinfo *ai = NULL, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
  int rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &ai);
  if (rc) return np_fail(err, "cannot listen on %s: %s", address, gai_strerror(rc));
  int fd = listen_at(ai, address, alone, err);
  freeaddrinfo(ai);
  return fd;
}

union where {
  struct sockaddr any;
  struct sockaddr_in four;
  struct sockaddr_in6 six;
};

static int port_of(int fd) {
  union where at = {0};
  socklen_t len = sizeof at;
  if (getsockname(fd, &at.any, &len) < 0) return 0;
  return ntohs(at.any.sa_family == AF_INET6 ? at.six.sin6_port : at.four.sin_port);
}

static char *remote_of(const union where *from) {
  char text[INET6_ADDRSTRLEN] = "";
  const struct in6_addr *six = &from->six.sin6_addr;
  if (from->any.sa_family == AF_INET)
    inet_ntop(AF_INET, &from->four.sin_addr, text, sizeof text);
  else if (IN6_IS_ADDR_V4MAPPED(six))
    inet_ntop(AF_INET, six->s6_addr + 12, text, sizeof text);
  else
    inet_ntop(AF_INET6, six, text, sizeof text);
  return np_strdup(text);
}

/* ---- accepting ---- */

static void set_listening(struct np_server *s, bool on) {
  if (s->listening == on) return;
  s->listening = on;
  if (on)
    event_add(&s->acceptable, NULL);
  else
    event_del(&s->acceptable);
}

static bool is_full(const struct np_server *s) { return s->count >= s->option.connections_max; }

/* Out of descriptors or memory: the connection stays in the kernel's queue, and the socket readable. */
static void starve(struct np_server *s) {
  if (!s->starved) np_log(NP_WARN, "cannot accept connections for now", "why", strerror(errno), NULL);
  s->starved = true;
  set_listening(s, false);
  event_add(&s->retry, &retry_after);
}

static bool accept_one(struct np_server *s) {
  union where from = {0};
  socklen_t len = sizeof from;
  int fd = accept4(s->fd, &from.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) starve(s);
    return errno == ECONNABORTED || errno == EINTR;
  }
  s->starved = false;
  np_conn_new(s, fd)->req.remote = remote_of(&from);
  if (s->count == 1) event_add(&s->sweep, &sweep_every);
  return true;
}

void np_server_take(struct np_server *s, int fd, const char *remote) {
  s->now = np_mono_us();
  np_conn_new(s, fd)->req.remote = np_strdup(remote);
  if (s->count == 1) event_add(&s->sweep, &sweep_every);
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_server *s = arg;
  s->now = np_mono_us();
  for (int i = 0; i < ACCEPT_AT_ONCE && !is_full(s) && accept_one(s); i++) {}
  if (is_full(s)) set_listening(s, false);
}

static void resume_listening(struct np_server *s) {
  if (s->fd >= 0 && !is_full(s) && !event_pending(&s->retry, EV_TIMEOUT, NULL)) set_listening(s, true);
}

static void on_retry(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  resume_listening(arg);
}

void np_serve_left(struct np_server *s) {
  if (s->freeing) return;
  if (!s->count) event_del(&s->sweep);
  resume_listening(s);
}

/* ---- the loop's other calls ---- */

static void on_sweep(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_server *s = arg;
  s->now = np_mono_us();
  for (struct np_conn *c = TAILQ_FIRST(&s->all), *next; c; c = next) {
    next = TAILQ_NEXT(c, all); /* only c itself may be freed meanwhile */
    np_conn_sweep(c);
  }
}

static void on_wake(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_server *s = arg;
  s->now = np_mono_us();
  struct np_conn *c;
  while ((c = TAILQ_FIRST(&s->ready))) np_conn_run(c);
}

/* ---- the server ---- */

static double or_else(double given, double otherwise) { return given > 0 ? given : otherwise; }
static size_t or_size(size_t given, size_t otherwise) { return given ? given : otherwise; }

static struct np_server_options fill_in(const struct np_server_options *o) {
  return (struct np_server_options){
      .head_max = or_size(o->head_max, 16 << 10),
      .header_count_max = or_size(o->header_count_max, 100),
      .body_max = or_size(o->body_max, 4 << 20),
      .head_timeout = or_else(o->head_timeout, 10),
      .body_timeout = or_else(o->body_timeout, 30),
      .write_timeout = or_else(o->write_timeout, 30),
      .idle_timeout = or_else(o->idle_timeout, 75),
      .connections_max = or_size(o->connections_max, 10000),
  };
}

struct np_server *np_server_new(struct event_base *base, const struct np_server_options *options,
                                const struct np_server_handler *handler, void *arg, struct np_error *err) {
  struct np_server *s = np_alloc(sizeof *s);
  s->base = base;
  s->option = fill_in(options);
  s->handler = *handler;
  s->arg = arg;
  s->fd = -1;
  s->date_second = -1;
  TAILQ_INIT(&s->all);
  TAILQ_INIT(&s->ready);
  if (options->certificate && !(s->tls = np_tls_new(options->certificate, options->key, err))) goto fail;
  if (options->address && (s->fd = open_listener(options->address, options->alone, err)) < 0) goto fail;
  if (options->address) s->port = port_of(s->fd);
  event_assign(&s->acceptable, base, s->fd, EV_READ | EV_PERSIST, on_acceptable, s);
  event_assign(&s->retry, base, -1, 0, on_retry, s);
  event_assign(&s->sweep, base, -1, EV_PERSIST, on_sweep, s);
  event_assign(&s->wake, base, -1, 0, on_wake, s);
  if (options->address) set_listening(s, true);
  return s;
fail:
  np_tls_free(s->tls);
  free(s);
  return NULL;
}

void np_server_renew(struct np_server *s, struct np_tls *fresh) { np_tls_renew(s->tls, fresh); }

int np_server_port(const struct np_server *s) { return s->port; }
size_t np_server_connections(const struct np_server *s) { return s->count; }

static void stop_listening(struct np_server *s) {
  if (s->fd < 0) return;
  set_listening(s, false);
  event_del(&s->retry);
  close(s->fd);
  s->fd = -1;
}

/* What waits in the kernel's queue would be reset by closing the listener, so it is taken in first. */
void np_server_drain(struct np_server *s) {
  if (s->draining) return;
  s->now = np_mono_us();
  while (!is_full(s) && accept_one(s)) {}
  stop_listening(s);
  s->draining = true;
  struct np_conn *c;
  TAILQ_FOREACH(c, &s->all, all) np_conn_drain(c);
}

void np_server_free(struct np_server *s) {
  if (!s) return;
  s->freeing = true;
  stop_listening(s);
  event_del(&s->sweep);
  event_del(&s->wake);
  struct np_conn *c;
  while ((c = TAILQ_FIRST(&s->all))) {
    np_conn_lost(c, false);
    bool shown = c->shown;
    c->shown = false;
    c->started = c->finished = true;
    if (shown) s->handler.done(s->arg, &c->req);
    np_conn_free(c);
  }
  np_tls_free(s->tls);
  np_buf_free(&s->answer);
  free(s);
}
