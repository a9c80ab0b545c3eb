/* A host in this process, on a configuration that is made up. */
#include "host/stage.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/near.h"
#include "host/build.h"
#include "host/calls.h"
#include "host/host.h"
#include "host/sources.h"
#include "lib/json.h"

#define NAMES_MAX 256

struct stage {
  const struct np_stage *options; /* borrowed */
  char *folder;                   /* owned: made here, removed at the end */
  char *store;                    /* owned */
  char *url;                      /* owned; once it listens */
  struct np_host *host;           /* borrowed; the same */
  int code;
};

static int complain(const char *text) {
  fprintf(stderr, "neap sandbox: %s\n", text);
  return 1;
}

/* Which plugins have one? */

static bool delivers(void *arg, const char *instance) {
  (void)arg, (void)instance;
  return false;
}

static bool has_sandbox(const struct np_code *code) {
  for (size_t i = 0; i < code->command_count; i++)
    if (strcmp(code->commands[i].name, "sandbox") == 0) return true;
  return false;
}

/* 1, 0, or -1 and err where it does not build. */
static int look_at(const struct np_config *config, const struct np_sources *sources, const struct np_file *f,
                   struct np_error *err) {
  struct np_build_context context = {.sources = sources, .config = config, .lanes = 1, .delivers = delivers};
  struct np_want want = {.instance = f->source.name,
                         .plugin = f->source.name,
                         .mount = "",
                         .settings = "{}",
                         .canonical = "{}",
                         .at = f->source.path,
                         .people = true,
                         .file = f};
  struct np_built built;
  if (np_build(&context, &want, &built, err) < 0) return -1;
  int has = has_sandbox(built.code);
  np_built_discard(&built, 1);
  return has;
}

static int tell_which(const struct np_stage *s, const struct np_config *config, const struct np_sources *sources) {
  const char *names[NAMES_MAX];
  size_t n = 0;
  struct np_buf list = {0};
  for (size_t i = 0; i < sources->count && n < NAMES_MAX; i++) {
    const struct np_file *f = &sources->files[i];
    struct np_error err;
    if (f->library || look_at(config, sources, f, &err) != 1) continue;
    np_buf_addf(&list, "%s%s", n ? ", " : "", f->source.name);
    names[n++] = f->source.name;
  }
  const char *near = s->vendor ? np_near(s->vendor, strlen(s->vendor), names, n) : NULL;
  if (s->vendor)
    fprintf(stderr, "neap sandbox: \"%s\" has no sandbox%s%s%s ", s->vendor, near ? ", did you mean \"" : "", near ? near : "",
            near ? "\"?" : ".");
  else
    fputs("neap sandbox: of which vendor? ", stderr);
  if (n)
    fprintf(stderr, "There is one of: %s\n", np_buf_text(&list));
  else
    fprintf(stderr, "No plugin in %s has one: --plugins names another folder\n", config->plugins);
  np_buf_free(&list);
  return 2;
}

/* 0 where the vendor has one. */
static int find_vendor(const struct np_stage *s, const struct np_config *config) {
  struct np_sources sources;
  struct np_error err;
  if (np_sources_read(&sources, config->plugins, &err) < 0) return complain(err.text);
  const struct np_file *f = s->vendor ? np_sources_find(&sources, false, s->vendor) : NULL;
  int has = f ? look_at(config, &sources, f, &err) : 0, code = 0;
  if (has < 0)
    code = complain(err.text);
  else if (!has)
    code = tell_which(s, config, &sources);
  np_sources_free(&sources);
  return code;
}

/* The folder */

static int make_folder(struct stage *st) {
  const char *parent = getenv("TMPDIR");
  struct np_buf path = {0};
  np_buf_addf(&path, "%s/neap-sandbox-XXXXXX", parent && *parent ? parent : "/tmp");
  st->folder = mkdtemp(path.data);
  if (st->folder) return 0;
  fprintf(stderr, "neap sandbox: %s: %s\n", path.data, strerror(errno));
  np_buf_free(&path);
  return -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st, (void)type, (void)ftw;
  return remove(path);
}

