/* A client and its connection. libmosquitto's callbacks run inside its own functions and under its locks: they only note what they are told, and
 * what follows from it is done when the function has returned (settle). A connection that is over takes its `struct mosquitto` along. */
#include <errno.h>
#include <event2/event.h>
#include <event2/util.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "io/mqtt_parts.h"

#define ATTEMPT_SECONDS 30     /* for a whole attempt to connect */
#define ADDRESS_SECONDS 10     /* for one address of several */
#define UNASKED_MAX (1u << 20) /* bytes of a broker without an answer among them: all that it has to say to a publisher is short */

int np_mqtt_global_init(struct np_error *err) {
  return mosquitto_lib_init() == MOSQ_ERR_SUCCESS ? 0 : np_fail(err, "libmosquitto does not start");
}

/* Time */

static void ring_in(struct event *timer, int64_t us) {
  if (us < 0) us = 0;
  struct timeval tv = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
  event_add(timer, &tv);
}

/* The end of a connection */

static void drop_socket(struct np_mqtt *m) {
  event_del(m->readable), event_del(m->writable);
  if (m->fd >= 0) close(m->fd);
  m->fd = -1;
  mosquitto_destroy(m->m);
  m->m = NULL;
}

static void put_down(struct np_mqtt *m) {
  if (m->seeking) np_aside_cancel(m->seeking);
  m->seeking = NULL;
  drop_socket(m);
  event_del(m->timer);
  m->state = NP_MQTT_DOWN;
}

/* No connection has come about: all that waits for one is told so. */
static void give_up(struct np_mqtt *m, const char *code, const char *why) {
  char text[sizeof m->why];
  snprintf(text, sizeof text, "%s", why);
  put_down(m);
  while (m->first) np_mqtt_end(m->first, code, text);
}

/* What was sent may have arrived or not; where one message alone was under way, what the broker said may be about that one. */
void np_mqtt_lose(struct np_mqtt *m, const char *why) {
  char text[sizeof m->why];
  int reason = m->inflight == 1 ? m->reason : 0;
  bool about =
      reason == MQTT_RC_PACKET_TOO_LARGE || reason == MQTT_RC_PAYLOAD_FORMAT_INVALID || reason == MQTT_RC_TOPIC_NAME_INVALID;
  snprintf(text, sizeof text, "%s", why);
  put_down(m);
  while (m->first) {
    bool its = about && m->first->sent > m->first->settled;
    np_mqtt_end_open(m->first, its ? "refused" : "cut", its ? reason : 0, text);
  }
}

/* Connecting */

static void connect_next(struct np_mqtt *m);

static void on_acknowledged(struct mosquitto *mosq, void *arg, int mid, int reason, const mosquitto_property *properties) {
  (void)mosq, (void)properties;
  struct np_mqtt *m = arg;
  m->answered = true;
  np_mqtt_acknowledged(m, mid, reason);
}

static void on_greeted(struct mosquitto *mosq, void *arg, int code, int flags, const mosquitto_property *properties) {
  (void)mosq, (void)flags;
  struct np_mqtt *m = arg;
  uint8_t retain = 1;
  mosquitto_property_read_byte(properties, MQTT_PROP_RETAIN_AVAILABLE, &retain, false);
  m->greeted = m->answered = true;
  m->connack = code;
  m->no_retain = !retain;
}

static void on_closed(struct mosquitto *mosq, void *arg, int code, const mosquitto_property *properties) {
  (void)mosq, (void)properties;
  struct np_mqtt *m = arg;
  m->closed = true;
  if (code >= 128) m->reason = code; /* else an error of libmosquitto's */
}

static void on_log(struct mosquitto *mosq, void *arg, int level, const char *text) {
  (void)mosq;
  struct np_mqtt *m = arg;
  if (level == MOSQ_LOG_ERR) snprintf(m->said, sizeof m->said, "%s", text);
}

