/* Filters: what matches, what does not, and what a misspelt one is told. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/near.h"
#include "check.h"
#include "host/filter.h"

static struct np_error err;

static struct np_text text(const char *s) { return (struct np_text){s, s ? strlen(s) : 0}; }

/* A filter from Lua's source of its table. */
static struct np_filter *compile(lua_State *L, const char *source) {
  err.text[0] = 0;
  lua_settop(L, 0);
  if (luaL_loadstring(L, lua_pushfstring(L, "return %s", source)) || lua_pcall(L, 0, 1, 0)) {
    CHECK(false, "%s", lua_tostring(L, -1));
    return NULL;
  }
  struct np_filter *f = np_filter_compile(L, -1, &err);
  CHECK(lua_gettop(L) == 2, "the stack is left as it was: %d", lua_gettop(L));
  return f;
}

static struct np_reading glucose(double value) {
  return (struct np_reading){.vendor = text("sinocare"),
                             .connection = text("ward-3"),
                             .device = text("GA-0017"),
                             .metric = text("glucose"),
                             .unit = text("mmol/L"),
                             .quality = NP_VALID,
                             .value = {.type = NP_NUMBER_REAL, .d = value}};
}

static void matches(lua_State *L, const char *source, struct np_reading r, bool expected) {
  struct np_filter *f = compile(L, source);
  CHECK(f, "%s: %s", source, err.text);
  if (f) CHECK(np_filter_match(f, &r) == expected, "%s", source);
  np_filter_free(f);
}

static void refused(lua_State *L, const char *source, const char *why) {
  struct np_filter *f = compile(L, source);
  CHECK(!f && strcmp(err.text, why) == 0, "%s\n  got      %s\n  expected %s", source, err.text, why);
  np_filter_free(f);
}

static void check_texts(lua_State *L) {
  struct np_reading r = glucose(3.2), bare = glucose(3.2);
  bare.unit = text(NULL);
  matches(L, "{}", r, true);
  matches(L, "{ metric = 'glucose' }", r, true);
  matches(L, "{ metric = 'glucos' }", r, false);
  matches(L, "{ metric = { 'level', 'glucose' } }", r, true);
  matches(L, "{ metric = { 'level', 'weight' } }", r, false);
  matches(L, "{ device = 'GA-*', vendor = 'sino*', connection = '*-3', unit = 'mmol/L', quality = 'valid' }", r, true);
  matches(L, "{ device = 'GA-*', vendor = 'tideco' }", r, false);
  matches(L, "{ connection = 'ward-4' }", r, false);
  matches(L, "{ unit = 'mg/dL' }", r, false);
  matches(L, "{ unit = 'mmol/L' }", bare, false);
  matches(L, "{ unit = '' }", bare, true);
  matches(L, "{ unit = '' }", r, false);
  matches(L, "{ unit = '*' }", bare, true);
}

static void check_quality(lua_State *L) {
  struct np_reading r = glucose(3.2);
  r.quality = NP_WARMUP;
  matches(L, "{ quality = 'valid' }", r, false);
  matches(L, "{ quality = { 'valid', 'warmup' } }", r, true);
  matches(L, "{ quality = 'w*' }", r, true);
  r.quality = NP_INVALID;
  matches(L, "{ quality = { 'valid', 'warmup' } }", r, false);
  matches(L, "{ quality = '*valid' }", r, true);
  matches(L, "{}", r, true);
}

