/* neap.crypto.rsa: keys out of PEM or base64, encryption, signatures (RFC 8017). PKCS#1 v1.5 unless asked, because vendors still use it. */
#include <string.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "lib/crypto.h"

#define RSA_MIN_BITS 1024
#define RSA_MAX_BYTES (NP_RSA_MAX_BITS / 8)
#define KEY_TEXT_MAX 16384

/* Narrows *text to what stands between the armour's lines; false where armour was opened and not closed. */
static bool unarmour(const char **text, size_t *len) {
  static const char begin[] = "-----BEGIN ", end[] = "-----END ", dashes[] = "-----";
  const char *from = memmem(*text, *len, begin, sizeof begin - 1), *last = *text + *len;
  if (!from) return true;
  from += sizeof begin - 1;
  from = memmem(from, (size_t)(last - from), dashes, sizeof dashes - 1);
  if (!from) return false;
  from += sizeof dashes - 1;
  const char *to = memmem(from, (size_t)(last - from), end, sizeof end - 1);
  if (!to) return false;
  *text = from;
  *len = (size_t)(to - from);
  return true;
}

static EVP_PKEY *parse_private(const uint8_t *der, long len) {
  const uint8_t *p = der;
  EVP_PKEY *key = NULL;
  PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, len);
  if (info && p == der + len) key = EVP_PKCS82PKEY(info);
  PKCS8_PRIV_KEY_INFO_free(info);
  if (info) return key;
  p = der;
  return d2i_PrivateKey(EVP_PKEY_RSA, NULL, &p, len);
}

static EVP_PKEY *parse_public(const uint8_t *der, long len) {
  const uint8_t *p = der;
  EVP_PKEY *key = d2i_PUBKEY(NULL, &p, len);
  if (!key) {
    p = der;
    key = d2i_PublicKey(EVP_PKEY_RSA, NULL, &p, len);
  }
  if (key && p != der + len) {
    EVP_PKEY_free(key);
    key = NULL;
  }
  return key;
}

/* Armour is taken off here, not by OpenSSL, which would ask on the terminal for a key's passphrase; nor does it read a PEM pasted on one line. */
EVP_PKEY *np_rsa_key(const char *text, size_t len, bool private, const char **why) {
  char packed[KEY_TEXT_MAX];
  uint8_t der[KEY_TEXT_MAX / 4 * 3 + 2];
  EVP_PKEY *key = NULL;
  size_t n = 0;
  if (len > KEY_TEXT_MAX) {
    *why = "the key's text is longer than 16 KB";
    return NULL;
  }
  if (memmem(text, len, "ENCRYPTED", 9)) {
    *why = "the key is locked with a passphrase; unlock it with openssl pkey";
    return NULL;
  }
  bool whole = unarmour(&text, &len);
  for (size_t i = 0; whole && i < len; i++)
    if (!strchr(" \t\r\n", text[i]) || !text[i]) packed[n++] = text[i];
  ptrdiff_t der_len = whole && n ? np_unbase64(der, packed, n, NP_BASE64_STRICT) : -1;
  if (der_len < 0)
    *why = "the key's text is neither PEM nor base64";
  else {
    key = private ? parse_private(der, (long)der_len) : parse_public(der, (long)der_len);
    *why = private ? "there is no RSA private key in the text" : "there is no RSA public key in the text";
    OPENSSL_cleanse(der, (size_t)der_len);
  }
  OPENSSL_cleanse(packed, n);
  if (key && !EVP_PKEY_is_a(key, "RSA")) {
    EVP_PKEY_free(key);
    key = NULL;
  } else if (key && (EVP_PKEY_get_bits(key) < RSA_MIN_BITS || EVP_PKEY_get_bits(key) > NP_RSA_MAX_BITS)) {
    *why = "RSA keys of 1024 to 8192 bits are taken";
    EVP_PKEY_free(key);
    key = NULL;
  }
  ERR_clear_error();
  return key;
}

/* Padding for a signature; PSS with a salt as long as the digest, as RFC 7518 has it, or any when verifying. */
static bool pad_signature(EVP_PKEY_CTX *ctx, enum np_rsa_padding padding, int salt) {
  if (padding == NP_RSA_PKCS1) return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1;
  return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 && EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, salt) == 1;
}

