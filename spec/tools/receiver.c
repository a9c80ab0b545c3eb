/* An HTTP receiver that fails in every way: receiver --messages N [--seed S]. Prints its port, then serves until it is ended.
 *
 * POST /NAME has a line for each message: "ID DEVICE N", N from 1 and unique. How it fares is up to the name:
 *   steady  answers 200
 *   moody   answers 200, but now and then 500, 429 with Retry-After, 200 with half a body, nothing at all, or it hangs up before or after it took the message
 *   bulk    as moody, and of a batch it answers 207 with a line for each message: "ok", or "again" for what it did not take
 * GET /report tells by name what it took: {"moody":{"taken":…,"repeated":…,"two_ids":…,"disorder":…,"requests":…}}. taken counts each N once; repeated the further times
 * that one came under the same id; two_ids those that came under another; disorder those that came after a later one of their device.
 * SIGUSR1: it listens no more and hangs up on everybody; SIGUSR2: it listens again, on the same port. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/map.h"

enum { STEADY, MOODY, BULK, NAMES };
static const char *const names[NAMES] = {"steady", "moody", "bulk"};

struct device {
  long last;
};

static struct place {
  char (*ids)[40]; /* by N: the id under which it came first; "" where it has not */
  struct np_map devices;
  long taken, repeated, two_ids, disorder, requests;
} places[NAMES];

struct client {
  int fd;
  bool hangs;
  struct np_buf in, out;
  struct client *next, **prev;
};

static long most;
static uint64_t seed = 1;
static int loop, listener = -1, port;
static struct client *clients;

static unsigned chance(unsigned of) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return (unsigned)(seed >> 20) % of;
}

static void leave(struct client *c) {
  *c->prev = c->next;
  if (c->next) c->next->prev = c->prev;
  close(c->fd);
  np_buf_free(&c->in);
  np_buf_free(&c->out);
  free(c);
}

static void watch(int fd, void *what) {
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = what};
  epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e);
}

static void listen_now(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
  socklen_t n = sizeof a;
  int on = 1;
  if (listener >= 0) return;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 512) < 0 ||
      getsockname(listener, (struct sockaddr *)&a, &n) < 0) {
    perror("receiver");
    exit(1);
  }
  port = ntohs(a.sin_port);
  watch(listener, &listener);
}

static void go_down(void) {
  if (listener >= 0) close(listener);
  listener = -1;
  while (clients) leave(clients);
}

/* A message has arrived. False: its line makes no sense. */
static bool take(struct place *p, const char *line) {
  char id[40], name[64];
  long n;
  if (sscanf(line, "%39s %63s %ld", id, name, &n) != 3 || n < 1 || n > most) return false;
  if (*p->ids[n]) {
    if (strcmp(p->ids[n], id) == 0)
      p->repeated++;
    else
      p->two_ids++;
    return true;
  }
  struct device *d = np_map_get(&p->devices, name, strlen(name));
  if (!d) np_map_put(&p->devices, name, strlen(name), d = np_alloc(sizeof *d));
  if (n < d->last) p->disorder++;
  d->last = n;
  strcpy(p->ids[n], id);
  p->taken++;
  return true;
}

