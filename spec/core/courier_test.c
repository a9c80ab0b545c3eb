/* Deliveries: order, what counts as delivered, further tries, dead letters, batches, reloads, and what a start finds. */
#include <arpa/inet.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "little_host.h"

/* What a device is named decides how its messages fare; each device's messages have to come in order. The handler is the judge: a message
 * that is out of order is refused, and the counts show it. */
static const char destination[] =
    "local plugin = ...\n"
    "local last = {}\n"
    "plugin:deliver { options = { mood = { 'string', default = 'good' } }, batch = BATCH, concurrency = 4, retry_for = RETRY_FOR,\n"
    "  handler = function(messages, to)\n"
    "    if to.mood == 'bad' then return { status = 503, headers = { ['retry-after'] = '3600' }, body = 'closed' } end\n"
    "    local answer, seen = true, {}\n"
    "    for _, m in ipairs(messages) do\n"
    "      local how, n = m.data.how, m.data.n\n"
    "      if m.destination ~= plugin.name or m.source ~= 'rule-1' or not m.json:find('\"n\"', 1, true) then return { status = "
    "400, body = 'wrong' } end\n"
    "      if n ~= (seen[m.device] or last[m.device] or 0) + 1 then return { status = 400, body = 'out of order' } end\n"
    "      seen[m.device] = n\n"
    "      if how == 'raise' and m.attempt == 1 then error('as asked') end\n"
    "      if how == 'nil' and m.attempt == 1 then return nil, 'as asked: no answer', 'timeout' end\n"
    "      if how == 'busy' and m.attempt == 1 then return { status = 429, headers = { ['retry-after'] = '1' }, body = '' } end\n"
    "      if how == 'nothing' and m.attempt == 1 then return end\n"
    "      if how == 'refused' then last[m.device] = n return { status = 422, body = 'never' } end\n"
    "      if how == 'unexpected' then last[m.device] = n return nil, 'GET x: answered 404', 'status', { status = 404, headers = "
    "{} } end\n"
    "      if how == 'poison' then if #messages > 1 then return { status = 422 } end last[m.device] = n return { status = 422, "
    "body = 'never' } end\n"
    "      if how == 'old' then return { status = 500, body = 'ow' } end\n"
    "      if how == 'created' then answer = { status = 201, headers = {}, body = '' } end\n"
    "    end\n"
    "    for _, m in ipairs(messages) do last[m.device] = m.data.n end\n"
    "    return answer\n"
    "  end }\n";

static char *source_of(const char *batch, const char *retry_for) {
  struct np_buf b = {0};
  for (const char *s = destination; *s; s++) {
    if (strncmp(s, "BATCH", 5) == 0)
      np_buf_adds(&b, batch), s += 4;
    else if (strncmp(s, "RETRY_FOR", 9) == 0)
      np_buf_adds(&b, retry_for), s += 8;
    else
      np_buf_addc(&b, *s);
  }
  return b.data;
}

static int sent; /* for ids */

static void add(struct np_writeset *ws, const char *to, const char *device, const char *how, int n) {
  char text[100];
  struct np_message *m = &np_writeset_add(ws, NP_OP_SEND)->as.send;
  snprintf(text, sizeof text, "m%d", ++sent);
  m->id = np_writeset_text(ws, text, strlen(text));
  m->destination = np_writeset_text(ws, to, strlen(to));
  m->device = np_writeset_text(ws, device, strlen(device));
  m->source = np_writeset_text(ws, "rule-1", 6);
  snprintf(text, sizeof text, "{\"n\":%d,\"how\":\"%s\"}", n, how);
  m->body = np_writeset_text(ws, text, strlen(text));
  m->created = np_now_ms();
}

static void commit(struct little_host *h, struct np_writeset *ws) {
  struct np_error err = {""};
  CHECK(np_keeper_apply(h->host.keeper, ws, &err) == NP_COMMITTED, "%s", err.text);
}

static void send_one(struct little_host *h, const char *to, const char *device, const char *how, int n) {
  struct np_writeset *ws = np_writeset_new();
  add(ws, to, device, how, n);
  commit(h, ws);
}

struct counts {
  const char *to;
  int64_t pending, delivered, dead;
};

