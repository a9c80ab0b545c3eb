/* Talks to the host's admin socket. */
#include "host/client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/error.h"
#include "host/admin.h"
#include "host/client_call.h"
#include "host/client_diff.h"
#include "host/client_show.h"

struct talk {
  const struct np_client *client;
  struct np_show *show; /* owned */
  struct np_buf in;     /* owned: bytes that came */
  struct np_diff *diff; /* owned; of `neap diff` */
  bool ended;           /* the summary or an error was there: the answer is whole */
  bool over;            /* the summary was */
  long long request;    /* the last one that was run again; 0 */
  int code;
};

/* A replay that is followed goes on without this. */
static bool follows(const struct np_client *c) { return strcmp(c->command, "replay send") == 0; }

static bool is_tail(const struct np_client *c) { return strncmp(c->command, "tail", 4) == 0; }

static bool is_requests(const struct np_client *c) { return strcmp(c->command, "requests") == 0; }

void np_client_error(FILE *out, const char *text) {
  struct np_buf b = {0};
  np_buf_add_json(&b, text, strlen(text));
  fprintf(out, "{\"error\":%s}\n", b.data);
  np_buf_free(&b);
}

/* In JSON as an answer of the host would be: of a call standard output is for results alone. */
static int complain(const struct np_client *c, const char *text) {
  if (c->json)
    np_client_error(strcmp(c->command, "call") == 0 ? stderr : stdout, text);
  else
    fprintf(stderr, "neap: %s\n", text);
  return 1;
}

int np_client_connect(const char *store, bool *none, struct np_error *err) {
  struct sockaddr_un address;
  int folder;
  *none = false;
  if (np_admin_address(store, &address, &folder, err) < 0) return -1;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    int code = errno;
    close(fd);
    fd = -1;
    errno = code;
  }
  *none = fd < 0 && (errno == ENOENT || errno == ECONNREFUSED);
  if (*none)
    np_fail(err, "no host is running at %s: start one with neap run; one with another store is found by its neap.lua, or --store",
            store);
  else if (fd < 0 && errno == EACCES)
    np_fail(err, "the host at %s answers only the user that runs it: ask as that one (sudo -u)", store);
  else if (fd < 0)
    np_fail(err, "the host at %s cannot be asked: %s", store, strerror(errno));
  close(folder);
  return fd;
}

static int send_request(int fd, const char *request, struct np_error *err) {
  struct np_buf b = {0};
  np_buf_addf(&b, "%s\n", request);
  size_t sent = 0;
  while (sent < b.len) {
    ssize_t n = send(fd, b.data + sent, b.len - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    sent += (size_t)n;
  }
  int status = sent < b.len ? np_fail(err, "the host cannot be asked: %s", strerror(errno)) : 0;
  np_buf_free(&b);
  return status;
}

static bool starts(const char *line, size_t len, const char *with) {
  return len >= strlen(with) && memcmp(line, with, strlen(with)) == 0;
}

/* The result of a command, and nothing else: whoever asked for JSON wants to pass it on. */
static void print_result(struct talk *t, const char *json, size_t len) {
  struct np_buf pretty = {0};
  if (!t->client->json) np_call_pretty(&pretty, json, len);
  if (pretty.len)
    fwrite(pretty.data, 1, pretty.len, stdout);
  else
    fwrite(json, 1, len, stdout);
  putchar('\n');
  np_buf_free(&pretty);
  t->ended = true;
}

static void take_line(struct talk *t, const char *line, size_t len) {
  static const char result[] = "{\"result\":", run[] = "{\"request\":";
  bool error = starts(line, len, "{\"error\":"), summary = starts(line, len, "{\"summary\":");
  bool call = strcmp(t->client->command, "call") == 0;
  struct np_error err;
  if (call && starts(line, len, result)) {
    print_result(t, line + sizeof result - 1, len - sizeof result);
    return;
  }
  if (error || summary) t->ended = true;
  if (summary) t->over = true;
  if (is_requests(t->client) && starts(line, len, run)) t->request = strtoll(line + sizeof run - 1, NULL, 10);
  if (t->diff) {
    bool read = np_diff_line(t->diff, line, len, &err) == 0;
    if (read && summary && t->code == 0) t->code = np_diff_show(t->diff, &err);
    if (!read || t->code == 2) t->code = complain(t->client, err.text) + 1;
    return;
  }
  if (t->client->json && call && error) {
    fprintf(stderr, "%.*s\n", (int)len, line); /* standard output is for results alone */
  } else if (t->client->json) {
    fwrite(line, 1, len, stdout);
    putchar('\n');
  }
  if (t->client->json && !summary) {
    if (error) t->code = 1;
  } else if (np_show_line(t->show, line, len, &err) < 0) {
    t->ended = true;
    t->code = complain(t->client, err.text);
  } else if (summary && (strcmp(t->client->command, "reload") == 0 || is_requests(t->client) || follows(t->client)) &&
             np_show_failed(t->show) > 0) {
    t->code = 1;
  }
}

static void take_lines(struct talk *t) {
  size_t from = 0;
  for (char *end; from < t->in.len && (end = memchr(t->in.data + from, '\n', t->in.len - from));
       from = (size_t)(end - t->in.data) + 1)
    take_line(t, t->in.data + from, (size_t)(end - t->in.data) - from);
  if (!from) return;
  memmove(t->in.data, t->in.data + from, t->in.len - from + 1);
  t->in.len -= from;
}

/* false: nobody reads standard output any more, or it cannot be written. */
static bool flush(struct talk *t) {
  if (is_tail(t->client) && !t->client->json) np_show_flush(t->show);
  if (fflush(stdout) == 0 && !ferror(stdout)) return true;
  if (errno != EPIPE) t->code = complain(t->client, strerror(errno));
  return false;
}

static volatile sig_atomic_t interrupted;

static void note_interrupt(int signo) {
  (void)signo;
  interrupted = 1;
}

/* Waits for the host, and for the reader of standard output to go, which would otherwise be noticed at the next line only; or for Ctrl-C, which comes at no
 * other time where it is blocked. */
static bool wait_for(int fd) {
  struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDOUT_FILENO}};
  sigset_t none;
  sigemptyset(&none);
  while (ppoll(p, 2, NULL, &none) < 0 && errno == EINTR)
    if (interrupted) return false;
  return !(p[1].revents & POLLERR) || p[0].revents;
}

