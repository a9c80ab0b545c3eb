/* The options and messages of neap.mqtt. */
#include "lib/mqtt_asked.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <lauxlib.h>

#include "base/duration.h"
#include "base/near.h"
#include "lib/spend.h"

#define MESSAGES_MOST 10000
#define PAIRS_MOST 50

/* Options: tables are read by raw access. `where` stands before a field's name in messages: "", "will." or "messages[3].". */

struct table {
  int at;   /* on the stack */
  int kept; /* of a table there in which each text is kept, for a plugin may change its own while it is used */
  const char *where;
};

static int field(lua_State *L, const struct table *t, const char *name) {
  lua_pushstring(L, name);
  return lua_rawget(L, t->at);
}

/* What is at the top of the stack stays alive as long as the table at `kept`. */
static const char *keep(lua_State *L, int kept, size_t *len) {
  lua_pushvalue(L, -1);
  lua_rawseti(L, kept, (lua_Integer)lua_rawlen(L, kept) + 1);
  return lua_tolstring(L, -1, len);
}

static void check_names(lua_State *L, const struct table *t, const char *const *names, size_t count) {
  for (lua_pushnil(L); lua_next(L, t->at); lua_pop(L, 1)) {
    size_t len, i = 0;
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "mqtt: %s has a %s without a name", t->where, luaL_typename(L, -1));
    const char *name = lua_tolstring(L, -2, &len);
    while (i < count && strcmp(names[i], name) != 0) i++;
    if (i < count) continue;
    const char *near = np_near(name, len, names, count);
    if (near) luaL_error(L, "mqtt: unknown field \"%s%s\", did you mean \"%s\"?", t->where, name, near);
    luaL_error(L, "mqtt: unknown field \"%s%s\"", t->where, name);
  }
}

/* NULL where it is absent. len NULL: no zero byte may be in it. */
static const char *text(lua_State *L, const struct table *t, const char *name, size_t *len) {
  size_t n = 0;
  int type = field(L, t, name);
  if (type != LUA_TNIL && type != LUA_TSTRING)
    luaL_error(L, "mqtt: %s%s has to be a text, got a %s", t->where, name, luaL_typename(L, -1));
  const char *s = type == LUA_TSTRING ? keep(L, t->kept, &n) : NULL;
  if (s && !len && strlen(s) != n) luaL_error(L, "mqtt: %s%s has a zero byte in it", t->where, name);
  if (len) *len = n;
  lua_pop(L, 1);
  return s;
}

static lua_Integer count_of(lua_State *L, const struct table *t, const char *name, lua_Integer least, lua_Integer most,
                            lua_Integer otherwise) {
  int whole = 1, type = field(L, t, name);
  lua_Integer n = type == LUA_TNIL ? otherwise : lua_tointegerx(L, -1, &whole);
  if ((type != LUA_TNIL && (type != LUA_TNUMBER || n < least || n > most)) || !whole)
    luaL_error(L, "mqtt: %s%s has to be a whole number from %I to %I", t->where, name, (LUAI_UACINT)least, (LUAI_UACINT)most);
  lua_pop(L, 1);
  return n;
}

double np_mqtt_ask_seconds(lua_State *L, int at, const char *name, double otherwise) {
  size_t len;
  int64_t ms;
  int type = lua_type(L, at);
  double seconds = type == LUA_TNUMBER ? lua_tonumber(L, at) : otherwise;
  if (type == LUA_TSTRING) {
    const char *s = lua_tolstring(L, at, &len);
    seconds = np_duration_parse(s, len, &ms) < 0 ? -1 : (double)ms / 1000;
  }
  if ((type != LUA_TNIL && type != LUA_TNUMBER && type != LUA_TSTRING) || !(seconds > 0) || seconds > 86400)
    luaL_error(L, "mqtt: %s has to be a duration of at most a day, such as 10 or \"10s\"", name);
  return seconds;
}

static double seconds_of(lua_State *L, const struct table *t, const char *name, double otherwise) {
  field(L, t, name);
  double seconds = np_mqtt_ask_seconds(L, lua_gettop(L), name, otherwise);
  lua_pop(L, 1);
  return seconds;
}

static bool flag(lua_State *L, const struct table *t, const char *name) {
  int type = field(L, t, name);
  if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "mqtt: %s%s has to be true or false", t->where, name);
  bool on = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return on;
}

/* Messages */

static const char *const message_names[] = {"topic", "payload", "qos", "retain", "content_type", "properties"};

static int by_name(const void *a, const void *b) {
  return strcmp(((const struct np_mqtt_pair *)a)->name, ((const struct np_mqtt_pair *)b)->name);
}

