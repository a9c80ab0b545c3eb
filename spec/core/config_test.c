/* neap.lua: what is taken, what is refused and in which words. */
#include "host/config.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "check.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static char folder[] = "/tmp/neap_config_XXXXXX";

static const char *in_folder(const char *name) { /* valid until the fourth call after it */
  static char paths[4][PATH_MAX];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, PATH_MAX, "%s/%s", folder, name);
  return path;
}

static void write_file(const char *name, const char *text) {
  FILE *f = fopen(in_folder(name), "w");
  if (!f || fputs(text, f) < 0 || fclose(f) != 0) {
    perror(name);
    exit(1);
  }
}

static struct np_config *load_text(const char *text, struct np_error *err) {
  write_file("neap.lua", text);
  return np_config_load(in_folder("neap.lua"), NULL, err);
}

static void check_whole(void) {
  struct np_error err = {{0}};
  struct np_config *c = load_text(
      "return {\n"
      "  listen = '0.0.0.0:9000', store = 'data/n.db', plugins = '../p/./x', lanes = 2,\n"
      "  tls = { certificate = 'cert.pem', key = 'key.pem' }, trust = 'ca.pem',\n"
      "  drain = '1m30s', probation = '0s', unlisted = false, keep = { requests = '1d', delivered = 'forever', readings = { age = "
      "'2d', size = '1KiB' }, dead = { size = '2KiB' } }, queue = 10, "
      "body_max = '2MiB',\n"
      "  timeouts = { head = '1s', body = 2, write = 0.5, idle = '4s' }, limits = { emits = 700 },\n"
      "  connections = { { 'sinocare', name = 'ward-3', mount = '/b', unit = 'mmol/L', list = { 1, 2.5, { z = true, a = 'x' } } "
      "},\n"
      "                  { 'tideco' } },\n"
      "  rules = { { 'low-glucose', to = 'desk', limit = 3.9,\n"
      "              limits = { memory = '64MiB', instructions = 20000000, running = '2s', total = '60s', coroutines = 5 } } "
      "},\n"
      "  destinations = { zeta = { 'webhook', url = 'u' }, desk = { 'webhook', url = 'http://127.0.0.1:1/', mount = 'm' },\n"
      "                   { 'log', name = 'paper' } },\n"
      "}\n",
      &err);
  CHECK(c, "%s", err.text);
  if (!c) return;
  CHECK(strcmp(c->path, in_folder("neap.lua")) == 0, "%s", c->path);
  CHECK(strcmp(c->listen, "0.0.0.0:9000") == 0);
  CHECK(strcmp(c->store, in_folder("data/n.db")) == 0, "%s", c->store);
  CHECK(strcmp(c->plugins, "/tmp/p/x") == 0, "%s", c->plugins);
  CHECK(strcmp(c->certificate, in_folder("cert.pem")) == 0 && strcmp(c->key, in_folder("key.pem")) == 0);
  CHECK(strcmp(c->ca_file, in_folder("ca.pem")) == 0);
  CHECK(c->lanes == 2 && c->drain == 90 && c->probation == 0 && c->only_listed && c->queue == 10 && c->body_max == 2u << 20);
  CHECK(c->keep[NP_KEPT_REQUESTS].age == 86400000 && c->keep[NP_KEPT_DELIVERED].age == 0);
  CHECK(c->keep[NP_KEPT_READINGS].age == 172800000 && c->keep[NP_KEPT_READINGS].size == 1024);
  CHECK(c->keep[NP_KEPT_DEAD].age == 0 && c->keep[NP_KEPT_DEAD].size == 2048);
  CHECK(c->head_timeout == 1 && c->body_timeout == 2 && c->write_timeout == 0.5 && c->idle_timeout == 4);
  CHECK(c->entry_count == 6, "%zu", c->entry_count);
  if (c->entry_count != 6) return;
  static const struct {
    enum np_kind kind;
    const char *instance, *plugin, *mount, *canonical, *at;
  } want[] = {
      {NP_VENDOR, "ward-3", "sinocare", "/b", "{\"list\":[1,2.5,{\"a\":\"x\",\"z\":true}],\"unit\":\"mmol/L\"}", "connections[1]"},
      {NP_VENDOR, "tideco", "tideco", "", "{}", "connections[2]"},
      {NP_RULE, "low-glucose", "low-glucose", "", "{\"limit\":3.9,\"to\":\"desk\"}", "rules[1]"},
      {NP_DESTINATION, "paper", "log", "", "{}", "destinations[1]"},
      {NP_DESTINATION, "desk", "webhook", "", "{\"mount\":\"m\",\"url\":\"http://127.0.0.1:1/\"}", "destinations.desk"},
      {NP_DESTINATION, "zeta", "webhook", "", "{\"url\":\"u\"}", "destinations.zeta"},
  };
  for (size_t i = 0; i < COUNT(want); i++) {
    const struct np_config_entry *e = &c->entries[i];
    CHECK(e->kind == want[i].kind && strcmp(e->instance, want[i].instance) == 0 && strcmp(e->plugin, want[i].plugin) == 0,
          "%zu: %s %s", i, e->instance, e->plugin);
    CHECK(strcmp(e->mount, want[i].mount) == 0, "%zu: %s", i, e->mount);
    CHECK(strcmp(e->canonical, want[i].canonical) == 0, "%zu: %s", i, e->canonical);
    char at[PATH_MAX];
    snprintf(at, sizeof at, "%s: %s", in_folder("neap.lua"), want[i].at);
    CHECK(strcmp(e->at, at) == 0, "%zu: %s", i, e->at);
    CHECK((e->limits.instructions != 0) == (i == 2) && e->limits.emits == 700, "%zu", i); /* emits: for all */
  }
  CHECK(strcmp(c->entries[1].settings, "{}") == 0, "%s", c->entries[1].settings);
  const struct np_limits *l = &c->entries[2].limits;
  CHECK(l->memory == 64u << 20 && l->instructions == 20000000 && l->running == 2 && l->total == 60 && l->coroutines == 5);
  np_config_free(c);
}

