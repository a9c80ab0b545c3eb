/* Sealing. Keys are derived with HMAC-SHA256: one for sealing, one for references, one for the check value; and from the first, one for each salt. */
#include "store/seal.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/buf.h"

enum { HEAD = 2, SALT = 16, NONCE = 12, TAG = 16 };
_Static_assert(HEAD + SALT + NONCE + TAG == NP_SEAL_MORE, "the parts of a sealed value");
static const unsigned char head[HEAD] = {0, 1};

struct np_seal {
  unsigned char sealing[NP_SEAL_KEY], references[NP_SEAL_KEY], check[16];
  EVP_CIPHER *cipher; /* owned */
  pthread_key_t mine; /* each thread's struct own */
};

struct own {                   /* a thread's */
  EVP_CIPHER_CTX *puts, *gets; /* owned; hold the keys of the salts below */
  unsigned char salt[SALT];    /* of puts */
  unsigned char got[SALT];     /* of gets */
  bool has_got;
  uint64_t count; /* sealed with this salt */
};

/* OpenSSL says no to what cannot be wrong: it lacks memory. */
static void needs(bool ok) {
  if (!ok) abort();
}

static void derive(const unsigned char *key, const void *label, size_t n, unsigned char out[NP_SEAL_KEY]) {
  unsigned len = NP_SEAL_KEY;
  needs(HMAC(EVP_sha256(), key, NP_SEAL_KEY, label, n, out, &len) && len == NP_SEAL_KEY);
}

static void own_free(void *p) {
  struct own *o = p;
  EVP_CIPHER_CTX_free(o->puts);
  EVP_CIPHER_CTX_free(o->gets);
  free(o);
}

/* A key of its own: by a salt that was never used. */
static void new_salt(struct np_seal *s, struct own *o) {
  unsigned char key[NP_SEAL_KEY];
  needs(getrandom(o->salt, SALT, 0) == SALT);
  derive(s->sealing, o->salt, SALT, key);
  needs(EVP_EncryptInit_ex2(o->puts, s->cipher, key, NULL, NULL) == 1);
  OPENSSL_cleanse(key, sizeof key);
  o->count = 0;
}

static struct own *own(struct np_seal *s) {
  struct own *o = pthread_getspecific(s->mine);
  if (o) return o;
  o = np_alloc(sizeof *o);
  o->puts = EVP_CIPHER_CTX_new();
  o->gets = EVP_CIPHER_CTX_new();
  needs(o->puts && o->gets && pthread_setspecific(s->mine, o) == 0);
  new_salt(s, o);
  return o;
}

struct np_seal *np_seal_new(const unsigned char key[NP_SEAL_KEY], struct np_error *err) {
  unsigned char check[NP_SEAL_KEY];
  struct np_seal *s = np_alloc(sizeof *s);
  s->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
  if (!s->cipher || pthread_key_create(&s->mine, own_free) != 0) {
    np_fail(err, s->cipher ? "too many threads' keys" : "this OpenSSL has no AES-256-GCM");
    EVP_CIPHER_free(s->cipher);
    ERR_clear_error();
    free(s);
    return NULL;
  }
  derive(key, "neap sealing 1", 14, s->sealing);
  derive(key, "neap references 1", 17, s->references);
  derive(key, "neap check 1", 12, check);
  memcpy(s->check, check, sizeof s->check);
  return s;
}

void np_seal_free(struct np_seal *s) {
  if (!s) return;
  struct own *o = pthread_getspecific(s->mine); /* other threads' went with them */
  if (o) own_free(o);
  pthread_key_delete(s->mine);
  EVP_CIPHER_free(s->cipher);
  OPENSSL_cleanse(s, sizeof *s);
  free(s);
}

bool np_seal_is(const void *value, size_t n) { return n >= NP_SEAL_MORE && memcmp(value, head, HEAD) == 0; }

/* The context counts as GCM's additional data, each part with its 0, so that none runs into the next. */
static bool add_context(EVP_CIPHER_CTX *x, const struct np_seal_context *c) {
  int n;
  return EVP_CipherUpdate(x, NULL, &n, (const unsigned char *)c->kind, (int)strlen(c->kind) + 1) == 1 &&
         EVP_CipherUpdate(x, NULL, &n, (const unsigned char *)c->where, (int)strlen(c->where) + 1) == 1 &&
         (!c->which_len || EVP_CipherUpdate(x, NULL, &n, (const unsigned char *)c->which, (int)c->which_len) == 1);
}

