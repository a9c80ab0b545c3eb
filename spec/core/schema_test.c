/* core/host/schema: declarations and values are Lua snippets, what comes of them is compared as text. */
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/buf.h"
#include "check.h"
#include "host/schema.h"
#include "lib/json.h"

/* show(v): one text for one value; integers, floats, null and the order of names told. */
static const char prelude[] =
    "function show(v)\n"
    "  if v == null then return 'null' end\n"
    "  if type(v) == 'string' then return string.format('%q', v) end\n"
    "  if type(v) ~= 'table' then return tostring(v) end\n"
    "  local out = {}\n"
    "  if is_array(v) then for i, e in ipairs(v) do out[i] = show(e) end return '[' .. table.concat(out, ',') .. ']' end\n"
    "  for k, e in pairs(v) do out[#out + 1] = tostring(k) .. '=' .. show(e) end\n"
    "  table.sort(out) return '{' .. table.concat(out, ',') .. '}'\n"
    "end\n";

static int is_array(lua_State *L) {
  lua_pushboolean(L, np_json_is_array(L, 1));
  return 1;
}

static lua_State *state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  np_json_push_null(L);
  lua_setglobal(L, "null");
  lua_register(L, "is_array", is_array);
  if (luaL_dostring(L, prelude) != LUA_OK) abort();
  return L;
}

/* Pushes the value of an expression. */
static void eval(lua_State *L, const char *expression) {
  lua_pushfstring(L, "return %s", expression);
  if (luaL_loadstring(L, lua_tostring(L, -1)) != LUA_OK || lua_pcall(L, 0, 1, 0) != LUA_OK) {
    fprintf(stderr, "in %s: %s\n", expression, lua_tostring(L, -1));
    abort();
  }
  lua_remove(L, -2);
}

static struct np_schema *compile(lua_State *L, const char *declaration, struct np_error *err) {
  int top = lua_gettop(L);
  eval(L, declaration);
  struct np_schema *s = np_schema_compile(L, -1, err);
  CHECK(lua_gettop(L) == top + 1, "the stack is as it was");
  lua_settop(L, top);
  return s;
}

static struct np_schema *compiled(lua_State *L, const char *declaration) {
  struct np_error err = {""};
  struct np_schema *s = compile(L, declaration, &err);
  if (!s) {
    fprintf(stderr, "%s: %s\n", declaration, err.text);
    abort();
  }
  return s;
}

/* "ok VALUE", or "FIELD: KIND: REASON". Written to a static place. */
static const char *outcome(lua_State *L, const struct np_schema *s, const char *value, const struct np_schema_check *how) {
  static char text[2048];
  struct np_problem p = {.kind = "none"};
  eval(L, value);
  int top = lua_gettop(L);
  if (np_schema_check(L, s, -1, how, &p) != 0) {
    snprintf(text, sizeof text, "%s: %s: %s", p.field, p.kind, p.reason);
  } else {
    lua_getglobal(L, "show");
    lua_pushvalue(L, -2);
    lua_call(L, 1, 1);
    snprintf(text, sizeof text, "ok %s", lua_tostring(L, -1));
    lua_pop(L, 1);
  }
  CHECK(lua_gettop(L) == top, "the stack is as it was");
  lua_pop(L, 1);
  return text;
}

static bool known_destination(void *arg, const char *name) {
  ++*(int *)arg;
  return strcmp(name, "desk") == 0;
}

enum mode { JSON, TEXT };

struct row {
  const char *declaration, *value;
  enum mode mode;
  const char *expected; /* its beginning, where it ends with ~ */
};

static bool fits(const char *got, const char *expected) {
  size_t n = strlen(expected);
  return n && expected[n - 1] == '~' ? strncmp(got, expected, n - 1) == 0 : strcmp(got, expected) == 0;
}

static void check_rows(lua_State *L, const struct row *rows, size_t n) {
  for (size_t i = 0; i < n; i++) {
    int asked = 0;
    struct np_schema_check how = {.from_text = rows[i].mode == TEXT, .destination = known_destination, .arg = &asked};
    struct np_schema *s = compiled(L, rows[i].declaration);
    const char *got = outcome(L, s, rows[i].value, &how);
    CHECK(fits(got, rows[i].expected), "%s on %s:\n  expected %s\n  got      %s", rows[i].declaration, rows[i].value,
          rows[i].expected, got);
    np_schema_free(s);
  }
}
#define ROWS(L, rows) check_rows(L, rows, sizeof rows / sizeof *rows)

