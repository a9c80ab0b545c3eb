/* What the files of neap.crypto share; neap.webhooks uses the digest part. Any thread; OpenSSL's error queue of the thread is left empty,
 * because the TLS code of libcurl and libevent reads the same queue. */
#ifndef NP_LIB_CRYPTO_H
#define NP_LIB_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>
#include <openssl/evp.h>

#include "lib/spend.h"

/* The world said no: pushes nil, "what: why", code and returns 3. */
int np_crypto_no(lua_State *L, const char *what, const char *why, const char *code);
/* Raises where the options at idx are neither absent nor a table, or hold a name that is not in names (ended by NULL). */
void np_crypto_check_options(lua_State *L, int idx, const char *const names[]);
/* The string in field name of the options at idx, or preset where it is absent. Raises on another type. Borrowed from the table. */
const char *np_crypto_option(lua_State *L, int idx, const char *name, const char *preset);

/* crypto_text.c: hex and base64 (RFC 4648). Lengths in bytes; what is decoded may overwrite neither source nor its end. */
#define NP_HEX_SIZE(n) ((n)*2)
#define NP_BASE64_SIZE(n) (((n) + 2) / 3 * 4)
enum np_base64 {
  NP_BASE64_STRICT,    /* standard alphabet, padding required */
  NP_BASE64_URL,       /* URL alphabet, padding refused */
  NP_BASE64_URL_EITHER /* URL alphabet, whole padding or none */
};
void np_hex(char *out, const void *bytes, size_t n);
/* Writes at most NP_BASE64_SIZE(n) characters and returns how many. */
size_t np_base64(char *out, const void *bytes, size_t n, bool url);
/* Writes at most n / 4 * 3 + 2 bytes and returns how many; -1 for a character, length, padding or trailing bit that does not belong. */
ptrdiff_t np_unbase64(uint8_t *out, const char *text, size_t n, enum np_base64 form);

/* crypto_digest.c. A part of what is hashed, so that nobody has to join strings first. */
struct np_part {
  const void *bytes; /* borrowed */
  size_t len;
};
/* "md5", "sha1", "sha256", "sha384", "sha512", or NULL. Immutable, shared by all threads, never freed. */
const EVP_MD *np_digest_find(const char *name);
/* The same for a name that a plugin gave; raises on an unknown one. */
const EVP_MD *np_digest_check(lua_State *L, const char *name);
/* RFC 2104 over the parts in order; out has room for EVP_MAX_MD_SIZE. Returns the length, 0 where OpenSSL fails. */
size_t np_hmac(const EVP_MD *md, const void *key, size_t key_len, const struct np_part *parts, size_t count, uint8_t *out);

/* crypto_rsa.c: what JWT needs. */
enum np_rsa_padding { NP_RSA_PKCS1, NP_RSA_OTHER }; /* OTHER: OAEP to encrypt, PSS to sign */
#define NP_RSA_MAX_BITS 8192
/* An RSA key out of PEM or unarmoured base64 DER. NULL and *why, a static sentence. The caller frees it with EVP_PKEY_free. */
/* An operation with a key of n bits takes as long as some n³ / 10⁵ instructions; the length of its text tells n well enough. */
void np_rsa_spend(lua_State *L, size_t text_len);
EVP_PKEY *np_rsa_key(const char *text, size_t len, bool private, const char **why);
/* Signs text; sig has room for NP_RSA_MAX_BITS / 8. Returns the length, 0 on failure. */
size_t np_rsa_sign(EVP_PKEY *key, const EVP_MD *md, enum np_rsa_padding padding, struct np_part text, uint8_t *sig);
bool np_rsa_verify(EVP_PKEY *key, const EVP_MD *md, enum np_rsa_padding padding, struct np_part text, struct np_part sig);

/* The functions of each file, ended by NULL; crypto.c makes the module of them. */
extern const luaL_Reg np_crypto_text[], np_crypto_digest[], np_crypto_cipher[], np_crypto_password[];
extern const luaL_Reg np_crypto_rsa[], np_crypto_jwt[]; /* tables of their own */
void np_crypto_password_open(lua_State *L);             /* once, before its functions are called */

#endif
