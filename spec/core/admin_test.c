/* The admin socket over a real store: tails, lists, and clients that misbehave. */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <event2/event.h>

#include "base/buf.h"
#include "host/admin.h"
#include "store_sets.h"

static struct np_host host;
static struct np_config config;
static struct np_store *store;

static void begin(const char *path) {
  struct np_error err;
  config = (struct np_config){.store = (char *)path};
  host = (struct np_host){.config = &config, .base = event_base_new()};
  store = np_store_open(path, &err);
  host.reader = store ? np_reader_open(path, &err) : NULL;
  host.admin = host.reader ? np_admin_new(&host, &err) : NULL;
  CHECK(host.admin, "%s", err.text);
  if (!host.admin) exit(check_end());
}

static void end(void) {
  np_admin_free(host.admin);
  np_reader_close(host.reader);
  np_store_close(store);
  event_base_free(host.base);
}

static void add_many(const char *device, int first, int n) {
  struct np_error err;
  struct np_writeset *ws = np_writeset_new();
  for (int i = first; i < first + n; i++) add_reading(ws, device, i, NULL, i);
  CHECK(np_store_apply(store, &ws, 1, &err) == 0 && ws->outcome == NP_COMMITTED, "%s", err.text);
  np_writeset_unref(ws);
  np_admin_committed(host.admin);
}

/* Clients. */

static void turn(void) { event_base_loop(host.base, EVLOOP_NONBLOCK); }

static int call_in(const char *line) {
  struct sockaddr_un address;
  struct np_error err;
  int folder, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (np_admin_address(config.store, &address, &folder, &err) < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    CHECK(0, "connect");
    exit(check_end());
  }
  close(folder);
  if (line) CHECK(send(fd, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line));
  turn();
  return fd;
}

static int lines_in(const struct np_buf *b) {
  int n = 0;
  for (size_t i = 0; i < b->len; i++) n += b->data[i] == '\n';
  return n;
}

/* Reads until there are so many lines, or the end (lines < 0). */
static bool read_lines(int fd, int lines, struct np_buf *b) {
  int have = lines_in(b);
  for (int i = 0; i < 100000; i++) {
    if (lines >= 0 && have >= lines) return true;
    ssize_t n = read(fd, np_buf_reserve(b, 65536), 65536);
    if (n == 0 || (n < 0 && errno == ECONNRESET)) return lines < 0;
    if (n > 0) {
      for (const char *c = b->data + b->len; c < b->data + b->len + n; c++) have += *c == '\n';
      b->len += (size_t)n;
      b->data[b->len] = 0;
    } else {
      struct pollfd p = {.fd = fd, .events = POLLIN};
      poll(&p, 1, 1);
    }
    turn();
  }
  return false;
}

static void check_answer(const char *line, const char *want) {
  struct np_buf b = {0};
  int fd = call_in(line);
  CHECK(read_lines(fd, -1, &b) && strstr(np_buf_text(&b), want), "%.80s\n  gives  %s\n  not    %s", line, np_buf_text(&b), want);
  close(fd);
  np_buf_free(&b);
}

static void check_tail(void) {
  struct np_buf b = {0};
  add_many("old", 1, 3);
  int fd = call_in("{\"command\":\"tail\",\"device\":\"g*\",\"above\":5}\n");
  turn();
  add_many("gauge", 4, 4); /* 4 and 5 are not above 5 */
  add_many("other", 9, 1);
  CHECK(read_lines(fd, 2, &b));
  CHECK(strcmp(b.data, "{\"seq\":6,\"vendor\":\"tideco\",\"connection\":\"bay\",\"device\":\"gauge\",\"metric\":\"level\","
                       "\"value\":6.0,\"unit\":\"m\","
                       "\"at\":6,\"received\":13,\"quality\":\"valid\"}\n"
                       "{\"seq\":7,\"vendor\":\"tideco\",\"connection\":\"bay\",\"device\":\"gauge\",\"metric\":\"level\","
                       "\"value\":7.0,\"unit\":\"m\","
                       "\"at\":7,\"received\":14,\"quality\":\"valid\"}\n") == 0,
        "%s", b.data);
  np_buf_clear(&b);
  add_many("gauge", 100, 2);
  CHECK(read_lines(fd, 2, &b) && strstr(b.data, "\"value\":100.0,"), "%s", b.data);
  CHECK(shutdown(fd, SHUT_WR) == 0); /* a tail has nobody to go on for */
  CHECK(read_lines(fd, -1, &b) && lines_in(&b) == 2);
  close(fd);
  np_buf_free(&b);
}