size_t np_rsa_sign(EVP_PKEY *key, const EVP_MD *md, enum np_rsa_padding padding, struct np_part text, uint8_t *sig) {
  EVP_MD_CTX *ctx = EVP_MD_CTX_new();
  EVP_PKEY_CTX *inner; /* borrowed from ctx */
  size_t len = RSA_MAX_BYTES;
  bool ok = ctx && EVP_DigestSignInit(ctx, &inner, md, NULL, key) == 1 && pad_signature(inner, padding, RSA_PSS_SALTLEN_DIGEST) &&
            EVP_DigestSign(ctx, sig, &len, text.bytes, text.len) == 1;
  EVP_MD_CTX_free(ctx);
  ERR_clear_error();
  return ok ? len : 0;
}

bool np_rsa_verify(EVP_PKEY *key, const EVP_MD *md, enum np_rsa_padding padding, struct np_part text, struct np_part sig) {
  EVP_MD_CTX *ctx = EVP_MD_CTX_new();
  EVP_PKEY_CTX *inner; /* borrowed from ctx */
  bool ok = ctx && EVP_DigestVerifyInit(ctx, &inner, md, NULL, key) == 1 && pad_signature(inner, padding, RSA_PSS_SALTLEN_AUTO) &&
            EVP_DigestVerify(ctx, sig.bytes, sig.len, text.bytes, text.len) == 1;
  EVP_MD_CTX_free(ctx);
  ERR_clear_error();
  return ok;
}

struct scheme {
  enum np_rsa_padding padding;
  const EVP_MD *hash, *mask; /* mask: of OAEP's MGF1 */
};

/* The options at idx. other is what NP_RSA_OTHER is called here. */
static struct scheme check_scheme(lua_State *L, int idx, const char *other, const char *hash) {
  static const char *const names[] = {"padding", "hash", "mgf1", NULL}, *const sign_names[] = {"padding", "hash", NULL};
  bool oaep = strcmp(other, "oaep") == 0;
  np_crypto_check_options(L, idx, oaep ? names : sign_names);
  const char *padding = np_crypto_option(L, idx, "padding", "pkcs1");
  struct scheme s = {.padding = strcmp(padding, other) == 0 ? NP_RSA_OTHER : NP_RSA_PKCS1};
  if (s.padding == NP_RSA_PKCS1 && strcmp(padding, "pkcs1") != 0)
    luaL_argerror(L, idx, lua_pushfstring(L, "unknown padding \"%s\": pkcs1 or %s", padding, other));
  hash = np_crypto_option(L, idx, "hash", hash);
  s.hash = np_digest_check(L, hash);
  s.mask = np_digest_check(L, oaep ? np_crypto_option(L, idx, "mgf1", hash) : hash);
  return s;
}

static bool pad_text(EVP_PKEY_CTX *ctx, const struct scheme *s) {
  if (s->padding == NP_RSA_PKCS1) return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1;
  return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 && EVP_PKEY_CTX_set_rsa_oaep_md(ctx, s->hash) == 1 &&
         EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, s->mask) == 1;
}

/* Bytes that the padding needs. */
static size_t taken_by(const struct scheme *s) {
  return s->padding == NP_RSA_PKCS1 ? 11 : 2 + 2 * (size_t)EVP_MD_get_size(s->hash);
}

void np_rsa_spend(lua_State *L, size_t text_len) {
  int64_t bits = (int64_t)(text_len < KEY_TEXT_MAX ? text_len : KEY_TEXT_MAX) * 5 / 4;
  np_spend(L, bits * bits / 100000 * bits + (int64_t)text_len);
}

static int refuse_key(lua_State *L, const char *what, const char *why) { return np_crypto_no(L, what, why, "key"); }

/*** Encrypts a short text for the owner of a private key.
 * @param public string PEM (SPKI or PKCS#1), or its base64 alone  @param s string
 * @param options? { padding?: "pkcs1"|"oaep", hash?: "sha1"|"sha256", mgf1?: "sha1"|"sha256" }
 *  PKCS#1 v1.5 where absent; OAEP with SHA-1, mgf1 as hash
 * @return string? ciphertext as long as the key, or nil, why, "key" or "length" (at most the key's bytes less 11, OAEP: less 2 and two digests) */
