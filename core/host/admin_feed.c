/* `tail` of matches, messages, attempts and acknowledgements: what comes while the client is slow is left out and counted, for nobody waits for it. */
#include <stdlib.h>
#include <string.h>

#include <event2/bufferevent.h>
#include <lauxlib.h>

#include "host/admin_talk.h"

static int read_kind(struct np_talk *t, const char *of, struct np_error *err) {
  for (int i = 0; i < NP_FEEDS; i++)
    if (strcmp(np_feed_kinds[i], of) == 0) {
      t->feed = (enum np_feed_kind)i;
      return 0;
    }
  return np_fail(err, "expected readings, matches, messages, attempts or acknowledgements, got \"%.40s\"", of);
}

static int read_choice(struct np_talk *t, const char *key, const char *value, struct np_error *err) {
  for (int i = 0; i < NP_FEED_NAMES; i++) {
    if (strcmp(np_feed_names[i], key) != 0 || !np_feed_has(t->feed, (enum np_feed_name)i)) continue;
    if (!value) return np_fail(err, "%s: expected a text", key);
    free(t->choice[i]);
    t->choice[i] = np_strdup(value);
    return 0;
  }
  return np_fail(err, "a tail of %s is not chosen by %.40s", np_feed_kinds[t->feed], key);
}

int np_feed_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  lua_getfield(L, request, "of");
  if (read_kind(t, lua_tostring(L, -1), err) < 0) return -1;
  lua_pop(L, 1);
  for (lua_pushnil(L); lua_next(L, request); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    const char *key = lua_tostring(L, -2);
    if (strcmp(key, "command") == 0 || strcmp(key, "of") == 0) continue;
    if (read_choice(t, key, lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL, err) < 0) return -1;
  }
  t->state = NP_TALK_FEEDING;
  atomic_fetch_add(&t->host->feed.wanted[t->feed], 1);
  np_buf_addf(&t->out, "{\"tailing\":\"%s\"}\n", np_feed_kinds[t->feed]);
  np_talk_send(t);
  return 0;
}

void np_feed_end(struct np_talk *t) {
  for (int i = 0; i < NP_FEED_NAMES; i++) free(t->choice[i]);
  if (t->state == NP_TALK_FEEDING) atomic_fetch_sub(&t->host->feed.wanted[t->feed], 1);
}

static bool is_chosen(const struct np_talk *t, const struct np_feed_item *item) {
  if (t->state != NP_TALK_FEEDING || t->feed != item->kind) return false;
  for (int i = 0; i < NP_FEED_NAMES; i++) {
    const char *pattern = t->choice[i], *name = item->names[i] ? item->names[i] : "";
    if (pattern && !np_glob_match(pattern, strlen(pattern), name, strlen(name))) return false;
  }
  return true;
}

void np_feed_tell_lost(struct np_talk *t) {
  if (!t->lost || np_talk_full(t)) return;
  np_buf_addf(&t->out, "{\"dropped\":%lld}\n", (long long)t->lost);
  t->lost = 0;
  np_talk_send(t);
}

void np_feed_give(struct np_talk *t, const struct np_feed_item *item) {
  if (!is_chosen(t, item)) return;
  if (np_talk_full(t)) {
    t->lost++;
    return;
  }
  np_feed_tell_lost(t);
  bufferevent_write(t->bev, item->line.data, item->line.len);
}
