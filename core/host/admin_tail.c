/* `tail`: readings as they are committed. The store is the buffer: a client that is slow is read to no faster than it takes them. */
#include "host/admin_talk.h"

#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <lauxlib.h>

#include "host/admin_line.h"

#define SLICE 200
#define SEEK_SLICE 1000
#define LAST_MAX 100000

/* The filter is what the request says apart from its own words. */
int np_tail_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  if (lua_getfield(L, request, "of") == LUA_TSTRING && strcmp(lua_tostring(L, -1), "readings") != 0)
    return np_feed_begin(t, L, request, err);
  lua_pop(L, 1);
  t->wanted = 0;
  lua_getfield(L, request, "last");
  if (!lua_isnil(L, -1)) {
    t->wanted = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
    if (t->wanted < 0 || t->wanted > LAST_MAX) return np_fail(err, "last: expected a whole number from 0 to %d", LAST_MAX);
  }
  lua_pop(L, 1);
  lua_newtable(L);
  int fields = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, request); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    const char *key = lua_tostring(L, -2);
    if (strcmp(key, "command") == 0 || strcmp(key, "last") == 0 || strcmp(key, "of") == 0) continue;
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, fields);
  }
  t->filter = np_filter_compile(L, fields, err);
  if (!t->filter) return -1;
  if (np_filter_needs(t->filter) & NP_FILTER_FACTS) return np_fail(err, "place, owner, tag: a tail looks at readings alone");
  if (np_filter_needs(t->filter)) return np_fail(err, "margin, changed, rate, first: a tail has no history to compare with");
  t->at = np_reader_last_seq(t->host->reader);
  if (t->at < 0) return np_fail(err, "the store cannot be read");
  t->state = t->wanted ? NP_TALK_SEEKING : NP_TALK_TAILING;
  return 0;
}

struct seek {
  const struct np_talk *talk;
  int64_t found[SEEK_SLICE];
  int count;
};

static bool seek_reading(void *arg, const struct np_reading *r) {
  struct seek *s = arg;
  if (r->seq > s->talk->at) return false;
  if (np_filter_match(s->talk->filter, r)) s->found[s->count++] = r->seq;
  return true;
}

/* Goes back a slice. Sequence numbers may have gaps, so that a slice holds at most as many readings as it spans. */
static void seek(struct np_talk *t) {
  struct seek s = {.talk = t};
  struct np_error err;
  int64_t from = t->at > SEEK_SLICE ? t->at - SEEK_SLICE : 0;
  if (np_reader_scan(t->host->reader, from, SEEK_SLICE, seek_reading, &s, &err) < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  if (s.count >= t->wanted || from == 0) {
    t->state = NP_TALK_TAILING;
    t->at = s.count > t->wanted ? s.found[s.count - t->wanted - 1] : s.count == t->wanted && s.count ? s.found[0] - 1 : from;
  } else {
    t->wanted -= s.count;
    t->at = from;
  }
  np_talk_again(t, 0);
}

struct slice {
  struct np_talk *talk;
  size_t room;
  int seen;
};

static bool tail_reading(void *arg, const struct np_reading *r) {
  struct slice *s = arg;
  s->talk->at = r->seq;
  s->seen++;
  if (np_filter_match(s->talk->filter, r)) np_line_reading(&s->talk->out, r);
  return s->talk->out.len < s->room;
}

static void tail(struct np_talk *t) {
  if (np_talk_full(t)) return; /* goes on once the client has taken some */
  struct np_error err;
  struct slice s = {.talk = t, .room = NP_TALK_MAX - evbuffer_get_length(bufferevent_get_output(t->bev))};
  if (np_reader_scan(t->host->reader, t->at, SLICE, tail_reading, &s, &err) < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  bool more = s.seen == SLICE || t->out.len >= s.room;
  np_talk_send(t);
  if (more) np_talk_again(t, 0);
}

void np_tail_slice(struct np_talk *t) {
  if (t->state == NP_TALK_SEEKING)
    seek(t);
  else
    tail(t);
}
