/* Lua's patterns, matched as in chapter 6.4.1 of its manual, but step by step on the call's budget: a pattern can backtrack for longer than
 * anyone waits. Also string.rep, which would go round for each of any number of empty strings. */
#include <ctype.h>
#include <string.h>

#include <lauxlib.h>

#include "host/sandbox_parts.h"
#include "host/task.h"

#define CAPTURES 32
#define DEPTH 200  /* of recursion */
#define STEPS 4096 /* between looks at the budget; a step counts as a quarter of an instruction */
#define OPEN (-1)
#define POSITION (-2)

struct match {
  lua_State *L;
  const char *s, *end; /* subject */
  const char *p, *pattern_end;
  int steps, depth;
  int level; /* captures, finished or not */
  struct {
    const char *at;
    ptrdiff_t len; /* or OPEN, POSITION */
  } capture[CAPTURES];
};

static const char *do_match(struct match *m, const char *s, const char *p);

static void step(struct match *m) {
  if (++m->steps < STEPS) return;
  m->steps = 0;
  np_task_spend(m->L, STEPS / 4);
}

/* Where the single character class at p ends. */
static const char *class_end(struct match *m, const char *p) {
  if (p == m->pattern_end) luaL_error(m->L, "malformed pattern (ends too early)");
  if (*p == '%') {
    if (p + 1 == m->pattern_end) luaL_error(m->L, "malformed pattern (ends with '%%')");
    return p + 2;
  }
  if (*p++ != '[') return p;
  if (p < m->pattern_end && *p == '^') p++;
  do {
    if (p == m->pattern_end) luaL_error(m->L, "malformed pattern (missing ']')");
    if (*p++ == '%') {
      if (p == m->pattern_end) luaL_error(m->L, "malformed pattern (missing ']')");
      p++;
    }
  } while (p == m->pattern_end || *p != ']');
  return p + 1;
}

static bool in_class(int c, int class) {
  bool is;
  switch (tolower(class)) {
  case 'a': is = isalpha(c); break;
  case 'c': is = iscntrl(c); break;
  case 'd': is = isdigit(c); break;
  case 'g': is = isgraph(c); break;
  case 'l': is = islower(c); break;
  case 'p': is = ispunct(c); break;
  case 's': is = isspace(c); break;
  case 'u': is = isupper(c); break;
  case 'w': is = isalnum(c); break;
  case 'x': is = isxdigit(c); break;
  case 'z': is = c == 0; break; /* of Lua 5.1, and still there */
  default: return class == c;
  }
  return isupper(class) ? !is : is;
}

/* p is at '[', last at its ']'. */
static bool in_set(struct match *m, int c, const char *p, const char *last) {
  bool found = true;
  if (p[1] == '^') found = false, p++;
  while (++p < last) {
    step(m);
    if (*p == '%') {
      p++;
      if (in_class(c, (unsigned char)*p)) return found;
    } else if (p[1] == '-' && p + 2 < last) {
      p += 2;
      if ((unsigned char)p[-2] <= c && c <= (unsigned char)*p) return found;
    } else if ((unsigned char)*p == c) {
      return found;
    }
  }
  return !found;
}

static bool is_one(struct match *m, const char *s, const char *p, const char *end) {
  step(m);
  if (s >= m->end) return false;
  int c = (unsigned char)*s;
  switch (*p) {
  case '.': return true;
  case '%': return in_class(c, (unsigned char)p[1]);
  case '[': return in_set(m, c, p, end - 1);
  default: return (unsigned char)*p == c;
  }
}

static const char *balanced(struct match *m, const char *s, const char *p) {
  if (p >= m->pattern_end - 1) luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
  if (s >= m->end || *s != *p) return NULL;
  int open = 1;
  for (char from = p[0], to = p[1]; ++s < m->end;) {
    step(m);
    if (*s == to) {
      if (--open == 0) return s + 1;
    } else if (*s == from) {
      open++;
    }
  }
  return NULL;
}

static const char *most(struct match *m, const char *s, const char *p, const char *end) {
  ptrdiff_t i = 0;
  while (is_one(m, s + i, p, end)) i++;
  for (; i >= 0; i--) {
    const char *found = do_match(m, s + i, end + 1);
    if (found) return found;
  }
  return NULL;
}

static const char *least(struct match *m, const char *s, const char *p, const char *end) {
  for (;; s++) {
    const char *found = do_match(m, s, end + 1);
    if (found) return found;
    if (!is_one(m, s, p, end)) return NULL;
  }
}

