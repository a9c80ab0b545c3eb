/* neap.crypto.jwt: signed tokens (RFC 7515, RFC 7519) with HS256 and RS256, as RFC 8725 advises: the caller names the algorithm, the token only
 * has to agree. */
#include <string.h>

#include <openssl/crypto.h>

#include "base/clock.h"
#include "lib/crypto.h"
#include "lib/json.h"

#define TOKEN_MAX 65536

/* The algorithm in the options at idx: true is RS256. Raises where it is absent or another. */
static bool check_algorithm(lua_State *L, int idx) {
  const char *name = np_crypto_option(L, idx, "algorithm", NULL);
  if (!name) return luaL_argerror(L, idx, "option \"algorithm\" is missing: \"HS256\" or \"RS256\"");
  bool rsa = strcmp(name, "RS256") == 0;
  if (!rsa && strcmp(name, "HS256") != 0)
    luaL_argerror(L, idx, lua_pushfstring(L, "unknown algorithm \"%s\": HS256 or RS256", name));
  return rsa;
}

static struct np_part check_key(lua_State *L, int idx, bool rsa) {
  struct np_part key;
  key.bytes = luaL_checklstring(L, idx, &key.len);
  luaL_argcheck(L, key.len, idx, "the key is empty");
  if (!rsa && memmem(key.bytes, key.len, "-----BEGIN ", 11))
    luaL_argerror(L, idx, "HS256 takes a shared secret, this is a PEM key");
  if (rsa)
    np_rsa_spend(L, key.len);
  else
    np_spend(L, (int64_t)(key.len / 4));
  return key;
}

/* Pushes the JSON of the value at idx: a table, or a string that is JSON of an object already. */
static void push_object(lua_State *L, int idx) {
  struct np_error err = {""};
  if (lua_type(L, idx) == LUA_TSTRING) {
    size_t n;
    const char *s = lua_tolstring(L, idx, &n);
    if (np_json_decode(L, s, n, &err) < 0) luaL_argerror(L, idx, lua_pushstring(L, err.text));
    luaL_argcheck(L, lua_istable(L, -1) && !np_json_is_array(L, -1), idx, "claims have to be an object");
    lua_pop(L, 1);
    lua_pushvalue(L, idx);
    return;
  }
  luaL_checktype(L, idx, LUA_TTABLE);
  luaL_argcheck(L, !np_json_is_array(L, idx), idx, "claims have to be an object");
  if (np_json_encode(L, idx, &err) < 0) luaL_argerror(L, idx, lua_pushstring(L, err.text));
}

/* Pushes the header's JSON: the option "header" of the options at 3, with alg, and typ unless it says another. */
static void push_header(lua_State *L, bool rsa) {
  struct np_error err = {""};
  lua_newtable(L);
  lua_pushliteral(L, "JWT");
  lua_setfield(L, -2, "typ");
  int type = lua_getfield(L, 3, "header");
  if (type != LUA_TNIL && type != LUA_TTABLE) luaL_argerror(L, 3, "option \"header\" has to be a table");
  if (type == LUA_TTABLE) {
    for (lua_pushnil(L); lua_next(L, -2);) { /* new, header, key, value */
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -5);
    }
  }
  lua_pop(L, 1);
  lua_pushstring(L, rsa ? "RS256" : "HS256");
  lua_setfield(L, -2, "alg");
  if (np_json_encode(L, -1, &err) < 0) luaL_argerror(L, 3, lua_pushstring(L, err.text));
  lua_remove(L, -2);
}

static void add_base64url(luaL_Buffer *b, const void *bytes, size_t n) {
  luaL_addsize(b, np_base64(luaL_prepbuffsize(b, NP_BASE64_SIZE(n)), bytes, n, true));
}

/* The signature of text; 0 and *why for an RSA key that does not serve. */
static size_t sign_bytes(bool rsa, struct np_part key, struct np_part text, uint8_t *sig, const char **why) {
  const EVP_MD *md = np_digest_find("sha256");
  *why = "OpenSSL refuses the key";
  if (!md) return 0;
  if (!rsa) return np_hmac(md, key.bytes, key.len, &text, 1, sig);
  EVP_PKEY *pkey = np_rsa_key(key.bytes, key.len, true, why);
  if (!pkey) return 0;
  size_t len = np_rsa_sign(pkey, md, NP_RSA_PKCS1, text, sig);
  EVP_PKEY_free(pkey);
  return len;
}