static int encrypt(lua_State *L) {
  size_t key_len, out_len = RSA_MAX_BYTES;
  const char *key_text = luaL_checklstring(L, 1, &key_len), *why;
  struct np_part text;
  text.bytes = luaL_checklstring(L, 2, &text.len);
  struct scheme s = check_scheme(L, 3, "oaep", "sha1");
  np_rsa_spend(L, key_len);
  uint8_t out[RSA_MAX_BYTES];
  EVP_PKEY *key = np_rsa_key(key_text, key_len, false, &why);
  if (!key) return refuse_key(L, "encrypt", why);
  bool fits = text.len + taken_by(&s) <= (size_t)EVP_PKEY_get_size(key);
  EVP_PKEY_CTX *ctx = fits ? EVP_PKEY_CTX_new(key, NULL) : NULL;
  bool ok = ctx && EVP_PKEY_encrypt_init(ctx) == 1 && pad_text(ctx, &s) &&
            EVP_PKEY_encrypt(ctx, out, &out_len, text.bytes, text.len) == 1;
  EVP_PKEY_CTX_free(ctx);
  EVP_PKEY_free(key);
  if (!fits) return np_crypto_no(L, "encrypt", "the text is too long for the key", "length");
  if (!ok) return refuse_key(L, "encrypt", "OpenSSL refuses the key");
  lua_pushlstring(L, (const char *)out, out_len);
  return 1;
}

/*** Decrypts. Whatever is wrong with the ciphertext, the answer is the same; let nobody who sends ciphertexts tell success from failure, for
 * PKCS#1 v1.5 gives the text away to who can ask often enough (Bleichenbacher). An OpenSSL of 3.2 or later answers bad padding with random bytes.
 * @param private string PEM (PKCS#8 or PKCS#1), or its base64 alone  @param s string
 * @param options? { padding?: "pkcs1"|"oaep", hash?: "sha1"|"sha256", mgf1?: "sha1"|"sha256" } as for encrypt
 * @return string? text, or nil, why, "key" or "decrypt" */
static int decrypt(lua_State *L) {
  size_t key_len, out_len = RSA_MAX_BYTES;
  const char *key_text = luaL_checklstring(L, 1, &key_len), *why;
  struct np_part text;
  text.bytes = luaL_checklstring(L, 2, &text.len);
  struct scheme s = check_scheme(L, 3, "oaep", "sha1");
  np_rsa_spend(L, key_len);
  uint8_t out[RSA_MAX_BYTES];
  EVP_PKEY *key = np_rsa_key(key_text, key_len, true, &why);
  if (!key) return refuse_key(L, "decrypt", why);
  EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
  bool ok = ctx && EVP_PKEY_decrypt_init(ctx) == 1 && pad_text(ctx, &s) &&
            EVP_PKEY_decrypt(ctx, out, &out_len, text.bytes, text.len) == 1;
  EVP_PKEY_CTX_free(ctx);
  EVP_PKEY_free(key);
  if (!ok) {
    ERR_clear_error();
    lua_pushnil(L);
    lua_pushliteral(L, "decrypt: failed");
    lua_pushliteral(L, "decrypt");
    return 3;
  }
  lua_pushlstring(L, (const char *)out, out_len);
  OPENSSL_cleanse(out, out_len);
  return 1;
}

/* EME-PKCS1-v1_5 (RFC 8017 7.2.1): 0 2, eight or more bytes that are not 0, 0, the text. Each byte is looked at, whatever those
 * before it were. */
static unsigned not_pkcs1(const uint8_t *em, size_t size, struct np_part text) {
  const uint8_t *wanted = text.bytes;
  size_t start = size - text.len;
  unsigned bad = em[0] | (em[1] ^ 2u) | em[start - 1];
  for (size_t i = 2; i < start - 1; i++) bad |= (em[i] - 1u) >> 8 & 1u; /* 1 for a 0 alone */
  for (size_t i = 0; i < text.len; i++) bad |= em[start + i] ^ wanted[i];
  return bad;
}