/* In steps, for a length is an int there. */
static bool run(EVP_CIPHER_CTX *x, const unsigned char *in, size_t n, unsigned char *out) {
  for (size_t step; n; n -= step, in += step, out += step) {
    int done;
    step = n < (1u << 30) ? n : 1u << 30;
    if (EVP_CipherUpdate(x, out, &done, in, (int)step) != 1 || (size_t)done != step) return false;
  }
  return true;
}

void np_seal_put(struct np_seal *s, const struct np_seal_context *c, const void *bytes, size_t n, char *out) {
  struct own *o = own(s);
  if (o->count >> 32) new_salt(s, o);
  unsigned char *at = (unsigned char *)out, nonce[NONCE] = {0};
  uint64_t number = o->count++;
  for (int i = 0; i < 8; i++) nonce[NONCE - 1 - i] = (unsigned char)(number >> (8 * i));
  memcpy(at, head, HEAD);
  memcpy(at + HEAD, o->salt, SALT);
  memcpy(at + HEAD + SALT, nonce, NONCE);
  at += HEAD + SALT + NONCE;
  int none;
  needs(EVP_EncryptInit_ex2(o->puts, NULL, NULL, nonce, NULL) == 1 && add_context(o->puts, c) && run(o->puts, bytes, n, at) &&
        EVP_EncryptFinal_ex(o->puts, at + n, &none) == 1 && EVP_CIPHER_CTX_ctrl(o->puts, EVP_CTRL_AEAD_GET_TAG, TAG, at + n) == 1);
}

/* What is read comes from few runs and threads, one after the other: the last salt's key is at hand. */
static void key_of_salt(struct np_seal *s, struct own *o, const unsigned char *salt) {
  unsigned char key[NP_SEAL_KEY];
  if (o->has_got && memcmp(o->got, salt, SALT) == 0) return;
  derive(s->sealing, salt, SALT, key);
  needs(EVP_DecryptInit_ex2(o->gets, s->cipher, key, NULL, NULL) == 1);
  OPENSSL_cleanse(key, sizeof key);
  memcpy(o->got, salt, SALT);
  o->has_got = true;
}

long np_seal_get(struct np_seal *s, const struct np_seal_context *c, const void *sealed, size_t n, char *out,
                 struct np_error *err) {
  const unsigned char *at = sealed;
  struct own *o = own(s);
  int none;
  if (!np_seal_is(sealed, n)) return np_fail(err, "it is not a sealed value");
  n -= NP_SEAL_MORE;
  key_of_salt(s, o, at + HEAD);
  needs(EVP_DecryptInit_ex2(o->gets, NULL, NULL, at + HEAD + SALT, NULL) == 1);
  at += HEAD + SALT + NONCE;
  unsigned char tag[TAG], *to = (unsigned char *)out;
  memcpy(tag, at + n, TAG);
  if (add_context(o->gets, c) && run(o->gets, at, n, to) && EVP_CIPHER_CTX_ctrl(o->gets, EVP_CTRL_AEAD_SET_TAG, TAG, tag) == 1 &&
      EVP_DecryptFinal_ex(o->gets, to + n, &none) == 1)
    return (long)n;
  OPENSSL_cleanse(out, n);
  ERR_clear_error();
  return np_fail(err, "it does not open: it was sealed with another key or for another place, or has been altered");
}

static void add_hex(char *out, const unsigned char *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

void np_seal_reference(const struct np_seal *s, const char *connection, const char *key, size_t key_len,
                       char out[NP_SEAL_REFERENCE + 1]) {
  unsigned char mac[NP_SEAL_KEY];
  size_t n = strlen(connection) + 1;
  struct np_buf b = {0};
  np_buf_add(&b, connection, n);
  np_buf_add(&b, key, key_len);
  derive(s->references, b.data, b.len, mac);
  OPENSSL_cleanse(b.data, b.len);
  np_buf_free(&b);
  out[0] = 'p';
  out[1] = '_';
  add_hex(out + 2, mac, 16);
}

bool np_seal_is_reference(const char *text, size_t n) {
  return n == NP_SEAL_REFERENCE && memcmp(text, "p_", 2) == 0 && strspn(text + 2, "0123456789abcdef") == n - 2;
}

void np_seal_check(const struct np_seal *s, char out[33]) { add_hex(out, s->check, sizeof s->check); }