/* What a refused connection means: nobody is let in, the version is another one, it may come again, or something else is wrong with the settings. */
static const char *refusal(int version, int code) {
  static const char *const old[] = {"", "version", "settings", "busy", "auth", "auth"};
  if (version != 5) return code > 0 && code < 6 ? old[code] : "settings";
  switch (code) {
  case MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION: return "version";
  case MQTT_RC_BAD_USERNAME_OR_PASSWORD:
  case MQTT_RC_NOT_AUTHORIZED:
  case MQTT_RC_BANNED:
  case MQTT_RC_BAD_AUTHENTICATION_METHOD: return "auth";
  case MQTT_RC_UNSPECIFIED:
  case MQTT_RC_IMPLEMENTATION_SPECIFIC:
  case MQTT_RC_SERVER_UNAVAILABLE:
  case MQTT_RC_SERVER_BUSY:
  case MQTT_RC_QUOTA_EXCEEDED:
  case MQTT_RC_CONNECTION_RATE_EXCEEDED: return "busy";
  default: return "settings";
  }
}

static void refuse(struct np_mqtt *m) {
  const char *said = m->o.version == 5 ? mosquitto_reason_string(m->connack) : mosquitto_connack_string(m->connack);
  snprintf(m->why, sizeof m->why, "the broker does not let it in: %s (%d)", said, m->connack);
  give_up(m, refusal(m->o.version, m->connack), m->why);
}

/* How often libmosquitto is to look whether the broker is to be pinged, or has not answered. */
static void ring_alive(struct np_mqtt *m) {
  int every = m->o.keepalive / 4;
  ring_in(m->timer, (every < 1 ? 1 : every) * INT64_C(1000000));
}

static void come_up(struct np_mqtt *m) {
  m->state = NP_MQTT_UP;
  m->connection++;
  ring_alive(m);
  np_mqtt_end_strangers(m);
}

/* Whether it was TLS that failed: then m->why says how. */
static bool tls_failed(struct np_mqtt *m) {
  if (!m->tls || (!*m->tls->why && !strstr(m->said, "OpenSSL"))) return false;
  snprintf(m->why, sizeof m->why, "TLS: %s", *m->tls->why ? m->tls->why : m->said);
  return true;
}

/* The broker has closed it, or it broke. */
static void closed(struct np_mqtt *m) {
  bool tls = tls_failed(m);
  if (!tls && m->reason)
    snprintf(m->why, sizeof m->why, "the broker has closed the connection: %s (%d)", mosquitto_reason_string(m->reason), m->reason);
  else if (!tls)
    snprintf(m->why, sizeof m->why, "%s",
             m->endless               ? "the broker sends what nobody has asked it for, so the connection was given up"
             : m->state == NP_MQTT_UP ? "the connection was lost"
                                      : "the connection was closed before the broker answered");
  if (m->state == NP_MQTT_UP)
    np_mqtt_lose(m, m->why);
  else
    give_up(m, tls ? "tls" : "connect", m->why);
}

/* After whatever libmosquitto has done: what it told is carried out. */
static void settle(struct np_mqtt *m) {
  if (m->state == NP_MQTT_GREETING && m->greeted && m->connack) {
    refuse(m);
    return;
  }
  if (m->state == NP_MQTT_GREETING && m->greeted) come_up(m);
  if (m->state == NP_MQTT_UP) np_mqtt_pump(m);
  if (m->state == NP_MQTT_UP) np_mqtt_end_settled(m);
  if (!m->m) return;
  if (m->closed || mosquitto_socket(m->m) < 0)
    closed(m);
  else if (mosquitto_want_write(m->m))
    event_add(m->writable, NULL);
}

/* libmosquitto takes packets of up to 256 MiB from whoever sends them. */
static bool is_endless(struct np_mqtt *m) {
  struct tcp_info info = {0};
  socklen_t size = sizeof info;
  if (getsockopt(m->fd, IPPROTO_TCP, TCP_INFO, &info, &size)) return false;
  if (m->answered) m->heard = info.tcpi_bytes_received;
  return info.tcpi_bytes_received - m->heard > UNASKED_MAX;
}

static void on_readable(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_mqtt *m = arg;
  m->answered = false;
  if (mosquitto_loop_read(m->m, 1) != MOSQ_ERR_SUCCESS) m->closed = true;
  m->endless = is_endless(m);
  if (m->endless) m->closed = true;
  settle(m);
}

static void next_address(struct np_mqtt *m, int error) {
  snprintf(m->why, sizeof m->why, "%s port %d: %s", m->addresses[m->next_address - 1], m->o.port, strerror(error));
  drop_socket(m);
  connect_next(m);
}

