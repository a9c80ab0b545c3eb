/* neap.webhooks: signs and checks deliveries as Standard Webhooks 1.0.0 describes (https://www.standardwebhooks.com), with the symmetric
 * signature v1: HMAC-SHA256 over id, timestamp and body with a full stop between. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/clock.h"
#include "lib/crypto.h"
#include "lib/modules.h"

#define TOLERANCE 300
#define ID_MAX 256
enum { SECRET_MIN = 24, SECRET_MAX = 64, SIGNATURE = NP_BASE64_SIZE(32) };

struct secret {
  const void *key; /* borrowed from Lua or from bytes */
  size_t len;
  uint8_t bytes[SECRET_MAX / 3 * 4 + 6]; /* what followed whsec_ */
};

/* Raises without quoting the secret, for errors are logged. */
static void check_secret(lua_State *L, int idx, struct secret *s) {
  static const char prefix[] = "whsec_";
  size_t n, skip = sizeof prefix - 1;
  const char *text = luaL_checklstring(L, idx, &n);
  luaL_argcheck(L, n, idx, "the secret is empty");
  s->key = text;
  s->len = n;
  if (n < skip || memcmp(text, prefix, skip) != 0) return;
  ptrdiff_t len =
      n - skip <= NP_BASE64_SIZE(SECRET_MAX) ? np_unbase64(s->bytes, text + skip, n - skip, NP_BASE64_STRICT) : SECRET_MAX + 1;
  luaL_argcheck(L, len >= 0, idx, "what follows whsec_ in the secret is not base64");
  luaL_argcheck(L, len >= SECRET_MIN && len <= SECRET_MAX, idx,
                "what follows whsec_ in the secret has to be 24 to 64 bytes in base64");
  s->key = s->bytes;
  s->len = (size_t)len;
}

/* An id goes into a header and must not be read as another id with a timestamp: visible ASCII without a full stop. */
static bool id_fits(struct np_part id) {
  const char *s = id.bytes;
  for (size_t i = 0; i < id.len; i++)
    if (s[i] <= ' ' || s[i] > '~' || s[i] == '.') return false;
  return id.len > 0 && id.len <= ID_MAX;
}

/* Base64 of the signature, SIGNATURE characters; false where OpenSSL fails. */
static bool make_signature(const struct secret *s, struct np_part id, struct np_part at, struct np_part body, char *out) {
  struct np_part parts[] = {id, {".", 1}, at, {".", 1}, body};
  uint8_t mac[EVP_MAX_MD_SIZE];
  const EVP_MD *md = np_digest_find("sha256");
  if (!md || np_hmac(md, s->key, s->len, parts, sizeof parts / sizeof *parts, mac) != 32) return false;
  np_base64(out, mac, 32, false);
  return true;
}

/*** The headers of a delivery. The id stays the same over retries, the timestamp is the attempt's.
 * @param secret string? "whsec_" and 24 to 64 bytes in base64, or the key's bytes themselves; without one there is no signature
 * @param message { id: string|integer, json: string } the body is json, byte for byte; an id has visible ASCII without "."
 * @param now_ms? integer ms, the clock where absent  @return { [string]: string } */
static int sign(lua_State *L) {
  struct secret secret;
  bool has_secret = !lua_isnoneornil(L, 1);
  if (has_secret) check_secret(L, 1, &secret);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_Integer now = luaL_optinteger(L, 3, np_now_ms());
  luaL_argcheck(L, now >= 0, 3, "a time in ms since 1970 is needed");
  lua_settop(L, 3);
  int id_type = lua_getfield(L, 2, "id"), body_type = lua_getfield(L, 2, "json"); /* 4, 5 */
  luaL_argcheck(L, id_type == LUA_TSTRING || lua_isinteger(L, 4), 2, "message.id has to be a string or an integer");
  luaL_argcheck(L, body_type == LUA_TSTRING, 2, "message.json has to be a string");
  struct np_part id, body;
  id.bytes = lua_tolstring(L, 4, &id.len);
  body.bytes = lua_tolstring(L, 5, &body.len);
  luaL_argcheck(L, id_fits(id), 2, "message.id has to be 1 to 256 visible ASCII characters without \".\"");
  char seconds[24], signature[3 + SIGNATURE] = "v1,";
  struct np_part at = {seconds, (size_t)snprintf(seconds, sizeof seconds, "%lld", (long long)(now / 1000))};
  if (has_secret && !make_signature(&secret, id, at, body, signature + 3)) return luaL_error(L, "sign: OpenSSL refuses");
  lua_createtable(L, 0, 4);
  lua_pushvalue(L, 4);
  lua_setfield(L, -2, "webhook-id");
  lua_pushstring(L, seconds);
  lua_setfield(L, -2, "webhook-timestamp");
  lua_pushliteral(L, "application/json");
  lua_setfield(L, -2, "content-type");
  if (has_secret) {
    lua_pushlstring(L, signature, sizeof signature);
    lua_setfield(L, -2, "webhook-signature");
  }
  return 1;
}