/* A slice back holds 1000; the readings that are wanted lie in several. */
static void check_last(void) {
  static const struct {
    const char *filter;
    int last, want, first;
  } cases[] = {{"rare", 15, 15, 1585},     {"rare", 1, 1, 1599},       {"rare", 5000, 100, 1500}, {"many", 1000, 1000, 4000},
               {"many", 3500, 3500, 1500}, {"many", 3501, 3500, 1500}, {"none", 5, 0, 0}};
  add_many("rare", 1500, 50);
  add_many("many", 1500, 1800);
  add_many("rare", 1550, 50);
  add_many("many", 3300, 1700);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct np_buf b = {0};
    char line[120], first[40];
    snprintf(line, sizeof line, "{\"command\":\"tail\",\"device\":[\"%s\",\"mark%zu\"],\"last\":%d}\n", cases[i].filter, i,
             cases[i].last);
    snprintf(first, sizeof first, "\"value\":%d.0,", cases[i].first);
    int fd = call_in(line);
    CHECK(read_lines(fd, cases[i].want, &b), "%zu: %d lines", i, lines_in(&b));
    char mark[16];
    snprintf(mark, sizeof mark, "mark%zu", i);
    for (int k = 0; k < 100; k++) turn();
    add_many(mark, 1, 1); /* what is new comes next: neither lost nor doubled */
    CHECK(read_lines(fd, cases[i].want + 1, &b) && lines_in(&b) == cases[i].want + 1, "%zu: %d lines", i, lines_in(&b));
    CHECK(strstr(b.data, mark) > strrchr(b.data, '{') - 1);
    CHECK(cases[i].want == 0 || (strstr(b.data, first) && strstr(b.data, first) < strchr(b.data, '\n')), "%zu: %.200s", i, b.data);
    close(fd);
    turn();
    np_buf_free(&b);
  }
}

static void check_slow_client(void) {
  struct np_buf b = {0};
  for (int i = 0; i < 10; i++) add_many("slow", 10000 + i * 2000, 2000);
  size_t before = mallinfo2().uordblks;
  int fd = call_in("{\"command\":\"tail\",\"device\":\"slow\",\"last\":20000}\n");
  for (int i = 0; i < 2000; i++) turn();
  size_t grown = mallinfo2().uordblks - before;
  CHECK(grown < 1 << 20, "%zu bytes are held for a client that does not read", grown);
  CHECK(read_lines(fd, 20000, &b) && lines_in(&b) == 20000, "%d lines", lines_in(&b));
  int next = 10000; /* each once, in order */
  for (const char *line = b.data, *to; (to = memchr(line, '\n', b.len - (size_t)(line - b.data))); line = to + 1) {
    const char *value = memmem(line, (size_t)(to - line), "\"value\":", 8);
    next += value && atoi(value + 8) == next;
  }
  CHECK(next == 30000, "%d", next);
  close(fd);
  np_buf_free(&b);
}

static void check_devices(void) {
  struct np_error err;
  struct np_buf b = {0};
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 1300; i++) {
    char name[40];
    snprintf(name, sizeof name, "dev \"%d\"", i);
    add_reading(ws, name, 5, NULL, 1);
  }
  CHECK(np_store_apply(store, &ws, 1, &err) == 0, "%s", err.text);
  np_writeset_unref(ws);
  int fd = call_in(NULL);
  static const char ask[] = "{\"command\":\"devices\"}\n";
  CHECK(send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) > 0 && shutdown(fd, SHUT_WR) == 0); /* as `nc -N` does */
  CHECK(read_lines(fd, -1, &b));
  int n = lines_in(&b) - 1;
  char summary[60];
  snprintf(summary, sizeof summary, "{\"summary\":{\"devices\":%d}}\n", n);
  CHECK(n >= 1300 && b.len > strlen(summary) && strcmp(b.data + b.len - strlen(summary), summary) == 0, "%d", n);
  CHECK(strstr(b.data, "\"device\":\"dev \\\"1299\\\"\",\"first_seen\":12,\"last_seen\":12}\n"));
  close(fd);
  np_buf_free(&b);
}

