/* The sandbox's string functions against Lua's own, on random patterns and subjects: the same results, the same errors. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdlib.h>

#include "check.h"
#include "host/plugin.h"
#include "host/sandbox_parts.h"

static const char script[] =
    "local ours, own, seed = ...\n"
    "math.randomseed(seed)\n"
    "local bits = { 'a', 'b', '.', '%a', '%d', '%w', '%S', '[ab]', '[^a]', '[a-c]', '[%a-]', '(', ')', '()', '*', '+', '-', '?', "
    "'$', '^', '%1', '%bab',\n"
    "  '%f[%w]', '%%', '[]', '[]a]', '%', '1', ' ', '\\0', '[^%s]', '%z' }\n"
    "local function pick(list, n) local t = {} for i = 1, math.random(0, n) do t[i] = list[math.random(#list)] end return "
    "table.concat(t) end\n"
    "local letters = { 'a', 'b', 'c', 'ab', '1', ' ', '-', '\\0', 'B', '\\xff' }\n"
    "local function plain(e) return (tostring(e):gsub('^[^:]*:%d+: ', '')) end\n"
    "local function all(f, ...) local t = table.pack(pcall(f, ...)) if not t[1] then t[2] = plain(t[2]) end\n"
    "  for i = 1, t.n do t[i] = math.type(t[i]) == 'integer' and '#' .. t[i] or tostring(t[i]) end return table.concat(t, '|') "
    "end\n"
    "local function walk(lib, s, p, init) local t = {} for a, b in lib.gmatch(s, p, init) do t[#t + 1] = tostring(a) .. '/' .. "
    "tostring(b) end return table.concat(t, ',') end\n"
    "local bad\n"
    "for i = 1, 20000 do\n"
    "  local s, p, init = pick(letters, 12), pick(bits, 6), math.random(-14, 14)\n"
    "  local tries = { { 'find', s, p, init }, { 'find', s, p, init, true }, { 'match', s, p, init }, { 'gsub', s, p, '<%0>' }, { "
    "'gsub', s, p, '%1%%', 2 },\n"
    "    { 'gsub', s, p, pick({ '%', '1', '2', 'x', '%1' }, 3) }, { 'gsub', s, p, string.upper }, { 'gsub', s, p, { a = 'A', b = "
    "false, ab = 7 } },\n"
    "    { 'rep', s, math.random(-1, 5), pick(letters, 2) } }\n"
    "  for _, t in ipairs(tries) do\n"
    "    local a, b = all(ours[t[1]], table.unpack(t, 2, 5)), all(own[t[1]], table.unpack(t, 2, 5))\n"
    "    if a ~= b then return ('%s(%q, %q, %s): %s, but Lua says %s'):format(t[1], s, p, tostring(t[4]), a, b) end\n"
    "  end\n"
    "  local a, b = all(walk, ours, s, p, init), all(walk, own, s, p, init)\n"
    "  if a ~= b then return ('gmatch(%q, %q, %d): %s, but Lua says %s'):format(s, p, init, a, b) end\n"
    "end\n";

int main(void) {
  struct np_instance in = {0}; /* nothing runs in it, so there is no budget */
  lua_State *L = luaL_newstate();
  *(struct np_env **)lua_getextraspace(L) = &in.env;
  luaL_openlibs(L);
  lua_newtable(L); /* Lua's own are kept: the sandbox puts its functions in their table */
  static const char *const names[] = {"find", "match", "gmatch", "gsub", "rep"};
  lua_getglobal(L, "string");
  for (int i = 0; i < 5; i++) lua_getfield(L, 2, names[i]), lua_setfield(L, 1, names[i]);
  lua_settop(L, 1);
  np_sandbox_patterns(L);
  for (int seed = 1; seed <= 5; seed++) {
    CHECK(luaL_loadstring(L, script) == LUA_OK, "%s", lua_tostring(L, -1));
    lua_newtable(L);
    lua_getglobal(L, "string");
    for (int i = 0; i < 5; i++) lua_getfield(L, -1, names[i]), lua_setfield(L, -3, names[i]);
    lua_pop(L, 1);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, seed);
    CHECK(lua_pcall(L, 3, 1, 0) == LUA_OK, "%s", lua_tostring(L, -1));
    CHECK(lua_isnil(L, -1), "%s", lua_tostring(L, -1));
    lua_settop(L, 1);
  }
  lua_close(L);
  return check_end();
}