static void check_types(lua_State *L) {
  static const struct row rows[] = {
      {"{a={'string'}}", "{a='x'}", JSON, "ok {a=\"x\"}"},
      {"{a={'string'}}", "{a=''}", JSON, "ok {a=\"\"}"},
      {"{a='string'}", "{a='x'}", JSON, "ok {a=\"x\"}"},
      {"{a={type='string'}}", "{a='x', b=1}", JSON, "ok {a=\"x\",b=1}"},
      {"{a={'string'}}", "{a=1}", JSON, "a: type: expected a string, got a number"},
      {"{a={'string'}}", "{a=true}", JSON, "a: type: expected a string, got a boolean"},
      {"{a={'string'}}", "{a={}}", JSON, "a: type: expected a string, got an object"},
      {"{a={'string'}}", "{a={1}}", JSON, "a: type: expected a string, got an array"},
      {"{a={'string'}}", "{a=print}", JSON, "a: type: expected a string, got a function"},
      {"{a={'string'}}", "{a=io.stdout}", JSON, "a: type: expected a string, got a userdata"},
      {"{a={'string'}}", "{}", JSON, "a: missing: missing: expected a string"},
      {"{a={'string'}}", "{a=null}", JSON, "a: missing: expected a string, got null"},
      {"{a={'string', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'string', null=true}}", "{}", JSON, "a: missing: missing: expected a string"},
      {"{a={'string', optional=true}}", "{}", JSON, "ok {}"},
      {"{a={'string', optional=true}}", "{a=null, b=2}", JSON, "ok {b=2}"},
      {"{a={'string', optional=true, null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'string'}}", "{a='12'}", TEXT, "ok {a=\"12\"}"},
      {"{a={'string', lenient=true}}", "{a=12}", JSON, "ok {a=\"12\"}"},
      {"{a={'string', lenient=true}}", "{a=12.0}", JSON, "ok {a=\"12\"}"},
      {"{a={'string', lenient=true}}", "{a=-0.1}", JSON, "ok {a=\"-0.1\"}"},
      {"{a={'string', lenient=true}}", "{a=1/3}", JSON, "ok {a=\"0.3333333333333333\"}"},
      {"{a={'string', lenient=true}}", "{a=9007199254740993}", JSON, "ok {a=\"9007199254740993\"}"},
      {"{a={'string', lenient=true}}", "{a=math.maxinteger}", JSON, "ok {a=\"9223372036854775807\"}"},
      {"{a={'string', lenient=true}}", "{a=9223372036854775808}", JSON, "a: type: expected a string, got a number"},
      {"{a={'string', lenient=true}}", "{a=-2.0^53}", JSON, "a: type: expected a string, got a number"},
      {"{a={'string', lenient=true}}", "{a=0/0}", JSON, "a: type: expected a string, got a number"},
      {"{a={'string', lenient=true}}", "{a=true}", JSON, "a: type: expected a string, got a boolean"},

      {"{a={'number'}}", "{a=1}", JSON, "ok {a=1}"},
      {"{a={'number'}}", "{a=1.0}", JSON, "ok {a=1.0}"},
      {"{a={'number'}}", "{a=-1.5e300}", JSON, "ok {a=-1.5e+300}"},
      {"{a={'number'}}", "{a='1'}", JSON, "a: type: expected a number, got a string"},
      {"{a={'number'}}", "{a=0/0}", JSON, "a: type: expected a number, got ~"},
      {"{a={'number'}}", "{a=1/0}", JSON, "a: type: expected a number, got inf"},
      {"{a={'number'}}", "{}", JSON, "a: missing: missing: expected a number"},
      {"{a={'number'}}", "{a=null}", JSON, "a: missing: expected a number, got null"},
      {"{a={'number', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'number'}}", "{a='12'}", TEXT, "ok {a=12}"},
      {"{a={'number'}}", "{a='-0012.50'}", TEXT, "ok {a=-12.5}"},
      {"{a={'number'}}", "{a='1e3'}", TEXT, "ok {a=1000.0}"},
      {"{a={'number'}}", "{a='1E-2'}", TEXT, "ok {a=0.01}"},
      {"{a={'number'}}", "{a='9223372036854775807'}", TEXT, "ok {a=9223372036854775807}"},
      {"{a={'number'}}", "{a=''}", TEXT, "a: type: expected a number, got \"\""},
      {"{a={'number'}}", "{a=' 1'}", TEXT, "a: type: expected a number, got \" 1\""},
      {"{a={'number'}}", "{a='1 '}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='1\\0'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='0x10'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='inf'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='nan'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='1e999'}", TEXT, "a: type: expected a number, got \"1e999\""},
      {"{a={'number'}}", "{a='.5'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='5.'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='1e'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='1e+'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='+1'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='-'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a='1,5'}", TEXT, "a: type: ~"},
      {"{a={'number'}}", "{a=('1'):rep(201)}", TEXT, "a: type: ~"},
      {"{a={'number', lenient=true}}", "{a='12'}", JSON, "ok {a=12}"},
      {"{a={'number', lenient=true}}", "{a='x'}", JSON, "a: type: expected a number, got \"x\""},

      {"{a={'integer'}}", "{a=5}", JSON, "ok {a=5}"},
      {"{a={'integer'}}", "{a=5.0}", JSON, "ok {a=5}"},
      {"{a={'integer'}}", "{a=-0.0}", JSON, "ok {a=0}"},
      {"{a={'integer'}}", "{a=5.5}", JSON, "a: type: expected an integer, got 5.5"},
      {"{a={'integer'}}", "{a=2^63}", JSON, "a: type: expected an integer, got 9.223372036854776e+18"},
      {"{a={'integer'}}", "{a=-2^63}", JSON, "ok {a=-9223372036854775808}"},
      {"{a={'integer'}}", "{a=0/0}", JSON, "a: type: ~"},
      {"{a={'integer'}}", "{a='5'}", JSON, "a: type: expected an integer, got a string"},
      {"{a={'integer'}}", "{}", JSON, "a: missing: missing: expected an integer"},
      {"{a={'integer'}}", "{a=null}", JSON, "a: missing: expected an integer, got null"},
      {"{a={'integer', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'integer'}}", "{a='-5'}", TEXT, "ok {a=-5}"},
      {"{a={'integer'}}", "{a='5.0'}", TEXT, "a: type: expected an integer, got \"5.0\""},
      {"{a={'integer'}}", "{a='9223372036854775807'}", TEXT, "ok {a=9223372036854775807}"},
      {"{a={'integer'}}", "{a='9223372036854775808'}", TEXT, "a: type: expected an integer, got \"9223372036854775808\""},
      {"{a={'integer', lenient=true}}", "{a='7'}", JSON, "ok {a=7}"},
      {"{a={'integer', lenient=true}}", "{a='7x'}", JSON, "a: type: ~"},

      {"{a={'boolean'}}", "{a=true}", JSON, "ok {a=true}"},
      {"{a={'boolean'}}", "{a=false}", JSON, "ok {a=false}"},
      {"{a={'boolean'}}", "{a='true'}", JSON, "a: type: expected a boolean, got a string"},
      {"{a={'boolean'}}", "{a=1}", JSON, "a: type: expected a boolean, got a number"},
      {"{a={'boolean'}}", "{}", JSON, "a: missing: missing: expected a boolean"},
      {"{a={'boolean'}}", "{a=null}", JSON, "a: missing: expected a boolean, got null"},
      {"{a={'boolean', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'boolean'}}", "{a='true'}", TEXT, "ok {a=true}"},
      {"{a={'boolean'}}", "{a='false'}", TEXT, "ok {a=false}"},
      {"{a={'boolean'}}", "{a='1'}", TEXT, "ok {a=true}"},
      {"{a={'boolean'}}", "{a='0'}", TEXT, "ok {a=false}"},
      {"{a={'boolean'}}", "{a='True'}", TEXT, "a: type: expected a boolean, got \"True\""},
      {"{a={'boolean'}}", "{a=''}", TEXT, "a: type: expected a boolean, got \"\""},
      {"{a={'boolean', default=true}}", "{a=false}", JSON, "ok {a=false}"},

      {"{a={'object'}}", "{a={}}", JSON, "ok {a={}}"},
      {"{a={'object'}}", "{a={b=1}}", JSON, "ok {a={b=1}}"},
      {"{a={'object'}}", "{a={1}}", JSON, "a: type: expected an object, got an array"},
      {"{a={'object'}}", "{a='{}'}", TEXT, "a: type: expected an object, got a string"},
      {"{a={'object'}}", "{}", JSON, "a: missing: missing: expected an object"},
      {"{a={'object'}}", "{a=null}", JSON, "a: missing: expected an object, got null"},
      {"{a={'object', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'array'}}", "{a={}}", JSON, "ok {a=[]}"},
      {"{a={'array'}}", "{a={1,'x',null}}", JSON, "ok {a=[1,\"x\",null]}"},
      {"{a={'array'}}", "{a={b=1}}", JSON, "a: type: expected an array, got an object"},
      {"{a={'array'}}", "{a='x'}", JSON, "a: type: expected an array, got a string"},
      {"{a={'array'}}", "{}", JSON, "a: missing: missing: expected an array"},
      {"{a={'array'}}", "{a=null}", JSON, "a: missing: expected an array, got null"},
      {"{a={'array', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'array', items='integer'}}", "{a={'1','2'}}", TEXT, "ok {a=[1,2]}"},
      {"{a={'array', items='integer'}}", "{a={1.0,2}}", JSON, "ok {a=[1,2]}"},
      {"{a={'array', items={'integer', null=true}}}", "{a={1,null}}", JSON, "ok {a=[1,null]}"},
      {"{a={'array', items='integer'}}", "{a={1,null}}", JSON, "a[2]: missing: expected an integer, got null"},
      {"{a={'any'}}", "{a=false}", JSON, "ok {a=false}"},
      {"{a={'any'}}", "{a={1,{b='x'}}}", JSON, "ok {a=[1,{b=\"x\"}]}"},
      {"{a={'any'}}", "{a='x'}", TEXT, "ok {a=\"x\"}"},
      {"{a={'any'}}", "{a=print}", JSON, "a: type: expected a JSON value, got a function"},
      {"{a={'any'}}", "{}", JSON, "a: missing: missing: expected a JSON value"},
      {"{a={'any'}}", "{a=null}", JSON, "a: missing: expected a JSON value, got null"},
      {"{a={'any', null=true}}", "{a=null}", JSON, "ok {a=null}"},

      {"{a={'secret'}}", "{a='hush-hush'}", JSON, "ok {a=\"hush-hush\"}"},
      {"{a={'secret'}}", "{a=12345}", JSON, "a: type: expected a string, got a number"},
      {"{a={'secret'}}", "{}", JSON, "a: missing: missing: expected a string"},
      {"{a={'secret'}}", "{a=null}", JSON, "a: missing: expected a string, got null"},
      {"{a={'secret', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'secret'}}", "{a='from-text'}", TEXT, "ok {a=\"from-text\"}"},
      {"{a={'secret', lenient=true}}", "{a=98765}", JSON, "ok {a=\"98765\"}"},
      {"{a={'duration'}}", "{a='15m'}", JSON, "ok {a=900}"},
      {"{a={'duration'}}", "{a='250ms'}", JSON, "ok {a=0.25}"},
      {"{a={'duration'}}", "{a='90'}", TEXT, "ok {a=90}"},
      {"{a={'duration'}}", "{a=0}", JSON, "ok {a=0}"},
      {"{a={'duration'}}", "{a=1.5}", JSON, "ok {a=1.5}"},
      {"{a={'duration'}}", "{a=-1}", JSON, "a: range: expected 0 or more seconds, at most 100 years, got -1"},
      {"{a={'duration'}}", "{a=3162240000}", JSON, "ok {a=3162240000}"},
      {"{a={'duration'}}", "{a=3162240001}", JSON, "a: range: ~"},
      {"{a={'duration'}}", "{a=0/0}", JSON, "a: type: ~"},
      {"{a={'duration'}}", "{a='soon'}", JSON, "a: type: expected a duration such as \"15m\", got \"soon\""},
      {"{a={'duration'}}", "{a='-1s'}", JSON, "a: type: ~"},
      {"{a={'duration'}}", "{a=true}", JSON, "a: type: expected a duration such as \"15m\", got a boolean"},
      {"{a={'duration'}}", "{}", JSON, "a: missing: missing: expected a duration such as \"15m\""},
      {"{a={'duration'}}", "{a=null}", JSON, "a: missing: ~"},
      {"{a={'duration', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'destination'}}", "{a='desk'}", JSON, "ok {a=\"desk\"}"},
      {"{a={'destination'}}", "{a='dusk'}", JSON, "a: values: expected the name of a configured destination, got \"dusk\""},
      {"{a={'destination'}}", "{a='desk\\0x'}", JSON, "a: values: ~"},
      {"{a={'destination'}}", "{a=''}", TEXT, "a: values: ~"},
      {"{a={'destination'}}", "{a=1}", JSON, "a: type: expected the name of a destination, got a number"},
      {"{a={'destination'}}", "{}", JSON, "a: missing: missing: expected the name of a destination"},
      {"{a={'destination'}}", "{a=null}", JSON, "a: missing: ~"},
      {"{a={'destination', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'destination', default='desk'}}", "{}", JSON, "ok {a=\"desk\"}"},
      {"{a={'destination', default='gone'}}", "{}", JSON, "a: values: ~"},
      {"{a={'array', items='destination', default={'desk','gone'}}}", "{}", JSON, "a[2]: values: ~"},

      {"{}", "{}", JSON, "ok {}"},
      {"{}", "{x=1}", JSON, "ok {x=1}"},
      {"{a={'string'}}", "{1,2}", JSON, ": type: expected an object, got an array"},
      {"{a={'string'}}", "'x'", JSON, ": type: expected an object, got a string"},
      {"{a={'string'}}", "nil", JSON, ": type: expected an object, got nothing"},
      {"{a={'string'}}", "null", JSON, ": type: expected an object, got null"},
      {"{a={'string', optional=true}}", "{}", JSON, "ok {}"},
  };
  ROWS(L, rows);
}

