/* Passwords of people, kept as scrypt (RFC 7914) in a text that says how it was made: $scrypt$ln=15,r=8,p=1$SALT$HASH, unpadded base64. */
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include "lib/crypto.h"

enum { LOG_N = 15, BLOCKS = 8, LANES = 1, SALT = 16, HASH = 32 };
enum { STORED_MAX = 256, PART_MAX = 64 };
#define MEMORY_MAX ((uint64_t)160 << 20)

struct stored {
  unsigned log_n, r, p;
  uint8_t salt[PART_MAX], hash[PART_MAX];
  size_t salt_len, hash_len;
};

/* Each of the N·r·p blocks takes as long as some twenty instructions. */
static void spend(lua_State *L, const struct stored *s) { np_spend(L, ((int64_t)s->r * s->p << s->log_n) * 20); }

static bool derive(const struct stored *s, const char *password, size_t len, uint8_t *out) {
  bool ok =
      EVP_PBE_scrypt(password, len, s->salt, s->salt_len, (uint64_t)1 << s->log_n, s->r, s->p, MEMORY_MAX, out, s->hash_len) == 1;
  ERR_clear_error();
  return ok;
}

/*** Makes the text to keep of a password. Takes 32 MB and a tenth of a second, in which the lane does nothing else; it counts as 5 million
 * instructions.
 * @param password string  @return string */
static int password_hash(lua_State *L) {
  size_t len;
  const char *password = luaL_checklstring(L, 1, &len);
  struct stored s = {.log_n = LOG_N, .r = BLOCKS, .p = LANES, .salt_len = SALT, .hash_len = HASH};
  spend(L, &s);
  if (RAND_bytes(s.salt, SALT) != 1 || !derive(&s, password, len, s.hash)) {
    ERR_clear_error();
    return luaL_error(L, "password_hash: OpenSSL refuses, or there is no memory");
  }
  char text[STORED_MAX];
  int n = snprintf(text, sizeof text, "$scrypt$ln=%u,r=%u,p=%u$", s.log_n, s.r, s.p);
  for (int part = 0; part < 2; part++) {
    n += (int)np_base64(text + n, part ? s.hash : s.salt, part ? HASH : SALT, false);
    while (text[n - 1] == '=') n--;
    if (!part) text[n++] = '$';
  }
  lua_pushlstring(L, text, (size_t)n);
  return 1;
}

/* One unpadded base64 part of 8 to 64 bytes. */
static bool read_part(const char *text, size_t n, uint8_t *out, size_t *len) {
  char padded[NP_BASE64_SIZE(PART_MAX)];
  uint8_t bytes[PART_MAX + 2];
  size_t whole = (n + 3) / 4 * 4;
  if (n % 4 == 1 || whole > sizeof padded || memchr(text, '=', n)) return false;
  memcpy(padded, text, n);
  memset(padded + n, '=', whole - n);
  ptrdiff_t got = np_unbase64(bytes, padded, whole, NP_BASE64_STRICT);
  if (got < 8 || got > PART_MAX) return false;
  memcpy(out, bytes, *len = (size_t)got);
  return true;
}

/* False where the text was not made by scrypt, or with costs beyond what a lane should bear. */
static bool read_stored(const char *text, struct stored *s) {
  int from = 0;
  if (sscanf(text, "$scrypt$ln=%2u,r=%2u,p=%2u$%n", &s->log_n, &s->r, &s->p, &from) != 3 || !from) return false;
  if (s->log_n < 10 || s->log_n > 17 || s->r < 1 || s->r > 16 || s->p < 1 || s->p > 4) return false;
  if (((uint64_t)128 * s->r << s->log_n) > (uint64_t)128 << 20) return false;
  const char *salt = text + from, *hash = strchr(salt, '$');
  return hash && read_part(salt, (size_t)(hash - salt), s->salt, &s->salt_len) &&
         read_part(hash + 1, strlen(hash + 1), s->hash, &s->hash_len);
}

/*** Tells whether the password is the one that the stored text was made of. Takes as long as password_hash.
 * @param password string  @param stored string
 * @return boolean? or nil, why, "format" where the stored text is none of scrypt's, or asks for more than 128 MB */
static int password_verify(lua_State *L) {
  size_t len, stored_len;
  const char *password = luaL_checklstring(L, 1, &len), *text = luaL_checklstring(L, 2, &stored_len);
  struct stored s;
  uint8_t out[PART_MAX];
  if (stored_len >= STORED_MAX || strlen(text) != stored_len || !read_stored(text, &s))
    return np_crypto_no(L, "password_verify", "the stored text is not one that this reads", "format");
  spend(L, &s);
  if (!derive(&s, password, len, out)) return luaL_error(L, "password_verify: OpenSSL refuses, or there is no memory");
  lua_pushboolean(L, CRYPTO_memcmp(out, s.hash, s.hash_len) == 0);
  return 1;
}

const luaL_Reg np_crypto_password[] = {{"password_hash", password_hash}, {"password_verify", password_verify}, {NULL, NULL}};