/* From here on Ctrl-C ends the conversation at a line's end, so that it can be told how far it has come. */
static void take_interrupts(void) {
  sigset_t set;
  const struct sigaction action = {.sa_handler = note_interrupt};
  sigaction(SIGINT, &action, NULL);
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, NULL);
}

/* Of requests that were run again, but not all of them. */
static void tell_where(struct talk *t) {
  if (interrupted) t->code = 130;
  if (t->over || !t->request) return;
  fprintf(stderr, "neap: it has come as far as request %lld; the same with --after %lld goes on from there\n", t->request,
          t->request);
}

static void converse(struct talk *t, int fd) {
  while (wait_for(fd)) {
    ssize_t n = read(fd, np_buf_reserve(&t->in, 65536), 65536);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (!t->ended)
        t->code = complain(t->client, is_tail(t->client)   ? "the host has stopped"
                                      : follows(t->client) ? "the host has stopped; the replay goes on when it is started again"
                                                           : "the host went away in the middle of its answer");
      break;
    }
    t->in.len += (size_t)n;
    t->in.data[t->in.len] = 0;
    take_lines(t);
    if (!flush(t)) break;
  }
}

static void on_interrupt(int signo) {
  (void)signo;
  _exit(0);
}

static void on_leave(int signo) {
  static const char text[] = "\nit goes on; neap replay list shows it, neap replay stop N stops it\n";
  (void)signo;
  ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
  (void)n; /* it is told as far as somebody reads */
  _exit(0);
}

int np_client_run(const struct np_client *c) {
  struct np_error err;
  bool none;
  int fd = np_client_connect(c->store, &none, &err);
  if (fd < 0) return complain(c, err.text);
  signal(SIGPIPE, SIG_IGN);
  if (is_tail(c)) signal(SIGINT, on_interrupt);
  if (is_requests(c)) take_interrupts();
  if (follows(c)) signal(SIGINT, on_leave);
  const char *no_colour = getenv("NO_COLOR");
  struct talk t = {.client = c};
  t.show = np_show_new(c->command, isatty(STDOUT_FILENO) && !(no_colour && *no_colour), c->json);
  if (strcmp(c->command, "sources") == 0 && !c->json && !(t.diff = np_diff_new(&err)))
    t.code = complain(c, err.text);
  else if (send_request(fd, c->request, &err) < 0)
    t.code = complain(c, err.text);
  else
    converse(&t, fd);
  if (is_requests(c)) tell_where(&t);
  close(fd);
  np_diff_free(t.diff);
  np_show_free(t.show);
  np_buf_free(&t.in);
  return t.code;
}
