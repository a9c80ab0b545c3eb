/* neap.crypto: digests, text forms, RSA, AES-GCM, JWT and passwords on OpenSSL 3. Here: comparing, randomness, and the module itself. */
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include "base/random.h"
#include "lib/crypto.h"
#include "lib/modules.h"

#define RANDOM_MAX (1 << 20)

int np_crypto_no(lua_State *L, const char *what, const char *why, const char *code) {
  ERR_clear_error();
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", what, why);
  lua_pushstring(L, code);
  return 3;
}

void np_crypto_check_options(lua_State *L, int idx, const char *const names[]) {
  if (lua_isnoneornil(L, idx)) return;
  luaL_checktype(L, idx, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_argerror(L, idx, "options have names");
    const char *name = lua_tostring(L, -2);
    size_t i = 0;
    while (names[i] && strcmp(names[i], name) != 0) i++;
    if (!names[i]) luaL_argerror(L, idx, lua_pushfstring(L, "unknown option \"%s\"", name));
  }
}

const char *np_crypto_option(lua_State *L, int idx, const char *name, const char *preset) {
  if (lua_isnoneornil(L, idx)) return preset;
  const char *value = preset;
  lua_pushstring(L, name);
  int type = lua_rawget(L, idx); /* the table holds the text still when it is popped; an __index's would be gone */
  if (type == LUA_TSTRING)
    value = lua_tostring(L, -1);
  else if (type != LUA_TNIL)
    luaL_argerror(L, idx, lua_pushfstring(L, "option \"%s\" has to be a string", name));
  lua_pop(L, 1);
  return value;
}

/*** Compares without telling by its duration where two strings differ. Anything but two strings of one length is false.
 * @param a any  @param b any  @return boolean */
static int equal(lua_State *L) {
  bool same = false;
  if (lua_type(L, 1) == LUA_TSTRING && lua_type(L, 2) == LUA_TSTRING) {
    size_t n, m;
    const char *a = lua_tolstring(L, 1, &n), *b = lua_tolstring(L, 2, &m);
    same = n == m && CRYPTO_memcmp(a, b, n) == 0;
  }
  lua_pushboolean(L, same);
  return 1;
}

static void fill_random(lua_State *L, void *out, size_t n) {
  if (n && !np_random_seeded(out, n) && RAND_bytes(out, (int)n) != 1) {
    ERR_clear_error();
    luaL_error(L, "random: the system gives no randomness");
  }
}

/*** Unpredictable bytes, good for keys.
 * @param n integer bytes, 0 to 1048576  @return string */
static int random_bytes(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);
  luaL_argcheck(L, n >= 0 && n <= RANDOM_MAX, 1, "0 to 1048576 bytes");
  luaL_Buffer b;
  char *out = luaL_buffinitsize(L, &b, (size_t)n);
  fill_random(L, out, (size_t)n);
  luaL_pushresultsize(&b, (size_t)n);
  return 1;
}

/*** A random UUID (RFC 9562, version 4) in lower case.
 * @return string */
static int uuid(lua_State *L) {
  uint8_t r[16];
  char hex[32], out[36];
  fill_random(L, r, sizeof r);
  r[6] = (uint8_t)((r[6] & 0x0f) | 0x40);
  r[8] = (uint8_t)((r[8] & 0x3f) | 0x80);
  np_hex(hex, r, sizeof r);
  for (size_t i = 0, o = 0; i < sizeof hex; i++) {
    if (i == 8 || i == 12 || i == 16 || i == 20) out[o++] = '-';
    out[o++] = hex[i];
  }
  lua_pushlstring(L, out, sizeof out);
  return 1;
}

static const luaL_Reg functions[] = {{"equal", equal}, {"random", random_bytes}, {"uuid", uuid}, {NULL, NULL}};

int luaopen_neap_crypto(lua_State *L) {
  np_crypto_password_open(L);
  luaL_newlib(L, functions);
  luaL_setfuncs(L, np_crypto_text, 0);
  luaL_setfuncs(L, np_crypto_digest, 0);
  luaL_setfuncs(L, np_crypto_cipher, 0);
  luaL_setfuncs(L, np_crypto_password, 0);
  lua_newtable(L);
  luaL_setfuncs(L, np_crypto_rsa, 0);
  lua_setfield(L, -2, "rsa");
  lua_newtable(L);
  luaL_setfuncs(L, np_crypto_jwt, 0);
  lua_setfield(L, -2, "jwt");
  return 1;
}
