/* Facts about devices, remembered. */
#include "host/facts.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "host/tags.h"

#define MOST 50000 /* devices of one lane in memory; past it all are read again */

struct known {
  bool there;
  struct np_facts facts; /* its tags and texts lie behind it, in the same piece of memory */
};

static void make_key(struct np_buf *key, struct np_text vendor, struct np_text device) {
  np_buf_add(key, vendor.ptr, vendor.len);
  np_buf_addc(key, 0);
  np_buf_add(key, device.ptr, device.len);
}

static char *copy(char *at, struct np_text from, struct np_text *to) {
  if (!from.len) return at;
  memcpy(at, from.ptr, from.len);
  at[from.len] = 0;
  *to = (struct np_text){at, from.len};
  return at + from.len + 1;
}

static bool take_device(void *arg, const struct np_device *d) {
  struct known **out = arg;
  size_t count = np_tags_count(d->tags) + np_tags_count(d->own_tags), n = 0;
  size_t need = sizeof **out + count * sizeof(struct np_text) + d->place.len + d->owner.len + d->tags.len + d->own_tags.len + 4;
  struct known *k = *out = np_alloc(need);
  struct np_text *tags = (struct np_text *)(k + 1), given, added;
  char *at = (char *)(tags + count);
  k->there = true;
  at = copy(at, d->place, &k->facts.place);
  at = copy(at, d->owner, &k->facts.owner);
  given = added = (struct np_text){0};
  at = copy(at, d->tags, &given);
  copy(at, d->own_tags, &added);
  for (size_t from = 0; np_tags_next(given, &from, &tags[n]);) n++;
  for (size_t from = 0; np_tags_next(added, &from, &tags[n]);) n++;
  k->facts.tags = tags;
  k->facts.tag_count = n;
  return false;
}

int np_facts_find(struct np_facts_cache *c, struct np_reader *reader, struct np_text vendor, struct np_text device,
                  const struct np_facts **facts, struct np_error *err) {
  struct np_buf key = {0};
  make_key(&key, vendor, device);
  struct known *k = np_map_get(&c->devices, key.data, key.len);
  if (!k) {
    struct np_device_filter f = {.scope = {.all = true}, .devices = {&device, 1}, .vendor = vendor};
    if (np_reader_find_devices(reader, &f, 1, take_device, &k, err) < 0) {
      np_buf_free(&key);
      return -1;
    }
    if (!k) k = np_alloc(sizeof *k);
    if (c->devices.count >= MOST) np_facts_forget(c);
    np_map_put(&c->devices, key.data, key.len, k);
  }
  np_buf_free(&key);
  *facts = k->there ? &k->facts : NULL;
  return 0;
}

void np_facts_news(struct np_facts_cache *c, struct np_text vendor, struct np_text device) {
  struct np_buf key = {0};
  if (!c->devices.count) return;
  make_key(&key, vendor, device);
  free(np_map_remove(&c->devices, key.data, key.len));
  np_buf_free(&key);
}

void np_facts_forget(struct np_facts_cache *c) { np_map_free(&c->devices, free); }