/*** Makes a token.
 * @param claims table|string a table, or the JSON of an object, kept byte for byte. Times (exp, nbf, iat) are in seconds since 1970, as RFC 7519 has it
 * @param key string the shared secret of HS256; the RSA private key of RS256
 * @param options { algorithm: "HS256"|"RS256", header?: table } further header fields, such as kid
 * @return string? token, or nil, why, "key" */
static int sign(lua_State *L) {
  static const char *const names[] = {"algorithm", "header", NULL};
  luaL_checktype(L, 3, LUA_TTABLE);
  np_crypto_check_options(L, 3, names);
  bool rsa = check_algorithm(L, 3);
  struct np_part key = check_key(L, 2, rsa);
  lua_settop(L, 3);
  push_object(L, 1);   /* 4 */
  push_header(L, rsa); /* 5 */
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 5; i >= 4; i--) {
    size_t n;
    const char *json = lua_tolstring(L, i, &n);
    add_base64url(&b, json, n);
    if (i == 5) luaL_addchar(&b, '.');
  }
  luaL_pushresult(&b); /* 6 */
  struct np_part text;
  text.bytes = lua_tolstring(L, 6, &text.len);
  uint8_t sig[NP_RSA_MAX_BITS / 8];
  const char *why;
  size_t len = sign_bytes(rsa, key, text, sig, &why);
  if (!len) return np_crypto_no(L, "jwt", why, "key");
  luaL_buffinit(L, &b);
  luaL_addlstring(&b, text.bytes, text.len);
  luaL_addchar(&b, '.');
  add_base64url(&b, sig, len);
  luaL_pushresult(&b);
  return 1;
}

static int refuse(lua_State *L, const char *why, const char *code) { return np_crypto_no(L, "token", why, code); }