static bool counted(struct little_host *h, const void *arg) {
  const struct counts *c = arg;
  return np_reader_outbox_count(h->host.reader, c->to, 'p') == c->pending &&
         np_reader_outbox_count(h->host.reader, c->to, 'd') == c->delivered &&
         np_reader_outbox_count(h->host.reader, c->to, 'x') == c->dead;
}

static void expect(struct little_host *h, const char *what, const char *to, int64_t pending, int64_t delivered, int64_t dead) {
  struct counts c = {to, pending, delivered, dead};
  CHECK(little_until(h, counted, &c), "%s: %lld pending, %lld delivered, %lld dead", what,
        (long long)np_reader_outbox_count(h->host.reader, to, 'p'), (long long)np_reader_outbox_count(h->host.reader, to, 'd'),
        (long long)np_reader_outbox_count(h->host.reader, to, 'x'));
}

static void check_order(struct little_host *h) {
  for (int n = 1; n <= 10; n++) {
    struct np_writeset *ws = np_writeset_new();
    for (int device = 0; device < 40; device++) {
      char name[16];
      snprintf(name, sizeof name, "d%d", device);
      add(ws, "one", name, n % 3 ? "well" : "created", n);
    }
    commit(h, ws);
  }
  expect(h, "in order for each device", "one", 0, 400 + 5, 0);
}

static void check_outcomes(struct little_host *h) {
  static const char *const again[] = {"raise", "nil", "busy", "nothing"};
  for (size_t i = 0; i < 4; i++) { /* the second waits for the first */
    send_one(h, "one", again[i], again[i], 1);
    send_one(h, "one", again[i], "well", 2);
  }
  static const char *const dead[] = {"refused", "unexpected"};
  for (size_t i = 0; i < 2; i++) {
    send_one(h, "one", dead[i], dead[i], 1);
    send_one(h, "one", dead[i], "well", 2);
  }
  expect(h, "further tries and dead letters", "one", 0, 405 + 8 + 2, 2);
}

static void check_batches(struct little_host *h) {
  struct np_writeset *ws = np_writeset_new();
  for (int n = 1; n <= 25; n++) add(ws, "batches", "b", n == 13 ? "poison" : "well", n);
  commit(h, ws);
  expect(h, "one refused message does not take its batch along", "batches", 0, 24, 1);
}

static void check_old(struct little_host *h) {
  send_one(h, "short", "x", "old", 1);
  expect(h, "after retry_for it is a dead letter", "short", 0, 0, 1);
}

static bool one_timer(struct little_host *h, const void *arg) {
  (void)arg;
  return atomic_load(&h->lanes[0]->live_timers) + atomic_load(&h->lanes[1]->live_timers) == 1;
}

/* The handler would refuse a message that it has seen already. */
static void check_full_store(struct little_host *h, const struct little_plugin *in_force, size_t n) {
  send_one(h, "full", "x", "well", 1);
  struct rlimit was, none;
  getrlimit(RLIMIT_FSIZE, &was);
  none = was;
  none.rlim_cur = 1;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &none);
  little_switch(h, in_force, n);
  CHECK(little_until(h, one_timer, NULL), "the outcome waits to be stored");
  setrlimit(RLIMIT_FSIZE, &was);
  expect(h, "a delivered message is not sent again because the store was full", "full", 0, 1, 0);
}

static int listen_on(int *port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 8) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0);
  *port = ntohs(a.sin_port);
  return fd;
}

/* Takes one request's head off the line. */
static int accept_request(int listener) {
  char bytes[4096];
  size_t n = 0;
  int fd = accept(listener, NULL, NULL);
  for (ssize_t r; n < sizeof bytes - 1 && (r = recv(fd, bytes + n, sizeof bytes - 1 - n, 0)) > 0;) {
    n += (size_t)r;
    bytes[n] = 0;
    if (strstr(bytes, "\r\n\r\n[")) break; /* the body is small: it comes whole */
  }
  CHECK(strstr(bytes, "POST /in?a=1 HTTP/1.1"), "%s", bytes);
  return fd;
}

static bool take_seq(void *arg, const struct np_message *m) {
  *(int64_t *)arg = m->seq;
  return false;
}

