/* Jobs: they run again and again, whole or not at all, never twice at once, and remember over a start when they last ran. */
#include <arpa/inet.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "little_host.h"

static const char ticker[] =
    "local plugin = ...\n"
    "local failed = 0\n"
    "local function count(key) return function() plugin.store:put(key, (plugin.store:get(key) or 0) + 1) end end\n"
    "for i = 1, 6 do plugin:every('100ms', 'tick ' .. i, count('ticks' .. i)) end\n" /* some on either lane */
    "plugin:every('1h', 'rare', count 'rare')\n"
    "plugin:every('1h', 'overdue', count 'overdue')\n"
    "plugin:every('100ms', 'shaky', function()\n"
    "  failed = failed + 1\n"
    "  if failed <= 2 then plugin.store:put('half', true) error 'as asked' end\n"
    "  plugin.store:put('whole', failed)\n"
    "end)\n";

static const char first[] = "local plugin = ...\n"
                            "local http = require 'neap.http'\n"
                            "local config = plugin:config { url = { 'string' } }\n"
                            "plugin:every('100ms', 'wait', function()\n"
                            "  local seen = plugin.store:get 'seen'\n"
                            "  assert(http.get { url = config.url, expect = 200, timeout = 20 })\n"
                            "  plugin.store:put('first', seen or 'nothing')\n"
                            "end)\n";
static const char second[] =
    "local plugin = ...\n"
    "local config = plugin:config { url = { 'string' } }\n"
    "plugin:every('200ms', 'wait', function() plugin.store:put('second', plugin.store:get 'first' or 'too early') end)\n";

/* The text of a key, "" where it is absent. */
static const char *stored(struct little_host *h, const char *space, const char *key) {
  static struct np_buf value;
  struct np_error err;
  int64_t version;
  np_buf_clear(&value);
  if (!h) {
    np_buf_free(&value);
    return "";
  }
  int found = np_reader_get(h->host.reader, space, key, strlen(key), np_now_ms(), &value, &version, &err);
  CHECK(found >= 0, "%s", err.text);
  return found > 0 ? np_buf_text(&value) : "";
}

static bool there(struct little_host *h, const void *key) { return *stored(h, "plugin:first", key); }
static bool whole(struct little_host *h, const void *arg) {
  (void)arg;
  return *stored(h, "plugin:ticker", "whole");
}
static bool overdue(struct little_host *h, const void *arg) {
  (void)arg;
  return *stored(h, "plugin:ticker", "overdue");
}

static int ticks(struct little_host *h, int i) {
  char key[16];
  snprintf(key, sizeof key, "ticks%d", i);
  return atoi(stored(h, "plugin:ticker", key));
}

/* Every tick was committed a few times more than at `since`. */
static bool ticked(struct little_host *h, const void *since) {
  for (int i = 1; i <= 6; i++)
    if (ticks(h, i) < ((const int *)since)[i] + 4) return false;
  return true;
}

static void let_tick(struct little_host *h, const char *what) {
  int since[7];
  for (int i = 1; i <= 6; i++) since[i] = ticks(h, i);
  CHECK(little_until(h, ticked, since), "%s", what);
}

static void put(struct little_host *h, const char *space, const char *key, const char *value) {
  struct np_error err = {""};
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, space, strlen(space));
  op->as.put.key = np_writeset_text(ws, key, strlen(key));
  op->as.put.value = np_writeset_text(ws, value, strlen(value));
  CHECK(np_keeper_apply(h->host.keeper, ws, &err) == NP_COMMITTED, "%s", err.text);
}

static void put_last_run(struct little_host *h, const char *job, int64_t ago) {
  char text[24];
  snprintf(text, sizeof text, "%lld", (long long)(np_now_ms() - ago));
  put(h, "neap.jobs", job, text);
}

static int listen_on(int *port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 8) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0);
  *port = ntohs(a.sin_port);
  return fd;
}

static int accept_request(int listener) {
  char bytes[4096];
  int fd = accept(listener, NULL, NULL);
  ssize_t n = recv(fd, bytes, sizeof bytes, 0);
  CHECK(n > 4 && memcmp(bytes, "GET /", 5) == 0);
  return fd;
}

static void answer(int fd) {
  static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  CHECK(send(fd, text, sizeof text - 1, 0) == sizeof text - 1);
  close(fd);
}

static void check_full_store(struct little_host *h) {
  struct rlimit was, none;
  getrlimit(RLIMIT_FSIZE, &was);
  none = was;
  none.rlim_cur = 1;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &none);
  for (int n = 0; n < 20; n++) { /* meanwhile jobs run and fail; how many does not matter */
    struct np_error err;
    struct np_writeset *ws = np_writeset_new();
    np_writeset_add(ws, NP_OP_CURSOR)->as.cursor.partition = 0;
    CHECK(np_keeper_apply(h->host.keeper, ws, &err) == NP_FAILED);
    usleep(10000);
  }
  setrlimit(RLIMIT_FSIZE, &was);
  let_tick(h, "jobs go on after the store was full");
}

int main(void) {
  little_set_log();
  struct little_host h;
  little_open(&h);
  int port, listener = listen_on(&port);
  char settings[64];
  snprintf(settings, sizeof settings, "{\"url\":\"http://127.0.0.1:%d/\"}", port);
  put_last_run(&h, "ticker/rare", 1000);
  put_last_run(&h, "ticker/overdue", 7200000);
  struct little_plugin one[] = {{"first", settings, first, NP_VENDOR, 1}, {"ticker", NULL, ticker, NP_VENDOR, 1}};
  struct little_plugin two[] = {{"first", settings, second, NP_VENDOR, 2}, {"ticker", NULL, ticker, NP_VENDOR, 2}};
  struct little_plugin three[] = {{"ticker", NULL, ticker, NP_VENDOR, 2}};
  little_lanes(&h, one, 2);
  let_tick(&h, "jobs run again and again");
  CHECK(atoll(stored(&h, "neap.jobs", "ticker/tick 1")) > 0, "the last run is kept");
  CHECK(little_until(&h, whole, NULL) && !*stored(&h, "plugin:ticker", "half"), "a failed run leaves nothing, and is tried again");

  int fd = accept_request(listener);
  put(&h, "plugin:first", "seen", "1"); /* what the run has read changes under it */
  answer(fd);
  fd = accept_request(listener);
  CHECK(!there(&h, "first"), "a run whose reads were overtaken leaves nothing, and is run again");
  answer(fd);
  CHECK(little_until(&h, there, "first") && strcmp(stored(&h, "plugin:first", "first"), "1") == 0);

  fd = accept_request(listener); /* the next turn is under way: a new generation has to wait for it */
  put(&h, "plugin:first", "first", "\"old\"");
  little_switch(&h, two, 2);
  let_tick(&h, "others do not wait");
  let_tick(&h, "others do not wait");
  CHECK(!there(&h, "second"), "a job does not run twice at once over a reload");
  answer(fd);
  CHECK(little_until(&h, there, "second") && strcmp(stored(&h, "plugin:first", "second"), "1") == 0,
        "the old run's work is there first: %s", stored(&h, "plugin:first", "second"));
  check_full_store(&h);
  little_switch(&h, three, 1);
  let_tick(&h, "a plugin is gone");
  CHECK(little_until(&h, overdue, NULL), "what is overdue after a start is run");
  CHECK(!*stored(&h, "plugin:ticker", "rare"), "what ran a second ago waits for its period, also after a start");
  little_stop(&h, true);
  close(listener);
  stored(NULL, NULL, NULL);
  return check_end();
}
