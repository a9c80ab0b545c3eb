/* neap.mqtt: MQTT out. mqtt.client { url = "mqtts://broker.example", … } is a broker to publish to; it connects when it is first needed, keeps the connection
 * as long as the plugin's generation is in force, and makes it anew when it is needed and was lost. client:publish { { topic =, payload = }, … } returns when
 * the broker has acknowledged each message or the time is over: a list of what became of each, true or { code, why, reason }; or nil, "what: why", and a
 * code, and then nothing was sent. It looks as if it blocked, while the lane does other work. Only brokers that the plugin's settings name can be reached.
 * Options of a client: url (mqtt:// or mqtts://, port 1883 or 8883 where it says none); user, password; cert, key, ca (PEM texts, as of neap.http);
 * version ("5" where absent, or "3.1.1"); client_id (the beginning of it; neap's own where absent); keepalive (60 s where absent); inflight (messages
 * that wait for their acknowledgement at once, 64 where absent); will (a message that the broker publishes when neap is gone).
 * A message: topic; payload (""); qos (1 where absent); retain; content_type and properties (version 5 only).
 */
#include <stdbool.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "base/buf.h"
#include "io/mqtt.h"
#include "lib/env.h"
#include "lib/mqtt_asked.h"
#include "lib/outgoing.h"

int luaopen_neap_mqtt(lua_State *L);

#define CLIENT "neap.mqtt.client"
#define CALL "neap.mqtt.call"
#define TIMEOUT 30.0 /* seconds */

struct client {
  struct np_env *env;       /* borrowed */
  struct np_mqtt *m;        /* owned; NULL until it is first used */
  struct np_mqtt_options o; /* its texts are kept in the uservalue */
  char host[NP_MQTT_HOST_MAX];
};

struct call {
  struct np_outgoing out;
  struct np_mqtt_call *running; /* NULL before and after */
  struct client *client;        /* on the coroutine's stack */
  struct np_mqtt_message *list; /* on the coroutine's stack; NULL where it only connects */
  uint64_t wanted;              /* the connection that it has to go by; 0: any */
  size_t count;
  bool answered, connecting;
  char code[16]; /* "" where each message has its outcome */
  char why[400];
  uint64_t connection;
  struct np_mqtt_outcome *outcomes; /* in the same userdata */
};

static int close_client(lua_State *L) {
  struct client *c = luaL_checkudata(L, 1, CLIENT);
  if (c->m) np_mqtt_free(c->m, !c->o.will.topic || c->env->succeeded(c->env));
  c->m = NULL;
  return 0;
}

static int close_call(lua_State *L) {
  struct call *c = luaL_checkudata(L, 1, CALL);
  if (c->running) np_mqtt_cancel(c->running);
  c->running = NULL;
  np_outgoing_end(&c->out);
  return 0;
}

/* mqtt.client(options): a broker to publish to; nothing is connected yet.
 * @param options neap.MqttOptions
 * @return neap.MqttClient
 */
static int new_client(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  struct client *c = lua_newuserdatauv(L, sizeof *c, 1);
  *c = (struct client){.env = np_env(L)};
  luaL_setmetatable(L, CLIENT);
  lua_newtable(L);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 2, 1);
  np_mqtt_ask(L, 3, &c->o, c->host);
  lua_settop(L, 2);
  return 1;
}

/* client.url: where it publishes. */
static int client_index(lua_State *L) {
  const struct client *c = luaL_checkudata(L, 1, CLIENT);
  if (lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "url") == 0)
    lua_pushstring(L, c->o.url);
  else
    lua_getfield(L, lua_upvalueindex(1), luaL_checkstring(L, 2));
  return 1;
}

/* Calls */

static void on_done(void *arg, const struct np_mqtt_answer *a) {
  struct call *c = arg;
  c->running = NULL;
  c->answered = true;
  c->connection = a->connection;
  snprintf(c->why, sizeof c->why, "%s", a->why);
  if (a->code)
    snprintf(c->code, sizeof c->code, "%s", a->code);
  else if (c->count)
    memcpy(c->outcomes, a->outcomes, c->count * sizeof *c->outcomes);
  c->out.env->wake(c->out.ticket);
}