static void on_writable(evutil_socket_t fd, short what, void *arg) {
  (void)what;
  struct np_mqtt *m = arg;
  int error = 0;
  socklen_t size = sizeof error;
  if (m->state == NP_MQTT_CONNECTING && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error) {
    next_address(m, error);
    return;
  }
  if (m->state == NP_MQTT_CONNECTING) {
    m->state = NP_MQTT_GREETING;
    event_add(m->readable, NULL);
    ring_in(m->timer, m->until - np_mono_us());
  }
  if (mosquitto_loop_write(m->m, 1) != MOSQ_ERR_SUCCESS) m->closed = true;
  settle(m);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_mqtt *m = arg;
  if (m->state == NP_MQTT_SEEKING) {
    give_up(m, "other", m->why);
  } else if (m->state == NP_MQTT_CONNECTING && m->next_address < m->address_count && np_mono_us() < m->until) {
    next_address(m, ETIMEDOUT);
  } else if (m->state == NP_MQTT_CONNECTING || m->state == NP_MQTT_GREETING) {
    give_up(m, "timeout", m->state == NP_MQTT_GREETING ? "the broker has not answered in time" : "it could not be reached in time");
  } else if (m->state == NP_MQTT_UP) {
    ring_alive(m);
    if (mosquitto_loop_misc(m->m) != MOSQ_ERR_SUCCESS) m->closed = true;
    settle(m);
  }
}

static int prepare(struct np_mqtt *m) {
  const struct np_mqtt_options *o = &m->o;
  struct mosquitto *q = m->m = mosquitto_new(o->client_id, true, m);
  mosquitto_property *properties = NULL;
  if (!q) return MOSQ_ERR_NOMEM;
  mosquitto_connect_v5_callback_set(q, on_greeted);
  mosquitto_disconnect_v5_callback_set(q, on_closed);
  mosquitto_publish_v5_callback_set(q, on_acknowledged);
  mosquitto_log_callback_set(q, on_log);
  mosquitto_int_option(q, MOSQ_OPT_PROTOCOL_VERSION, o->version == 5 ? MQTT_PROTOCOL_V5 : MQTT_PROTOCOL_V311);
  mosquitto_int_option(q, MOSQ_OPT_TCP_NODELAY, 1);
  mosquitto_int_option(q, MOSQ_OPT_SEND_MAXIMUM, o->inflight);
  mosquitto_max_inflight_messages_set(q, (unsigned)o->inflight);
  int bad = o->user ? mosquitto_username_pw_set(q, o->user, o->password) : 0;
  if (!bad && o->will.topic && o->version == 5) bad = np_mqtt_properties(&o->will, &properties);
  if (!bad && o->will.topic)
    bad = mosquitto_will_set_v5(q, o->will.topic, (int)o->will.len, o->will.payload, o->will.qos, o->will.retain, properties);
  if (bad || !o->will.topic) mosquitto_property_free_all(&properties); /* else they are the will's */
  if (!bad && m->tls) bad = mosquitto_int_option(q, MOSQ_OPT_SSL_CTX_WITH_DEFAULTS, 0);
  if (!bad && m->tls) bad = mosquitto_void_option(q, MOSQ_OPT_SSL_CTX, m->tls->context);
  return bad;
}

static int begin(struct np_mqtt *m, const char *address) {
  int bad = prepare(m);
  if (bad) return bad;
  if (m->tls) *m->tls->why = 0;
  m->greeted = m->closed = m->endless = false;
  m->heard = 0;
  m->reason = m->connack = 0;
  *m->said = 0;
  errno = 0;
  bad = mosquitto_connect_async(m->m, address, m->o.port, m->o.keepalive);
  int fd = mosquitto_socket(m->m);
  if (bad || fd < 0) return bad ? bad : MOSQ_ERR_ERRNO;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  m->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (m->fd < 0) return MOSQ_ERR_ERRNO;
  event_assign(m->readable, m->net->base, m->fd, EV_READ | EV_PERSIST, on_readable, m);
  event_assign(m->writable, m->net->base, m->fd, EV_WRITE, on_writable, m);
  event_add(m->writable, NULL);
  return 0;
}

