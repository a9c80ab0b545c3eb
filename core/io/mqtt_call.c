/* What is published: the messages of each call, sent in order and settled one by one. */
#include <event2/event.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/fetch.h"
#include "io/mqtt_parts.h"

const char *np_mqtt_reason(int reason) { return mosquitto_reason_string(reason); }

const char *np_mqtt_topic_wrong(const char *topic, size_t len) {
  if (!len) return "it is empty";
  if (len > 65535) return "it is longer than 65535 bytes";
  if (memchr(topic, 0, len)) return "it has a zero byte in it";
  if (mosquitto_pub_topic_check2(topic, len)) return "it has a \"+\" or \"#\" in it";
  return mosquitto_validate_utf8(topic, (int)len) ? "it is not UTF-8, or has a control character in it" : NULL;
}

/* The end of calls */

static void unlink_call(struct np_mqtt_call *c) {
  struct np_mqtt *m = c->m;
  for (struct np_mqtt_call **at = &m->first; *at; at = &(*at)->next)
    if (*at == c) {
      *at = c->next;
      if (m->last == &c->next) m->last = at;
      break;
    }
  m->inflight -= (int)(c->sent - c->settled);
}

static void free_call(struct np_mqtt_call *c) {
  event_free(c->timer);
  free(c->mids);
  free(c->outcomes);
  free(c);
}

void np_mqtt_end(struct np_mqtt_call *c, const char *code, const char *why) {
  struct np_mqtt_answer a = {.code = code, .why = why, .outcomes = c->outcomes, .connection = c->m->connection};
  unlink_call(c);
  c->done(c->arg, &a);
  free_call(c);
}

void np_mqtt_end_open(struct np_mqtt_call *c, const char *code, int reason, const char *why) {
  for (size_t i = 0; i < c->count; i++)
    if (i >= c->sent || c->mids[i]) c->outcomes[i] = (struct np_mqtt_outcome){.code = code, .reason = reason};
  np_mqtt_end(c, c->count ? NULL : code, why);
}

void np_mqtt_end_settled(struct np_mqtt *m) {
  for (struct np_mqtt_call *c = m->first, *next; c; c = next) {
    next = c->next;
    if (c->settled == c->count) np_mqtt_end(c, NULL, "");
  }
}

static bool is_stranger(const struct np_mqtt_call *c) {
  return c->connection && (c->m->state != NP_MQTT_UP || c->connection != c->m->connection);
}

void np_mqtt_end_strangers(struct np_mqtt *m) {
  for (struct np_mqtt_call *c = m->first, *next; c; c = next) {
    next = c->next;
    if (is_stranger(c)) np_mqtt_end_open(c, "cut", 0, "the connection was lost meanwhile");
  }
}

/* Sending */

int np_mqtt_properties(const struct np_mqtt_message *g, mosquitto_property **p) {
  int bad = g->content_type ? mosquitto_property_add_string(p, MQTT_PROP_CONTENT_TYPE, g->content_type) : 0;
  for (size_t i = 0; i < g->pair_count && !bad; i++)
    bad = mosquitto_property_add_string_pair(p, MQTT_PROP_USER_PROPERTY, g->pairs[i].name, g->pairs[i].value);
  return bad;
}

static const char *code_of(int bad) {
  switch (bad) {
  case MOSQ_ERR_PAYLOAD_SIZE:
  case MOSQ_ERR_OVERSIZE_PACKET: return "too_large";
  case MOSQ_ERR_QOS_NOT_SUPPORTED: return "qos";
  case MOSQ_ERR_RETAIN_NOT_SUPPORTED: return "retain";
  case MOSQ_ERR_NO_CONN:
  case MOSQ_ERR_CONN_LOST:
  case MOSQ_ERR_ERRNO: return "cut";
  default: return "other";
  }
}

static int publish(struct np_mqtt *m, const struct np_mqtt_message *g, int *mid) {
  mosquitto_property *properties = NULL;
  if (g->len > NP_MQTT_PAYLOAD_MAX) return MOSQ_ERR_PAYLOAD_SIZE;
  int bad = m->o.version == 5 ? np_mqtt_properties(g, &properties) : 0;
  if (!bad) bad = mosquitto_publish_v5(m->m, mid, g->topic, (int)g->len, g->payload, g->qos, g->retain, properties);
  mosquitto_property_free_all(&properties);
  return bad;
}

static void settle_message(struct np_mqtt_call *c, size_t i, const char *code, int reason) {
  c->outcomes[i] = (struct np_mqtt_outcome){.code = code, .reason = reason};
  c->mids[i] = 0;
  c->settled++;
  c->m->inflight--;
}

/* It may be acknowledged before libmosquitto returns (QoS 0). */
static void send_next(struct np_mqtt_call *c) {
  size_t i = c->sent++;
  c->m->inflight++;
  c->mids[i] = -1;
  if (np_mqtt_topic_wrong(c->messages[i].topic, c->messages[i].topic_len)) {
    settle_message(c, i, "topic", 0);
    return;
  }
  if (c->messages[i].retain && c->m->no_retain) { /* libmosquitto would send it as one that is not to be kept */
    settle_message(c, i, "retain", 0);
    return;
  }
  int bad = publish(c->m, &c->messages[i], &c->mids[i]);
  const char *code = bad ? code_of(bad) : NULL;
  if (code && strcmp(code, "cut") == 0)
    c->m->closed = true; /* and it is settled with the rest */
  else if (code && c->mids[i])
    settle_message(c, i, code, 0);
}