static void check_equal_settings(void) {
  struct np_error err = {{0}};
  char *first = NULL;
  static const char *const orders[] = {"b = { y = 1, x = 2 }, a = 'q'", "a = 'q', b = { x = 2, y = 1 }",
                                       "a = 'q', b = { x = 2, y = 3 }"};
  for (size_t i = 0; i < COUNT(orders); i++) {
    char text[200];
    snprintf(text, sizeof text, "return { rules = { { 'r', %s } } }", orders[i]);
    struct np_config *c = load_text(text, &err);
    CHECK(c && c->entry_count == 1, "%s", err.text);
    if (!c) continue;
    if (i == 0) first = np_strdup(c->entries[0].canonical);
    CHECK((strcmp(first, c->entries[0].canonical) == 0) == (i < 2), "%s", c->entries[0].canonical);
    np_config_free(c);
  }
  free(first);
}

static void check_defaults(void) {
  struct np_error err = {{0}};
  struct np_config *c = load_text("return {}", &err);
  CHECK(c, "%s", err.text);
  if (!c) return;
  CHECK(strcmp(c->listen, "127.0.0.1:8080") == 0 && strcmp(c->store, in_folder("neap.db")) == 0);
  CHECK(c->plugins[0] == '/' && strncmp(c->plugins, folder, strlen(folder)) != 0, "%s", c->plugins);
  CHECK(c->lanes >= 1 && c->lanes <= 64 && c->drain == 10 && c->probation == 300000 && !c->only_listed && c->queue == 4096 &&
        c->body_max == 4u << 20);
  CHECK(c->keep[NP_KEPT_REQUESTS].age == INT64_C(604800000) && c->keep[NP_KEPT_DELIVERED].age == INT64_C(604800000));
  CHECK(c->keep[NP_KEPT_FAILED].age == INT64_C(7776000000) && c->keep[NP_KEPT_READINGS].age == 0 &&
        c->keep[NP_KEPT_EVENTS].age == 0 && c->keep[NP_KEPT_DEAD].age == 0 && c->keep[NP_KEPT_DEAD].size == 0);
  CHECK(!c->certificate && !c->key && !c->ca_file && c->entry_count == 0 && c->head_timeout == 0);
  np_config_free(c);

  mkdir(in_folder("plugins"), 0700);
  c = np_config_load(folder, NULL, &err); /* a folder stands for its neap.lua */
  CHECK(c && strcmp(c->plugins, in_folder("plugins")) == 0, "%s", c ? c->plugins : err.text);
  np_config_free(c);
  rmdir(in_folder("plugins"));
}

