/* core/io/mqtt against a broker of a few lines that answers as each test says: refusals, silence, garbage, bounds, many addresses. */
#include "io/mqtt.h"

#include <dlfcn.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "check.h"

#define NEVER 600 /* seconds, where something else than the time has to end a call, on however slow a machine */

#define BYTES(...) ((const unsigned char[]){__VA_ARGS__}), sizeof((const unsigned char[]){__VA_ARGS__})

/* near.test leads to this machine, two.test to its IPv6 address, where nobody listens, and then to the IPv4 one; the rest is real. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **to);
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **to) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
  if (node && strcmp(node, "near.test") == 0) return real("127.0.0.1", service, hints, to);
  if (!node || strcmp(node, "two.test") != 0) return real(node, service, hints, to);
  struct addrinfo *second = NULL;
  int bad = real("::1", service, hints, to);
  if (!bad) bad = real("127.0.0.1", service, hints, &second);
  if (!bad) (*to)->ai_next = second;
  return bad;
}

/* The broker */

static struct event_base *base;
static struct {
  const unsigned char *greeting, *on_publish; /* sent for CONNECT, and for each PUBLISH; NULL: nothing */
  size_t greeting_len, on_publish_len;
  bool acknowledges; /* each PUBLISH of QoS 1 */
  int version;       /* of the packets that it reads */
  int connects, publishes, pings, goodbyes, gone, live;
  struct evconnlistener *listener;
  struct bufferevent *last;
  int port;
} broker;

static const unsigned char WELCOME[] = {0x20, 3, 0, 0, 0};

static size_t packet_len(const unsigned char *p, size_t have, size_t *head) {
  size_t len = 0, shift = 0;
  for (*head = 1; *head < have; shift += 7) {
    len |= (size_t)(p[*head] & 0x7f) << shift;
    if (!(p[(*head)++] & 0x80)) return *head + len;
  }
  return SIZE_MAX;
}

static void answer(struct bufferevent *b, const unsigned char *p, size_t head) {
  int kind = p[0] >> 4;
  if (kind == 1) {
    broker.connects++;
    if (broker.greeting) bufferevent_write(b, broker.greeting, broker.greeting_len);
  } else if (kind == 3) {
    size_t topic = (size_t)p[head] << 8 | p[head + 1];
    unsigned char ack[] = {0x40, 2, p[head + 2 + topic], p[head + 3 + topic]};
    broker.publishes++;
    if (broker.on_publish) bufferevent_write(b, broker.on_publish, broker.on_publish_len);
    if (broker.acknowledges && p[0] & 6) bufferevent_write(b, ack, sizeof ack);
  } else if (kind == 12) {
    broker.pings++;
    bufferevent_write(b, BYTES(0xd0, 0));
  } else if (kind == 14) {
    broker.goodbyes++;
  }
}

static void on_read(struct bufferevent *b, void *arg) {
  (void)arg;
  struct evbuffer *in = bufferevent_get_input(b);
  for (size_t have, head, len; (have = evbuffer_get_length(in)) > 1; evbuffer_drain(in, len)) {
    const unsigned char *p = evbuffer_pullup(in, -1);
    len = packet_len(p, have, &head);
    if (len > have) return;
    answer(b, p, head);
  }
}

static void on_gone(struct bufferevent *b, short what, void *arg) {
  (void)what, (void)arg;
  broker.gone++;
  broker.live--;
  if (broker.last == b) broker.last = NULL;
  bufferevent_free(b);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int len, void *arg) {
  (void)l, (void)a, (void)len, (void)arg;
  struct bufferevent *b = broker.last = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
  broker.live++;
  bufferevent_setcb(b, on_read, NULL, on_gone, NULL);
  bufferevent_enable(b, EV_READ | EV_WRITE);
}

static void broker_listen(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof a;
  broker.listener = evconnlistener_new_bind(base, on_accept, NULL, LEV_OPT_CLOSE_ON_FREE, 16, (struct sockaddr *)&a, sizeof a);
  if (!broker.listener || getsockname(evconnlistener_get_fd(broker.listener), (struct sockaddr *)&a, &size)) abort();
  broker.port = ntohs(a.sin_port);
}

/* With no connection of the test before. */
static void broker_reset(const unsigned char *greeting, size_t len) {
  while (broker.live) event_base_loop(base, EVLOOP_ONCE);
  broker.greeting = greeting;
  broker.greeting_len = len;
  broker.on_publish = NULL;
  broker.acknowledges = true;
  broker.connects = broker.publishes = broker.pings = broker.goodbyes = broker.gone = 0;
}

/* What is asked */