static int failed(lua_State *L, const struct client *c, const char *why, const char *code) {
  lua_pushnil(L);
  lua_pushfstring(L, "mqtt %s: %s", c->o.url, why);
  lua_pushstring(L, code);
  return 3;
}

static const char *said_of(const struct np_mqtt_outcome *o) {
  static const char *const said[][2] = {
      {"timeout", "the broker has not acknowledged it in time"},
      {"too_large", "it is larger than the broker takes"},
      {"topic", "its topic cannot be published to: it is empty or too long, has + or # in it, or is not UTF-8"},
      {"qos", "the broker does not take this qos"},
      {"retain", "the broker keeps no messages (retain)"},
      {"cut", "the connection was lost before it was acknowledged"}};
  for (size_t i = 0; i < sizeof said / sizeof *said; i++)
    if (strcmp(said[i][0], o->code) == 0) return said[i][1];
  return "it could not be sent: it may have a property that is not UTF-8";
}

/* @class neap.MqttRefused: what became of a message that was not acknowledged.
 * @field code "cut"|"timeout"|"refused"|"too_large"|"topic"|"qos"|"retain"|"other"
 * @field why string
 * @field reason? integer the broker's reason code, where it refused
 */
static void push_outcome(lua_State *L, const struct call *c, const struct np_mqtt_outcome *o) {
  if (!o->code) {
    lua_pushboolean(L, 1);
    return;
  }
  lua_createtable(L, 0, 3);
  lua_pushstring(L, o->code);
  lua_setfield(L, -2, "code");
  if (o->reason) {
    lua_pushfstring(L, "the broker refuses it: %s (%d)", np_mqtt_reason(o->reason), o->reason);
    lua_setfield(L, -2, "why");
    lua_pushinteger(L, o->reason);
    lua_setfield(L, -2, "reason");
    return;
  }
  lua_pushstring(L, strcmp(o->code, "cut") == 0 && *c->why ? c->why : said_of(o));
  lua_setfield(L, -2, "why");
}