/* Whether raw decryption gives the text, padded. One bit comes out, and nothing on the way depends on what was decrypted. */
static bool holds_pkcs1(EVP_PKEY_CTX *ctx, size_t size, struct np_part box, struct np_part text) {
  uint8_t em[RSA_MAX_BYTES] = {0};
  size_t len = sizeof em;
  bool ok = EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_NO_PADDING) == 1 &&
            EVP_PKEY_decrypt(ctx, em, &len, box.bytes, box.len) == 1; /* fails only past the modulus, which is public */
  bool held = ok && len == size && not_pkcs1(em, size, text) == 0;
  OPENSSL_cleanse(em, sizeof em);
  return held;
}

static bool holds_oaep(EVP_PKEY_CTX *ctx, const struct scheme *s, struct np_part box, struct np_part text) {
  uint8_t out[RSA_MAX_BYTES] = {0};
  size_t len = sizeof out;
  bool ok = pad_text(ctx, s) && EVP_PKEY_decrypt(ctx, out, &len, box.bytes, box.len) == 1 && len == text.len;
  bool held = (CRYPTO_memcmp(out, text.bytes, text.len) == 0) & ok;
  OPENSSL_cleanse(out, sizeof out);
  return held;
}

/*** Tells whether a ciphertext is one of this text, for a secret that a client sends encrypted. It says this and nothing else, in the same time
 * whatever the ciphertext was decrypted to: padding that is wrong cannot be told from a text that is (as with decrypt it can, see there).
 * @param private string as for decrypt  @param ciphertext string  @param text string
 * @param options? { padding?: "pkcs1"|"oaep", hash?: "sha1"|"sha256", mgf1?: "sha1"|"sha256" } as for encrypt
 * @return boolean? or nil, why, "key" or "length" (no ciphertext of this key can hold so long a text) */
static int holds(lua_State *L) {
  size_t key_len;
  const char *key_text = luaL_checklstring(L, 1, &key_len), *why;
  struct np_part box, text;
  box.bytes = luaL_checklstring(L, 2, &box.len);
  text.bytes = luaL_checklstring(L, 3, &text.len);
  struct scheme s = check_scheme(L, 4, "oaep", "sha1");
  np_rsa_spend(L, key_len);
  EVP_PKEY *key = np_rsa_key(key_text, key_len, true, &why);
  if (!key) return refuse_key(L, "holds", why);
  size_t size = (size_t)EVP_PKEY_get_size(key);
  bool fits = text.len + taken_by(&s) <= size, held = false;
  EVP_PKEY_CTX *ctx = fits && box.len == size ? EVP_PKEY_CTX_new(key, NULL) : NULL;
  if (ctx && EVP_PKEY_decrypt_init(ctx) == 1)
    held = s.padding == NP_RSA_PKCS1 ? holds_pkcs1(ctx, size, box, text) : holds_oaep(ctx, &s, box, text);
  EVP_PKEY_CTX_free(ctx);
  EVP_PKEY_free(key);
  ERR_clear_error();
  if (!fits) return np_crypto_no(L, "holds", "the text is too long for the key", "length");
  lua_pushboolean(L, held);
  return 1;
}

/*** Signs.
 * @param private string as for decrypt  @param s string
 * @param options? { hash?: string, padding?: "pkcs1"|"pss" } "sha256" and "pkcs1" where absent  @return string? signature, or nil, why, "key" */
static int sign(lua_State *L) {
  size_t key_len;
  const char *key_text = luaL_checklstring(L, 1, &key_len), *why;
  struct np_part text;
  text.bytes = luaL_checklstring(L, 2, &text.len);
  struct scheme s = check_scheme(L, 3, "pss", "sha256");
  np_rsa_spend(L, key_len);
  np_spend(L, (int64_t)(text.len / 4));
  uint8_t sig[RSA_MAX_BYTES];
  EVP_PKEY *key = np_rsa_key(key_text, key_len, true, &why);
  if (!key) return refuse_key(L, "sign", why);
  size_t len = np_rsa_sign(key, s.hash, s.padding, text, sig);
  EVP_PKEY_free(key);
  if (!len) return refuse_key(L, "sign", "OpenSSL refuses the key");
  lua_pushlstring(L, (const char *)sig, len);
  return 1;
}