static const char web[] = "local plugin = ...\n"
                          "local http = require 'neap.http'\n"
                          "plugin:deliver { options = { url = { 'string' } }, batch = 10, handler = function(messages, to)\n"
                          "  return http.post { url = to.url, query = { a = 1 }, json = { messages[1].id }, timeout = 20 }\n"
                          "end }\n";

/* While a batch is under way a person drops one of its messages: the others are not sent again for that. */
static void check_dropped(struct little_host *h, int listener) {
  struct np_error err = {""};
  int64_t seq = 0;
  struct np_writeset *ws = np_writeset_new();
  for (int n = 1; n <= 3; n++) add(ws, "web", "x", "well", n);
  commit(h, ws);
  int fd = accept_request(listener);
  CHECK(np_reader_outbox_head(h->host.reader, "web", "x", false, 1, take_seq, &seq, &err) == 0 && seq, "%s", err.text);
  ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_SENT);
  op->as.sent.seq = seq;
  op->as.sent.state = 'x';
  op->as.sent.error = np_writeset_text(ws, "dropped", 7);
  commit(h, ws);
  static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  CHECK(send(fd, answer, sizeof answer - 1, 0) == sizeof answer - 1);
  close(fd);
  expect(h, "a dropped message does not make the others go twice", "web", 0, 2, 1);
}

/* The host stops while a destination has not answered: nothing is lost, nothing is left behind. */
static void check_stop_under_way(struct little_host *h, int listener) {
  send_one(h, "web", "y", "well", 1);
  int fd = accept_request(listener);
  little_stop(h, false);
  close(fd);
}

int main(void) {
  little_set_log();
  struct little_host h;
  little_open(&h);
  char *one = source_of("1", "'1h'"), *batches = source_of("10", "'1h'"), *brief = source_of("1", "0.001");
  struct little_plugin plugins[] = {{"batches", NULL, batches, NP_DESTINATION, 1},
                                    {"held", NULL, NULL, NP_DESTINATION, 0},
                                    {"mended", "{\"mood\":\"bad\"}", one, NP_DESTINATION, 1},
                                    {"one", NULL, one, NP_DESTINATION, 1},
                                    {"short", NULL, brief, NP_DESTINATION, 1}};
  for (int n = 1; n <= 5; n++) send_one(&h, "one", "past", "well", n); /* no lane follows yet */
  send_one(&h, "later", "past", "well", 1);
  little_lanes(&h, plugins, 5);
  expect(&h, "a start finds messages of the past", "one", 0, 5, 0);
  check_order(&h);
  check_outcomes(&h);
  check_batches(&h);
  check_old(&h);

  for (int n = 1; n <= 3; n++) send_one(&h, "held", "x", "well", n);
  send_one(&h, "mended", "x", "well", 1);
  send_one(&h, "mended", "y", "well", 1);
  send_one(&h, "one", "after", "well", 1);
  expect(&h, "others go on", "one", 0, 416, 2);
  expect(&h, "a destination not in force holds its messages", "held", 3, 0, 0);
  struct little_plugin next[] = {{"batches", NULL, batches, NP_DESTINATION, 1},
                                 {"held", NULL, one, NP_DESTINATION, 1},
                                 {"later", NULL, one, NP_DESTINATION, 1},
                                 {"mended", NULL, one, NP_DESTINATION, 2},
                                 {"one", NULL, one, NP_DESTINATION, 1}};
  little_switch(&h, next, 5);
  expect(&h, "what was held goes out once it is in force", "held", 0, 3, 0);
  expect(&h, "a mended destination is tried at once, whatever it said before", "mended", 0, 2, 0);
  expect(&h, "a destination that is new finds its messages of the past", "later", 0, 1, 0);

  int port, listener = listen_on(&port);
  char settings[64];
  snprintf(settings, sizeof settings, "{\"url\":\"http://127.0.0.1:%d/in\"}", port);
  struct little_plugin last[] = {
      {"full", NULL, one, NP_DESTINATION, 1}, {"one", NULL, one, NP_DESTINATION, 1}, {"web", settings, web, NP_DESTINATION, 1}};
  check_full_store(&h, last, 3);
  check_dropped(&h, listener);
  check_stop_under_way(&h, listener);
  close(listener);
  free(one);
  free(batches);
  free(brief);
  return check_end();
}
