/* Calls out: one budget for all that a plugin's instance has open, be it HTTP, mails or MQTT. */
#include "lib/outgoing.h"

#include <lauxlib.h>

#include "base/clock.h"

bool np_outgoing_begin(struct np_outgoing *o, double timeout) {
  double left = o->env->time_left(o->env), seconds = timeout < left ? timeout : left;
  bool open = true;
  o->timeout = timeout;
  if (o->env->turn && seconds > 0) o->turn = o->env->turn(o->env, seconds, &open);
  if (!open) o->queued = np_mono_us();
  return open;
}

static double waited(const struct np_outgoing *o) { return o->queued ? (double)(np_mono_us() - o->queued) / 1e6 : 0; }

const char *np_outgoing_seconds(lua_State *L, struct np_outgoing *o, double *seconds) {
  if (o->turn && !o->env->turn_came(o->env, o->turn)) {
    lua_pushfstring(L, "%I calls are open at once, its limit (limits.calls), and none of them ended in %f s",
                    (LUAI_UACINT)o->env->turns(o->env), (LUAI_UACNUMBER)waited(o));
    return "limit";
  }
  double left = o->env->time_left(o->env), rest = o->timeout - waited(o);
  *seconds = rest < left ? rest : left;
  if (*seconds > 0) return NULL;
  lua_pushliteral(L, "no time is left in this call");
  return "timeout";
}

int np_outgoing_wait(lua_State *L, struct np_outgoing *o, lua_KContext context, lua_KFunction then) {
  o->ticket = o->env->ticket(o->env);
  if (!o->ticket) return luaL_error(L, "%s: not in this call", o->who);
  return lua_yieldk(L, 0, context, then);
}

void np_outgoing_end(struct np_outgoing *o) {
  if (o->turn) o->env->turn_end(o->turn);
  o->turn = NULL;
}