struct got {
  bool done;
  char code[16], why[520];
  struct np_mqtt_outcome outcomes[8];
  size_t count;
  uint64_t connection;
};

static void on_done(void *arg, const struct np_mqtt_answer *a) {
  struct got *g = arg;
  g->done = true;
  snprintf(g->code, sizeof g->code, "%s", a->code ? a->code : "");
  snprintf(g->why, sizeof g->why, "%s", a->why);
  g->connection = a->connection;
  if (!a->code && g->count) memcpy(g->outcomes, a->outcomes, g->count * sizeof *g->outcomes);
}

static void until(const bool *done) {
  while (!*done) event_base_loop(base, EVLOOP_ONCE);
}

static void until_count(const int *count, int least) {
  while (*count < least) event_base_loop(base, EVLOOP_ONCE);
}

static struct np_mqtt_net net;

static struct np_mqtt *client(const char *host, int version) {
  static char url[80];
  snprintf(url, sizeof url, "mqtt://%s:%d", host, broker.port);
  struct np_mqtt_options o = {
      .url = url, .host = host, .port = broker.port, .client_id = "test", .version = version, .keepalive = 60, .inflight = 2};
  broker.version = version;
  return np_mqtt_new(&net, &o);
}

static struct np_mqtt_message one(const char *topic) {
  return (struct np_mqtt_message){.topic = topic, .topic_len = strlen(topic), .payload = "x", .len = 1, .qos = 1};
}

static struct np_mqtt_call *publish(struct np_mqtt *m, const struct np_mqtt_message *list, size_t count, double seconds,
                                    struct got *g) {
  *g = (struct got){.count = count};
  return np_mqtt_publish(m, list, count, 0, seconds, on_done, g);
}

static struct got ask(struct np_mqtt *m, const struct np_mqtt_message *list, size_t count, double seconds) {
  struct got g;
  publish(m, list, count, seconds, &g);
  CHECK(!g.done, "told from within np_mqtt_publish");
  until(&g.done);
  return g;
}

static void names(void) {
  struct np_mqtt_message g = one("a");
  broker_reset(WELCOME, sizeof WELCOME);
  struct np_mqtt *m = client("near.test", 5);
  struct got got = ask(m, &g, 1, NEVER);
  CHECK(strcmp(got.code, "near") == 0 && strstr(got.why, "near.test"), "%s %s", got.code, got.why);
  CHECK(broker.connects == 0, "somebody connected");
  np_mqtt_free(m, true);
  static const char *const said[] = {"127.0.0.1", "localhost"};
  for (size_t i = 0; i < 2; i++) {
    m = client(said[i], 5);
    got = ask(m, &g, 1, NEVER);
    CHECK(!*got.code && !got.outcomes[0].code && got.connection == 1, "%s: %s %s", said[i], got.code, got.why);
    np_mqtt_free(m, true);
  }
  net.names_lead_anywhere = true;
  m = client("two.test", 5);
  got = ask(m, &g, 1, NEVER);
  CHECK(!*got.code && !got.outcomes[0].code, "the second address: %s %s", got.code, got.why);
  np_mqtt_free(m, true);
  net.names_lead_anywhere = false;
  m = client("nowhere.invalid", 5);
  got = ask(m, &g, 1, NEVER);
  CHECK(strcmp(got.code, "resolve") == 0, "%s %s", got.code, got.why);
  np_mqtt_free(m, true);
}

static void refusals(void) {
  static const struct {
    int version;
    unsigned char greeting[5];
    size_t len;
    const char *code;
  } cases[] = {
      {5, {0x20, 2, 0, 1}, 4, "version"},    {5, {0x20, 3, 0, 0x87, 0}, 5, "auth"},     {5, {0x20, 3, 0, 0x86, 0}, 5, "auth"},
      {5, {0x20, 3, 0, 0x89, 0}, 5, "busy"}, {5, {0x20, 3, 0, 0x85, 0}, 5, "settings"}, {5, {0x20, 3, 0, 0x9d, 0}, 5, "settings"},
      {3, {0x20, 2, 0, 5}, 4, "auth"},       {3, {0x20, 2, 0, 3}, 4, "busy"},           {3, {0x20, 2, 0, 2}, 4, "settings"},
      {5, {0x50, 0}, 2, "connect"},          {5, {0x40, 2, 0, 1}, 4, "connect"},
  };
  struct np_mqtt_message g = one("a");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    broker_reset(cases[i].greeting, cases[i].len);
    struct np_mqtt *m = client("127.0.0.1", cases[i].version);
    struct got got = ask(m, &g, 1, NEVER);
    CHECK(strcmp(got.code, cases[i].code) == 0 && *got.why, "case %zu: %s %s", i, got.code, got.why);
    CHECK(broker.publishes == 0, "case %zu: published", i);
    got = ask(m, NULL, 0, NEVER); /* it tries anew */
    CHECK(strcmp(got.code, cases[i].code) == 0 && broker.connects == 2, "case %zu, again: %s, %d", i, got.code, broker.connects);
    np_mqtt_free(m, true);
  }
}