void np_mqtt_pump(struct np_mqtt *m) {
  for (struct np_mqtt_call *c = m->first; c; c = c->next)
    while (c->sent < c->count) {
      if (m->inflight >= m->o.inflight || m->closed) return;
      send_next(c);
    }
}

void np_mqtt_acknowledged(struct np_mqtt *m, int mid, int reason) {
  for (struct np_mqtt_call *c = m->first; c; c = c->next)
    for (size_t k = 0; k < c->sent; k++) {
      size_t i = (c->hint + k) % c->sent;
      if (c->mids[i] != mid) continue;
      c->hint = i + 1;
      settle_message(c, i, reason >= 128 ? "refused" : NULL, reason >= 128 ? reason : 0);
      return;
    }
}

/* A test's broker */

static void add_pairs(struct np_buf *lines, const struct np_mqtt_message *g) {
  np_buf_addf(lines, "qos: %d", g->qos);
  np_buf_addc(lines, 0);
  np_buf_addf(lines, "retain: %s", g->retain ? "true" : "false");
  np_buf_addc(lines, 0);
  if (g->content_type) {
    np_buf_addf(lines, "content-type: %s", g->content_type);
    np_buf_addc(lines, 0);
  }
  for (size_t i = 0; i < g->pair_count; i++) {
    np_buf_addf(lines, "%s: %s", g->pairs[i].name, g->pairs[i].value);
    np_buf_addc(lines, 0);
  }
}

/* Whether the call goes on: else the script has it fail as a whole. */
static bool ask_script(struct np_mqtt_call *c, size_t i) {
  const struct np_mqtt_net *net = c->m->net;
  const struct np_mqtt_message *g = &c->messages[i];
  struct np_buf url = {0}, lines = {0};
  struct np_fetch_scripted answer = {0};
  size_t count = 2 + (g->content_type != NULL) + g->pair_count;
  const char **headers = np_alloc((count + 1) * sizeof *headers);
  np_buf_addf(&url, "%s/%.*s", c->m->o.url, (int)g->topic_len, g->topic);
  add_pairs(&lines, g);
  const char *line = np_buf_text(&lines);
  for (size_t k = 0; k < count; k++, line += strlen(line) + 1) headers[k] = line;
  struct np_fetch_request r = {.method = "PUBLISH",
                               .url = np_buf_text(&url),
                               .headers = headers,
                               .header_count = count,
                               .body = g->payload,
                               .body_len = g->len};
  net->script(net->script_arg, &r, &answer);
  bool cut = answer.code && strcmp(answer.code, "cut") == 0;
  if (cut || !answer.code) {
    int reason = answer.status >= 128 && answer.status < 200 ? answer.status : 0;
    bool done = !cut && answer.status >= 200 && answer.status < 300;
    c->outcomes[i] = (struct np_mqtt_outcome){.code = done ? NULL : cut ? "cut" : reason ? "refused" : "other", .reason = reason};
  }
  bool on = cut || !answer.code;
  if (!on) np_mqtt_end(c, answer.code, answer.why);
  free(headers);
  np_buf_free(&answer.headers), np_buf_free(&answer.body), np_buf_free(&url), np_buf_free(&lines);
  return on;
}

static void play(struct np_mqtt_call *c) {
  c->m->connection = 1;
  for (size_t i = 0; i < c->count; i++) {
    if (np_mqtt_topic_wrong(c->messages[i].topic, c->messages[i].topic_len))
      c->outcomes[i].code = "topic";
    else if (!ask_script(c, i))
      return;
  }
  np_mqtt_end(c, NULL, "");
}

/* Calls */

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_mqtt_call *c = arg;
  struct np_mqtt *m = c->m;
  bool open = c->sent > c->settled;
  if (m->net->script)
    play(c);
  else if (is_stranger(c))
    np_mqtt_end_open(c, "cut", 0, "the connection was lost meanwhile");
  else if (m->state != NP_MQTT_UP)
    np_mqtt_end(c, "timeout", "there was no connection in time");
  else
    np_mqtt_end_open(c, "timeout", 0, "the broker has not acknowledged it in time");
  if (open) np_mqtt_lose(m, "the broker has not acknowledged all in time, so the connection was given up");
}

struct np_mqtt_call *np_mqtt_publish(struct np_mqtt *m, const struct np_mqtt_message *messages, size_t count, uint64_t connection,
                                     double seconds, np_mqtt_done *done, void *arg) {
  struct np_mqtt_call *c = np_alloc(sizeof *c);
  *c = (struct np_mqtt_call){.m = m, .messages = messages, .count = count, .connection = connection, .done = done, .arg = arg};
  c->mids = np_alloc((count + 1) * sizeof *c->mids);
  c->outcomes = np_alloc((count + 1) * sizeof *c->outcomes);
  c->timer = event_new(m->net->base, -1, 0, on_timer, c);
  *m->last = c;
  m->last = &c->next;
  struct timeval tv = {.tv_sec = (time_t)seconds, .tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
  event_add(c->timer, &tv);
  if (m->net->script || is_stranger(c))
    event_active(c->timer, EV_TIMEOUT, 0);
  else if (m->state == NP_MQTT_UP)
    event_active(m->writable, EV_WRITE, 0); /* sends from there */
  else if (m->state == NP_MQTT_DOWN)
    np_mqtt_start(m);
  return c;
}

void np_mqtt_cancel(struct np_mqtt_call *c) {
  struct np_mqtt *m = c->m;
  bool open = m && c->sent > c->settled;
  if (m) unlink_call(c);
  free_call(c);
  if (open) np_mqtt_lose(m, "a call that waited was ended, so the connection was given up");
}
