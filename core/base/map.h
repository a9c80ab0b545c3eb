/* A hash table from byte strings to pointers. Keys are copied. Not shared between threads. Zero-initialised is empty.
 * Hashing is SipHash-1-3 with a key drawn at start, so that a sender who picks names cannot make it slow. */
#ifndef NP_BASE_MAP_H
#define NP_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct np_map_entry {
  uint64_t hash;
  void *value; /* the caller's */
  size_t len;
  char key[]; /* terminated */
};

struct np_map {
  struct np_map_entry **slots; /* owned; open addressing, a power of two */
  size_t cap, count;
};

void *np_map_get(const struct np_map *m, const char *key, size_t len); /* NULL where absent */
/* Sets key to value and returns the value that stood there, or NULL. value must not be NULL. */
void *np_map_put(struct np_map *m, const char *key, size_t len, void *value);
void *np_map_remove(struct np_map *m, const char *key, size_t len); /* returns the value, or NULL */
/* Walks all entries: start with *i = 0; NULL at the end. The map must not change meanwhile. */
struct np_map_entry *np_map_next(const struct np_map *m, size_t *i);
/* Frees the entries; values are the caller's, freed by each where given. */
void np_map_free(struct np_map *m, void (*each)(void *value));

uint64_t np_hash_keyed(const void *bytes, size_t n); /* differs from one run of the process to the next */
/* FNV-1a: the same in every run, for what is stored or partitioned. Not safe against chosen input. */
uint64_t np_hash_stable(const void *bytes, size_t n);

/* Devices are spread over this many partitions by np_hash_stable of the device's name, for ever. */
#define NP_PARTITIONS 64
static inline int np_partition(const char *device, size_t n) {
  uint64_t h = np_hash_stable(device, n);
  return (int)((h ^ (h >> 32)) % NP_PARTITIONS);
}

#endif
