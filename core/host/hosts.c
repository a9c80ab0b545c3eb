/* Which hosts a plugin may call. URLs are taken apart by libcurl, which also makes the call: two parsers would differ some day. */
#include "host/hosts.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>
#include <lauxlib.h>

#include "base/buf.h"
#include "lib/json.h"

/* The port where a URL of that scheme says none; NULL where neap does not speak it. */
static const char *port_of(const char *scheme) {
  static const char *const known[][2] = {{"http", "80"},    {"https", "443"}, {"mqtt", "1883"},
                                         {"mqtts", "8883"}, {"smtp", "25"},   {"smtps", "465"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcasecmp(scheme, known[i][0]) == 0) return known[i][1];
  return NULL;
}

/* "host:port" in lower case, the caller's to free; NULL where it is no URL of a scheme that is known. */
static char *authority(const char *url) {
  CURLU *u = curl_url();
  char *host = NULL, *port = NULL, *scheme = NULL, *result = NULL;
  if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
      curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK && port_of(scheme) &&
      curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK) {
    struct np_buf b = {0};
    curl_url_get(u, CURLUPART_PORT, &port, 0);
    np_buf_addf(&b, "%s:%s", host, port ? port : port_of(scheme));
    for (char *c = b.data; *c; c++)
      if (*c >= 'A' && *c <= 'Z') *c |= 0x20;
    result = b.data;
  }
  curl_free(host), curl_free(port), curl_free(scheme);
  curl_url_cleanup(u);
  return result;
}

static void add_host(struct np_code *code, const char *url) {
  char *host = authority(url);
  if (!host) return;
  code->hosts = np_realloc(code->hosts, (code->host_count + 1) * sizeof *code->hosts);
  code->hosts[code->host_count++] = host;
}

void np_hosts_collect(lua_State *L, int idx, struct np_code *code, bool add) {
  if (!add) return;
  luaL_checkstack(L, 4, "settings are nested too deeply");
  idx = lua_absindex(L, idx);
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    if (lua_type(L, -1) == LUA_TSTRING && strstr(lua_tostring(L, -1), "://"))
      add_host(code, lua_tostring(L, -1));
    else if (lua_istable(L, -1))
      np_hosts_collect(L, -1, code, add);
    lua_pop(L, 1);
  }
}

bool np_hosts_may_reach(struct np_env *env, const char *url) {
  const struct np_code *code = ((struct np_instance *)env)->code;
  char *host = authority(url);
  bool may = false;
  for (size_t i = 0; host && i < code->host_count && !may; i++) may = strcmp(host, code->hosts[i]) == 0;
  free(host);
  return may;
}

bool np_hosts_may_write(struct np_env *env, lua_State *L, const char *folder) {
  const char *settings = ((struct np_instance *)env)->code->settings;
  struct np_error err;
  bool may = false;
  int top = lua_gettop(L);
  if (np_json_decode(L, settings, strlen(settings), &err) == 0 && lua_istable(L, -1)) {
    lua_pushliteral(L, "folder");
    may = lua_rawget(L, -2) == LUA_TSTRING && strcmp(lua_tostring(L, -1), folder) == 0;
  }
  lua_settop(L, top);
  return may;
}
