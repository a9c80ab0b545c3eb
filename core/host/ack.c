/* Acknowledgements: what is kept of one, and the verbs that give and ask for them. */
#include "host/ack.h"

#include <inttypes.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "host/admin_line.h"
#include "host/lane.h"
#include "host/ledger_parts.h"
#include "lib/json.h"

#define ID_MOST 80 /* bytes; neap's have 36 */

static int check_text(const char *name, struct np_text t, size_t most, struct np_error *err) {
  if (t.len > most) return np_fail(err, "%s: at most %zu bytes, got %zu", name, most, t.len);
  if (np_utf8_check(t.ptr, t.len) != t.len || memchr(t.ptr, 0, t.len)) return np_fail(err, "%s: expected a text in UTF-8", name);
  return 0;
}

int np_ack_check(struct np_text by, struct np_text note, struct np_error *err) {
  if (!by.len) return np_fail(err, "by: whose acknowledgement it is has to be said");
  return check_text("by", by, NP_ACK_BY, err) < 0 || (note.ptr && check_text("note", note, NP_ACK_NOTE, err) < 0) ? -1 : 0;
}

static struct np_text record_of(struct np_writeset *ws, struct np_text by, struct np_text note, int64_t at) {
  struct np_buf b = {0};
  np_buf_addf(&b, "{\"at\":%" PRId64 ",\"by\":", at);
  np_buf_add_json(&b, by.ptr, by.len);
  if (note.len) np_buf_adds(&b, ",\"note\":"), np_buf_add_json(&b, note.ptr, note.len);
  np_buf_addc(&b, '}');
  struct np_text record = np_writeset_text(ws, b.data, b.len);
  np_buf_free(&b);
  return record;
}

static struct np_text copy(struct np_writeset *ws, struct np_text t) { return np_writeset_text(ws, t.ptr, t.len); }

struct adding {
  struct np_writeset *ws;
  struct np_text by, note;
  int64_t at;
};

static bool add_op(void *arg, const struct np_sent *s) {
  const struct adding *a = arg;
  struct np_op *op = np_writeset_add(a->ws, NP_OP_ACK);
  op->as.ack.id = copy(a->ws, s->message.id);
  op->as.ack.record = record_of(a->ws, a->by, a->note, a->at);
  op->as.ack.at = a->at;
  op->as.ack.by = copy(a->ws, a->by);
  if (a->note.len) op->as.ack.note = copy(a->ws, a->note);
  op->as.ack.rule = copy(a->ws, s->message.source);
  op->as.ack.destination = copy(a->ws, s->message.destination);
  op->as.ack.device = copy(a->ws, s->message.device);
  return false;
}

int np_ack_add(struct np_writeset *ws, struct np_reader *r, const char *id, struct np_text by, struct np_text note, int64_t at,
               struct np_error *err) {
  struct adding a = {ws, by, note, at};
  return np_reader_message(r, id, add_op, &a, err);
}

int np_ack_line(struct np_buf *b, struct np_reader *r, const char *id, struct np_error *err) {
  struct np_buf record = {0};
  int64_t version;
  int found = np_reader_ack(r, id, &record, &version, err);
  if (found > 0) {
    np_line_more(b, "\"acknowledged\":", 15);
    np_buf_add(b, record.data, record.len);
  } else if (found == 0 && (found = np_reader_waiting(r, id, err)) > 0) {
    np_line_more(b, "\"unacknowledged\":true", 21);
  }
  np_buf_free(&record);
  return found < 0 ? -1 : 0;
}

/* Verbs. */

/* What is on record, or what this call itself has acknowledged, which a rule's cannot: pushes it, or nothing. */
static bool push_record(lua_State *L, struct np_task *t, const struct np_spot *s) {
  const char *id = s->bytes + s->space + 1;
  struct np_error err;
  bool may = t->ws && !(NP_IN(t->mode) & NP_IN_RULES);
  if (may) np_task_spend(L, (int64_t)t->ws->count / 8);
  for (const struct np_op *op = may ? t->ws->first : NULL; op; op = op->next)
    if (op->kind == NP_OP_ACK && strcmp(op->as.ack.id.ptr, id) == 0) {
      if (np_json_decode(L, op->as.ack.record.ptr, op->as.ack.record.len, &err) < 0) luaL_error(L, "%s", err.text);
      return true;
    }
  return np_spot_push(L, t, s);
}

