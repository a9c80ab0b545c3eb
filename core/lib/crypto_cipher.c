/* AES-256-GCM (NIST SP 800-38D): seal and open, which cannot be held wrong, and the bare pair for a vendor's format. */
#include <limits.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/rand.h>

#include "lib/crypto.h"

enum { KEY = 32, NONCE = 12, TAG = 16 };

struct job {
  const uint8_t *key, *nonce; /* borrowed */
  struct np_part text, aad;
};

static bool encrypt(const struct job *j, uint8_t *out, uint8_t *tag) {
  EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
  int n = 0;
  bool ok = ctx && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, j->key, j->nonce) == 1 &&
            EVP_EncryptUpdate(ctx, NULL, &n, j->aad.bytes, (int)j->aad.len) == 1 &&
            EVP_EncryptUpdate(ctx, out, &n, j->text.bytes, (int)j->text.len) == 1 && EVP_EncryptFinal_ex(ctx, out + n, &n) == 1 &&
            EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, tag) == 1;
  EVP_CIPHER_CTX_free(ctx);
  ERR_clear_error();
  return ok;
}

/* out holds nothing to be used unless this is true. */
static bool decrypt(const struct job *j, uint8_t *out, const uint8_t *tag) {
  uint8_t expected[TAG];
  memcpy(expected, tag, TAG); /* the call takes it without const */
  EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
  int n = 0;
  bool ok = ctx && EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, j->key, j->nonce) == 1 &&
            EVP_DecryptUpdate(ctx, NULL, &n, j->aad.bytes, (int)j->aad.len) == 1 &&
            EVP_DecryptUpdate(ctx, out, &n, j->text.bytes, (int)j->text.len) == 1 &&
            EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG, expected) == 1 && EVP_DecryptFinal_ex(ctx, out + n, &n) == 1;
  EVP_CIPHER_CTX_free(ctx);
  ERR_clear_error();
  return ok;
}

static const uint8_t *check_sized(lua_State *L, int idx, size_t size, const char *why) {
  size_t n;
  const char *s = luaL_checklstring(L, idx, &n);
  luaL_argcheck(L, n == size, idx, why);
  return (const uint8_t *)s;
}

static const uint8_t *check_key(lua_State *L) {
  return check_sized(L, 1, KEY, "a key of 32 bytes is needed; crypto.random(32) makes one");
}
static const uint8_t *check_nonce(lua_State *L) { return check_sized(L, 2, NONCE, "a nonce of 12 bytes is needed"); }

/* A text of at most 2 GB less what stands around it; absent is empty where optional. */
static struct np_part check_part(lua_State *L, int idx, bool optional) {
  struct np_part p = {"", 0};
  if (!optional || !lua_isnoneornil(L, idx)) p.bytes = luaL_checklstring(L, idx, &p.len);
  luaL_argcheck(L, p.len <= INT_MAX - 64, idx, "longer than 2 GB");
  np_spend(L, (int64_t)(p.len / 4));
  return p;
}

/*** Encrypts so that nobody without the key reads it or alters it unseen. The nonce is random: one key is good for 2^32 boxes.
 * @param key string 32 bytes  @param text string  @param aad? string bound to the box, not in it  @return string nonce, ciphertext, tag */
static int seal(lua_State *L) {
  struct job j = {.key = check_key(L), .text = check_part(L, 2, false), .aad = check_part(L, 3, true)};
  size_t len = NONCE + j.text.len + TAG;
  luaL_Buffer b;
  uint8_t *out = (uint8_t *)luaL_buffinitsize(L, &b, len);
  j.nonce = out;
  if (RAND_bytes(out, NONCE) != 1 || !encrypt(&j, out + NONCE, out + NONCE + j.text.len)) {
    ERR_clear_error();
    return luaL_error(L, "seal: OpenSSL refuses");
  }
  luaL_pushresultsize(&b, len);
  return 1;
}

/*** Opens what seal made.
 * @param key string 32 bytes  @param box string  @param aad? string as it was given to seal
 * @return string? text, or nil, why, "format" (too short) or "decrypt" (another key or aad, or altered) */
static int open_box(lua_State *L) {
  const uint8_t *key = check_key(L);
  struct np_part box = check_part(L, 2, false), aad = check_part(L, 3, true);
  if (box.len < NONCE + TAG) return np_crypto_no(L, "open", "too short to be sealed", "format");
  const uint8_t *in = box.bytes;
  struct job j = {.key = key, .nonce = in, .text = {in + NONCE, box.len - NONCE - TAG}, .aad = aad};
  luaL_Buffer b;
  uint8_t *out = (uint8_t *)luaL_buffinitsize(L, &b, j.text.len);
  if (!decrypt(&j, out, in + box.len - TAG)) return np_crypto_no(L, "open", "another key, or altered", "decrypt");
  luaL_pushresultsize(&b, j.text.len);
  return 1;
}

/*** For a vendor's own format. Never use a nonce twice under one key; where the format is yours to choose, use seal.
 * @param key string 32 bytes  @param nonce string 12 bytes  @param text string  @param aad? string
 * @return string ciphertext  @return string tag 16 bytes */
static int gcm_encrypt(lua_State *L) {
  struct job j = {check_key(L), check_nonce(L), check_part(L, 3, false), check_part(L, 4, true)};
  uint8_t tag[TAG];
  luaL_Buffer b;
  uint8_t *out = (uint8_t *)luaL_buffinitsize(L, &b, j.text.len);
  if (!encrypt(&j, out, tag)) return luaL_error(L, "aes_gcm_encrypt: OpenSSL refuses");
  luaL_pushresultsize(&b, j.text.len);
  lua_pushlstring(L, (const char *)tag, TAG);
  return 2;
}

/*** Undoes aes_gcm_encrypt. A tag of another length than 16 bytes is refused.
 * @param key string  @param nonce string  @param ciphertext string  @param tag string  @param aad? string
 * @return string? text, or nil, why, "format" (tag) or "decrypt" */
static int gcm_decrypt(lua_State *L) {
  struct job j = {check_key(L), check_nonce(L), check_part(L, 3, false), check_part(L, 5, true)};
  struct np_part tag = check_part(L, 4, false);
  if (tag.len != TAG) return np_crypto_no(L, "aes_gcm_decrypt", "the tag has to have 16 bytes", "format");
  luaL_Buffer b;
  uint8_t *out = (uint8_t *)luaL_buffinitsize(L, &b, j.text.len);
  if (!decrypt(&j, out, tag.bytes)) return np_crypto_no(L, "aes_gcm_decrypt", "another key, or altered", "decrypt");
  luaL_pushresultsize(&b, j.text.len);
  return 1;
}

const luaL_Reg np_crypto_cipher[] = {
    {"seal", seal}, {"open", open_box}, {"aes_gcm_encrypt", gcm_encrypt}, {"aes_gcm_decrypt", gcm_decrypt}, {NULL, NULL}};