static void check_limits(lua_State *L) {
  static const struct row rows[] = {
      {"{a={'number', min=3.9, max=10}}", "{a=3.9}", JSON, "ok ~"},
      {"{a={'number', min=3.9, max=10}}", "{a=3.8999}", JSON, "a: range: expected at least 3.9, got 3.8999"},
      {"{a={'number', min=3.9, max=10}}", "{a=3}", JSON, "a: range: expected at least 3.9, got 3"},
      {"{a={'number', min=3.9, max=10}}", "{a=10.0}", JSON, "ok ~"},
      {"{a={'number', min=3.9, max=10}}", "{a=10.001}", JSON, "a: range: expected at most 10, got 10.001"},
      {"{a={'number', min=3.9, max=10}}", "{a=11}", JSON, "a: range: expected at most 10, got 11"},
      {"{a={'number', max=10}}", "{a='11'}", TEXT, "a: range: expected at most 10, got 11"},
      {"{a={'number', max=2^53}}", "{a=9007199254740993}", JSON, "a: range: ~"},
      {"{a={'integer', min=-1, max=1}}", "{a=-1}", JSON, "ok ~"},
      {"{a={'integer', min=-1, max=1}}", "{a=1}", JSON, "ok ~"},
      {"{a={'integer', min=-1, max=1}}", "{a=-2}", JSON, "a: range: expected at least -1, got -2"},
      {"{a={'integer', min=-1, max=1}}", "{a=2.0}", JSON, "a: range: expected at most 1, got 2"},
      {"{a={'integer', max=9223372036854775806}}", "{a=math.maxinteger}", JSON, "a: range: ~"},
      {"{a={'integer', min=0.5}}", "{a=0}", JSON, "a: range: expected at least 0.5, got 0"},
      {"{a={'integer', min=0.5}}", "{a=1}", JSON, "ok ~"},
      {"{a={'duration', min='1m', max=120}}", "{a=60}", JSON, "ok ~"},
      {"{a={'duration', min='1m', max=120}}", "{a='59s'}", JSON, "a: range: expected at least 60 seconds, got 59"},
      {"{a={'duration', min='1m', max=120}}", "{a='2m'}", JSON, "ok ~"},
      {"{a={'duration', min='1m', max=120}}", "{a=120.5}", JSON, "a: range: expected at most 120 seconds, got 120.5"},
      {"{a={'string', min=2, max=3}}", "{a='é'}", JSON, "a: length: expected at least 2 characters, got 1"},
      {"{a={'string', min=2, max=3}}", "{a='éé'}", JSON, "ok ~"},
      {"{a={'string', min=2, max=3}}", "{a='日本語'}", JSON, "ok ~"},
      {"{a={'string', min=2, max=3}}", "{a='日本語😀'}", JSON, "a: length: expected at most 3 characters, got 4"},
      {"{a={'string', min=2, max=3}}", "{a='\\xff\\xff\\xff'}", JSON, "ok ~"},
      {"{a={'string', min=2, max=3}}", "{a='\\xff\\xff\\xff\\xff'}", JSON, "a: length: ~"},
      {"{a={'string', max=0}}", "{a=''}", JSON, "ok ~"},
      {"{a={'string', min=1}}", "{a=''}", JSON, "a: length: expected at least 1 character, got 0"},
      {"{a={'string', lenient=true, max=2}}", "{a=123}", JSON, "a: length: expected at most 2 characters, got 3"},
      {"{a={'secret', min=8}}", "{a='1234567'}", JSON, "a: length: expected at least 8 characters"},
      {"{a={'secret', min=8}}", "{a='12345678'}", JSON, "ok ~"},
      {"{a={'array', min=1, max=2}}", "{a={}}", JSON, "a: length: expected at least 1 element, got 0"},
      {"{a={'array', min=1, max=2}}", "{a={1}}", JSON, "ok ~"},
      {"{a={'array', min=1, max=2}}", "{a={1,2}}", JSON, "ok ~"},
      {"{a={'array', min=1, max=2}}", "{a={1,2,3}}", JSON, "a: length: expected at most 2 elements, got 3"},

      {"{a={'string', values={'0','1'}}}", "{a='1'}", JSON, "ok ~"},
      {"{a={'string', values={'0','1'}}}", "{a='7'}", JSON, "a: values: expected one of \"0\", \"1\", got \"7\""},
      {"{a={'string', values={'0','1'}, lenient=true}}", "{a=1}", JSON, "ok {a=\"1\"}"},
      {"{a={'string', values={'x'}}}", "{a='x\\0'}", JSON, "a: values: expected \"x\", got another string"},
      {"{a={'number', values={1,2.5}}}", "{a=1.0}", JSON, "ok {a=1.0}"},
      {"{a={'number', values={1,2.5}}}", "{a='2.5'}", TEXT, "ok {a=2.5}"},
      {"{a={'number', values={1,2.5}}}", "{a=2}", JSON, "a: values: expected one of 1, 2.5, got 2"},
      {"{a={'integer', values={1.0,2}}}", "{a=3}", JSON, "a: values: expected one of 1, 2, got 3"},
      {"{a={'duration', values={'1m',120}}}", "{a='2m'}", JSON, "ok {a=120}"},
      {"{a={'duration', values={'1m',120}}}", "{a='3m'}", JSON, "a: values: expected one of 60, 120, got 180"},
      {"{a={'string', values=(function() local t = {} for i = 1, 99 do t[i] = ('v'):rep(30)..i end return t end)()}}", "{a='no'}",
       JSON, "a: values: expected one of \"vvvvvvvvvvvvvvvvvvvvvvvvvvvvvv1\", ~"},

      {"{a={'string', pattern='%d%d%-%a+'}}", "{a='12-ab'}", JSON, "ok ~"},
      {"{a={'string', pattern='%d%d%-%a+'}}", "{a='12-ab '}", JSON,
       "a: pattern: expected text that matches the pattern %d%d%-%a+, got \"12-ab \""},
      {"{a={'string', pattern='%d%d%-%a+'}}", "{a='x12-ab'}", JSON, "a: pattern: ~"},
      {"{a={'string', pattern='^a-$'}}", "{a='aaa'}", JSON, "ok ~"},
      {"{a={'string', pattern='a-'}}", "{a='aaa'}", JSON, "ok ~"},
      {"{a={'string', pattern='a%$'}}", "{a='a$'}", JSON, "ok ~"},
      {"{a={'string', pattern='a%$'}}", "{a='a$b'}", JSON, "a: pattern: ~"},
      {"{a={'string', pattern='%b($'}}", "{a='(x$'}", JSON, "ok ~"},
      {"{a={'string', pattern='%b($'}}", "{a='(x$y'}", JSON, "a: pattern: ~"},
      {"{a={'string', pattern='%a%%$'}}", "{a='a%'}", JSON, "ok ~"},
      {"{a={'string', pattern='()x'}}", "{a='x'}", JSON, "ok ~"},
      {"{a={'string', pattern='(.)%1'}}", "{a='xx'}", JSON, "ok ~"},
      {"{a={'string', pattern='(.)%1'}}", "{a='xy'}", JSON, "a: pattern: ~"},
      {"{a={'string', pattern=''}}", "{a=''}", JSON, "ok ~"},
      {"{a={'string', pattern=''}}", "{a='x'}", JSON, "a: pattern: ~"},
      {"{a={'string', pattern='x*'}}", "{a=('x'):rep(4096)}", JSON, "ok ~"},
      {"{a={'string', pattern='x*'}}", "{a=('x'):rep(4097)}", JSON,
       "a: length: expected at most 4096 bytes, for it is matched against a pattern"},
      {"{a={'string', pattern=('x?'):rep(128)}}", "{a=('x'):rep(128)}", JSON, "ok ~"},
      {"{a={'string', pattern=('()'):rep(32)..('x?'):rep(96)}}", "{a=('x'):rep(96)}", JSON, "ok ~"},
      {"{a={'secret', pattern='sk_%w+'}}", "{a='pk_12345'}", JSON, "a: pattern: expected text that matches the pattern sk_%w+"},
  };
  ROWS(L, rows);
}