/* The id at 2, as a key of the store. False: no message has such an id. */
static bool find_spot(lua_State *L, const char *verb, struct np_spot *s) {
  size_t len;
  const char *id = luaL_checklstring(L, 2, &len);
  if (!len || len > ID_MOST || memchr(id, 0, len)) return false;
  np_spot_find(L, s, verb, NP_SPACE_ACKS, id, len);
  return true;
}

/* The fields of the table at 3, which are texts of the set. */
static void read_fields(lua_State *L, struct np_task *t, struct np_text *by, struct np_text *note) {
  struct np_error err;
  *by = np_writeset_text(t->ws, t->in->code->instance, strlen(t->in->code->instance));
  *note = (struct np_text){0};
  if (!lua_isnoneornil(L, 3)) luaL_checktype(L, 3, LUA_TTABLE);
  for (lua_pushnil(L); lua_istable(L, 3) && lua_next(L, 3); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "[1]";
    bool is_by = strcmp(name, "by") == 0;
    size_t len;
    if (!is_by && strcmp(name, "note") != 0) luaL_error(L, "plugin:acknowledge: unknown field \"%s\"; there are: by, note", name);
    if (lua_type(L, -1) != LUA_TSTRING)
      luaL_error(L, "plugin:acknowledge: %s has to be a string, got a %s", name, luaL_typename(L, -1));
    const char *text = lua_tolstring(L, -1, &len);
    *(is_by ? by : note) = np_writeset_text(t->ws, text, len);
  }
  if (np_ack_check(*by, *note, &err) < 0) luaL_error(L, "plugin:acknowledge: %s", err.text);
}

/* @class neap.Acknowledgement: that somebody has taken note of a message.
 * @field at integer ms
 * @field by string
 * @field note? string
 */
/* plugin:acknowledge(id [, { by = "anna", note = "on my way" }]) -> true: the message of that id is acknowledged, which commits with the call. False
 * and whose it was where it had been already: the first one counts, and nothing has changed. nil, why and "unknown" where there is no such message, or
 * it is no longer kept. by is the connection's name where it is absent, and has at most 200 bytes; note has at most 2000.
 * @param id string of the message, which its destination was given
 * @param how? { by?: string, note?: string }
 * @return boolean? first
 * @return neap.Acknowledgement|string|nil
 * @return "unknown"?
 */
int np_acknowledge(lua_State *L) {
  struct np_task *t = np_acting(L, "acknowledge", NP_IN_VENDORS,
                                "people acknowledge by way of a vendor's plugin or neap ack; a rule asks with plugin:acknowledged");
  struct np_spot s;
  struct np_text by, note;
  struct np_error err;
  lua_settop(L, 3);
  bool possible = find_spot(L, "plugin:acknowledge", &s);
  read_fields(L, t, &by, &note);
  if (possible && push_record(L, t, &s)) {
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
  }
  int64_t now = t->received ? t->received : np_now_ms();
  np_limit_emit(L, t, "acknowledge");
  int found = possible ? np_ack_add(t->ws, t->in->lane->reader, lua_tostring(L, 2), by, note, now, &err) : 0;
  if (found < 0) return luaL_error(L, "plugin:acknowledge: %s", err.text);
  if (!found) {
    lua_pushnil(L);
    lua_pushfstring(L, "acknowledge: there is no message \"%s\", or it is no longer kept", possible ? lua_tostring(L, 2) : "…");
    lua_pushliteral(L, "unknown");
    return 3;
  }
  lua_pushboolean(L, 1);
  return 1;
}

/* plugin:acknowledged(id) -> the message's acknowledgement, or nil where it has none. What a rule was told holds when its call commits: where one
 * comes between, the handler runs again. At the gate and in a dry run nothing is acknowledged; a replay that sends knows what is on record.
 * @param id string of a message, as plugin:send has returned it
 * @return neap.Acknowledgement?
 */
int np_acknowledged(lua_State *L) {
  struct np_task *t =
      np_acting(L, "acknowledged", NP_IN_VENDORS | NP_IN_RULES, "use it in rules and in a vendor's handlers and jobs");
  struct np_spot s;
  if (!find_spot(L, "plugin:acknowledged", &s) || !push_record(L, t, &s)) lua_pushnil(L);
  return 1;
}