static void check_misbehaving(void) {
  static const struct {
    const char *line, *want;
  } cases[] = {
      {"garbage\n", "{\"error\":\"not JSON"},
      {"\n", "{\"error\":\"not JSON"},
      {"7\n", "{\"error\":\"expected an object such as {\\\"command\\\":\\\"plugins\\\"}\"}"},
      {"[]\n", "{\"error\":\"expected an object"},
      {"{\"command\":7}\n", "{\"error\":\"expected an object"},
      {"{\"command\":\"tial\"}\n", "{\"error\":\"unknown command \\\"tial\\\", did you mean \\\"tail\\\"?\"}"},
      {"{\"command\":\"zzzzzzz\"}\n", "{\"error\":\"unknown command \\\"zzzzzzz\\\"\"}"},
      {"{\"command\":\"tail\",\"metrik\":\"x\"}\n", "did you mean \\\"metric\\\"?"},
      {"{\"command\":\"tail\",\"last\":-1}\n", "{\"error\":\"last: expected a whole number from 0 to 100000\"}"},
      {"{\"command\":\"tail\",\"last\":1.5}\n", "{\"error\":\"last: expected"},
      {"{\"command\":\"tail\",\"changed\":true}\n", "{\"error\":\"margin, changed, rate, first: a tail has no history"},
      {"{\"command\":\"tail\",\"below\":\"x\"}\n", "{\"error\":\""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_answer(cases[i].line, cases[i].want);

  struct np_buf big = {0};
  while (big.len < 70000) np_buf_adds(&big, "[[[[[[[[[[");
  check_answer(big.data, "{\"error\":\"the request is longer than 64 KiB\"}");
  np_buf_free(&big);

  close(call_in("{\"command\":")); /* vanishes in the middle */
  close(call_in("{\"command\":\"tail\",\"last\":20000}\n"));
  for (int i = 0; i < 100; i++) turn();

  int clients[80];
  for (int i = 0; i < 80; i++) clients[i] = call_in(NULL);
  struct np_buf b = {0};
  CHECK(read_lines(clients[79], -1, &b) && strstr(b.data, "too many clients"), "%s", np_buf_text(&b));
  for (int i = 0; i < 80; i++) close(clients[i]);
  np_buf_free(&b);
  for (int i = 0; i < 100; i++) turn();
  check_answer("{\"command\":\"devices\"}\n", "\"summary\"");
}

static void check_socket_file(void) {
  char path[PATH_MAX], socket_path[PATH_MAX + 8], folder[200];
  struct stat st;
  struct np_error err;
  int n = snprintf(folder, sizeof folder, "%s/", test_dir);
  memset(folder + n, 'l', 120); /* longer than an address holds */
  folder[n + 120] = 0;
  CHECK(mkdir(folder, 0700) == 0);
  snprintf(path, sizeof path, "%s/n.db", folder);
  snprintf(socket_path, sizeof socket_path, "%s.sock", path);

  struct sockaddr_un address;
  int at, left = socket(AF_UNIX, SOCK_STREAM, 0); /* what a killed host leaves */
  CHECK(np_admin_address(path, &address, &at, &err) == 0 && bind(left, (struct sockaddr *)&address, sizeof address) == 0);
  close(at);
  close(left);
  CHECK(lstat(socket_path, &st) == 0 && S_ISSOCK(st.st_mode));
  begin(path);
  CHECK(lstat(socket_path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600, "%o", st.st_mode);
  check_answer("{\"command\":\"devices\"}\n", "{\"summary\":{\"devices\":0}}");
  end();
  CHECK(lstat(socket_path, &st) < 0);

  FILE *f = fopen(socket_path, "w"); /* somebody's file is not ours to remove */
  fclose(f);
  begin(test_path);
  config.store = path;
  CHECK(!np_admin_new(&host, &err) && strstr(err.text, "is in the way"), "%s", err.text);
  CHECK(lstat(socket_path, &st) == 0);
  config.store = (char *)"/nowhere/n.db";
  CHECK(!np_admin_new(&host, &err) && strstr(err.text, "/nowhere: No such file"), "%s", err.text);
  end();
  static const char *const names[] = {".sock", "", "-wal", "-shm", ".lock", "-lock"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    snprintf(socket_path, sizeof socket_path, "%s%s", path, names[i]);
    unlink(socket_path);
  }
  CHECK(rmdir(folder) == 0, "%s", strerror(errno));
}

int main(void) {
  signal(SIGPIPE, SIG_IGN); /* as the host does */
  test_begin();
  begin(test_path);
  check_tail();
  check_last();
  check_slow_client();
  check_devices();
  check_misbehaving();
  int fd = call_in("{\"command\":\"tail\"}\n"); /* the host stops with a client there */
  end();
  struct np_buf b = {0};
  CHECK(read(fd, np_buf_reserve(&b, 10), 10) <= 0);
  np_buf_free(&b);
  close(fd);
  check_socket_file();
  return test_end();
}