static const char *open_capture(struct match *m, const char *s, const char *p, ptrdiff_t what) {
  if (m->level >= CAPTURES) luaL_error(m->L, "too many captures");
  m->capture[m->level].at = s;
  m->capture[m->level++].len = what;
  const char *found = do_match(m, s, p);
  if (!found) m->level--;
  return found;
}

static const char *close_capture(struct match *m, const char *s, const char *p) {
  int l = m->level - 1;
  while (l >= 0 && m->capture[l].len != OPEN) l--;
  if (l < 0) luaL_error(m->L, "invalid pattern capture");
  m->capture[l].len = s - m->capture[l].at;
  const char *found = do_match(m, s, p);
  if (!found) m->capture[l].len = OPEN;
  return found;
}

static const char *same_again(struct match *m, const char *s, int digit) {
  int l = digit - '1';
  if (l < 0 || l >= m->level || m->capture[l].len == OPEN) luaL_error(m->L, "invalid capture index %%%d", l + 1);
  size_t len = (size_t)m->capture[l].len;
  if (m->capture[l].len < 0 || (size_t)(m->end - s) < len) return NULL;
  np_task_spend(m->L, (int64_t)(len / 64));
  return memcmp(m->capture[l].at, s, len) == 0 ? s + len : NULL;
}

static bool at_frontier(struct match *m, const char *s, const char *p, const char *end) {
  int before = s == m->s ? 0 : (unsigned char)s[-1], now = s < m->end ? (unsigned char)*s : 0;
  return !in_set(m, before, p, end - 1) && in_set(m, now, p, end - 1);
}

/* One item of the pattern that is no capture: where the match goes on, with *p moved; NULL where it fails; *done where the rest is decided. */
static const char *item(struct match *m, const char *s, const char **p, bool *done) {
  const char *at = *p, *end = class_end(m, at);
  char repeat = end < m->pattern_end ? *end : 0;
  if (repeat == '*' || repeat == '+' || repeat == '-') {
    *done = true;
    if (repeat == '-') return least(m, s, at, end);
    if (repeat == '*') return most(m, s, at, end);
    return is_one(m, s, at, end) ? most(m, s + 1, at, end) : NULL;
  }
  bool one = is_one(m, s, at, end);
  if (repeat != '?') {
    *p = end;
    return one ? s + 1 : NULL;
  }
  const char *found = one ? do_match(m, s + 1, end + 1) : NULL;
  *done = found != NULL;
  *p = end + 1;
  return found ? found : s;
}

/* What begins with '%' and is no class. */
static const char *special(struct match *m, const char *s, const char **p, bool *done) {
  const char *at = *p, *end;
  switch (at[1]) {
  case 'b': *p = at + 4; return balanced(m, s, at + 2);
  case 'f':
    if (at + 2 >= m->pattern_end || at[2] != '[') luaL_error(m->L, "missing '[' after '%%f' in pattern");
    *p = end = class_end(m, at + 2);
    return at_frontier(m, s, at + 2, end) ? s : NULL;
  case '0':
  case '1':
  case '2':
  case '3':
  case '4':
  case '5':
  case '6':
  case '7':
  case '8':
  case '9': *p = at + 2; return same_again(m, s, (unsigned char)at[1]);
  default: return item(m, s, p, done);
  }
}

static const char *do_match(struct match *m, const char *s, const char *p) {
  bool done = false;
  if (m->depth-- == 0) luaL_error(m->L, "pattern too complex");
  while (s && !done && p != m->pattern_end) {
    step(m);
    if (*p == '(') {
      bool position = p + 1 < m->pattern_end && p[1] == ')';
      s = open_capture(m, s, p + (position ? 2 : 1), position ? POSITION : OPEN);
      done = true;
    } else if (*p == ')') {
      s = close_capture(m, s, p + 1);
      done = true;
    } else if (*p == '$' && p + 1 == m->pattern_end) {
      s = s == m->end ? s : NULL;
      done = true;
    } else if (*p == '%' && p + 1 < m->pattern_end) {
      s = special(m, s, &p, &done);
    } else {
      s = item(m, s, &p, &done);
    }
  }
  m->depth++;
  return s;
}

