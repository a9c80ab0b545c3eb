/* Sealing: what is kept encrypted in the store, with AES-256-GCM (NIST SP 800-38D), so that nobody reads or alters it without the key, nor moves it to
 * another row. Names for people (references) come of the same key.
 *
 * A sealed value is 0 1, a salt of 16 bytes, a nonce of 12, the ciphertext, and a tag of 16. Each thread of each run has a salt of its own, by which its key
 * is derived, and counts its nonces: random ones under one key may be used 2^32 times (8.3), which is seven weeks at 1,000 requests a second. */
#ifndef NP_STORE_SEAL_H
#define NP_STORE_SEAL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum {
  NP_SEAL_KEY = 32,      /* bytes of a key */
  NP_SEAL_MORE = 46,     /* bytes that a sealed value is longer than what is in it */
  NP_SEAL_REFERENCE = 34 /* "p_" and 32 hex digits */
};

struct np_seal; /* the keys derived of one; does not change. Any thread, several at once */

struct np_seal *np_seal_new(const unsigned char key[NP_SEAL_KEY], struct np_error *err);
void np_seal_free(struct np_seal *s); /* after every other thread that used it has ended */

/* What it is and where it belongs: sealed and opened with the same, or it does not open. */
struct np_seal_context {
  const char *kind;  /* "kv", "person", … */
  const char *where; /* such as a space, an instance */
  const char *which; /* such as a key */
  size_t which_len;
};

/* Seals n bytes into `out`, which has room for n + NP_SEAL_MORE. Nothing but memory can be lacking: then the process ends, as everywhere. */
void np_seal_put(struct np_seal *s, const struct np_seal_context *c, const void *bytes, size_t n, char *out);
/* Opens n sealed bytes into `out`, which has room for n - NP_SEAL_MORE (at least 1). The length; -1 and err where they were not sealed with this key and
 * for this place, or have been altered: then nothing of `out` is to be used. */
long np_seal_get(struct np_seal *s, const struct np_seal_context *c, const void *sealed, size_t n, char *out, struct np_error *err);
/* Whether a value is a sealed one. No text, JSON or header begins so. */
bool np_seal_is(const void *value, size_t n);

/* The reference of a connection's person under that key: always the same, and nothing can be told from it without the key. */
void np_seal_reference(const struct np_seal *s, const char *connection, const char *key, size_t key_len,
                       char out[NP_SEAL_REFERENCE + 1]);
bool np_seal_is_reference(const char *text, size_t n);
/* 32 hex digits that tell whether a key is the same as another time. */
void np_seal_check(const struct np_seal *s, char out[33]);

#endif