static void check_flags(void) {
  struct np_error err = {{0}};
  struct np_config_flags flags = {.listen = "[::1]:0", .store = "s.db", .plugins = "/abs/../p", .lanes = 7};
  write_file("neap.lua", "return { listen = '127.0.0.1:1', store = 'x.db', plugins = 'y', lanes = 1 }");
  char cwd[PATH_MAX], store[PATH_MAX + 16];
  CHECK(getcwd(cwd, sizeof cwd) != NULL);
  snprintf(store, sizeof store, "%s/s.db", cwd);
  struct np_config *c = np_config_load(in_folder("neap.lua"), &flags, &err);
  CHECK(c && strcmp(c->listen, "[::1]:0") == 0 && strcmp(c->store, store) == 0 && strcmp(c->plugins, "/p") == 0 && c->lanes == 7,
        "%s", err.text);
  np_config_free(c);
  flags = (struct np_config_flags){.listen = "8080"};
  CHECK(!np_config_load(in_folder("neap.lua"), &flags, &err) && strstr(err.text, "--listen: expected"), "%s", err.text);
  flags = (struct np_config_flags){.lanes = 65};
  CHECK(!np_config_load(in_folder("neap.lua"), &flags, &err) && strstr(err.text, "--lanes: expected"), "%s", err.text);
}

/* A path through a link keeps the link: "link/.." is not where the link stands. */
static void check_links(void) {
  struct np_error err = {{0}};
  mkdir(in_folder("releases"), 0700);
  CHECK(symlink("releases", in_folder("now")) == 0);
  struct np_config *c = load_text("return { plugins = 'now/plugins', store = 'now/../n.db' }", &err);
  CHECK(c && strcmp(c->plugins, in_folder("now/plugins")) == 0, "%s", c ? c->plugins : err.text);
  CHECK(c && strcmp(c->store, in_folder("now/../n.db")) == 0, "%s", c ? c->store : err.text);
  np_config_free(c);
  unlink(in_folder("now"));
  rmdir(in_folder("releases"));
}

static void check_no_file(void) {
  struct np_error err = {{0}};
  char cwd[PATH_MAX];
  CHECK(getcwd(cwd, sizeof cwd) != NULL);
  unlink(in_folder("neap.lua"));
  CHECK(!np_config_load(in_folder("neap.lua"), NULL, &err) && strstr(err.text, "neap.lua: No such file"), "%s", err.text);
  CHECK(!np_config_load(folder, NULL, &err) && strstr(err.text, "/neap.lua: No such file"), "%s", err.text);
  CHECK(chdir(folder) == 0);
  struct np_config *c = np_config_load(NULL, NULL, &err);
  CHECK(c && !c->path && strcmp(c->store, in_folder("neap.db")) == 0, "%s", c ? c->store : err.text);
  np_config_free(c);
  write_file("neap.lua", "return { lanes = 3 }");
  c = np_config_load(NULL, NULL, &err);
  CHECK(c && c->lanes == 3 && c->path, "%s", err.text);
  np_config_free(c);
  write_file("neap.lua", "return { lanes = }");
  CHECK(!np_config_load(NULL, NULL, &err) && strncmp(err.text, "neap.lua:1: unexpected symbol", 29) == 0, "%s", err.text);
  CHECK(chdir(cwd) == 0);
}