static void push_capture(struct match *m, int l, const char *s, const char *e) {
  if (l >= m->level) {
    if (l != 0) luaL_error(m->L, "invalid capture index %%%d", l + 1);
    lua_pushlstring(m->L, s, (size_t)(e - s));
  } else if (m->capture[l].len == POSITION) {
    lua_pushinteger(m->L, m->capture[l].at - m->s + 1);
  } else {
    if (m->capture[l].len == OPEN) luaL_error(m->L, "unfinished capture");
    lua_pushlstring(m->L, m->capture[l].at, (size_t)m->capture[l].len);
  }
}

/* All captures; the whole match where there is none and `whole`. */
static int push_captures(struct match *m, const char *s, const char *e, bool whole) {
  int n = m->level == 0 && whole ? 1 : m->level;
  luaL_checkstack(m->L, n, "too many captures");
  for (int i = 0; i < n; i++) push_capture(m, i, s, e);
  return n;
}

static void prepare(struct match *m, lua_State *L, const char *s, size_t len, const char *p, size_t pattern_len) {
  m->L = L;
  m->s = s, m->end = s + len;
  m->p = p, m->pattern_end = p + pattern_len;
  m->steps = 0;
}

static const char *match_at(struct match *m, const char *s) {
  m->level = 0;
  m->depth = DEPTH;
  return do_match(m, s, m->p);
}

static size_t start_at(lua_Integer pos, size_t len) {
  if (pos > 0) return (size_t)pos - 1;
  if (pos == 0 || pos < -(lua_Integer)len) return 0;
  return len - (size_t)-pos;
}

static bool is_plain(const char *p, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (p[i] && strchr("^$*+?.([%-", p[i])) return false;
  return true;
}

static int search(lua_State *L, bool find) {
  size_t len, pattern_len;
  const char *s = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &pattern_len);
  size_t init = start_at(luaL_optinteger(L, 3, 1), len);
  if (init > len) {
    luaL_pushfail(L);
    return 1;
  }
  if (find && (lua_toboolean(L, 4) || is_plain(p, pattern_len))) { /* memmem is linear, whatever it is given */
    np_task_spend(L, (int64_t)((len - init) / 16));
    const char *at = memmem(s + init, len - init, p, pattern_len);
    if (at)
      lua_pushinteger(L, at - s + 1), lua_pushinteger(L, at - s + (lua_Integer)pattern_len);
    else
      luaL_pushfail(L);
    return at ? 2 : 1;
  }
  struct match m;
  bool anchored = pattern_len && *p == '^';
  prepare(&m, L, s, len, p + anchored, pattern_len - anchored);
  for (const char *from = s + init; from <= m.end; from++) {
    const char *e = match_at(&m, from);
    if (e && find) {
      lua_pushinteger(L, from - s + 1);
      lua_pushinteger(L, e - s);
      return push_captures(&m, from, e, false) + 2;
    }
    if (e) return push_captures(&m, from, e, true);
    if (anchored) break;
  }
  luaL_pushfail(L);
  return 1;
}

static int str_find(lua_State *L) { return search(L, true); }

static int str_match(lua_State *L) { return search(L, false); }

/* Upvalues: subject, pattern, where to go on, where the last match ended (-1: none). */
static int gmatch_next(lua_State *L) {
  size_t len, pattern_len;
  const char *s = lua_tolstring(L, lua_upvalueindex(1), &len), *p = lua_tolstring(L, lua_upvalueindex(2), &pattern_len);
  lua_Integer at = lua_tointeger(L, lua_upvalueindex(3)), last = lua_tointeger(L, lua_upvalueindex(4));
  struct match m;
  prepare(&m, L, s, len, p, pattern_len);
  for (const char *from = s + at; from <= m.end; from++) {
    const char *e = match_at(&m, from);
    if (!e || e - s == last) continue;
    lua_pushinteger(L, e - s);
    lua_copy(L, -1, lua_upvalueindex(3));
    lua_replace(L, lua_upvalueindex(4));
    return push_captures(&m, from, e, true);
  }
  lua_pushinteger(L, (lua_Integer)len + 1);
  lua_replace(L, lua_upvalueindex(3));
  return 0;
}

static int str_gmatch(lua_State *L) {
  size_t len;
  luaL_checklstring(L, 1, &len);
  luaL_checkstring(L, 2);
  size_t init = start_at(luaL_optinteger(L, 3, 1), len);
  lua_settop(L, 2);
  lua_pushinteger(L, (lua_Integer)(init > len ? len + 1 : init));
  lua_pushinteger(L, -1);
  lua_pushcclosure(L, gmatch_next, 4);
  return 1;
}