/* A number of the options at 4, or preset. */
static double check_number(lua_State *L, const char *name, double preset) {
  if (lua_isnoneornil(L, 4)) return preset;
  if (lua_getfield(L, 4, name) != LUA_TNIL) {
    if (lua_type(L, -1) != LUA_TNUMBER) luaL_argerror(L, 4, lua_pushfstring(L, "option \"%s\" has to be a number", name));
    preset = lua_tonumber(L, -1);
  }
  lua_pop(L, 1);
  return preset;
}

/* Seconds out of digits alone; -1 for anything else. */
static double read_seconds(struct np_part p) {
  const char *s = p.bytes;
  double seconds = 0;
  if (!p.len || p.len > 12) return -1;
  for (size_t i = 0; i < p.len; i++) {
    if (s[i] < '0' || s[i] > '9') return -1;
    seconds = seconds * 10 + (s[i] - '0');
  }
  return seconds;
}

/* Whether one of the signatures, parted by spaces, is v1 and the one expected. All are compared, so that time does not tell which. */
static bool any_matches(struct np_part list, const char *expected) {
  bool found = false;
  const char *s = list.bytes, *end = s + list.len;
  while (s < end) {
    const char *space = memchr(s, ' ', (size_t)(end - s)), *stop = space ? space : end;
    if (stop - s == 3 + SIGNATURE && memcmp(s, "v1,", 3) == 0) found |= CRYPTO_memcmp(s + 3, expected, SIGNATURE) == 0;
    s = stop + 1;
  }
  return found;
}

/*** Tells whether a delivery is the sender's, untouched and fresh. A delivery seen before passes: keep its webhook-id to know it again.
 * @param secret string as for sign  @param headers { [string]: string } by lower-case names  @param body string as it came
 * @param options? { tolerance?: number, now?: integer } seconds, 300 where absent; ms, the clock where absent
 * @return true? or nil, why, code: "missing", "format", "time", "signature" */
static int verify(lua_State *L) {
  static const char *const options[] = {"tolerance", "now", NULL};
  static const char *const names[] = {"webhook-id", "webhook-timestamp", "webhook-signature"};
  struct secret secret;
  struct np_part headers[3], body;
  check_secret(L, 1, &secret);
  luaL_checktype(L, 2, LUA_TTABLE);
  body.bytes = luaL_checklstring(L, 3, &body.len);
  np_crypto_check_options(L, 4, options);
  double tolerance = check_number(L, "tolerance", TOLERANCE), now = check_number(L, "now", (double)np_now_ms()) / 1000;
  lua_settop(L, 4);
  for (int i = 0; i < 3; i++) {
    if (lua_getfield(L, 2, names[i]) != LUA_TSTRING) /* 5, 6, 7 */
      return np_crypto_no(L, "webhook", lua_pushfstring(L, "the header %s is missing", names[i]), "missing");
    headers[i].bytes = lua_tolstring(L, -1, &headers[i].len);
  }
  double seconds = read_seconds(headers[1]);
  if (!id_fits(headers[0])) return np_crypto_no(L, "webhook", "the header webhook-id is not visible ASCII without \".\"", "format");
  if (seconds < 0) return np_crypto_no(L, "webhook", "the header webhook-timestamp is not in seconds", "format");
  char expected[SIGNATURE];
  if (!make_signature(&secret, headers[0], headers[1], body, expected)) return luaL_error(L, "verify: OpenSSL refuses");
  if (!any_matches(headers[2], expected)) return np_crypto_no(L, "webhook", "no signature matches", "signature");
  if (!(fabs(now - seconds) <= tolerance)) return np_crypto_no(L, "webhook", "it was sent too long ago, or in the future", "time");
  lua_pushboolean(L, true);
  return 1;
}

static const luaL_Reg functions[] = {{"sign", sign}, {"verify", verify}, {NULL, NULL}};

int luaopen_neap_webhooks(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