/* What has to be passed: an entry's own over that for all. */
static void check_gate(void) {
  struct np_error err = {{0}};
  struct np_config *c = load_text("return { policy = 'hold', check = { spec = true, time = '3s' },\n"
                                  "  rules = { { 'a' }, { 'b', policy = 'inform', check = { shadow = 5 } } },\n"
                                  "  connections = { { 'v', policy = 'theirs', check = { spec = false } } } }",
                                  &err);
  CHECK(c, "%s", err.text);
  struct np_check a = np_config_check(c, "a"), b = np_config_check(c, "b"), v = np_config_check(c, "v"),
                  other = np_config_check(c, "other");
  CHECK(a.hold && a.spec && a.shadow == 1000 && a.time == 3000);
  CHECK(!b.hold && b.spec && b.shadow == 5 && b.time == 3000);
  CHECK(!v.spec && v.time == 3000 && other.hold && other.spec);
  CHECK(strstr(c->entries[0].settings, "\"policy\":\"theirs\"") && !strstr(c->entries[0].settings, "check"));
  CHECK(!strstr(c->entries[2].settings, "policy") && !strstr(c->entries[2].settings, "check"));
  np_config_free(c);
  c = load_text("return {}", &err);
  a = np_config_check(c, "a");
  CHECK(!a.hold && !a.spec && a.shadow == 1000 && a.time == 10000);
  np_config_free(c);
}