static void check_derived(lua_State *L) {
  struct np_reading r = glucose(3.2), derived = glucose(3.2);
  derived.depth = 2;
  derived.connection = text("mean");
  matches(L, "{ metric = 'glucose' }", derived, true);
  matches(L, "{ derived = true }", derived, true);
  matches(L, "{ derived = true }", r, false);
  matches(L, "{ derived = false }", derived, false);
  matches(L, "{ derived = false }", r, true);
  refused(L, "{ derived = 'mean' }", "filter: derived has to be true or false, got a string");
  static const struct {
    const char *source;
    bool may;
  } all[] = {{"{}", true},
             {"{ metric = 'x' }", true},
             {"{ metric = { 'a', 'x*' }, below = 3, device = 'd', tag = 'icu', quality = 'valid' }", true},
             {"{ metric = 'y' }", false},
             {"{ connection = 'mean' }", true},
             {"{ connection = 'm*' }", true},
             {"{ connection = 'ward-3' }", false},
             {"{ derived = true }", true},
             {"{ derived = false }", false}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    struct np_filter *f = compile(L, all[i].source);
    CHECK(f && np_filter_may_take_derived(f, "x", "mean") == all[i].may, "%s", all[i].source);
    np_filter_free(f);
  }
}

static struct np_reading with(struct np_value v) {
  struct np_reading r = glucose(0);
  r.value = v;
  return r;
}

static void check_limits(lua_State *L) {
  matches(L, "{ below = 3.9 }", glucose(3.899), true);
  matches(L, "{ below = 3.9 }", glucose(3.9), false);
  matches(L, "{ above = 3.9 }", glucose(3.9), false);
  matches(L, "{ above = 3.9 }", glucose(3.901), true);
  matches(L, "{ above = 3, below = 5 }", glucose(4), true);
  matches(L, "{ above = 3, below = 5 }", glucose(5), false);
  matches(L, "{ above = 3, below = 5 }", glucose(3), false);
  matches(L, "{ below = 3.9 }", glucose(NAN), false);
  matches(L, "{ above = 3.9 }", glucose(NAN), false);
  matches(L, "{ above = 3.9 }", glucose(INFINITY), true);
  matches(L, "{ below = 4 }", with((struct np_value){.type = NP_NUMBER_INT, .i = 3}), true);
  matches(L, "{ below = 4 }", with((struct np_value){.type = NP_NUMBER_INT, .i = 4}), false);
  matches(L, "{ below = 3.5 }", with((struct np_value){.type = NP_NUMBER_INT, .i = 3}), true);
  matches(L, "{ below = 3.5 }", with((struct np_value){.type = NP_NUMBER_INT, .i = 4}), false);
  matches(L, "{ above = 3.5 }", with((struct np_value){.type = NP_NUMBER_INT, .i = 3}), false);
  matches(L, "{ above = -3.5 }", with((struct np_value){.type = NP_NUMBER_INT, .i = -3}), true);
  matches(L, "{ below = 1 }", with((struct np_value){.type = NP_BOOL, .i = 0}), false);
  matches(L, "{ below = 1 }", with((struct np_value){.type = NP_STRING, .s = text("0")}), false);
  matches(L, "{ metric = 'glucose' }", with((struct np_value){.type = NP_BOOL, .i = 0}), true);
  /* 2^53 + 1 and its like are no doubles */
  matches(L, "{ above = 9007199254740992.0 }", with((struct np_value){.type = NP_NUMBER_INT, .i = 9007199254740993}), true);
  matches(L, "{ below = 9007199254740993 }", with((struct np_value){.type = NP_NUMBER_REAL, .d = 9007199254740992.0}), true);
  matches(L, "{ below = 2^63 }", with((struct np_value){.type = NP_NUMBER_INT, .i = INT64_MAX}), true);
  matches(L, "{ above = 2^63 }", with((struct np_value){.type = NP_NUMBER_INT, .i = INT64_MAX}), false);
  matches(L, "{ above = -2^63 }", with((struct np_value){.type = NP_NUMBER_INT, .i = INT64_MIN}), false);
  matches(L, "{ below = -2^63 }", with((struct np_value){.type = NP_NUMBER_INT, .i = INT64_MIN}), false);
  matches(L, "{ above = -2^64 }", with((struct np_value){.type = NP_NUMBER_INT, .i = INT64_MIN}), true);
  matches(L, "{ below = 1/0 }", with((struct np_value){.type = NP_NUMBER_INT, .i = INT64_MAX}), true);
}