static void remove_folder(struct stage *st) {
  if (st->folder && nftw(st->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
    fprintf(stderr, "neap sandbox: %s cannot be removed: %s\n", st->folder, strerror(errno));
}

/* neap.lua in that folder: the vendor's name has been found among the plugins' files. */
static int write_config(const struct stage *st, const char *path) {
  FILE *f = fopen(path, "we");
  int status = f && fprintf(f, "return { connections = { { \"%s\", people = true } } }\n", st->options->vendor) > 0 ? 0 : -1;
  if (f && fclose(f) != 0) status = -1;
  if (status < 0) fprintf(stderr, "neap sandbox: %s: %s\n", path, strerror(errno));
  return status;
}

static struct np_config *make_config(struct stage *st, struct np_error *err) {
  const struct np_stage *s = st->options;
  struct stat here;
  struct np_buf path = {0}, store = {0};
  np_buf_addf(&path, "%s/neap.lua", st->folder);
  np_buf_addf(&store, "%s/neap.db", st->folder);
  struct np_config_flags flags = {
      .listen = s->listen ? s->listen : "127.0.0.1:0", .store = s->store ? s->store : store.data, .lanes = s->lanes};
  flags.plugins = s->plugins ? s->plugins : stat("plugins", &here) == 0 && S_ISDIR(here.st_mode) ? "plugins" : NULL;
  struct np_config *config = NULL;
  if (!s->vendor || write_config(st, path.data) == 0) config = np_config_load(s->vendor ? path.data : NULL, &flags, err);
  np_buf_free(&path);
  np_buf_free(&store);
  return config;
}

/* What the sandbox has made */

/* Control characters cannot steer the terminal; an example may have lines. */
static void print_text(const char *text) {
  for (; *text; text++) putchar((unsigned char)*text < 0x20 && *text != '\n' ? '?' : *text);
}

/* Prints the table at idx as "name  value", in the order of names. */
static void print_credentials(lua_State *L, int idx) {
  int n = 0;
  size_t widest = 0;
  lua_newtable(L);
  int names = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    const char *name = lua_tostring(L, -2);
    if (strlen(name) > widest) widest = strlen(name);
    int at = ++n; /* sorted as they come: there are few */
    for (; at > 1 && lua_rawgeti(L, names, at - 1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), name) > 0; at--)
      lua_rawseti(L, names, at);
    lua_settop(L, names + 2);
    lua_pushvalue(L, -2);
    lua_rawseti(L, names, at);
  }
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, names, i);
    const char *name = lua_tostring(L, -1);
    lua_getfield(L, idx, name);
    struct np_error err;
    if (lua_istable(L, -1) && np_json_encode(L, -1, &err) < 0) luaL_error(L, "%s", err.text);
    printf("  ");
    print_text(name);
    printf("%*s", (int)(widest - strlen(name)) + 2, "");
    print_text(luaL_tolstring(L, -1, NULL));
    putchar('\n');
    lua_settop(L, names);
  }
  lua_settop(L, names - 1);
}

static void set_unless(lua_State *L, int at, const char *name, const char *value) {
  if (value && lua_getfield(L, at, name) == LUA_TNIL) {
    lua_pushstring(L, value);
    lua_setfield(L, at, name);
  }
  lua_settop(L, at);
}

static void print_line(lua_State *L, const struct stage *st, const char *example) {
  struct np_error err;
  int at = lua_gettop(L); /* the credentials */
  lua_pushstring(L, st->url);
  lua_setfield(L, at, "url");
  lua_pushstring(L, st->options->vendor);
  lua_setfield(L, at, "vendor");
  set_unless(L, at, "example", example);
  set_unless(L, at, "store", st->store);
  if (np_json_encode(L, at, &err) < 0) luaL_error(L, "%s", err.text);
  puts(lua_tostring(L, -1));
}

/* Protected: the stage, the answer's line. */
static int show(lua_State *L) {
  const struct stage *st = lua_touserdata(L, 1);
  struct np_error err;
  size_t len;
  const char *line = lua_tolstring(L, 2, &len);
  if (np_json_decode(L, line, len, &err) < 0) return luaL_error(L, "%s", err.text);
  if (lua_getfield(L, 3, "error") == LUA_TSTRING) return lua_error(L);
  if (lua_getfield(L, 3, "result") != LUA_TTABLE) return luaL_error(L, "its command \"sandbox\" returned no table");
  int result = lua_gettop(L);
  if (lua_getfield(L, result, "credentials") != LUA_TTABLE)
    return luaL_error(L, "its command \"sandbox\" returned no table of credentials");
  lua_getfield(L, result, "example");
  const char *example = lua_tostring(L, -1); /* it stays in the result */
  lua_pop(L, 1);
  if (st->options->json) {
    print_line(L, st, example);
  } else {
    printf("The sandbox of %s is at %s\n\n", st->options->vendor, st->url);
    print_credentials(L, lua_gettop(L));
    if (example) {
      printf("\nFor example:\n  ");
      print_text(example);
      putchar('\n');
    }
    printf("\nIts store is %s%s. Ctrl-C ends it.\n", st->store, st->options->store ? "" : ", and is removed at the end");
  }
  fflush(stdout);
  return 0;
}

static void shown(struct np_call *call) {
  struct stage *st = call->arg;
  lua_State *L = luaL_newstate();
  if (!L) abort(); /* out of memory */
  lua_pushcfunction(L, show);
  lua_pushlightuserdata(L, st);
  lua_pushlstring(L, call->answer.data, call->answer.len);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
    st->code = complain(lua_tostring(L, -1));
    np_host_stop(st->host);
  }
  lua_close(L);
  np_call_free(call);
}

static void on_listening(struct np_host *host, const char *url, void *arg) {
  struct stage *st = arg;
  struct np_buf args = {0};
  st->host = host;
  st->url = np_strdup(url);
  np_buf_adds(&args, "{\"url\":");
  np_buf_add_json(&args, url, strlen(url));
  np_buf_addc(&args, '}');
  struct np_call *call = np_call_new(st->options->vendor);
  call->name = np_strdup("sandbox");
  call->args = args.data;
  call->any_args = true;
  call->done = shown;
  call->arg = st;
  np_host_call(host, call);
}

int np_stage_run(const struct np_stage *s) {
  struct stage st = {.options = s, .code = 1};
  struct np_error err = {""};
  if (make_folder(&st) < 0) return 1;
  struct np_config *config = make_config(&st, &err);
  if (!config) {
    if (*err.text) complain(err.text);
  } else if ((st.code = find_vendor(s, config)) == 0) {
    struct np_host_hooks hooks = {.listening = on_listening, .arg = &st};
    st.store = np_strdup(config->store);
    config->only_listed = true;
    int code = np_host_run(config, &hooks);
    if (code) st.code = code;
  } else {
    np_config_free(config);
  }
  remove_folder(&st);
  free(st.folder);
  free(st.store);
  free(st.url);
  return st.code;
}
