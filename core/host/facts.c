/* Facts about devices, remembered. */
#include "host/facts.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define MOST 50000 /* devices of one lane in memory; past it all are read again */

struct known {
  bool there;
  struct np_facts facts;
  struct np_text *tags; /* in the same piece of memory, as all texts are */
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
  size_t need = sizeof **out + d->place.len + d->owner.len + 2;
  struct known *k = *out = np_alloc(need);
  char *at = (char *)(k + 1);
  k->there = true;
  at = copy(at, d->place, &k->facts.place);
  copy(at, d->owner, &k->facts.owner);
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