static void check_changed(lua_State *L) {
  struct np_filter *f = compile(L, "{ metric = 'door', changed = true }");
  CHECK(f && np_filter_needs(f) == NP_FILTER_PAST);
  np_filter_free(f);
  f = compile(L, "{ metric = 'door', changed = false }");
  CHECK(f && np_filter_needs(f) == 0);
  np_filter_free(f);
}

static void check_refusals(lua_State *L) {
  refused(L, "{ metrik = 'glucose' }", "filter: unknown field \"metrik\", did you mean \"metric\"?");
  refused(L, "{ belwo = 3 }", "filter: unknown field \"belwo\", did you mean \"below\"?");
  refused(L, "{ zebra = 3 }",
          "filter: unknown field \"zebra\"; there are device, metric, vendor, connection, unit, place, owner, tag, quality, "
          "derived, below, "
          "above, "
          "outside, margin, changed, rate, first, hours, weekdays, zone");
  refused(L, "{ ['metric\\0'] = 'x' }", "filter: unknown field \"metric\", did you mean \"metric\"?");
  refused(L, "{ 'glucose' }",
          "filter: there is a string without a field's name before it; write for example { metric = \"glucose\" }");
  refused(L, "'glucose'", "filter: expected a table, got a string");
  refused(L, "{ metric = 7 }", "filter: metric has to be a string or a list of strings, got a number");
  refused(L, "{ metric = { 'a', 7 } }", "filter: metric has to be a string or a list of strings, got a number");
  refused(L, "{ metric = {} }", "filter: metric is an empty list, which no reading can match");
  refused(L, "{ metric = { a = 'b' } }", "filter: metric has to be a string or a list of strings, got a table with names in it");
  refused(L, "{ below = '3.9' }", "filter: below has to be a number, got a string");
  refused(L, "{ above = 0/0 }", "filter: above is not a number (nan): no reading can match");
  refused(L, "{ changed = 1 }", "filter: changed has to be true or false, got a number");
  refused(L, "{ quality = 'vaild' }",
          "filter: quality \"vaild\" is none of \"valid\", \"warmup\", \"invalid\"; did you mean \"valid\"?");
  refused(L, "{ quality = 'good' }", "filter: quality \"good\" is none of \"valid\", \"warmup\", \"invalid\"");
  refused(L, "{ below = 3.9, above = 10 }",
          "filter: no value is above 10 and below 3.9; for values outside a range write outside = { 3.9, 10 }");
}