static void check_nesting(lua_State *L) {
#define DEEP                                                                                                                       \
  "{data={'object', fields={readings={'array', items={'object', only=true, fields={value={'number'}, at={'string', "               \
  "optional=true}}}}}}}"
  static const struct row rows[] = {
      {DEEP, "{data={readings={{value=1},{value=2,at='x'}}}}", JSON, "ok {data={readings=[{value=1},{at=\"x\",value=2}]}}"},
      {DEEP, "{data={readings={}}}", JSON, "ok {data={readings=[]}}"},
      {DEEP, "{data={readings={{value=1},{value=2},{value='x'}}}}", JSON,
       "data.readings[3].value: type: expected a number, got a string"},
      {DEEP, "{data={readings={{value=1},{}}}}", JSON, "data.readings[2].value: missing: missing: expected a number"},
      {DEEP, "{data={readings={1}}}", JSON, "data.readings[1]: type: expected an object, got a number"},
      {DEEP, "{data={readings={{value=1,vale=2}}}}", JSON,
       "data.readings[1].vale: unknown: unknown field, did you mean \"value\"?"},
      {DEEP, "{data={readings={{value=1,zzz=2,yyy=1}}}}", JSON, "data.readings[1].yyy: unknown: unknown field"},
      {DEEP, "{data={readings={{value=1,[7]=2}}}}", JSON, "data.readings[1]: unknown: expected fields by name only"},
      {DEEP, "{data={readings={{value=1,['a\\nb']=2}}}}", JSON, "data.readings[1].a?b: unknown: ~"},
      {DEEP, "{data={}}", JSON, "data.readings: missing: ~"},
      {DEEP, "{data={readings=null}}", JSON, "data.readings: missing: ~"},
      {"{a={'array', items={'array', items='integer'}}}", "{a={{1},{2,'x'}}}", JSON, "a[2][2]: type: ~"},
      /* the first problem in the order of names, whatever its kind; an unknown field before the missing one it may have been meant for */
      {"{b={'string'}, a={'string'}}", "{a=1}", JSON, "a: type: ~"},
      {"{b={'string'}, a={'string'}}", "{b=1}", JSON, "a: missing: ~"},
      /* what is an object's own, before what stands below it */
      {"{a={'object', fields={x='string'}}, b={'array', items='string'}, c='string', d='object'}", "{a={},b={1},c=1,d=1}", JSON,
       "c: type: ~"},
      {"{a={'object', fields={x='string'}}, b={'array', items='string'}, c='string', d='object'}", "{a={},b={1},c='',d=1}", JSON,
       "d: type: ~"},
      {"{a={'object', fields={x='string'}}, b={'array', items='string'}, c='string', d='object'}", "{a={},b={1},c='',d={}}", JSON,
       "a.x: missing: ~"},
      {"{a={'object', default={}, fields={x={'integer', default=1}}}, c={'string', default='y'}}", "{}", JSON,
       "ok {a={x=1},c=\"y\"}"},
      {"{o={'object', only=true, fields={value={'number'}}}}", "{o={vlaue=1}}", JSON,
       "o.vlaue: unknown: unknown field, did you mean \"value\"?"},
      {"{o={'object', only=true, fields={a={'number', optional=true}}}}", "{o={a=1}}", JSON, "ok ~"},
      {"{o={'object', only=true, fields={}}}", "{o={a=1}}", JSON, "o.a: unknown: ~"},
      {"{o={'object', optional=true, fields={a='string'}}}", "{}", JSON, "ok {}"},

      {"{a={'string', default='x'}, b={'integer', default=5.0}, c={'duration', default='1m'}}", "{}", JSON,
       "ok {a=\"x\",b=5,c=60}"},
      {"{a={'string', default='x'}}", "{a=null}", JSON, "ok {a=\"x\"}"},
      {"{a={'string', default='x', null=true}}", "{a=null}", JSON, "ok {a=null}"},
      {"{a={'string', default=null, null=true}}", "{}", JSON, "ok {a=null}"},
      {"{a={'boolean', default=false}}", "{}", JSON, "ok {a=false}"},
      {"{a={'any', default={1,{x={}}}}}", "{}", JSON, "ok {a=[1,{x={}}]}"},
      {"{a={'array', default={}}}", "{}", JSON, "ok {a=[]}"},
      {"{a={'object', default={}, fields={b={'integer', default=2}}}}", "{}", JSON, "ok {a={b=2}}"},
      {"{a={'object', default={}, fields={b={'integer', default=2}}}}", "{a={c=1}}", JSON, "ok {a={b=2,c=1}}"},
      {"{a={'string', default='1', lenient=true}}", "{a=2}", TEXT, "ok {a=\"2\"}"},
  };
  ROWS(L, rows);
}

