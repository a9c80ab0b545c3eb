/* A device's tags, for operators. */
#include <string.h>
#include <sys/socket.h>

#include <event2/bufferevent.h>
#include <lauxlib.h>

#include "base/log.h"
#include "host/admin_line.h"
#include "host/admin_talk.h"
#include "host/tags.h"

#define VENDORS_MOST 8 /* told, where several have a device of that name */

struct found {
  struct np_talk *t;
  struct np_writeset *ws; /* its strings are here */
  struct np_text vendors[VENDORS_MOST];
  size_t count;
  struct np_text tags, own_tags; /* of the first */
};

static bool take_device(void *arg, const struct np_device *d) {
  struct found *f = arg;
  if (!f->count) {
    f->tags = np_writeset_text(f->ws, d->tags.ptr, d->tags.len);
    f->own_tags = np_writeset_text(f->ws, d->own_tags.ptr, d->own_tags.len);
  }
  f->vendors[f->count++] = np_writeset_text(f->ws, d->vendor.ptr, d->vendor.len);
  return f->count < VENDORS_MOST;
}

static struct np_text text_at(lua_State *L, int request, const char *name, struct np_writeset *ws) {
  size_t n;
  lua_getfield(L, request, name);
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
  struct np_text t = s ? np_writeset_text(ws, s, n) : (struct np_text){0};
  lua_pop(L, 1);
  return t;
}

/* The one device that is meant. */
static int find_device(struct found *f, struct np_text device, struct np_text *vendor, struct np_error *err) {
  struct np_device_filter filter = {.scope = {.all = true}, .devices = {&device, 1}, .vendor = *vendor};
  if (np_reader_find_devices(f->t->host->reader, &filter, VENDORS_MOST, take_device, f, err) < 0) return -1;
  if (!f->count)
    return np_fail(err, "no device \"%.80s\"%s%.40s is known: neap devices lists them", device.ptr, vendor->ptr ? " of " : "",
                   vendor->ptr ? vendor->ptr : "");
  if (f->count > 1) {
    struct np_buf names = {0};
    for (size_t i = 0; i < f->count; i++)
      np_buf_addf(&names, "%s%s", !i ? "" : i + 1 < f->count ? ", " : " and ", f->vendors[i].ptr);
    np_fail(err, "%.120s each have a device \"%.60s\": say which with --vendor", names.data, device.ptr);
    np_buf_free(&names);
    return -1;
  }
  *vendor = f->vendors[0];
  return 0;
}

static int add_op(lua_State *L, struct found *f, struct np_text device, struct np_text vendor, bool on, struct np_error *err) {
  size_t n;
  if (lua_type(L, -1) != LUA_TSTRING) return np_fail(err, "a tag is a string");
  const char *tag = lua_tolstring(L, -1, &n);
  if (np_tag_check(tag, n, err) < 0) return -1;
  if (!on && np_tags_have(f->tags, tag, n) && !np_tags_have(f->own_tags, tag, n))
    return np_fail(err, "\"%s\" is what its vendor's plugin says (%s), and that plugin's to take away", tag, vendor.ptr);
  struct np_op *op = np_writeset_add(f->ws, NP_OP_TAG);
  op->as.tag.vendor = vendor;
  op->as.tag.device = device;
  op->as.tag.tag = np_writeset_text(f->ws, tag, n);
  op->as.tag.on = on;
  return 0;
}

static int add_ops(lua_State *L, int request, struct found *f, struct np_text device, struct np_text vendor, bool on,
                   struct np_error *err) {
  lua_getfield(L, request, on ? "add" : "remove");
  for (lua_Integer i = 1; lua_istable(L, -1) && lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
    if (add_op(L, f, device, vendor, on, err) < 0) return -1;
    lua_pop(L, 1);
  }
  lua_settop(L, request);
  return 0;
}

/* How many there would be afterwards. */
static size_t count_after(const struct found *f) {
  size_t n = np_tags_count(f->own_tags);
  for (const struct np_op *op = f->ws->first; op; op = op->next)
    if (op->as.tag.on && !np_tags_have(f->own_tags, op->as.tag.tag.ptr, op->as.tag.tag.len)) n++;
  return n;
}

int np_talk_tag_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  struct found f = {.t = t, .ws = t->set = np_writeset_new()};
  struct np_text device = text_at(L, request, "device", t->set), vendor = text_at(L, request, "vendor", t->set);
  if (!device.len) return np_fail(err, "of which device?");
  if (find_device(&f, device, &vendor, err) < 0) return -1;
  if (add_ops(L, request, &f, device, vendor, true, err) < 0 || add_ops(L, request, &f, device, vendor, false, err) < 0) return -1;
  if (count_after(&f) > NP_TAGS_MOST) return np_fail(err, "a device has at most %d tags from operators", NP_TAGS_MOST);
  if (device.len >= sizeof t->device || vendor.len >= sizeof t->vendor) return np_fail(err, "that name is too long");
  memcpy(t->device, device.ptr, device.len + 1);
  memcpy(t->vendor, vendor.ptr, vendor.len + 1);
  return 0;
}

static void log_change(const struct np_talk *t) {
  struct np_buf changes = {0};
  struct ucred who = {0};
  socklen_t n = sizeof who;
  char user[24];
  getsockopt(bufferevent_getfd(t->bev), SOL_SOCKET, SO_PEERCRED, &who, &n);
  snprintf(user, sizeof user, "%lu", (unsigned long)who.uid);
  for (const struct np_op *op = t->set->first; op; op = op->next)
    np_buf_addf(&changes, "%s%c%s", changes.len ? " " : "", op->as.tag.on ? '+' : '-', op->as.tag.tag.ptr);
  np_log(NP_INFO, "tags changed", "device", t->device, "vendor", t->vendor, "tags", np_buf_text(&changes), "user", user, NULL);
  np_buf_free(&changes);
}

static bool add_line(void *arg, const struct np_device *d) {
  np_line_device(arg, d);
  return false;
}

void np_talk_tag(struct np_talk *t) {
  struct np_error err;
  struct np_text device = {t->device, strlen(t->device)}, vendor = {t->vendor, strlen(t->vendor)};
  struct np_device_filter filter = {.scope = {.all = true}, .devices = {&device, 1}, .vendor = vendor};
  if (t->set->first) {
    np_writeset_ref(t->set); /* the keeper uses one up */
    if (np_keeper_apply(t->host->keeper, t->set, &err) != NP_COMMITTED) {
      np_talk_fail(t, err.text);
      return;
    }
    log_change(t);
  }
  if (np_reader_find_devices(t->host->reader, &filter, 1, add_line, &t->out, &err) < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  np_buf_adds(&t->out, "{\"summary\":{\"devices\":1}}\n");
  np_talk_end(t);
}