static void check_more_refusals(lua_State *L) {
  refused(L, "{ outside = { 10, 3.9 } }", "filter: outside is { 10, 3.9 }: the lower limit comes first");
  refused(L, "{ outside = { 3.9 } }", "filter: outside has to be two numbers such as { 3.9, 10 }, got 1");
  refused(L, "{ outside = 3.9 }", "filter: outside has to be two numbers such as { 3.9, 10 }, got a number");
  refused(L, "{ outside = { 3.9, '10' } }", "filter: outside has to be a number, got a string");
  refused(L, "{ outside = { 3.9, 10 }, below = 5 }", "filter: outside stands for below and above: give it or them");
  refused(L, "{ margin = 1 }", "filter: margin needs a limit to come back from: below, above or outside");
  refused(L, "{ below = 3, margin = -1 }", "filter: margin has to be 0 or more, got -1");
  refused(L, "{ below = 3, margin = 'a' }", "filter: margin has to be a number, got a string");
  refused(L, "{ outside = { 3.9, 10 }, margin = 7 }", "filter: a margin of 7 is more than lies between 3.9 and 10");
  refused(L, "{ rate = {} }", "filter: rate needs a limit: below, above or both");
  refused(L, "{ rate = 3 }", "filter: rate has to be a table such as { above = 0.1, per = \"1m\" }, got a number");
  refused(L, "{ rate = { abvoe = 3 } }", "filter: unknown field \"rate.abvoe\", did you mean \"rate.above\"?");
  refused(L, "{ rate = { above = '3' } }", "filter: rate.above has to be a number, got a string");
  refused(L, "{ rate = { above = 3, per = '0s' } }", "filter: rate.per \"0s\" is no duration above 0 such as \"15m\"");
  refused(L, "{ rate = { above = 3, below = 2 } }",
          "filter: no rate is above 3 and below 2; for both directions write two plugin:on");
  refused(L, "{ first = 'evre' }",
          "filter: first \"evre\" is neither \"ever\" nor \"day\" nor a duration such as \"12h\"; did you mean \"ever\"?");
  refused(L, "{ first = true }", "filter: first has to be \"ever\", \"day\" or a duration, got a boolean");
  refused(L, "{ first = 0 }", "filter: first has to be a duration above 0, got 0 seconds");
  refused(L, "{ first = 'day' }", "filter: first = \"day\" needs a zone beside it, such as zone = \"Europe/Berlin\" or \"UTC\"");
  refused(L, "{ hours = { '22:00', '06:00' } }",
          "filter: hours needs a zone beside it, such as zone = \"Europe/Berlin\" or \"UTC\"");
  refused(L, "{ hours = { '22:00' }, zone = 'UTC' }",
          "filter: hours has to be two times such as { \"22:00\", \"06:00\" }, or a list of such pairs, got 1 times");
  refused(L, "{ hours = { '22:00', '6:00' }, zone = 'UTC' }",
          "filter: hours: \"6:00\" is no time of day from \"00:00\" to \"24:00\"");
  refused(L, "{ hours = { '24:00', '06:00' }, zone = 'UTC' }",
          "filter: hours: \"24:00\" is no time of day from \"00:00\" to \"23:59\"");
  refused(L, "{ hours = { '00:00', '24:01' }, zone = 'UTC' }",
          "filter: hours: \"24:01\" is no time of day from \"00:00\" to \"24:00\"");
  refused(L, "{ hours = { '06:00', '06:00' }, zone = 'UTC' }",
          "filter: hours begin and end at the same time; leave them out for the whole day");
  refused(L, "{ hours = '22:00', zone = 'UTC' }",
          "filter: hours has to be two times such as { \"22:00\", \"06:00\" }, or a list of such pairs, got a string");
  refused(L, "{ weekdays = { 'Monday' }, zone = 'UTC' }",
          "filter: weekdays: \"Monday\" is none of \"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"; did you mean "
          "\"mon\"?");
  refused(L, "{ weekdays = {}, zone = 'UTC' }", "filter: weekdays is an empty list, which no reading can match");
  refused(L, "{ zone = 'UTC' }", "filter: zone is for hours, weekdays and first = \"day\": without them it says nothing");
  refused(L, "{ hours = { '22:00', '06:00' }, zone = 'Europe/Berln' }", "filter: zone 'Europe/Berln': there is none of this name");
  refused(L, "{ place = 7 }", "filter: place has to be a string or a list of strings, got a number");
  refused(L, "{ tagg = 'icu' }", "filter: unknown field \"tagg\", did you mean \"tag\"?");
}

struct told {
  char text[2000];
  const struct np_facts *facts;
  struct np_memory memory;
  const struct np_reading *before;
};

static void tell(void *arg, const char *field, enum np_why why, const char *sentence) {
  static const char *const marks[] = {"no", "yes", "?"};
  struct told *t = arg;
  size_t n = strlen(t->text);
  snprintf(t->text + n, sizeof t->text - n, "%s %s: %s\n", marks[why], field, sentence);
}

static int tell_facts(void *arg, const struct np_reading *r, const struct np_facts **facts, struct np_error *e) {
  (void)r, (void)e;
  *facts = ((struct told *)arg)->facts;
  return 0;
}

static int tell_before(void *arg, const struct np_reading *r, int64_t to, np_reading_fn *fn, void *fn_arg, struct np_error *e) {
  const struct told *t = arg;
  (void)r, (void)e;
  if (t->before && t->before->at <= to) fn(fn_arg, t->before);
  return 0;
}

static int tell_memory(void *arg, const struct np_reading *r, enum np_memory_kind kind, struct np_memory *m, struct np_error *e) {
  (void)r, (void)kind, (void)e;
  *m = ((struct told *)arg)->memory;
  return 0;
}