static void check_errors(void) {
  static const struct {
    const char *text, *want; /* after the path */
  } cases[] = {
      {"return {", ":1: "},
      {"\n\nreturn { a = b.c }", ":3: attempt to index a nil value (global 'b')"},
      {"x = 1", ": it has to return a table, such as return { store = \"neap.db\" }; it returned nothing"},
      {"return 7", "it returned a number"},
      {"error({})", ": it raised an error that is not a string"},
      {"error('no', 0)", ": no"},
      {"\nwhile true do end", ":2: still running after 50 million instructions"},
      {"while true do pcall(function() while true do end end) end", ": still running after 50 million instructions"},
      {"local s = ('x'):rep(1000) while true do s = s .. s end", ": not enough memory: it may use 64 MiB"},
      {"os.exit(3)", ":1: attempt to index a nil value (global 'os')"},
      {"io.write('x')", "(global 'io')"},
      {"require 'neap.http'", "(global 'require')"},
      {"setmetatable({}, { __gc = function() while true do end end }) return {}", "(global 'setmetatable')"},
      {"\x1bLua", ":"},
      {"return { listn = 'x' }", ": listn: unknown, did you mean \"listen\"?"},
      {"return { conections = {} }", ": conections: unknown, did you mean \"connections\"?"},
      {"return { qqqqqqqq = 1 }", ": qqqqqqqq: unknown; there are: listen, store, plugins"},
      {"return { 'x' }", ": [1]: unexpected: every value here has a name"},
      {"return { listen = 8080 }", ": listen: expected an address such as \"127.0.0.1:8080\", got 8080"},
      {"return { listen = 'localhost' }", ": listen: expected an address"},
      {"return { listen = '::1:80' }", ": listen: expected an address"},
      {"return { listen = '[::1:80' }", ": listen: expected an address"},
      {"return { listen = '127.0.0.1:65536' }", ": listen: expected an address"},
      {"return { listen = '127.0.0.1:' }", ": listen: expected an address"},
      {"return { listen = ':80' }", ": listen: expected an address"},
      {"return { store = true }", ": store: expected a path, got a boolean"},
      {"return { store = '' }", ": store: expected a path, got \"\""},
      {"return { store = 'a\\0b' }", ": store: expected a path"},
      {"return { plugins = {} }", ": plugins: expected the path of a folder, got a table"},
      {"return { lanes = 0 }", ": lanes: expected a whole number from 1 to 64, got 0"},
      {"return { lanes = 65 }", ": lanes: expected a whole number from 1 to 64, got 65"},
      {"return { lanes = 1.5 }", ": lanes: expected a whole number from 1 to 64, got 1.5"},
      {"return { lanes = '2' }", ": lanes: expected a whole number from 1 to 64, got \"2\""},
      {"return { policy = 'maybe' }", ": policy: expected \"inform\" or \"hold\", got \"maybe\""},
      {"return { policy = 'hold', check = { shadow = 0 } }", ": policy: \"hold\" needs a shadow run"},
      {"return { policy = 'hold', rules = { { 'x', check = { shadow = 0 } } } }", ": rules[1].policy: \"hold\" needs a shadow run"},
      {"return { check = { specs = true } }", ": check.specs: unknown, did you mean \"spec\"?"},
      {"return { rules = { { 'x', check = { shadow = -1 } } } }", ": rules[1].check.shadow: expected a whole number from 0"},
      {"return { check = { time = 0 } }", ": check.time: expected a duration that is longer, got 0"},
      {"return { queue = 0 }", ": queue: expected a whole number"},
      {"return { drain = 'soon' }", ": drain: expected a duration such as \"10s\", got \"soon\""},
      {"return { drain = -1 }", ": drain: expected a duration such as \"10s\", got -1"},
      {"return { drain = 0/0 }", ": drain: expected a duration"},
      {"return { drain = '50w 3' }", ": drain: expected a duration"},
      {"return { drain = '600w' }", ": drain: expected a duration of at most ten years"},
      {"return { timeouts = { head = true } }", ": timeouts.head: expected a duration such as \"10s\", got a boolean"},
      {"return { timeouts = { head = 0 } }", ": timeouts.head: expected a duration that is longer, got 0"},
      {"return { timeouts = { idel = 1 } }", ": timeouts.idel: unknown, did you mean \"idle\"?"},
      {"return { timeouts = 5 }", ": timeouts: expected a table, got 5"},
      {"return { keep = { requests = '0s' } }", ": keep.requests: expected a duration that is longer, got \"0s\""},
      {"return { keep = { requests = 7 } }",
       ": keep.requests: expected an age with its unit, such as \"7d\", or \"forever\", got 7"},
      {"return { keep = { events = { age = 90.5 } } }", ": keep.events.age: expected an age with its unit"},
      {"return { keep = { readings = { age = '1d', sise = '1GiB' } } }", ": keep.readings.sise: unknown, did you mean \"size\"?"},
      {"return { keep = { readings = { size = 0 } } }", ": keep.readings.size: expected a size from 1 to"},
      {"return { keep = { failed = { size = '1GiB' } } }", ": keep.failed.size: unknown; there are: age"},
      {"return { keep = { delivered = 'always' } }", ": keep.delivered: expected a duration"},
      {"return { keep = { messages = '1d' } }",
       ": keep.messages: unknown; there are: requests, failed, readings, events, delivered, dead"},
      {"return { body_max = '4MB' }", ": body_max: expected a size such as \"4MiB\", got \"4MB\""},
      {"return { body_max = 0 }", ": body_max: expected a size from 1 to 1073741824 bytes, got 0"},
      {"return { body_max = -5 }", ": body_max: expected a size such as \"4MiB\", got -5"},
      {"return { tls = { certificate = 'cert.pem' } }", ": tls.key: missing: TLS needs a certificate and its key"},
      {"return { tls = { key = 'key.pem' } }", ": tls.certificate: missing"},
      {"return { tls = { certificate = 'none.pem', key = 'key.pem' } }", "none.pem cannot be read: No such file"},
      {"return { trust = 'none.pem' }", "none.pem cannot be read: No such file"},
      {"return { connections = 'x' }", ": connections: expected a table, got \"x\""},
      {"return { connections = { 'sinocare' } }",
       ": connections[1]: expected a table such as { \"sinocare\", name = \"...\" }, got a string"},
      {"return { connections = { {} } }", ": connections[1][1]: expected the plugin's name, such as \"webhook\", got a nil"},
      {"return { connections = { ward = { 'sinocare' } } }",
       ": connections.ward: expected a list: write { \"plugin\", name = \"ward\" } without a key"},
      {"return { rules = { { 'a' }, [7] = { 'b' } } }", ": rules: expected a list without gaps"},
      {"return { rules = { { 'a b' } } }",
       ": rules[1][1]: expected a name of 1 to 64 letters, digits, \"_\", \".\" or \"-\", got \"a b\""},
      {"return { rules = { { '../x' } } }", ": rules[1][1]: expected a name"},
      {"return { rules = { { 'a', name = 'b/c' } } }", ": rules[1].name: expected a name"},
      {"return { rules = { { 'a', name = ('n'):rep(65) } } }", ": rules[1].name: expected a name"},
      {"return { rules = { { 'a', name = 5 } } }", ": rules[1].name: expected a name, got 5"},
      {"return { rules = { { 'a', 'b' } } }", ": rules[1][2]: unexpected: after the plugin's name"},
      {"return { rules = { { 'a', f = print } } }", NULL}, /* print is nil */
      {"return { rules = { { 'a', f = { g = pairs } } } }", ": rules[1]: "},
      {"return { rules = { { 'a', x = 0/0 } } }", ": rules[1]: "},
      {"local t = { 'a' } t.t = t return { rules = { t } }", ": rules[1]: "},
      {"return { rules = { { 'low' } }, connections = { { 'x', name = 'low' } } }",
       ": rules[1]: the name \"low\" is taken by connections[1]: give one of the two another, with name = \"...\""},
      {"return { rules = { { 'low' }, { 'low' } } }", ": rules[2]: the name \"low\" is taken by rules[1]"},
      {"return { rules = { { 'low' } }, destinations = { low = { 'w' } } }",
       ": destinations.low: the name \"low\" is taken by rules[1]"},
      {"return { destinations = { desk = 'webhook' } }", ": destinations.desk: expected a table"},
      {"return { destinations = { desk = { 'w', name = 'd' } } }", ": destinations.desk.name: it is \"desk\" already, by its key"},
      {"return { destinations = { ['a b'] = { 'w' } } }", ": destinations.a b: expected a name"},
      {"return { connections = { { 'x', mount = 'b' } } }", ": connections[1].mount: expected a path such as \"/hospital-b\""},
      {"return { connections = { { 'x', mount = '/b/' } } }", ": connections[1].mount: expected a path"},
      {"return { connections = { { 'x', mount = '/{a}' } } }", ": connections[1].mount: expected a path"},
      {"return { connections = { { 'x', mount = 1 } } }",
       ": connections[1].mount: expected a path such as \"/hospital-b\", got a number"},
      {"return { rules = { { 'a', limits = 5 } } }", ": rules[1].limits: expected a table, got 5"},
      {"return { rules = { { 'a', limits = { memry = 1 } } } }", ": rules[1].limits.memry: unknown, did you mean \"memory\"?"},
      {"return { rules = { { 'a', limits = { memory = 'x' } } } }", ": rules[1].limits.memory: expected a size"},
      {"return { rules = { { 'a', limits = { memory = '1KiB' } } } }", ": rules[1].limits.memory: expected a size from"},
      {"return { rules = { { 'a', limits = { instructions = 1 } } } }", ": rules[1].limits.instructions: expected a whole number"},
      {"return { rules = { { 'a', limits = { running = '0s' } } } }",
       ": rules[1].limits.running: expected a duration that is longer"},
      {"return { rules = { { 'a', limits = { total = {} } } } }",
       ": rules[1].limits.total: expected a duration such as \"10s\", got a table"},
      {"return { quarantine = 5 }", ": quarantine: expected a table, got 5"},
      {"return { quarantine = { after = 0 } }", ": quarantine.after: expected a whole number"},
      {"return { quarantine = { hold = 'x' } }", ": quarantine.hold: expected a duration"},
      {"return { quarantine = { holds = 1 } }", ": quarantine.holds: unknown, did you mean \"hold\"?"},
      {"return { limits = { coroutines = 0 } }", ": limits.coroutines: expected a whole number"},
      {"return { limits = { http = 1.5 } }", ": limits.http: expected a whole number"},
      {"return { limits = { calls = 0 } }", ": limits.calls: expected a whole number"},
      {"return { limits = { emits = 200001 } }", ": limits.emits: expected a whole number"},
      {"return { limits = { log = '5' } }", ": limits.log: expected a whole number"},
      {"return { limits = { log_burst = -1 } }", ": limits.log_burst: expected a whole number"},
      {"return { limits = { store = '1KB' } }", ": limits.store: expected a size"},
      {"return { store = env 'NEAP_TEST_UNSET' }",
       ":1: the environment variable NEAP_TEST_UNSET is not set: set it, or write env(\"NEAP_TEST_UNSET\", default)"},
      {"return { store = env 'NEAP_TEST_EMPTY' }", ":1: the environment variable NEAP_TEST_EMPTY is empty"},
      {"return { store = env() }", ":1: bad argument #1 to 'env'"},
      {"return { store = file 'none' }", "/none\" cannot be read: No such file"},
      {"return { store = file '.' }", " cannot be read: "},
  };
  setenv("NEAP_TEST_EMPTY", "", 1);
  unsetenv("NEAP_TEST_UNSET");
  const char *path = np_strdup(in_folder("neap.lua"));
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct np_error err = {{0}};
    struct np_config *c = load_text(cases[i].text, &err);
    if (!cases[i].want) {
      CHECK(c, "%s: %s", cases[i].text, err.text);
      np_config_free(c);
      continue;
    }
    CHECK(!c, "%s was taken", cases[i].text);
    CHECK(strncmp(err.text, path, strlen(path)) == 0, "%s\n  gives  %s", cases[i].text, err.text);
    CHECK(strstr(err.text, cases[i].want), "%s\n  gives  %s\n  not    %s", cases[i].text, err.text, cases[i].want);
    np_config_free(c);
  }
  free((char *)path);
}

