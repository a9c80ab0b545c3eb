/* A hash table from byte strings to pointers: linear probing, backward-shift deletion. */
#include "base/map.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/buf.h"

static uint64_t sip_key[2];
static pthread_once_t sip_once = PTHREAD_ONCE_INIT;

static void sip_init(void) {
  if (getrandom(sip_key, sizeof sip_key, 0) != sizeof sip_key) abort();
}

static inline uint64_t rotl(uint64_t x, int b) { return (x << b) | (x >> (64 - b)); }

static inline void sip_round(uint64_t v[4]) {
  v[0] += v[1], v[1] = rotl(v[1], 13), v[1] ^= v[0], v[0] = rotl(v[0], 32);
  v[2] += v[3], v[3] = rotl(v[3], 16), v[3] ^= v[2];
  v[0] += v[3], v[3] = rotl(v[3], 21), v[3] ^= v[0];
  v[2] += v[1], v[1] = rotl(v[1], 17), v[1] ^= v[2], v[2] = rotl(v[2], 32);
}

/* SipHash-1-3, Aumasson and Bernstein. */
uint64_t np_hash_keyed(const void *bytes, size_t n) {
  pthread_once(&sip_once, sip_init);
  uint64_t v[4] = {sip_key[0] ^ 0x736f6d6570736575ULL, sip_key[1] ^ 0x646f72616e646f6dULL, sip_key[0] ^ 0x6c7967656e657261ULL,
                   sip_key[1] ^ 0x7465646279746573ULL};
  const unsigned char *p = bytes;
  uint64_t m, tail = (uint64_t)n << 56;
  for (size_t left = n; left >= 8; left -= 8, p += 8) {
    memcpy(&m, p, 8);
    v[3] ^= m;
    sip_round(v);
    v[0] ^= m;
  }
  for (size_t i = 0; i < (n & 7); i++) tail |= (uint64_t)p[i] << (8 * i);
  v[3] ^= tail;
  sip_round(v);
  v[0] ^= tail;
  v[2] ^= 0xff;
  for (int i = 0; i < 3; i++) sip_round(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t np_hash_stable(const void *bytes, size_t n) {
  const unsigned char *p = bytes;
  uint64_t h = 0xcbf29ce484222325ULL;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3ULL;
  return h;
}

static size_t find(const struct np_map *m, uint64_t hash, const char *key, size_t len) {
  size_t i = hash & (m->cap - 1);
  for (; m->slots[i]; i = (i + 1) & (m->cap - 1)) {
    const struct np_map_entry *e = m->slots[i];
    if (e->hash == hash && e->len == len && memcmp(e->key, key, len) == 0) break;
  }
  return i;
}

void *np_map_get(const struct np_map *m, const char *key, size_t len) {
  if (!m->count) return NULL;
  struct np_map_entry *e = m->slots[find(m, np_hash_keyed(key, len), key, len)];
  return e ? e->value : NULL;
}

static void grow(struct np_map *m) {
  struct np_map_entry **old = m->slots;
  size_t old_cap = m->cap;
  m->cap = old_cap ? old_cap * 2 : 16;
  m->slots = np_alloc(m->cap * sizeof *m->slots);
  for (size_t i = 0; i < old_cap; i++)
    if (old[i]) m->slots[find(m, old[i]->hash, old[i]->key, old[i]->len)] = old[i];
  free(old);
}

void *np_map_put(struct np_map *m, const char *key, size_t len, void *value) {
  if ((m->count + 1) * 4 > m->cap * 3) grow(m);
  uint64_t hash = np_hash_keyed(key, len);
  size_t i = find(m, hash, key, len);
  struct np_map_entry *e = m->slots[i];
  if (e) {
    void *was = e->value;
    e->value = value;
    return was;
  }
  e = np_realloc(NULL, sizeof *e + len + 1);
  *e = (struct np_map_entry){.hash = hash, .value = value, .len = len};
  if (len) memcpy(e->key, key, len);
  e->key[len] = 0;
  m->slots[i] = e;
  m->count++;
  return NULL;
}

void *np_map_remove(struct np_map *m, const char *key, size_t len) {
  if (!m->count) return NULL;
  size_t i = find(m, np_hash_keyed(key, len), key, len), mask = m->cap - 1;
  if (!m->slots[i]) return NULL;
  void *was = m->slots[i]->value;
  free(m->slots[i]);
  m->slots[i] = NULL;
  m->count--;
  for (size_t j = (i + 1) & mask; m->slots[j]; j = (j + 1) & mask) {
    size_t home = m->slots[j]->hash & mask;
    if (((j - home) & mask) < ((j - i) & mask)) continue; /* it may stay behind the hole */
    m->slots[i] = m->slots[j];
    m->slots[j] = NULL;
    i = j;
  }
  return was;
}

struct np_map_entry *np_map_next(const struct np_map *m, size_t *i) {
  while (*i < m->cap) {
    struct np_map_entry *e = m->slots[(*i)++];
    if (e) return e;
  }
  return NULL;
}

void np_map_free(struct np_map *m, void (*each)(void *value)) {
  for (size_t i = 0; i < m->cap; i++) {
    if (!m->slots[i]) continue;
    if (each) each(m->slots[i]->value);
    free(m->slots[i]);
  }
  free(m->slots);
  *m = (struct np_map){0};
}