static void says(lua_State *L, const char *source, struct np_reading r, struct told *t, const char *expected) {
  struct np_filter *f = compile(L, source);
  struct np_filter_world w = {.facts = tell_facts, .before = tell_before, .recall = tell_memory, .arg = t};
  t->text[0] = 0;
  CHECK(f, "%s: %s", source, err.text);
  if (f) np_filter_why(f, &r, &w, tell, t);
  CHECK(strcmp(t->text, expected) == 0, "%s\n%s\nexpected\n%s", source, t->text, expected);
  np_filter_free(f);
}

static void check_why(lua_State *L) {
  static const struct np_text tags[] = {{"icu", 3}, {"night", 5}};
  struct np_facts facts = {.place = text("icu-4"), .owner = text("Ada Lovelace"), .tags = tags, .tag_count = 2};
  struct np_reading r = glucose(3.2), before = glucose(3.6);
  struct told t = {.facts = &facts};
  r.at = r.received = 1772442000000, before.at = r.at - 300000; /* Monday 2026-03-02, 09:00 UTC */
  says(L, "{ metric = { 'glucose', 'ketone' }, device = 'XX-*', unit = 'mmol/L', quality = { 'valid', 'warmup' } }", r, &t,
       "yes metric: \"glucose\" fits \"glucose\" or \"ketone\"\n"
       "no device: \"GA-0017\" is not \"XX-*\"\n"
       "yes unit: \"mmol/L\" fits \"mmol/L\"\n"
       "yes quality: \"valid\" fits \"valid\" or \"warmup\"\n");
  says(L, "{ place = 'hall', owner = 'p_1', tag = { 'vip', 'icu' } }", r, &t,
       "no place: \"icu-4\" is not \"hall\"\n"
       "no owner: what is no reference, and so is not shown, is not \"p_1\"\n"
       "yes tag: the device has \"icu\", \"night\": fits \"vip\" or \"icu\"\n");
  says(L, "{ below = 3.9 }", r, &t, "yes below: 3.2 is below 3.9\n");
  says(L, "{ above = 3, below = 3.2 }", r, &t, "no below: 3.2 is not below 3.2\nyes above: 3.2 is above 3\n");
  says(L, "{ outside = { 3.9, 10 } }", r, &t, "yes outside: 3.2 is below 3.9 to 10\n");
  says(L, "{ below = 3.9, margin = 0.3 }", r, &t,
       "yes below: 3.2 is below 3.9\nyes margin: it has never fired for this device and metric\n");
  t.memory = (struct np_memory){'l', r.at - 60000};
  says(L, "{ below = 3.9, margin = 0.3 }", r, &t,
       "yes below: 3.2 is below 3.9\n"
       "no margin: it has fired and the value has not come back by the margin since 2026-03-02T08:59:00Z\n");
  t.memory = (struct np_memory){'r', r.at + 1};
  says(L, "{ below = 3.9, margin = 0.3 }", r, &t,
       "yes below: 3.2 is below 3.9\n"
       "no margin: it was measured before the reading that this last changed at, 2026-03-02T09:00:00Z\n");
  t.before = &before;
  says(L, "{ changed = true, rate = { below = -0.1 } }", r, &t,
       "yes changed: 3.2 differs from the reading before, or is the first\n"
       "no rate: -0.08 per 1m is not below -0.1\n");
  before.unit = text("mg/dL");
  says(L, "{ rate = { above = 1, per = '1h' } }", r, &t, "no rate: there is no earlier number in this unit to compare with\n");
  says(L, "{ hours = { '22:00', '06:00' }, weekdays = { 'mon', 'sun' }, zone = 'Asia/Kolkata' }", r, &t,
       "no hours: it was 14:30 in Asia/Kolkata, which is not in 22:00-06:00\n"
       "yes weekdays: it was a \"mon\" in Asia/Kolkata, which is in \"mon\", \"sun\"\n");
  t.memory = (struct np_memory){'f', r.at - 60000};
  says(L, "{ first = '2m' }", r, &t, "no first: first = \"2m\", and it has fired at 2026-03-02T08:59:00Z\n");
  says(L, "{ first = '1m' }", r, &t, "yes first: first = \"1m\", and it has fired at 2026-03-02T08:59:00Z\n");
  struct np_filter *f = compile(L, "{ tag = 'icu', below = 3.9, margin = 1, changed = true }");
  t.text[0] = 0;
  CHECK(np_filter_why(f, &r, NULL, tell, &t) == NP_WHY_UNKNOWN);
  CHECK(strstr(t.text, "? tag:") && strstr(t.text, "yes below:") && strstr(t.text, "? margin:") && strstr(t.text, "? changed:"),
        "%s", t.text);
  np_filter_free(f);
}

