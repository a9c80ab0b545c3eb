/* Digests and HMAC. The algorithms are fetched once for the process: looking one up costs as much as hashing a short message. */
#include <pthread.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>

#include "lib/crypto.h"

static struct digest {
  const char *name, *openssl; /* static */
  EVP_MD *md;                 /* set once, before anybody reads it; NULL where this OpenSSL has it switched off */
} digests[] = {{"md5", "MD5", NULL},
               {"sha1", "SHA1", NULL},
               {"sha256", "SHA2-256", NULL},
               {"sha384", "SHA2-384", NULL},
               {"sha512", "SHA2-512", NULL}};

static void fetch_digests(void) {
  for (size_t i = 0; i < sizeof digests / sizeof *digests; i++) digests[i].md = EVP_MD_fetch(NULL, digests[i].openssl, NULL);
  ERR_clear_error();
}

const EVP_MD *np_digest_find(const char *name) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, fetch_digests);
  for (size_t i = 0; i < sizeof digests / sizeof *digests; i++)
    if (strcmp(digests[i].name, name) == 0) return digests[i].md;
  return NULL;
}

const EVP_MD *np_digest_check(lua_State *L, const char *name) {
  const EVP_MD *md = np_digest_find(name);
  if (!md) luaL_error(L, "unknown algorithm \"%s\": md5, sha1, sha256, sha384 or sha512", name);
  return md;
}

/* RFC 2104 by hand: OpenSSL's own HMAC finds its digest by name at each call, which takes three times as long. */
size_t np_hmac(const EVP_MD *md, const void *key, size_t key_len, const struct np_part *parts, size_t count, uint8_t *out) {
  uint8_t pad[128] = {0};
  unsigned len = 0;
  size_t block = (size_t)EVP_MD_get_block_size(md);
  EVP_MD_CTX *ctx = EVP_MD_CTX_new();
  bool ok = ctx && block <= sizeof pad;
  if (ok && key_len > block)
    ok = EVP_Digest(key, key_len, pad, NULL, md, NULL) == 1;
  else if (ok)
    memcpy(pad, key, key_len);
  for (size_t i = 0; i < block; i++) pad[i] ^= 0x36;
  ok = ok && EVP_DigestInit_ex(ctx, md, NULL) == 1 && EVP_DigestUpdate(ctx, pad, block) == 1;
  for (size_t i = 0; i < count; i++) ok = ok && EVP_DigestUpdate(ctx, parts[i].bytes, parts[i].len) == 1;
  ok = ok && EVP_DigestFinal_ex(ctx, out, &len) == 1;
  for (size_t i = 0; i < block; i++) pad[i] ^= 0x36 ^ 0x5c;
  ok = ok && EVP_DigestInit_ex(ctx, NULL, NULL) == 1 && EVP_DigestUpdate(ctx, pad, block) == 1;
  ok = ok && EVP_DigestUpdate(ctx, out, len) == 1 && EVP_DigestFinal_ex(ctx, out, &len) == 1;
  OPENSSL_cleanse(pad, sizeof pad);
  EVP_MD_CTX_free(ctx);
  ERR_clear_error();
  return ok ? len : 0;
}

enum form { HEX, RAW, BASE64 };

static enum form check_form(lua_State *L, int idx) {
  static const char *const names[] = {"hex", "raw", "base64", NULL};
  return (enum form)luaL_checkoption(L, idx, "hex", names);
}

static int push_form(lua_State *L, const uint8_t *bytes, size_t n, enum form form) {
  char text[NP_HEX_SIZE(EVP_MAX_MD_SIZE)];
  size_t len = NP_HEX_SIZE(n);
  if (!n) return luaL_error(L, "digest: OpenSSL refuses");
  if (form == RAW) {
    lua_pushlstring(L, (const char *)bytes, n);
    return 1;
  }
  if (form == HEX)
    np_hex(text, bytes, n);
  else
    len = np_base64(text, bytes, n, false);
  lua_pushlstring(L, text, len);
  return 1;
}

static int digest(lua_State *L, const char *name) {
  size_t n;
  const char *s = luaL_checklstring(L, 1, &n);
  enum form form = check_form(L, 2);
  const EVP_MD *md = np_digest_check(L, name);
  uint8_t out[EVP_MAX_MD_SIZE];
  unsigned len = 0;
  np_spend(L, (int64_t)(n / 4));
  if (EVP_Digest(s, n, out, &len, md, NULL) != 1) {
    len = 0;
    ERR_clear_error();
  }
  return push_form(L, out, len, form);
}

/*** Digests of a string. MD5 and SHA-1 are for vendors that ask for them; they resist nobody.
 * @param s string  @param form? "hex"|"raw"|"base64" "hex" (lower case) where absent  @return string */
static int md5(lua_State *L) { return digest(L, "md5"); }
static int sha1(lua_State *L) { return digest(L, "sha1"); }
static int sha256(lua_State *L) { return digest(L, "sha256"); }
static int sha512(lua_State *L) { return digest(L, "sha512"); }

/*** A keyed digest (RFC 2104). Compare with `equal`, not `==`.
 * @param algorithm "md5"|"sha1"|"sha256"|"sha384"|"sha512"  @param key string  @param s string
 * @param form? "hex"|"raw"|"base64"  @return string */
static int hmac(lua_State *L) {
  const EVP_MD *md = np_digest_check(L, luaL_checkstring(L, 1));
  size_t key_len;
  const char *key = luaL_checklstring(L, 2, &key_len);
  struct np_part part;
  part.bytes = luaL_checklstring(L, 3, &part.len);
  enum form form = check_form(L, 4);
  uint8_t out[EVP_MAX_MD_SIZE];
  np_spend(L, (int64_t)((part.len + key_len) / 4));
  return push_form(L, out, np_hmac(md, key, key_len, &part, 1, out), form);
}

const luaL_Reg np_crypto_digest[] = {{"md5", md5},       {"sha1", sha1}, {"sha256", sha256},
                                     {"sha512", sha512}, {"hmac", hmac}, {NULL, NULL}};