/*** Tells whether the owner of the private key signed s.
 * @param public string as for encrypt  @param s string  @param signature string bytes
 * @param options? { hash?: string, padding?: "pkcs1"|"pss" } as for sign
 * @return boolean? or nil, why, "key" */
static int verify(lua_State *L) {
  size_t key_len;
  const char *key_text = luaL_checklstring(L, 1, &key_len), *why;
  struct np_part text, sig;
  text.bytes = luaL_checklstring(L, 2, &text.len);
  sig.bytes = luaL_checklstring(L, 3, &sig.len);
  struct scheme s = check_scheme(L, 4, "pss", "sha256");
  np_rsa_spend(L, key_len);
  np_spend(L, (int64_t)(text.len / 4));
  EVP_PKEY *key = np_rsa_key(key_text, key_len, false, &why);
  if (!key) return refuse_key(L, "verify", why);
  bool good = np_rsa_verify(key, s.hash, s.padding, text, sig);
  EVP_PKEY_free(key);
  lua_pushboolean(L, good);
  return 1;
}

/* A search for primes can be cut short. */
static int goes_on(EVP_PKEY_CTX *ctx) { return np_goes_on(EVP_PKEY_CTX_get_app_data(ctx)); }

static EVP_PKEY *make_key(lua_State *L, int bits) {
  EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
  EVP_PKEY *key = NULL;
  if (ctx && EVP_PKEY_keygen_init(ctx) == 1 && EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, bits) == 1) {
    EVP_PKEY_CTX_set_app_data(ctx, L);
    EVP_PKEY_CTX_set_cb(ctx, goes_on);
    EVP_PKEY_generate(ctx, &key);
  }
  EVP_PKEY_CTX_free(ctx);
  return key;
}

/* Both PEM texts of a new key, terminated. */
static bool make_pair(lua_State *L, int bits, char *private, char *public, int size) {
  EVP_PKEY *key = make_key(L, bits);
  BIO *a = BIO_new(BIO_s_secmem()), *b = BIO_new(BIO_s_mem());
  int n = 0, m = 0;
  bool ok = key && a && b && PEM_write_bio_PKCS8PrivateKey(a, key, NULL, NULL, 0, NULL, NULL) == 1 &&
            PEM_write_bio_PUBKEY(b, key) == 1 && (n = BIO_read(a, private, size - 1)) > 0 &&
            (m = BIO_read(b, public, size - 1)) > 0;
  private[ok ? n : 0] = public[ok ? m : 0] = 0;
  BIO_free(a);
  BIO_free(b);
  EVP_PKEY_free(key);
  ERR_clear_error();
  return ok;
}

/*** Makes a key pair. Takes a tenth of a second for 2048 bits, seconds for 4096, in which the lane does nothing else; it counts as 5 million
 * instructions for 2048 bits and as 40 million for 4096.
 * @param bits? integer 2048 to 4096  @return { private: string, public: string } PKCS#8 PEM and SPKI PEM */
static int generate(lua_State *L) {
  lua_Integer bits = luaL_optinteger(L, 1, 2048);
  luaL_argcheck(L, bits >= 2048 && bits <= 4096, 1, "2048 to 4096 bits");
  char private[8192], public[8192];
  np_spend(L, bits * bits * bits / 1680);
  if (!make_pair(L, (int)bits, private, public, sizeof private)) {
    np_spend(L, 0); /* it was cut short */
    return luaL_error(L, "generate: OpenSSL refuses");
  }
  lua_createtable(L, 0, 2);
  lua_pushstring(L, private);
  lua_setfield(L, -2, "private");
  lua_pushstring(L, public);
  lua_setfield(L, -2, "public");
  OPENSSL_cleanse(private, sizeof private);
  return 1;
}

const luaL_Reg np_crypto_rsa[] = {{"generate", generate}, {"encrypt", encrypt}, {"decrypt", decrypt}, {"holds", holds},
                                  {"sign", sign},         {"verify", verify},   {NULL, NULL}};