static bool glob(const char *pattern, const char *s) { return np_glob_match(pattern, strlen(pattern), s, strlen(s)); }

static void check_glob(void) {
  CHECK(glob("", "") && !glob("", "a") && glob("*", "") && glob("**", "abc") && glob("a", "a") && !glob("a", "ab"));
  CHECK(glob("a*", "a") && glob("a*", "abc") && !glob("a*", "ba") && glob("*c", "abc") && !glob("*c", "abcd"));
  CHECK(glob("a*c", "ac") && glob("a*c", "abbc") && !glob("aa*aa", "aaa") && glob("aa*aa", "aaaa"));
  CHECK(glob("*ab*ab*", "xabyabz") && !glob("*ab*ab*", "xaby") && glob("a*b*c", "abxbxc") && !glob("a*b*c", "acb"));
  CHECK(glob("*a*b", "ab") && glob("*ab", "aab") && !glob("*ab*ba", "aba") && glob("ward-*-bed-*", "ward-3-bed-12"));
  CHECK(np_glob_match("a*\0b", 4, "axx\0b", 5) && !np_glob_match("a*\0b", 4, "axxb", 4));
  enum { N = 200000 }; /* with going back at each star this would not end */
  char *s = malloc(N), *p = malloc(N);
  memset(s, 'a', N);
  for (int i = 0; i < N; i += 2) memcpy(p + i, "a*", 2);
  CHECK(np_glob_match(p, N, s, N));
  memcpy(p + N - 2, "*b", 2);
  CHECK(!np_glob_match(p, N, s, N));
  free(s);
  free(p);
}

static void check_near(void) {
  static const char *const words[] = {"timeout", "headers", "json", "form"};
  CHECK(np_near("timout", 6, words, 4) == words[0] && np_near("header", 6, words, 4) == words[1]);
  CHECK(np_near("jsno", 4, words, 4) == words[2] && np_near("from", 4, words, 4) == words[3]);
  CHECK(!np_near("x", 1, words, 4) && !np_near("", 0, words, 4) && !np_near("zebra", 5, words, 4));
}

/* Where Lua has no memory left, the filter under construction is not lost, or its error is told. */
static void *failing(void *ud, void *p, size_t was, size_t size) {
  (void)was;
  int *left = ud;
  if (!size) {
    free(p);
    return NULL;
  }
  return *left > 0 && --*left == 0 ? NULL : realloc(p, size);
}

static void check_no_allocation(void) {
  int left = 0; /* 0: never fails */
  lua_State *L = lua_newstate(failing, &left);
  CHECK(luaL_dostring(L, "return { metric = { 'a', 'b*' }, quality = 'valid', below = 3, device = 'd' }") == LUA_OK);
  left = 1; /* the next one fails */
  struct np_filter *f = np_filter_compile(L, -1, &err);
  CHECK(f && left == 1, "compiling takes no memory of Lua's");
  np_filter_free(f);
  left = 0;
  lua_close(L);
}

int main(void) {
  lua_State *L = luaL_newstate();
  check_texts(L);
  check_quality(L);
  check_derived(L);
  check_limits(L);
  check_changed(L);
  check_refusals(L);
  check_more_refusals(L);
  check_why(L);
  lua_close(L);
  check_glob();
  check_near();
  check_no_allocation();
  return check_end();
}