/* Pushes what the base64url part decodes to as JSON; false, with the stack as it was, where that is no object. */
static bool push_part(lua_State *L, struct np_part part) {
  struct np_error err;
  uint8_t *bytes = lua_newuserdatauv(L, part.len / 4 * 3 + 2, 0);
  ptrdiff_t n = np_unbase64(bytes, part.bytes, part.len, NP_BASE64_URL);
  if (n < 0 || np_json_decode(L, (const char *)bytes, (size_t)n, &err) < 0) {
    lua_pop(L, 1);
    return false;
  }
  lua_remove(L, -2);
  if (lua_istable(L, -1) && !np_json_is_array(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

/* header, claims, signature; false where there are not three parts. */
static bool split(const char *token, size_t len, struct np_part parts[3]) {
  const char *end = token + len;
  for (int i = 0; i < 3; i++) {
    const char *dot = memchr(token, '.', (size_t)(end - token));
    if (!dot != (i == 2)) return false;
    parts[i] = (struct np_part){token, (size_t)((dot ? dot : end) - token)};
    token = dot ? dot + 1 : end;
  }
  return true;
}

/* 1 good, 0 not, -1 and *why for a key that does not serve. */
static int check_signature(bool rsa, struct np_part key, struct np_part text, struct np_part part, const char **why) {
  uint8_t sig[NP_RSA_MAX_BITS / 8 + 2], own[EVP_MAX_MD_SIZE];
  const EVP_MD *md = np_digest_find("sha256");
  if (part.len > (NP_RSA_MAX_BITS / 8 * 4 + 2) / 3 || !md) return 0;
  ptrdiff_t len = np_unbase64(sig, part.bytes, part.len, NP_BASE64_URL);
  if (len <= 0) return 0;
  if (!rsa) return np_hmac(md, key.bytes, key.len, &text, 1, own) == (size_t)len && CRYPTO_memcmp(own, sig, (size_t)len) == 0;
  EVP_PKEY *pkey = np_rsa_key(key.bytes, key.len, false, why);
  if (!pkey) return -1;
  bool good = np_rsa_verify(pkey, md, NP_RSA_PKCS1, text, (struct np_part){sig, (size_t)len});
  EVP_PKEY_free(pkey);
  return good;
}

static double check_number(lua_State *L, int idx, const char *name, double preset) {
  if (lua_getfield(L, idx, name) != LUA_TNIL) {
    if (lua_type(L, -1) != LUA_TNUMBER) luaL_argerror(L, idx, lua_pushfstring(L, "option \"%s\" has to be a number", name));
    preset = lua_tonumber(L, -1);
  }
  lua_pop(L, 1);
  return preset;
}

/* Compares so that what is not a number in a token's time, or out of all range, counts as out of time. */
static const char *check_times(lua_State *L, int claims, double now, double leeway) {
  const char *why = NULL;
  int type = lua_getfield(L, claims, "exp");
  if (type != LUA_TNIL && (type != LUA_TNUMBER || !(now < lua_tonumber(L, -1) + leeway))) why = "it has expired";
  type = lua_getfield(L, claims, "nbf");
  if (type != LUA_TNIL && (type != LUA_TNUMBER || !(now >= lua_tonumber(L, -1) - leeway))) why = "it is not valid yet";
  lua_pop(L, 2);
  return why;
}

/* Whether the claim is the string at wanted, or a list that has it. Lengths count: a 0 byte ends nothing here. */
static bool claim_names(lua_State *L, int claims, const char *claim, int wanted) {
  lua_getfield(L, claims, claim);
  bool found = lua_rawequal(L, -1, wanted);
  lua_Integer n = lua_istable(L, -1) ? (lua_Integer)lua_rawlen(L, -1) : 0;
  for (lua_Integer i = 1; i <= n && !found; i++) {
    lua_rawgeti(L, -1, i);
    found = lua_rawequal(L, -1, wanted);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return found;
}

/*** Checks a token and gives its claims.
 * @param token string  @param key string the shared secret of HS256; the RSA public key of RS256
 * @param options { algorithm: "HS256"|"RS256", now?: integer, leeway?: number, issuer?: string, audience?: string }
 *  now in ms, the clock where absent; leeway in seconds, 0 where absent
 * @return table? claims, or nil, why, code: "format", "algorithm" (not the one asked for), "signature", "time", "issuer", "audience", "key".
 * A token that names an audience is refused unless options name it. */
static int verify(lua_State *L) {
  static const char *const names[] = {"algorithm", "now", "leeway", "issuer", "audience", NULL};
  size_t len;
  const char *token = luaL_checklstring(L, 1, &len), *why;
  luaL_checktype(L, 3, LUA_TTABLE);
  np_crypto_check_options(L, 3, names);
  bool rsa = check_algorithm(L, 3);
  struct np_part key = check_key(L, 2, rsa), parts[3];
  double now = check_number(L, 3, "now", (double)np_now_ms()) / 1000, leeway = check_number(L, 3, "leeway", 0);
  bool issuer = np_crypto_option(L, 3, "issuer", NULL), audience = np_crypto_option(L, 3, "audience", NULL);
  lua_settop(L, 3);
  lua_getfield(L, 3, "issuer");   /* 4 */
  lua_getfield(L, 3, "audience"); /* 5 */

  if (len > TOKEN_MAX || !split(token, len, parts) || !push_part(L, parts[0])) return refuse(L, "it is not a signed JWT", "format");
  lua_getfield(L, 6, "alg");
  lua_pushstring(L, rsa ? "RS256" : "HS256");
  if (!lua_rawequal(L, -1, -2)) return refuse(L, "it is not signed with the algorithm asked for", "algorithm");
  if (lua_getfield(L, 6, "crit") != LUA_TNIL) return refuse(L, "its header asks for an extension", "format");
  struct np_part text = {token, (size_t)((const char *)parts[2].bytes - token) - 1};
  int good = check_signature(rsa, key, text, parts[2], &why);
  if (good < 0) return np_crypto_no(L, "key", why, "key");
  if (!good) return refuse(L, "its signature is wrong", "signature");

  lua_settop(L, 5);
  if (!push_part(L, parts[1])) return refuse(L, "its claims are not an object", "format"); /* 6 */
  if ((why = check_times(L, 6, now, leeway))) return refuse(L, why, "time");
  if (issuer && !claim_names(L, 6, "iss", 4)) return refuse(L, "it is from another issuer", "issuer");
  bool addressed = lua_getfield(L, 6, "aud") != LUA_TNIL;
  lua_settop(L, 6);
  /* a token for an audience is refused by who has not said to be it (RFC 7519, 4.1.3) */
  if (audience ? !claim_names(L, 6, "aud", 5) : addressed) return refuse(L, "it is for another audience", "audience");
  return 1;
}

const luaL_Reg np_crypto_jwt[] = {{"sign", sign}, {"verify", verify}, {NULL, NULL}};