static void silence(void) {
  struct np_mqtt_message g = one("a");
  broker_reset(NULL, 0);
  struct np_mqtt *m = client("127.0.0.1", 5);
  struct got got = ask(m, &g, 1, 0.2), other;
  CHECK(strcmp(got.code, "timeout") == 0, "%s", got.code);
  np_mqtt_free(m, true);

  broker_reset(WELCOME, sizeof WELCOME);
  broker.acknowledges = false;
  m = client("127.0.0.1", 5);
  struct np_mqtt_message list[] = {one("a"), one("b"), one("c")};
  publish(m, list, 1, NEVER, &other);
  until_count(&broker.publishes, 1);
  got = ask(m, list, 3, 0.5); /* one of two places is taken */
  for (int i = 0; i < 3; i++) CHECK(got.outcomes[i].code && strcmp(got.outcomes[i].code, "timeout") == 0, "%d", i);
  CHECK(other.done && strcmp(other.outcomes[0].code, "cut") == 0 && strstr(other.why, "in time"), "%s", other.why);
  until_count(&broker.gone, 1); /* what is told as not sent does not arrive later */
  CHECK(broker.publishes == 2, "%d under way at once", broker.publishes);
  broker.acknowledges = true;
  got = ask(m, list, 3, NEVER);
  CHECK(!got.outcomes[2].code && got.connection == 2, "the second connection");
  np_mqtt_free(m, true);
}

static void one_is_cancelled(void) {
  struct np_mqtt_message list[] = {one("a"), one("b"), one("c")};
  struct got first, second;
  broker_reset(WELCOME, sizeof WELCOME);
  broker.acknowledges = false;
  struct np_mqtt *m = client("127.0.0.1", 5);
  struct np_mqtt_call *call = publish(m, list, 1, NEVER, &first);
  publish(m, list, 3, NEVER, &second);
  until_count(&broker.publishes, 2);
  np_mqtt_cancel(call);
  CHECK(!first.done && second.done && strcmp(second.outcomes[0].code, "cut") == 0, "the other one is told");
  call = publish(m, list, 3, NEVER, &first); /* while it connects */
  np_mqtt_cancel(call);
  broker.acknowledges = true;
  struct got got = ask(m, list, 3, NEVER);
  CHECK(!got.outcomes[0].code && !got.outcomes[2].code, "%s", got.why);
  call = publish(m, list, 3, NEVER, &first);
  np_mqtt_free(m, true);
  np_mqtt_cancel(call);
  CHECK(!first.done, "told after its client is gone");
}

static void bounds_of_the_broker(void) {
  struct np_mqtt_message list[] = {one("a"), one("b"), one("c"), one("d")};
  char large[64] = "";
  list[0].retain = true;
  list[1].qos = 2;
  list[2].payload = large;
  list[2].len = sizeof large;
  /* CONNACK: retain not available (0x25), QoS 1 at most (0x24), packets of 40 bytes at most (0x27) */
  broker_reset(BYTES(0x20, 12, 0, 0, 9, 0x25, 0, 0x24, 1, 0x27, 0, 0, 0, 40));
  struct np_mqtt *m = client("127.0.0.1", 5);
  struct got got = ask(m, list, 4, NEVER);
  static const char *const codes[] = {"retain", "qos", "too_large"};
  for (int i = 0; i < 3; i++)
    CHECK(got.outcomes[i].code && strcmp(got.outcomes[i].code, codes[i]) == 0, "%d: %s", i, got.outcomes[i].code);
  CHECK(!got.outcomes[3].code && broker.publishes == 1, "%s", got.why);
  np_mqtt_free(m, true);
}