static void add_text(struct match *m, luaL_Buffer *b, const char *s, const char *e) {
  size_t len;
  lua_State *L = m->L;
  const char *text = lua_tolstring(L, 3, &len);
  for (size_t i = 0; i < len; i++) {
    if (text[i] != '%') {
      luaL_addchar(b, text[i]);
      continue;
    }
    i++; /* within text, for it ends with a 0 */
    if (text[i] == '%' && i < len)
      luaL_addchar(b, '%');
    else if (text[i] == '0')
      luaL_addlstring(b, s, (size_t)(e - s));
    else if (isdigit((unsigned char)text[i])) {
      push_capture(m, text[i] - '1', s, e);
      luaL_tolstring(L, -1, NULL);
      lua_remove(L, -2);
      luaL_addvalue(b);
    } else {
      luaL_error(L, "invalid use of '%%' in replacement string");
    }
  }
}

/* What stands for the match; true where that is something else. */
static bool add_value(struct match *m, luaL_Buffer *b, const char *s, const char *e, int type) {
  lua_State *L = m->L;
  np_task_spend(L, 1); /* what is called may be C, and slow */
  if (type == LUA_TFUNCTION) {
    lua_pushvalue(L, 3);
    lua_call(L, push_captures(m, s, e, true), 1);
  } else if (type == LUA_TTABLE) {
    push_capture(m, 0, s, e);
    lua_gettable(L, 3);
  } else {
    add_text(m, b, s, e);
    return true;
  }
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    luaL_addlstring(b, s, (size_t)(e - s));
    return false;
  }
  if (!lua_isstring(L, -1)) luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
  luaL_addvalue(b);
  return true;
}

static int str_gsub(lua_State *L) {
  size_t len, pattern_len;
  const char *s = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &pattern_len), *last = NULL;
  int type = lua_type(L, 3);
  luaL_argexpected(L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE, 3,
                   "string/function/table");
  lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)len + 1), n = 0;
  bool anchored = pattern_len && *p == '^', changed = false;
  struct match m;
  luaL_Buffer b;
  lua_settop(L, 4);
  if (type == LUA_TNUMBER) lua_tolstring(L, 3, NULL);
  prepare(&m, L, s, len, p + anchored, pattern_len - anchored);
  luaL_buffinit(L, &b);
  while (n < max) {
    const char *e = match_at(&m, s);
    if (e && e != last) {
      n++;
      changed = add_value(&m, &b, s, e, type) || changed;
      s = last = e;
    } else if (s < m.end) {
      luaL_addchar(&b, *s++);
    } else {
      break;
    }
    if (anchored) break;
  }
  if (changed) {
    luaL_addlstring(&b, s, (size_t)(m.end - s));
    luaL_pushresult(&b);
  } else {
    lua_pushvalue(L, 1);
  }
  lua_pushinteger(L, n);
  return 2;
}

static int str_rep(lua_State *L) {
  size_t len, between_len;
  const char *s = luaL_checklstring(L, 1, &len);
  lua_Integer n = luaL_checkinteger(L, 2);
  const char *between = luaL_optlstring(L, 3, "", &between_len);
  if (n <= 0 || len + between_len == 0) {
    lua_pushliteral(L, "");
    return 1;
  }
  if (len + between_len < len || len + between_len > (size_t)LUA_MAXINTEGER / (size_t)n)
    return luaL_error(L, "resulting string too large");
  size_t total = (size_t)n * len + (size_t)(n - 1) * between_len;
  luaL_Buffer b;
  char *to = luaL_buffinitsize(L, &b, total);
  np_task_spend(L, (int64_t)(total / 64));
  for (; n > 0; n--) {
    memcpy(to, s, len);
    to += len;
    if (n > 1) memcpy(to, between, between_len), to += between_len;
  }
  luaL_pushresultsize(&b, total);
  return 1;
}

void np_sandbox_patterns(lua_State *L) {
  static const luaL_Reg verbs[] = {{"find", str_find}, {"match", str_match}, {"gmatch", str_gmatch},
                                   {"gsub", str_gsub}, {"rep", str_rep},     {NULL, NULL}};
  lua_getglobal(L, "string");
  luaL_setfuncs(L, verbs, 0);
  lua_pop(L, 1);
}