/* The table of properties is at the top of the stack. */
static void read_pairs(lua_State *L, const struct table *t, struct np_mqtt_message *g) {
  static const char wrong[] = "mqtt: %sproperties has to be a table of names and texts, without zero bytes and of at most %d";
  int pairs_at = lua_gettop(L);
  size_t most = 0, name, value;
  if (!lua_istable(L, pairs_at)) luaL_error(L, wrong, t->where, PAIRS_MOST);
  for (lua_pushnil(L); lua_next(L, pairs_at); lua_pop(L, 1)) most++;
  if (most > PAIRS_MOST) luaL_error(L, wrong, t->where, PAIRS_MOST);
  struct np_mqtt_pair *pairs = lua_newuserdatauv(L, (most + 1) * sizeof *pairs, 0);
  keep(L, t->kept, NULL);
  for (lua_pushnil(L); lua_next(L, pairs_at);) {
    if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING) luaL_error(L, wrong, t->where, PAIRS_MOST);
    struct np_mqtt_pair *p = &pairs[g->pair_count++];
    p->value = keep(L, t->kept, &value);
    lua_pop(L, 1);
    p->name = keep(L, t->kept, &name);
    if (strlen(p->name) != name || strlen(p->value) != value) luaL_error(L, wrong, t->where, PAIRS_MOST);
  }
  qsort(pairs, g->pair_count, sizeof *pairs, by_name);
  g->pairs = pairs;
  lua_settop(L, pairs_at);
}

/* The message is at the top of the stack and is popped. */
static void read_message(lua_State *L, int kept, const char *where, struct np_mqtt_message *g) {
  const struct table t = {lua_gettop(L), kept, where};
  if (!lua_istable(L, t.at)) {
    lua_pushlstring(L, where, strlen(where) - 1);
    luaL_error(L, "mqtt: %s has to be a message, { topic =, payload = }", lua_tostring(L, -1));
  }
  check_names(L, &t, message_names, sizeof message_names / sizeof *message_names);
  *g = (struct np_mqtt_message){0};
  g->topic = text(L, &t, "topic", &g->topic_len);
  if (!g->topic) luaL_error(L, "mqtt: %stopic is missing", where);
  g->payload = text(L, &t, "payload", &g->len);
  g->content_type = text(L, &t, "content_type", NULL);
  g->qos = (int)count_of(L, &t, "qos", 0, 2, 1);
  g->retain = flag(L, &t, "retain");
  if (field(L, &t, "properties") != LUA_TNIL) read_pairs(L, &t, g);
  lua_settop(L, t.at - 1);
}

struct np_mqtt_message *np_mqtt_ask_messages(lua_State *L, int at, size_t *count) {
  *count = lua_rawlen(L, at);
  if (*count > MESSAGES_MOST) luaL_error(L, "mqtt: at most %d messages at once", MESSAGES_MOST);
  np_spend(L, (lua_Integer)*count);
  struct np_mqtt_message *list = lua_newuserdatauv(L, (*count + 1) * sizeof *list, 0);
  lua_createtable(L, (int)*count * 2, 0);
  int kept = lua_gettop(L);
  for (lua_Integer i = 1; i <= (lua_Integer)*count; i++) {
    char where[40];
    snprintf(where, sizeof where, "messages[%lld].", (long long)i);
    lua_rawgeti(L, at, i);
    read_message(L, kept, where, &list[i - 1]);
  }
  return list;
}

/* Clients */

static const char *const client_names[] = {"url",     "user",      "password",  "cert",     "key", "ca",
                                           "version", "client_id", "keepalive", "inflight", "will"};

/* @class neap.MqttMessage: a message to publish.
 * @field topic string without "+" and "#"
 * @field payload? string
 * @field qos? 0|1|2 1 where absent
 * @field retain? boolean
 * @field content_type? string version 5 only
 * @field properties? table<string, string> user properties, version 5 only
 */
/* @class neap.MqttOptions: a broker to publish to.
 * @field url string mqtt:// or mqtts://
 * @field user? string
 * @field password? string
 * @field cert? string the client's certificate, PEM
 * @field key? string its key, PEM
 * @field ca? string PEM: who is trusted, and nobody else is
 * @field version? "5"|"3.1.1"
 * @field client_id? string the beginning of it; lane and generation are added
 * @field keepalive? string|number a duration; 60 s where absent
 * @field inflight? integer messages under way at once, 64 where absent
 * @field will? neap.MqttMessage what the broker publishes when neap is gone
 */