/* Lua cuts long names of chunks; our sentences do not. */
static void check_long_path(void) {
  struct np_error err = {{0}};
  char name[121];
  memset(name, 'd', 120);
  name[120] = 0;
  mkdir(in_folder(name), 0700);
  char file[140], path[PATH_MAX];
  snprintf(file, sizeof file, "%s/neap.lua", name);
  snprintf(path, sizeof path, "%s:2: ", in_folder(file));
  write_file(file, "\nreturn }");
  CHECK(!np_config_load(in_folder(name), NULL, &err) && strncmp(err.text, path, strlen(path)) == 0, "%s", err.text);
  unlink(in_folder(file));
  rmdir(in_folder(name));
}

static bool masked(const char *value) {
  char *text = np_mask_text(value, strlen(value));
  bool is = strcmp(text, "***") == 0;
  free(text);
  return is;
}

static void check_secrets(void) {
  struct np_error err = {{0}};
  setenv("NEAP_TEST_SECRET", "hush-hush-7", 1);
  unsetenv("NEAP_TEST_UNSET");
  write_file("secret.txt", "file-secret\r\n");
  CHECK(!masked("hush-hush-7") && !masked("file-secret"));
  struct np_config *c =
      load_text("return { rules = { { 'r', a = env 'NEAP_TEST_SECRET', b = file 'secret.txt', c = env('NEAP_TEST_UNSET', 5), "
                "d = env('NEAP_TEST_EMPTY', 'plain') } } }",
                &err);
  CHECK(c && strcmp(c->entries[0].canonical, "{\"a\":\"hush-hush-7\",\"b\":\"file-secret\",\"c\":5,\"d\":\"plain\"}") == 0, "%s",
        c ? c->entries[0].canonical : err.text);
  CHECK(masked("hush-hush-7") && masked("file-secret") && !masked("plain"));
  np_config_free(c);

  c = load_text("return { drain = env 'NEAP_TEST_SECRET' }", &err);
  CHECK(!c && strstr(err.text, "got \"***\""), "%s", err.text);
  c = load_text("error('it was ' .. env 'NEAP_TEST_SECRET')", &err);
  CHECK(!c && strstr(err.text, "it was ***"), "%s", err.text);
  char text[400]; /* longer than what is quoted of a value */
  memset(text, 'k', 399);
  text[399] = 0;
  write_file("secret.txt", text);
  c = load_text("return { drain = file 'secret.txt' }", &err);
  CHECK(!c && !strstr(err.text, "kkkk"), "%s", err.text);
  unlink(in_folder("secret.txt"));
}