static void answer(struct client *c, int status, const char *headers, const char *body) {
  np_buf_addf(&c->out, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n%s", status, strlen(body), headers, body);
}

static void report(struct client *c) {
  struct np_buf b = {0};
  for (int i = 0; i < NAMES; i++)
    np_buf_addf(&b, "%s\"%s\":{\"taken\":%ld,\"repeated\":%ld,\"two_ids\":%ld,\"disorder\":%ld,\"requests\":%ld}", i ? "," : "{",
                names[i], places[i].taken, places[i].repeated, places[i].two_ids, places[i].disorder, places[i].requests);
  np_buf_addc(&b, '}');
  answer(c, 200, "Content-Type: application/json\r\n", b.data);
  np_buf_free(&b);
}

/* Each line is taken; of a bulk some are left out, and those of the same device after it, so that the device's order stands. */
static void take_all(struct client *c, int which, char *body) {
  struct place *p = &places[which];
  struct np_buf said = {0};
  char left[64] = "", name[64];
  bool again = false, wrong = false;
  for (char *line = strtok(body, "\n"); line; line = strtok(NULL, "\n")) {
    bool known = sscanf(line, "%*s %63s", name) == 1,
         out = which == BULK && (chance(100) == 0 || (known && strcmp(name, left) == 0));
    if (out && known) strcpy(left, name);
    if (!out && !take(p, line)) wrong = true;
    again |= out;
    np_buf_adds(&said, out ? "again\n" : "ok\n");
  }
  answer(c, wrong ? 400 : again ? 207 : 200, "", np_buf_text(&said));
  np_buf_free(&said);
}

/* False: it hangs up. */
static bool serve_mood(struct client *c, int which, char *body) {
  unsigned mood = which == STEADY ? 1000000 : chance(1000000);
  long n = ++places[which].requests;
  if (which != STEADY && (n == 20 || n == 40 || n == 60)) mood = n == 20 ? 40500 : n == 40 ? 20100 : 45000; /* each at least once */
  if (mood < 20000) {
    answer(c, 500, "", "not today");
  } else if (mood < 20200) {
    answer(c, 429, "Retry-After: 1\r\n", "too many");
  } else if (mood < 40000) {
    return false;
  } else if (mood < 41000) {
    c->hangs = true;
  } else if (mood < 60000) { /* it has taken them, and does not say so */
    take_all(c, which, body);
    np_buf_clear(&c->out);
    if (mood < 50000) np_buf_adds(&c->out, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf of it");
    return false;
  } else {
    take_all(c, which, body);
  }
  return true;
}

/* A whole request at the start of c->in: its length, 0 where it has not all come, -1 where the client is to go. */
static long serve_one(struct client *c) {
  char *end = c->in.len ? strstr(c->in.data, "\r\n\r\n") : NULL, *length;
  if (!end) return 0;
  *end = 0;
  length = strcasestr(c->in.data, "\r\ncontent-length:");
  size_t n = length ? strtoul(length + 17, NULL, 10) : 0, head = (size_t)(end + 4 - c->in.data);
  *end = '\r';
  if (c->in.len < head + n) return 0;
  char *body = c->in.data + head, after = body[n], *path = strchr(c->in.data, ' ');
  bool stays = false;
  body[n] = 0;
  if (path && strncmp(path, " /report ", 9) == 0) {
    report(c);
    stays = true;
  }
  for (int i = 0; i < NAMES && path; i++)
    if (strncmp(path + 2, names[i], strlen(names[i])) == 0) stays = serve_mood(c, i, body);
  body[n] = after;
  return stays ? (long)(head + n) : -1;
}

/* The answers are small: what does not go at once is not worth waiting for. */
static bool flush(struct client *c) {
  bool sent = !c->out.len || send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL) == (ssize_t)c->out.len;
  np_buf_clear(&c->out);
  return sent;
}

static void on_client(struct client *c) {
  ssize_t n = read(c->fd, np_buf_reserve(&c->in, 65536), 65535);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) {
    leave(c);
    return;
  }
  c->in.len += (size_t)n;
  c->in.data[c->in.len] = 0;
  long used = 0;
  while (!c->hangs && (used = serve_one(c)) > 0) {
    memmove(c->in.data, c->in.data + used, c->in.len - (size_t)used + 1);
    c->in.len -= (size_t)used;
  }
  if (!flush(c) || used < 0) leave(c);
}

static void on_listener(void) {
  int fd, on = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    struct client *c = np_alloc(sizeof *c);
    *c = (struct client){.fd = fd, .next = clients, .prev = &clients};
    if (clients) clients->prev = &c->next;
    clients = c;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(fd, c);
  }
}

int main(int argc, char **argv) {
  sigset_t signals;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--messages") == 0) most = atol(argv[i + 1]);
    if (strcmp(argv[i], "--seed") == 0) seed = strtoul(argv[i + 1], NULL, 10) * 2 + 1;
  }
  if (most < 1) {
    fputs("receiver --messages N [--seed S]\n", stderr);
    return 2;
  }
  for (int i = 0; i < NAMES; i++) places[i].ids = np_alloc((size_t)(most + 1) * sizeof *places[i].ids);
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  sigaddset(&signals, SIGUSR2);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  int told = signalfd(-1, &signals, SFD_CLOEXEC);
  loop = epoll_create1(EPOLL_CLOEXEC);
  watch(told, &told);
  listen_now();
  printf("receiver on %d\n", port);
  fflush(stdout);
  for (;;) {
    struct epoll_event e;
    if (epoll_wait(loop, &e, 1, -1) < 1) continue; /* one at a time: a client may go with another's event */
    struct signalfd_siginfo s;
    if (e.data.ptr == &listener)
      on_listener();
    else if (e.data.ptr != &told)
      on_client(e.data.ptr);
    else if (read(told, &s, sizeof s) == sizeof s)
      s.ssi_signo == SIGUSR1 ? go_down() : listen_now();
  }
}