/* Takes the URL apart. NULL, or why not. */
static const char *take_url(struct np_mqtt_options *o, char host_to[static NP_MQTT_HOST_MAX], const char *url) {
  CURLU *u = curl_url();
  char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL, *password = NULL, *path = NULL;
  const char *why = NULL;
  if (!u || curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) || curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) ||
      curl_url_get(u, CURLUPART_HOST, &host, 0)) {
    why = "is no URL";
  } else {
    curl_url_get(u, CURLUPART_PORT, &port, 0);
    curl_url_get(u, CURLUPART_USER, &user, 0);
    curl_url_get(u, CURLUPART_PASSWORD, &password, 0);
    curl_url_get(u, CURLUPART_PATH, &path, 0);
    size_t len = strlen(host);
    bool bracket = *host == '[' && host[len - 1] == ']';
    o->tls = strcmp(scheme, "mqtts") == 0;
    o->port = port ? atoi(port) : o->tls ? 8883 : 1883;
    if (!o->tls && strcmp(scheme, "mqtt") != 0)
      why = "has to begin with mqtt:// or mqtts://";
    else if (user || password)
      why = "has a user in it: say user and password";
    else if (path && strcmp(path, "/") != 0)
      why = "has a path, and brokers have none";
    else if (len - 2u * bracket >= NP_MQTT_HOST_MAX || !o->port)
      why = "has no such host or port";
    else
      snprintf(host_to, NP_MQTT_HOST_MAX, "%.*s", (int)(len - 2u * bracket), host + bracket);
  }
  curl_free(scheme), curl_free(host), curl_free(port), curl_free(user), curl_free(password), curl_free(path);
  curl_url_cleanup(u);
  return why;
}

static int version_of(lua_State *L, const struct table *t) {
  const char *said = text(L, t, "version", NULL);
  if (!said || strcmp(said, "5") == 0) return 5;
  if (strcmp(said, "3.1.1") != 0) luaL_error(L, "mqtt: version has to be \"5\" or \"3.1.1\"");
  return 3;
}

static void check_together(lua_State *L, const struct np_mqtt_options *o) {
  if (o->password && !o->user) luaL_error(L, "mqtt: password: there is no user to it");
  if (o->key && !o->cert) luaL_error(L, "mqtt: key: there is no cert to it");
  if ((o->cert || o->ca) && !o->tls) luaL_error(L, "mqtt: cert and ca are for mqtts://, and the url is mqtt://");
  if (o->client_id && (!*o->client_id || strlen(o->client_id) > 200)) luaL_error(L, "mqtt: client_id has to have 1 to 200 bytes");
  if (o->keepalive < 5 || o->keepalive > 65535) luaL_error(L, "mqtt: keepalive has to be from 5 s to 65535 s");
}

static void read_will(lua_State *L, const struct table *t, struct np_mqtt_options *o) {
  if (field(L, t, "will") == LUA_TNIL) return;
  read_message(L, t->kept, "will.", &o->will);
  if (o->will.pair_count) luaL_error(L, "mqtt: will.properties: they are not sent with it");
  const char *wrong = np_mqtt_topic_wrong(o->will.topic, o->will.topic_len);
  if (wrong) luaL_error(L, "mqtt: will.topic: %s", wrong);
  if (o->will.len > 65535) luaL_error(L, "mqtt: will.payload: it is longer than 65535 bytes");
}

void np_mqtt_ask(lua_State *L, int kept, struct np_mqtt_options *o, char host[static NP_MQTT_HOST_MAX]) {
  const struct table t = {1, kept, ""};
  check_names(L, &t, client_names, sizeof client_names / sizeof *client_names);
  o->url = text(L, &t, "url", NULL);
  const char *why = o->url ? take_url(o, host, o->url) : "is missing";
  if (why) luaL_error(L, "mqtt: url: it %s", why); /* not quoted: a password may be in it */
  o->host = host;
  o->user = text(L, &t, "user", NULL);
  o->password = text(L, &t, "password", NULL);
  o->cert = text(L, &t, "cert", NULL);
  o->key = text(L, &t, "key", NULL);
  o->ca = text(L, &t, "ca", NULL);
  o->client_id = text(L, &t, "client_id", NULL);
  o->version = version_of(L, &t);
  o->keepalive = (int)(seconds_of(L, &t, "keepalive", 60) + 0.5);
  o->inflight = (int)count_of(L, &t, "inflight", 1, 65535, 64);
  check_together(L, o);
  read_will(L, &t, o);
}

void np_mqtt_ask_publish(lua_State *L, int at, double *timeout, uint64_t *connection) {
  static const char *const names[] = {"timeout", "connection"};
  const struct table t = {at, 0, ""};
  luaL_checktype(L, at, LUA_TTABLE);
  check_names(L, &t, names, sizeof names / sizeof *names);
  *timeout = seconds_of(L, &t, "timeout", *timeout);
  *connection = (uint64_t)count_of(L, &t, "connection", 1, INT64_MAX, (lua_Integer)*connection);
}