static void check_store_alone(void) {
  struct np_error err = {{0}};
  unsetenv("NEAP_TEST_UNSET");
  write_file("neap.lua", "return { store = 'a/b.db', secret = env 'NEAP_TEST_UNSET', file 'none', lanes = 'many' }");
  char *store = np_config_store(in_folder("neap.lua"), NULL, &err);
  CHECK(store && strcmp(store, in_folder("a/b.db")) == 0, "%s", store ? store : err.text);
  free(store);
  struct np_config_flags flags = {.store = "/x/./y.db"};
  store = np_config_store(in_folder("neap.lua"), &flags, &err);
  CHECK(store && strcmp(store, "/x/y.db") == 0, "%s", store ? store : err.text);
  free(store);
  write_file("neap.lua", "return { store = env 'NEAP_TEST_UNSET' .. '.db' }");
  CHECK(!np_config_store(in_folder("neap.lua"), NULL, &err) && strstr(err.text, ": store: it needs an environment variable"), "%s",
        err.text);
  write_file("neap.lua", "return {");
  CHECK(!np_config_store(in_folder("neap.lua"), NULL, &err) && strstr(err.text, "neap.lua:1: "), "%s", err.text);
}

static void check_bytes(void) {
  static const struct {
    const char *text;
    long long want;
  } cases[] = {{"0", 0},
               {"1048576", 1048576},
               {"12B", 12},
               {"512KiB", 512 << 10},
               {"64MiB", 64 << 20},
               {"4 MiB", 4 << 20},
               {"2GiB", 2LL << 30},
               {"", -1},
               {"MiB", -1},
               {"4MB", -1},
               {"4mib", -1},
               {"-1", -1},
               {"1.5MiB", -1},
               {"4 MiB ", -1},
               {" 4", -1},
               {"99999999999999999999", -1},
               {"9999999999GiB", -1}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    size_t n = 0;
    int status = np_config_bytes(cases[i].text, &n);
    CHECK(cases[i].want < 0 ? status < 0 : status == 0 && n == (size_t)cases[i].want, "%s: %d, %zu", cases[i].text, status, n);
  }
}

int main(void) {
  if (!mkdtemp(folder)) return 1;
  write_file("cert.pem", "c");
  write_file("key.pem", "k");
  write_file("ca.pem", "a");
  check_whole();
  check_equal_settings();
  check_defaults();
  check_flags();
  check_links();
  check_no_file();
  check_gate();
  check_errors();
  check_long_path();
  check_secrets();
  check_store_alone();
  check_bytes();
  static const char *const files[] = {"cert.pem", "key.pem", "ca.pem", "neap.lua"};
  for (size_t i = 0; i < COUNT(files); i++) unlink(in_folder(files[i]));
  CHECK(rmdir(folder) == 0, "something was left in %s", folder);
  return check_end();
}