static void check_errors(lua_State *L) {
  static const struct {
    const char *declaration, *expected;
  } rows[] = {
      {"5", "a schema is a table of fields, { name = { TYPE } }, not a number"},
      {"nil", "a schema is ~"},
      {"{'string'}", "fields are declared by name, { name = { TYPE } }, but there is one without"},
      {"{['']={'string'}}", "a field's name is text that is not empty and has no zero byte"},
      {"{['a\\0b']={'string'}}", "a field's name is ~"},
      {"{a=5}", "field a: a declaration is a table such as { \"string\" }, not a number"},
      {"{a={}}", "field a: its type is missing: the first element of a declaration, { \"string\" }"},
      {"{a={5}}", "field a: its type has to be a string, not a number"},
      {"{a={'string', type='string'}}", "field a: its type is given twice"},
      {"{a={'strng'}}", "field a: unknown type \"strng\", did you mean \"string\"?"},
      {"{a='bool'}", "field a: unknown type \"bool\", did you mean \"boolean\"?"},
      {"{a='int'}", "field a: unknown type \"int\", did you mean \"integer\"?"},
      {"{a='string\\0'}", "field a: unknown type ~"},
      {"{a='timestamp'}", "field a: unknown type \"timestamp\"; there are string, number, integer, boolean, object, array, any, "
                          "secret, duration, destination"},
      {"{data={'object', fields={low={'number', mim=1}}}}", "field data.low: unknown option \"mim\", did you mean \"min\"?"},
      {"{a={'array', items={'object', fields={b={'number', maxx=1}}}}}",
       "field a[].b: unknown option \"maxx\", did you mean \"max\"?"},
      {"{a={'string', defualt='x'}}", "field a: unknown option \"defualt\", did you mean \"default\"?"},
      {"{a={'string', required=true}}", "field a: unknown option \"required\"; there are about, unit, ~"},
      {"{a={'string', zz=1, yy=2}}", "field a: unknown option \"yy\"~"},
      {"{a={'string', 'number'}}", "field a: a declaration is one type, then options by name: ~"},
      {"{a={'string', about=5}}", "field a: option \"about\" has to be a string"},
      {"{a={'string', unit={}}}", "field a: option \"unit\" has to be a string"},
      {"{a={'string', about='x\\0y'}}", "field a: option \"about\" has a zero byte in it"},
      {"{a={'string', optional=1}}", "field a: option \"optional\" has to be true or false"},
      {"{a={'string', null='yes'}}", "field a: option \"null\" has to be true or false"},
      {"{a={'string', person='x'}}", "field a: option \"person\" has to be true or false"},
      {"{a={'string', lenient=1}}", "field a: option \"lenient\" has to be true or false"},
      {"{a={'object', fields={}, only=1}}", "field a: option \"only\" has to be true or false"},
      {"{a={'object', only=true}}", "field a: option \"only\" needs \"fields\""},
      {"{a={'boolean', lenient=true}}", "field a: option \"lenient\" is not for boolean"},
      {"{a={'boolean', min=1}}", "field a: option \"min\" is not for boolean"},
      {"{a={'object', max=1}}", "field a: option \"max\" is not for object"},
      {"{a={'boolean', values={true}}}", "field a: option \"values\" is not for boolean"},
      {"{a={'number', pattern='x'}}", "field a: option \"pattern\" is not for number"},
      {"{a={'object', items='string'}}", "field a: option \"items\" is not for object"},
      {"{a={'array', fields={}}}", "field a: option \"fields\" is not for array"},
      {"{a={'string', only=true}}", "field a: option \"only\" is not for string"},
      {"{a={'number', min='1'}}", "field a: option \"min\" has to be a number"},
      {"{a={'number', max=1/0}}", "field a: option \"max\" has to be a number"},
      {"{a={'string', min=1.5}}", "field a: option \"min\" has to be a length: 0, 1, 2, …"},
      {"{a={'array', max=-1}}", "field a: option \"max\" has to be a length: 0, 1, 2, …"},
      {"{a={'duration', min='soon'}}", "field a: option \"min\" has to be a duration such as \"15m\""},
      {"{a={'duration', min={}}}", "field a: option \"min\" has to be a number of seconds or a duration"},
      {"{a={'number', min=2, max=1.5}}", "field a: option \"min\" is above \"max\""},
      {"{a={'string', values={}}}", "field a: option \"values\" has to be a list with at least one value"},
      {"{a={'string', values='x'}}", "field a: option \"values\" has to be a list with at least one value"},
      {"{a={'string', values={'x', y=1}}}", "field a: option \"values\" has to be a list without holes or names"},
      {"{a={'string', values={'x', 1}}}", "field a: values[2] has to be a string"},
      {"{a={'number', values={'x'}}}", "field a: values[1] has to be a number"},
      {"{a={'integer', values={1.5}}}", "field a: values[1] has to be an integer"},
      {"{a={'string', pattern=5}}", "field a: option \"pattern\" has to be a string"},
      {"{a={'string', pattern=('x'):rep(257)}}", "field a: a pattern has at most 256 bytes"},
      {"{a={'string', pattern='a%'}}", "field a: the pattern \"a%\" ends with %"},
      {"{a={'string', pattern='[a'}}", "field a: the pattern \"[a\" has a [ without its ]"},
      {"{a={'string', pattern='[]'}}", "field a: the pattern \"[]\" has a [ without its ]"},
      {"{a={'string', pattern='[a%'}}", "field a: the pattern \"[a%\" has a [ without its ]"},
      {"{a={'string', pattern='(a'}}", "field a: the pattern \"(a\" has a ( without its )"},
      {"{a={'string', pattern='a)'}}", "field a: the pattern \"a)\" has a ) without its ("},
      {"{a={'string', pattern='%b('}}", "field a: the pattern \"%b(\" lacks the two characters of %b"},
      {"{a={'string', pattern='%fa'}}", "field a: the pattern \"%fa\" lacks the set of %f"},
      {"{a={'string', pattern='(a%1)'}}", "field a: the pattern \"(a%1)\" refers to a capture that it does not have"},
      {"{a={'string', pattern='%0'}}", "field a: the pattern \"%0\" refers to a capture that it does not have"},
      {"{a={'string', pattern=('()'):rep(33)}}", "field a: the pattern ~"},
      {"{a={'array', items=5}}", "field a[]: a declaration is a table ~"},
      {"{a={'array', items={'string', optional=true}}}", "field a[]: an element of an array is not optional"},
      {"{a={'array', items={'string', default='x'}}}", "field a[]: an element of an array has no default"},
      {"{a={'object', fields='x'}}", "field a: option \"fields\" is a table of fields, { name = { TYPE } }, not a string"},
      {"{a={'object', fields={'string'}}}", "field a: fields are declared by name, ~"},
      {"{a={'string', default=5}}", "field a: its default does not fit: expected a string, got a number"},
      {"{a={'integer', default=5.5}}", "field a: its default does not fit: expected an integer, got 5.5"},
      {"{a={'string', default=null}}", "field a: its default does not fit: expected a string, got null"},
      {"{a={'number', max=1, default=2}}", "field a: its default does not fit: expected at most 1, got 2"},
      {"{a={'array', items='number', default={1,'x'}}}", "field a: its default does not fit: [2]: expected a number, got a string"},
      {"{a={'object', fields={b='string'}, default={}}}", "field a: its default does not fit: b: missing: expected a string"},
      {"{a={'any', default=print}}", "field a: its default cannot be used: it has to be what JSON can hold"},
      {"{a={'any', default={x=0/0}}}", "field a: its default cannot be used: a number has to be finite"},
      {"{a={'any', default={[2]=1}}}", "field a: its default cannot be used: a table is either a list ~"},
      {"{a={'any', default=(function() local t = {} t.t = t return t end)()}}",
       "field a: its default cannot be used: it is nested too deeply"},
      {"{a={'any', default=(function() local t = {} for i = 1, 20000 do t[i] = 1 end return t end)()}}",
       "field a: its default cannot be used: it is too large"},
      {"{b=5, a=6}", "field a: ~"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct np_error err = {""};
    struct np_schema *s = compile(L, rows[i].declaration, &err);
    CHECK(!s && fits(err.text, rows[i].expected), "%s:\n  expected %s\n  got      %s", rows[i].declaration, rows[i].expected,
          err.text);
    np_schema_free(s);
  }
}

/* Declarations that refer to themselves, or to one table many times over, end. */
static void check_bounds(lua_State *L) {
  static const char deep[] =
      "(function(n) local f = {'string'} for i = 2, n do f = {'object', fields={x=f}} end return {x=f} end)(%d)";
  char text[200];
  struct np_error err = {""};
  snprintf(text, sizeof text, deep, 16);
  struct np_schema *s = compile(L, text, &err);
  CHECK(s, "16 levels pass: %s", err.text);
  struct np_schema_check how = {0};
  if (s)
    CHECK(fits(outcome(L, s, "(function() local v = 5 for i = 1, 16 do v = {x=v} end return v end)()", &how),
               "x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x: type: expected a string, got a number"));
  np_schema_free(s);
  snprintf(text, sizeof text, deep, 17);
  CHECK(!compile(L, text, &err) && strstr(err.text, "fields are nested more than 16 deep"), "%s", err.text);
  CHECK(!compile(L, "(function() local f = {'object'} f.fields = {x=f} return f.fields end)()", &err), "a cycle");
  CHECK(strstr(err.text, "nested more than 16 deep"), "%s", err.text);
  CHECK(!compile(
      L, "(function() local f = {'string'} for i = 1, 15 do f = {'object', fields={a=f,b=f,c=f}} end return {x=f} end)()", &err));
  CHECK(strstr(err.text, "a schema has at most 4096 fields"), "%s", err.text);
  CHECK(!compile(L, "setmetatable({}, {__index=error, __pairs=error}) and {a=setmetatable({}, {__index=error})}", &err));
  CHECK(strstr(err.text, "its type is missing"), "no metamethod is called: %s", err.text);
  s = compiled(L, "{a={'string'}}");
  const char *got = outcome(L, s, "setmetatable({}, {__index=function() error('called') end})", &how);
  CHECK(strcmp(got, "a: missing: missing: expected a string") == 0, "no metamethod is called: %s", got);
  np_schema_free(s);
  s = compiled(L, "{[('n'):rep(100)]={'object', fields={[('m'):rep(100)]={'string'}}}}");
  got = outcome(L, s, "{[('n'):rep(100)]={}}", &how);
  CHECK(strstr(got, "nnn.mmm") && strstr(got, "mmm...: missing"), "a long path is cut: %s", got);
  np_schema_free(s);
}

static void check_defaults_apart(lua_State *L) {
  struct np_schema_check how = {0};
  eval(L, "{list={1,2}, object={a={}}}");
  lua_setglobal(L, "written");
  struct np_schema *s = compiled(
      L, "{list={'array', default=written.list}, object={'object', default=written.object, fields={b={'integer', default=7}}}}");
  eval(L, "show(written)");
  CHECK(strcmp(lua_tostring(L, -1), "{list=[1,2],object={a={}}}") == 0, "an author's default stays as it was: %s",
        lua_tostring(L, -1));
  for (int i = 0; i < 2; i++) {
    struct np_problem p;
    eval(L, "{}");
    CHECK(np_schema_check(L, s, -1, &how, &p) == 0);
    lua_setglobal(L, "got");
    eval(L, "show(got)");
    CHECK(strcmp(lua_tostring(L, -1), "{list=[1,2],object={a={},b=7}}") == 0, "%s", lua_tostring(L, -1));
    if (luaL_dostring(L, "got.list[1] = 99 got.object.a.x = 1")) abort();
  }
  eval(L, "show(written)");
  CHECK(strcmp(lua_tostring(L, -1), "{list=[1,2],object={a={}}}") == 0, "nor is it shared with a value");
  lua_settop(L, 0);
  np_schema_free(s);
}

static bool listed(const struct np_mask *m, const char *value) {
  for (; m; m = m->next)
    if (m->len == strlen(value) && memcmp(m->value, value, m->len) == 0) return true;
  return false;
}

static bool masked(const char *text) {
  char *shown = np_mask_text(text, strlen(text));
  bool is = strcmp(shown, "***") == 0;
  free(shown);
  return is;
}

static void check_people(lua_State *L) {
  struct np_arena arena = {0};
  struct np_mask *people = NULL;
  struct np_schema_check how = {.arena = &arena, .people = &people};
  struct np_schema *s =
      compiled(L, "{name={'string', person=true, pattern='%u.*'}, age={'integer', person=true, max=150, optional=true},"
                  " sex={'string', person=true, optional=true}, note={'string', max=30, optional=true},"
                  " home={'object', person=true, optional=true}, kin={'array', items={'object', fields={who={'string', "
                  "person=true}}}, optional=true},"
                  " box={'object', person=true, optional=true, only=true, fields={a={'string', values={'x'}, optional=true}}}}");
  const char *got =
      outcome(L, s, "{name='Ada', age=42, sex='f', home={street='Elm Row', no={7, 11.5}}, kin={{who='Bo'},{who='Cy'}}}", &how);
  CHECK(strncmp(got, "ok", 2) == 0, "%s", got);
  static const char *const found[] = {"Ada", "42", "Elm Row", "11.5", "Bo", "Cy"};
  for (size_t i = 0; i < sizeof found / sizeof *found; i++) CHECK(listed(people, found[i]), "%s", found[i]);
  CHECK(!listed(people, "f") && !listed(people, "7"), "one character would mask every text");
  people = NULL;
  got = outcome(L, s, "{name='zoe', age=null}", &how);
  CHECK(strcmp(got, "name: pattern: expected text that matches the pattern %u.*") == 0, "%s", got);
  CHECK(listed(people, "zoe"), "also where it does not fit");
  got = outcome(L, s, "{name='Zoe', age=151}", &how);
  CHECK(strcmp(got, "age: range: expected at most 150") == 0, "%s", got);
  got = outcome(L, s, "{name='Zoe', age='x'}", &how);
  CHECK(strcmp(got, "age: type: expected an integer, got a string") == 0, "%s", got);
  got = outcome(L, s, "{name='Zoe', age=1.5}", &how);
  CHECK(strcmp(got, "age: type: expected an integer, got a number") == 0, "%s", got);
  got = outcome(L, s, "{name='Zoe', box={a='Mia'}}", &how);
  CHECK(strcmp(got, "box.a: values: expected \"x\"") == 0, "%s", got);
  got = outcome(L, s, "{name='Zoe', box={Mia=1}}", &how);
  CHECK(strcmp(got, "box.***: unknown: unknown field") == 0, "%s", got);
  people = NULL;
  got = outcome(L, s, "{age='x', name='Zacharias'}", &how);
  CHECK(listed(people, "Zacharias"), "what comes after the first problem is listed too");
  np_schema_free(s);

  s = compiled(L, "{a={'string', values={'x'}}, name={'string', person=true}}");
  got = outcome(L, s, "{a='said Wilhelmina so', name='Wilhelmina'}", &how);
  CHECK(strcmp(got, "a: values: expected \"x\", got another string") == 0, "a person's name in another value: %s", got);
  how.people = NULL;
  got = outcome(L, s, "{a='x', name='Wilhelmina'}", &how);
  CHECK(strncmp(got, "ok", 2) == 0, "%s", got);
  np_schema_free(s);

  s = compiled(L, "{who={'any', person=true}}");
  got = outcome(L, s, "(function() local t = {} t[1] = t t[2] = t return {who=t} end)()", &how);
  CHECK(strncmp(got, "who: length: it ", 16) == 0, "a value without end: %s", got);
  np_schema_free(s);
  np_arena_free(&arena);
}

static void check_secrets(lua_State *L) {
  struct np_schema_check how = {0};
  struct np_schema *s =
      compiled(L, "{a={'string', values={'x'}}, key={'secret', lenient=true}, old={'secret', default='rusty-key-0'}}");
  CHECK(masked("rusty-key-0"), "a secret default");
  const char *got = outcome(L, s, "{a='x', key='open-sesame'}", &how);
  CHECK(strcmp(got, "ok {a=\"x\",key=\"open-sesame\",old=\"rusty-key-0\"}") == 0, "%s", got);
  CHECK(masked("open-sesame"));
  got = outcome(L, s, "{a='it is second-sesame, yes', key='second-sesame'}", &how);
  CHECK(strcmp(got, "a: values: expected \"x\", got \"it is ***, yes\"") == 0, "%s", got);
  got = outcome(L, s, "{a=('.'):rep(35)..'second-sesame', key='second-sesame'}", &how);
  CHECK(strcmp(got, "a: values: expected \"x\", got \"...................................***\"") == 0,
        "masked before it is cut: %s", got);
  got = outcome(L, s, "{a='x', key=31415926}", &how);
  CHECK(masked("31415926") && strncmp(got, "ok", 2) == 0, "%s", got);
  got = outcome(L, s, "{a=('é'):rep(50), key='second-sesame'}", &how);
  CHECK(strcmp(got, "a: values: expected \"x\", got \"éééééééééééééééééééé...\"") == 0, "%s", got);
  got = outcome(L, s, "{a='\\x01\\n\"\\xff', key='second-sesame'}", &how);
  CHECK(strcmp(got, "a: values: expected \"x\", got \"??\\\"\xef\xbf\xbd\"") == 0, "%s", got);
  np_schema_push(L, s);
  lua_getfield(L, -1, "old");
  lua_getfield(L, -1, "default");
  CHECK(lua_isnil(L, -1), "a secret default is not for documents");
  lua_settop(L, 0);
  np_schema_free(s);
}

static void check_destination(lua_State *L) {
  int asked = 0;
  struct np_schema_check how = {.destination = known_destination, .arg = &asked};
  struct np_schema *s = compiled(L, "{to={'destination'}}");
  CHECK(strncmp(outcome(L, s, "{to='desk'}", &how), "ok", 2) == 0 && asked == 1, "asked with its argument");
  how.destination = NULL;
  CHECK(strncmp(outcome(L, s, "{to='anything'}", &how), "ok", 2) == 0, "without a callback any name passes");
  np_schema_free(s);
}

static void check_push(lua_State *L) {
  static const char written[] =
      "{a={'string', about='An a.', unit='m', min=1, max=9, values={'x','yy'}, pattern='%l+', default='x', lenient=true},"
      " b={'array', items='integer', null=true}, c={'object', only=true, person=true, fields={d='any'}, optional=true}, "
      "e='object', t={'duration', min='1m', default='2m'}}";
  struct np_schema *s = compiled(L, written);
  np_schema_push(L, s);
  lua_setglobal(L, "pushed");
  eval(L, "show(pushed)");
  CHECK(strcmp(lua_tostring(L, -1), "{a={about=\"An "
                                    "a.\",default=\"x\",lenient=true,max=9,min=1,optional=true,pattern=\"%l+\",type=\"string\","
                                    "unit=\"m\",values=[\"x\",\"yy\"]},"
                                    "b={items={type=\"integer\"},null=true,type=\"array\"},c={fields={d={type=\"any\"}},only=true,"
                                    "optional=true,person=true,type=\"object\"},"
                                    "e={type=\"object\"},t={default=120,min=60,optional=true,type=\"duration\"}}") == 0,
        "%s", lua_tostring(L, -1));
  struct np_schema *again = compiled(L, "pushed");
  np_schema_push(L, again);
  lua_setglobal(L, "pushed_again");
  eval(L, "show(pushed) == show(pushed_again)");
  CHECK(lua_toboolean(L, -1), "what is pushed compiles to the same");
  CHECK(!np_schema_all_optional(s));
  lua_settop(L, 0);
  np_schema_free(again);
  np_schema_free(s);
  s = compiled(L, "{a={'string', optional=true}, b={'string', default='x'}}");
  CHECK(np_schema_all_optional(s));
  np_schema_free(s);
  s = compiled(L, "{}");
  CHECK(np_schema_all_optional(s));
  np_schema_free(s);
  np_schema_free(NULL);
}

/* What is checked once passes again, as it is; and in another lua_State. */
static void check_again(lua_State *L) {
  struct np_schema_check how = {0};
  struct np_problem p;
  struct np_schema *s = compiled(L, "{a={'duration'}, b={'string', lenient=true}, c={'array', default={}}, d={'integer'}}");
  eval(L, "{a='90m', b=7, d=1.0}");
  for (int i = 0; i < 2; i++) {
    CHECK(np_schema_check(L, s, 1, &how, &p) == 0, "%s %s", p.field, p.reason);
    lua_getglobal(L, "show");
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    CHECK(strcmp(lua_tostring(L, -1), "{a=5400,b=\"7\",c=[],d=1}") == 0, "%s", lua_tostring(L, -1));
    lua_pop(L, 1);
  }
  lua_settop(L, 0);
  lua_State *other = state();
  const char *got = outcome(other, s, "{a='90m', b=7, d=1}", &how);
  CHECK(strcmp(got, "ok {a=5400,b=\"7\",c=[],d=1}") == 0, "%s", got);
  lua_close(other);
  np_schema_free(s);
}

/* A plugin that changes the string library changes no check, or is told so. */
static void check_tampered(void) {
  lua_State *L = state();
  struct np_schema_check how = {0};
  struct np_schema *s = compiled(L, "{a={'string', pattern='%d+'}}");
  if (luaL_dostring(L, "local real = string string = {match = function() return true end}")) abort();
  CHECK(strncmp(outcome(L, s, "{a='x'}", &how), "a: pattern: expected", 20) == 0, "a global of that name is not asked");
  if (luaL_dostring(L, "package.loaded.string.match = function() return true end")) abort();
  CHECK(strcmp(outcome(L, s, "{a='1'}", &how), "a: pattern: cannot be matched: string.match has been taken away") == 0,
        "it fails closed");
  np_schema_free(s);
  lua_close(L);
}

/* An allocator that refuses at the nth request: nothing leaks, nothing is left half done. */
static size_t allowance;

static void *stingy(void *arg, void *p, size_t old, size_t size) {
  (void)arg;
  (void)old;
  if (size == 0) {
    free(p);
    return NULL;
  }
  if (!p || size > old) {
    if (allowance == 0) return NULL;
    allowance--;
  }
  return realloc(p, size);
}

static int compile_protected(lua_State *L) {
  struct np_error err;
  struct np_schema *s = np_schema_compile(L, 1, &err);
  lua_pushlightuserdata(L, s);
  return 1;
}

static void check_memory(void) {
  int refused = 0, done = 0;
  for (size_t n = 0; n < 500 && !done; n++) {
    allowance = 1000000;
    lua_State *L = lua_newstate(stingy, NULL);
    luaL_openlibs(L);
    np_json_push_null(L);
    lua_setglobal(L, "null");
    lua_pushcfunction(L, compile_protected);
    eval(L, "{a={'array', default={1,2,{}}}, b={'object', default={}, fields={c={'duration', default='1m'}, d={'string', "
            "default=('long'):rep(20)}}}}");
    lua_gc(L, LUA_GCSTOP);
    allowance = n;
    int status = lua_pcall(L, 1, 1, 0);
    allowance = 1000000;
    if (status == LUA_ERRMEM)
      refused++;
    else
      CHECK(status == LUA_OK && (done = lua_touserdata(L, -1) != NULL), "%d", status);
    if (done) np_schema_free(lua_touserdata(L, -1));
    lua_close(L);
  }
  CHECK(done && refused > 3, "%d refusals came before it passed", refused);
}

/* Random mutations of a good value pass exactly where a plain check in Lua says so. */
static const char reference[] =
    "local seed = 20240229\n"
    "local function random(n) seed = (seed * 1103515245 + 12345) % 2147483648 return (seed >> 8) % n + 1 end\n"
    "local function good() return { id = 'sn-42', n = 3, kind = 'b', tags = { 'x', 'yy' }, wait = '5m',\n"
    "  data = { low = 3.9, list = { { v = 1 }, { v = 2.5, q = true } } } } end\n"
    "local junk = { function() return nil end, function() return null end, function() return '' end, function() return 'b' end,\n"
    "  function() return 'sn-' .. random(99999) end, function() return random(7) - 3 end, function() return (random(60) - 10) / 4 "
    "end,\n"
    "  function() return 0/0 end, function() return 1/0 end, function() return {} end, function() return { 1 } end, function() "
    "return { v = 1 } end,\n"
    "  function() return true end, function() return ('é'):rep(random(6)) end, function() return print end, function() return "
    "random(9) .. 'm' end,\n"
    "  function() return { 'x', random(2) == 1 and 'y' or 5 } end, function() return 2^53 end, function() return '\\xff\\0' end }\n"
    "local function mutate(t)\n"
    "  local keys = {} for k in pairs(t) do keys[#keys + 1] = k end\n"
    "  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)\n"
    "  local k = keys[random(math.max(#keys, 1))]\n"
    "  if k and type(t[k]) == 'table' and random(3) > 1 then return mutate(t[k]) end\n"
    "  if random(12) == 1 or not k then k = ({ 'extra', 'v', 'q', 'n' })[random(4)] end\n"
    "  if type(k) == 'number' then t[k] = junk[random(#junk - 1) + 1]() else t[k] = junk[random(#junk)]() end\n"
    "end\n"
    "function mutant() local v = good() for _ = 1, random(3) - 1 do mutate(v) end return v end\n"
    "local function number(v) return math.type(v) and v == v and v ~= 1/0 and v ~= -1/0 end\n"
    "local function object(v) return type(v) == 'table' and (next(v) == nil or not is_array(v)) end\n"
    "local function array(v) return type(v) == 'table' and (next(v) == nil or is_array(v)) end\n"
    "local function absent(v) return v == nil or v == null end\n"
    "function expected(v)\n"
    "  if type(v.id) ~= 'string' or not v.id:find('^sn%-%d%d?%d?$') then return false end\n"
    "  if not (absent(v.n) or number(v.n) and v.n == math.floor(v.n) and v.n >= -2 and v.n <= 4) then return false end\n"
    "  if not (v.kind == null or v.kind == 'a' or v.kind == 'b') then return false end\n"
    "  if not array(v.tags) or #v.tags > 3 then return false end\n"
    "  for _, e in ipairs(v.tags) do if type(e) ~= 'string' or (utf8.len(e) or 2) < 1 or (utf8.len(e) or 2) > 4 then return false "
    "end end\n"
    "  if not absent(v.wait) and not (number(v.wait) and v.wait >= 0 and v.wait <= 3162240000) and not (type(v.wait) == 'string' "
    "and v.wait:find('^%d+m?$')) then return false end\n"
    "  local d = v.data\n"
    "  if not object(d) then return false end\n"
    "  for k in pairs(d) do if k ~= 'low' and k ~= 'list' then return false end end\n"
    "  if not number(d.low) or d.low < 0.5 or not array(d.list) then return false end\n"
    "  for _, e in ipairs(d.list) do\n"
    "    if not object(e) or not number(e.v) or not (absent(e.q) or type(e.q) == 'boolean') then return false end\n"
    "  end\n"
    "  return true\n"
    "end\n";

static void check_mutants(lua_State *L) {
  struct np_arena arena = {0};
  struct np_mask *people = NULL;
  struct np_schema_check how = {.arena = &arena, .people = &people};
  struct np_schema *s = compiled(L, "{id={'string', pattern='sn%-%d%d?%d?', person=true}, n={'integer', min=-2, max=4, default=1}, "
                                    "kind={'string', values={'a','b'}, null=true},"
                                    " tags={'array', max=3, items={'string', min=1, max=4}}, wait={'duration', optional=true},"
                                    " data={'object', only=true, fields={low={'number', min=0.5}, list={'array', items={'object', "
                                    "fields={v={'number'}, q={'boolean', optional=true}}}}}}}");
  if (luaL_dostring(L, reference) != LUA_OK) fprintf(stderr, "%s\n", lua_tostring(L, -1)), abort();
  int passes = 0, differ = 0;
  for (int i = 0; i < 20000; i++) {
    struct np_problem p = {.kind = NULL};
    lua_settop(L, 0);
    lua_getglobal(L, "mutant");
    lua_call(L, 0, 1);
    lua_getglobal(L, "expected");
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    bool expected = lua_toboolean(L, -1);
    lua_getglobal(L, "show");
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    bool passed = np_schema_check(L, s, 1, &how, &p) == 0;
    if (passed) passes++;
    if (passed != expected && differ++ < 5) fprintf(stderr, "differs on %s: %s %s\n", lua_tostring(L, -1), p.field, p.reason);
    if (!passed && (!p.kind || !p.field[0] || !p.reason[0])) differ++;
    people = NULL;
    np_arena_free(&arena);
  }
  CHECK(differ == 0, "%d of 20000", differ);
  CHECK(passes > 2000 && passes < 18000, "%d passed: the mutations tell something", passes);
  lua_settop(L, 0);
  np_schema_free(s);
}

int main(void) {
  lua_State *L = state();
  check_types(L);
  check_limits(L);
  check_nesting(L);
  check_errors(L);
  check_bounds(L);
  check_defaults_apart(L);
  check_people(L);
  check_secrets(L);
  check_destination(L);
  check_push(L);
  check_again(L);
  check_mutants(L);
  lua_close(L);
  check_tampered();
  check_memory();
  return check_end();
}