static int answered(lua_State *L, int status, lua_KContext context) {
  (void)status;
  struct call *c = (struct call *)context;
  if (!c->answered) return luaL_error(L, "mqtt: woken before it was done");
  if (*c->code) return failed(L, c->client, c->why, c->code);
  if (c->connecting) {
    lua_pushinteger(L, (lua_Integer)c->connection);
    return 1;
  }
  lua_createtable(L, (int)c->count, 0);
  for (size_t i = 0; i < c->count; i++) {
    push_outcome(L, c, &c->outcomes[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static struct client *check_place(lua_State *L) {
  struct client *c = luaL_checkudata(L, 1, CLIENT);
  struct np_env *env = c->env;
  np_env_may_wait(L, env, "mqtt", env->mqtt != NULL);
  if (!env->may_reach(env, c->o.url))
    luaL_error(L, "mqtt: %s may not reach \"%s\": only hosts named in its settings can be reached; let a setting hold the address",
               env->name, c->o.url);
  return c;
}

/* What tells this connection from any other at the broker: a second one of the same id would end the first. */
static void take_id(struct client *c, struct np_buf *id) {
  char own[64];
  c->env->identify(c->env, own);
  np_buf_adds(id, c->o.client_id ? c->o.client_id : "");
  np_buf_adds(id, c->o.client_id ? strchr(own, 'L') : own);
}

/* mqtt.id(): a name for this plugin's connections, the same over restarts and reloads; lanes have different ones. In handlers.
 * @return string of letters and digits
 */
static int lane_id(lua_State *L) {
  struct np_env *env = np_env(L);
  char own[64];
  if (!env->mqtt) return luaL_error(L, "mqtt.id: not while the file is loaded");
  env->identify(env, own);
  lua_pushlstring(L, own, strcspn(own, "G"));
  return 1;
}

static void make(struct client *c) {
  struct np_buf id = {0};
  struct np_mqtt_options o = c->o;
  take_id(c, &id);
  o.client_id = np_buf_text(&id);
  c->m = np_mqtt_new(c->env->mqtt, &o);
  np_buf_free(&id);
}

/* Its turn has come, or nobody's has ended in time. */
static int set_out(lua_State *L, struct call *c) {
  double seconds;
  const char *code = np_outgoing_seconds(L, &c->out, &seconds);
  if (code) return failed(L, c->client, lua_tostring(L, -1), code);
  if (!c->client->m) make(c->client);
  c->running = np_mqtt_publish(c->client->m, c->list, c->count, c->wanted, seconds, on_done, c);
  return np_outgoing_wait(L, &c->out, (lua_KContext)c, answered);
}

static int after_turn(lua_State *L, int status, lua_KContext context) {
  (void)status;
  return set_out(L, (struct call *)context);
}

/* Stack: client, messages or nil, options or nil. */
static int begin(lua_State *L, struct client *client, bool connecting, double timeout, uint64_t connection) {
  struct np_env *env = client->env;
  size_t count = 0;
  struct np_mqtt_message *list = connecting ? NULL : np_mqtt_ask_messages(L, 2, &count);
  struct call *c = lua_newuserdatauv(L, sizeof *c + count * sizeof *c->outcomes, 0);
  *c = (struct call){.out = {.env = env, .who = "mqtt"},
                     .client = client,
                     .list = list,
                     .wanted = connection,
                     .count = count,
                     .connecting = connecting};
  c->outcomes = (struct np_mqtt_outcome *)(c + 1);
  luaL_setmetatable(L, CALL);
  lua_toclose(L, -1);
  if (np_outgoing_begin(&c->out, timeout)) return set_out(L, c);
  return np_outgoing_wait(L, &c->out, (lua_KContext)c, after_turn);
}

/* client:connect([timeout]): connects where it is not.
 * @param timeout? string|number a duration; 30 s where absent
 * @return integer? connection, string? why, string? code
 */
static int client_connect(lua_State *L) {
  lua_settop(L, 2);
  struct client *c = check_place(L);
  return begin(L, c, true, np_mqtt_ask_seconds(L, 2, "timeout", TIMEOUT), 0);
}

/* @class neap.MqttPublishOptions: how long to wait, and on which connection.
 * @field timeout? string|number a duration; 30 s where absent
 * @field connection? integer as client:connect gave it: where it is another one meanwhile, all messages are "cut"
 */
/* client:publish(messages, [options]): publishes in order, and waits until each has been acknowledged or refused.
 * @param messages neap.MqttMessage[]
 * @param options? neap.MqttPublishOptions
 * @return (true|neap.MqttRefused)[]? outcomes, string? why, string? code
 */
static int client_publish(lua_State *L) {
  lua_settop(L, 3);
  struct client *c = check_place(L);
  double timeout = TIMEOUT;
  uint64_t connection = 0;
  luaL_checktype(L, 2, LUA_TTABLE);
  if (!lua_isnil(L, 3)) np_mqtt_ask_publish(L, 3, &timeout, &connection);
  return begin(L, c, false, timeout, connection);
}

/* @class neap.MqttClient: a broker to publish to.
 * @field url string
 */
int luaopen_neap_mqtt(lua_State *L) {
  static const luaL_Reg call_methods[] = {{"__gc", close_call}, {"__close", close_call}, {NULL, NULL}};
  static const luaL_Reg client_methods[] = {{"connect", client_connect}, {"publish", client_publish}, {NULL, NULL}};
  static const luaL_Reg verbs[] = {{"client", new_client}, {"id", lane_id}, {NULL, NULL}};
  luaL_newmetatable(L, CALL);
  luaL_setfuncs(L, call_methods, 0);
  luaL_newmetatable(L, CLIENT);
  lua_pushcfunction(L, close_client);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, client_methods);
  lua_pushcclosure(L, client_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 2);
  luaL_newlib(L, verbs);
  return 1;
}