/* DISCONNECT with a reason is about a message only where no other can be meant. */
static void thrown_out(void) {
  struct np_mqtt_message list[] = {one("a"), one("b")};
  broker_reset(WELCOME, sizeof WELCOME);
  broker.acknowledges = false;
  broker.on_publish = (const unsigned char[]){0xe0, 2, 0x95, 0};
  broker.on_publish_len = 4;
  struct np_mqtt *m = client("127.0.0.1", 5);
  struct got got = ask(m, list, 1, NEVER);
  CHECK(got.outcomes[0].code && strcmp(got.outcomes[0].code, "refused") == 0 && got.outcomes[0].reason == 0x95, "%s %d",
        got.outcomes[0].code, got.outcomes[0].reason);
  got = ask(m, list, 2, NEVER);
  for (int i = 0; i < 2; i++) CHECK(got.outcomes[i].code && strcmp(got.outcomes[i].code, "cut") == 0, "%d", i);
  CHECK(strstr(got.why, "Packet too large"), "%s", got.why);
  broker.on_publish = (const unsigned char[]){0xe0, 2, 0x8e, 0}; /* taken over: of no message */
  got = ask(m, list, 1, NEVER);
  CHECK(got.outcomes[0].code && strcmp(got.outcomes[0].code, "cut") == 0, "%s", got.outcomes[0].code);
  np_mqtt_free(m, true);
}

/* A packet of 256 MiB is not waited for, nor kept. */
static void endless(void) {
  static unsigned char large[4 << 20] = {0x30, 0xff, 0xff, 0xff, 0x7f};
  static const unsigned char old[] = {0x20, 2, 0, 0};
  struct np_mqtt_message g = one("a");
  for (int version = 3; version <= 5; version += 2) {
    broker_reset(version == 5 ? WELCOME : old, version == 5 ? sizeof WELCOME : sizeof old);
    broker.acknowledges = false;
    broker.on_publish = large;
    broker.on_publish_len = sizeof large;
    struct np_mqtt *m = client("127.0.0.1", version);
    struct got got = ask(m, &g, 1, NEVER);
    CHECK(got.outcomes[0].code && strcmp(got.outcomes[0].code, "cut") == 0, "%d: %s", version, got.outcomes[0].code);
    CHECK(strstr(got.why, "nobody has asked"), "%d: %s", version, got.why);
    np_mqtt_free(m, true);
  }
}

static void goodbyes(void) {
  for (int goodbye = 0; goodbye < 2; goodbye++) {
    broker_reset(WELCOME, sizeof WELCOME);
    struct np_mqtt *m = client("127.0.0.1", 5);
    struct got got = ask(m, NULL, 0, NEVER);
    CHECK(!*got.code && got.connection == 1, "%s", got.why);
    np_mqtt_free(m, goodbye);
    until_count(&broker.gone, 1);
    CHECK(broker.goodbyes == goodbye, "%d", broker.goodbyes);
  }
}

/* An idle connection is pinged, stays, and is found lost when it is. */
static void keepalive(void) {
  broker_reset(WELCOME, sizeof WELCOME);
  struct np_mqtt_options o = {.url = "mqtt://127.0.0.1",
                              .host = "127.0.0.1",
                              .port = broker.port,
                              .client_id = "test",
                              .version = 5,
                              .keepalive = 5,
                              .inflight = 2};
  struct np_mqtt *m = np_mqtt_new(&net, &o);
  ask(m, NULL, 0, NEVER);
  until_count(&broker.pings, 1);
  struct got got = ask(m, NULL, 0, NEVER);
  CHECK(got.connection == 1, "it stays");
  bufferevent_free(broker.last);
  broker.last = NULL;
  broker.live--;
  do got = ask(m, NULL, 0, NEVER);
  while (got.connection == 1);
  CHECK(got.connection == 2 && broker.connects == 2, "%d", broker.connects);
  np_mqtt_free(m, true);
}

static void topics(void) {
  static char long_one[65537];
  memset(long_one, 'a', sizeof long_one - 1);
  CHECK(np_mqtt_topic_wrong("", 0) && np_mqtt_topic_wrong("a/+", 3) && np_mqtt_topic_wrong("#", 1) &&
        np_mqtt_topic_wrong("a\0b", 3));
  CHECK(np_mqtt_topic_wrong("a\xff", 2) && np_mqtt_topic_wrong(long_one, 65536) && !np_mqtt_topic_wrong(long_one, 65535));
  CHECK(!np_mqtt_topic_wrong("neap/SN-1/glucose", 17) && !np_mqtt_topic_wrong("/", 1));
}

int main(void) {
  struct np_error err;
  if (np_mqtt_global_init(&err)) abort();
  base = event_base_new();
  net = (struct np_mqtt_net){.base = base};
  broker_listen();
  names();
  refusals();
  silence();
  one_is_cancelled();
  bounds_of_the_broker();
  thrown_out();
  endless();
  goodbyes();
  keepalive();
  topics();
  evconnlistener_free(broker.listener);
  if (broker.last) bufferevent_free(broker.last);
  event_base_free(base);
  libevent_global_shutdown();
  return check_end();
}