/* The next of the addresses; with the last one that fails the attempt has. */
static void connect_next(struct np_mqtt *m) {
  while (m->next_address < m->address_count) {
    const char *address = m->addresses[m->next_address++];
    int bad = begin(m, address);
    if (!bad) {
      bool more = m->next_address < m->address_count;
      int64_t left = m->until - np_mono_us();
      m->state = NP_MQTT_CONNECTING;
      ring_in(m->timer, more && left > ADDRESS_SECONDS * INT64_C(1000000) ? ADDRESS_SECONDS * INT64_C(1000000) : left);
      return;
    }
    if (tls_failed(m)) {
      give_up(m, "tls", m->why);
      return;
    }
    snprintf(m->why, sizeof m->why, "%s port %d: %s", address, m->o.port, mosquitto_strerror(bad));
    drop_socket(m);
  }
  give_up(m, "connect", m->why);
}

static void free_addresses(struct np_mqtt *m) {
  for (size_t i = 0; i < m->address_count; i++) free(m->addresses[i]);
  free(m->addresses);
  m->addresses = NULL;
  m->address_count = m->next_address = 0;
}

static void on_way_found(void *arg, struct np_aside_job *job, bool finished) {
  struct np_mqtt *m = arg;
  struct np_mqtt_way *w = (struct np_mqtt_way *)job;
  m->seeking = NULL;
  if (!finished) {
    give_up(m, "timeout", "its name was not resolved in time");
    return;
  }
  if (w->code) {
    give_up(m, w->code, w->why);
    return;
  }
  free_addresses(m);
  m->addresses = w->addresses;
  m->address_count = w->count;
  w->addresses = NULL;
  w->count = 0;
  if (w->tls) m->tls = w->tls;
  w->tls = NULL;
  connect_next(m);
}

void np_mqtt_start(struct np_mqtt *m) {
  struct np_error err;
  m->state = NP_MQTT_SEEKING;
  m->until = np_mono_us() + ATTEMPT_SECONDS * INT64_C(1000000);
  struct np_mqtt_way *w = np_mqtt_way_new(m->net, &m->o, m->o.tls && !m->tls);
  m->seeking = np_aside_start(m->net->base, &w->job, ATTEMPT_SECONDS, on_way_found, m, &err);
  if (m->seeking) return;
  snprintf(m->why, sizeof m->why, "%s", err.text);
  event_active(m->timer, EV_TIMEOUT, 0);
}

/* The client */

static const char *keep(struct np_mqtt *m, const char *text) {
  return text && *text ? np_arena_copy(&m->arena, text, strlen(text)) : NULL;
}

static void keep_will(struct np_mqtt *m) {
  struct np_mqtt_message *w = &m->o.will;
  if (!w->topic) return;
  w->topic = np_arena_copy(&m->arena, w->topic, w->topic_len);
  w->payload = np_arena_copy(&m->arena, w->payload ? w->payload : "", w->len);
  w->content_type = keep(m, w->content_type);
  w->pairs = NULL;
  w->pair_count = 0;
}

struct np_mqtt *np_mqtt_new(const struct np_mqtt_net *net, const struct np_mqtt_options *options) {
  struct np_mqtt *m = np_alloc(sizeof *m);
  m->net = net;
  m->last = &m->first;
  m->fd = -1;
  m->o = *options;
  m->o.url = keep(m, options->url);
  m->o.host = keep(m, options->host);
  m->o.cert = keep(m, options->cert);
  m->o.key = keep(m, options->key);
  m->o.ca = keep(m, options->ca);
  m->o.client_id = keep(m, options->client_id);
  m->o.user = keep(m, options->user);
  m->o.password = keep(m, options->password);
  keep_will(m);
  m->timer = event_new(net->base, -1, 0, on_timer, m);
  m->readable = event_new(net->base, -1, 0, on_readable, m);
  m->writable = event_new(net->base, -1, 0, on_writable, m);
  return m;
}

void np_mqtt_free(struct np_mqtt *m, bool goodbye) {
  if (m->state == NP_MQTT_UP && goodbye) mosquitto_disconnect_v5(m->m, 0, NULL);
  put_down(m);
  for (struct np_mqtt_call *c = m->first; c; c = c->next) {
    event_del(c->timer);
    c->m = NULL;
  }
  free_addresses(m);
  np_mqtt_tls_free(m->tls);
  event_free(m->readable), event_free(m->writable), event_free(m->timer);
  np_arena_free(&m->arena);
  free(m);
}
