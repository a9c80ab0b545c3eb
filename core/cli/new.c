/* neap new. */
#include "cli/new.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/near.h"
#include "cli/types.h"
#include "host/client.h"
#include "host/shipped.h"
#include "host/sources.h"

#define NAME_MAX_BYTES 40
#define PLACEHOLDER "NAME"
#define TEXT(name)                                                                                                                 \
  { _binary_core_new_##name##_lua_start, _binary_core_new_##name##_lua_end }
#define DECLARE(name) extern const char _binary_core_new_##name##_lua_start[], _binary_core_new_##name##_lua_end[];
DECLARE(vendor)
DECLARE(vendor_spec)
DECLARE(rule)
DECLARE(rule_spec)
DECLARE(destination)
DECLARE(destination_spec)

struct text {
  const char *start, *end;
};

static const struct kind {
  const char *name, *folder;
  struct text plugin, spec;
  const char *line; /* of neap.lua */
} kinds[] = {
    {"vendor", "vendors", TEXT(vendor), TEXT(vendor_spec), "connections = { { \"NAME\", secret = env \"NAME_SECRET\" } }"},
    {"rule", "rules", TEXT(rule), TEXT(rule_spec),
     "rules = { { \"NAME\", to = \"desk\" } }, where desk is one of its destinations"},
    {"destination", "destinations", TEXT(destination), TEXT(destination_spec),
     "destinations = { desk = { \"NAME\", url = \"https://where.messages/are/posted\" } }, for rules that say to = \"desk\""},
};
#define KINDS (sizeof kinds / sizeof *kinds)

/* Beside the folder of plugins. %s is that folder's own name. */
static const char luarc[] = "{\n"
                            "  \"runtime.version\": \"Lua 5.4\",\n"
                            "  \"runtime.path\": [\"?.lua\", \"%s/lib/?.lua\"],\n"
                            "  \"runtime.builtin\": { \"debug\": \"disable\", \"io\": \"disable\", \"os\": \"disable\" },\n"
                            "  \"workspace.library\": [\"types\"],\n"
                            "  \"workspace.checkThirdParty\": false\n"
                            "}\n";
static const char luacheckrc[] = "std = \"lua54\"\n"
                                 "exclude_files = { \"types\" }\n"
                                 "files[\"**/*_spec.lua\"] = { std = \"+busted\" }\n"
                                 "files[\"**/neap.lua\"] = { read_globals = { \"env\", \"file\" } }\n";

struct work {
  const struct np_line *line;
  const struct kind *kind;
  const char *name, *plugins;
  struct np_buf plugin, spec; /* owned: the paths */
  bool first;                 /* there was no such folder */
};

static int refuse(const char *why, const char *word) {
  fprintf(stderr, "neap new: \"%s\": %s\n", word, why);
  return 2;
}

/* It is part of a path, of a route and of a header; so letters, digits and "-". */
static const char *wrong_name(const char *name) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz", all[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
  size_t n = strlen(name);
  if (n > NAME_MAX_BYTES) return "a name has at most 40 characters";
  if (!n || name[strspn(name, all)] || !strchr(letters, name[0]) || name[n - 1] == '-')
    return "a name is made of small letters, digits and \"-\", and begins with a letter, such as hot-fridge";
  return NULL;
}

static int read_words(struct work *w) {
  const struct np_line *l = w->line;
  const char *names[KINDS], *why;
  if (!l->word_count) return np_line_wrong(l, "expected vendor, rule or destination, and a name");
  for (size_t i = 0; i < KINDS; i++) {
    names[i] = kinds[i].name;
    if (strcmp(kinds[i].name, l->words[0]) == 0) w->kind = &kinds[i];
  }
  if (!w->kind) {
    const char *meant = np_near(l->words[0], strlen(l->words[0]), names, KINDS);
    if (!meant) return refuse("expected vendor, rule or destination", l->words[0]);
    fprintf(stderr, "neap new: \"%s\": did you mean \"%s\"?\n", l->words[0], meant);
    return 2;
  }
  if (l->word_count < 2) return np_line_wrong(l, "what is it to be called?");
  if (l->word_count > 2) return refuse("is one argument too many", l->words[2]);
  w->name = l->words[1];
  return (why = wrong_name(w->name)) ? refuse(why, w->name) : 0;
}

static void fill(struct np_buf *b, const char *at, size_t len, const char *name) {
  const char *end = at + len;
  for (const char *found; (found = memmem(at, (size_t)(end - at), PLACEHOLDER, strlen(PLACEHOLDER)));
       at = found + strlen(PLACEHOLDER)) {
    np_buf_add(b, at, (size_t)(found - at));
    np_buf_adds(b, name);
  }
  np_buf_add(b, at, (size_t)(end - at));
}

static int write_filled(const char *path, const struct text *t, const char *name, struct np_error *err) {
  struct np_buf b = {0};
  fill(&b, t->start, (size_t)(t->end - t->start), name);
  int result = np_cli_write(path, b.data, b.len, true, err);
  int why = errno;
  np_buf_free(&b);
  return result < 0 && why == EEXIST ? np_fail(err, "%s is there already: nothing was written", path) : result;
}

/* A name is one plugin's, whatever folder it is in. */
static int check_unused(struct work *w, struct np_error *err) {
  struct stat st;
  struct np_sources sources;
  int result = 0;
  if (stat(w->plugins, &st) < 0 && errno == ENOENT) {
    w->first = true;
    return 0;
  }
  if (np_sources_read(&sources, w->plugins, err) < 0) return -1;
  const struct np_file *f = np_sources_find(&sources, false, w->name);
  if (f) result = np_fail(err, "%s is there already: nothing was written", f->source.path);
  np_sources_free(&sources);
  return result;
}

static int write_plugin(struct work *w, struct np_error *err) {
  struct np_buf folder = {0};
  np_buf_addf(&folder, "%s/%s", w->plugins, w->kind->folder);
  np_buf_addf(&w->plugin, "%s/%s.lua", folder.data, w->name);
  np_buf_addf(&w->spec, "%s/%s_spec.lua", folder.data, w->name);
  int result = np_cli_folder(folder.data, err);
  np_buf_free(&folder);
  if (result < 0 || write_filled(w->spec.data, &w->kind->spec, w->name, err) < 0) return -1;
  if (write_filled(w->plugin.data, &w->kind->plugin, w->name, err) == 0) return 0;
  unlink(w->spec.data);
  return -1;
}

/* The folder that the plugins' folder stands in, as a prefix of paths. */
static char *beside(const char *plugins) {
  char *whole = realpath(plugins, NULL), *slash = whole ? strrchr(whole, '/') : NULL;
  const char *last = strrchr(plugins, '/');
  struct np_buf b = {0};
  if (!last && plugins[0] != '.') /* the usual case: shown as it is typed */
    np_buf_adds(&b, "");
  else if (slash)
    np_buf_add(&b, whole, (size_t)(slash - whole) + 1);
  free(whole);
  return b.data ? b.data : np_strdup("");
}

/* Writes one of the files beside the plugins where it is not there yet. */
static int write_once(const char *path, const char *text, bool json, struct np_error *err) {
  struct stat st;
  if (lstat(path, &st) == 0) return 0;
  if (np_cli_write(path, text, strlen(text), true, err) < 0) return -1;
  np_cli_wrote(path, json);
  return 0;
}

static int write_rest(const struct work *w, struct np_error *err) {
  bool json = w->line->values[JSON];
  char *root = beside(w->plugins), *whole = realpath(w->plugins, NULL);
  const char *own = whole ? strrchr(whole, '/') + 1 : "plugins";
  struct np_buf path = {0}, text = {0};
  struct stat st;
  np_buf_addf(&path, "%s.luarc.json", root);
  np_buf_addf(&text, luarc, own);
  int result = write_once(path.data, text.data, json, err);
  np_buf_free(&path);
  np_buf_addf(&path, "%s.luacheckrc", root);
  if (result == 0) result = write_once(path.data, luacheckrc, json, err);
  np_buf_free(&path);
  np_buf_addf(&path, "%stypes", root);
  np_buf_free(&text);
  np_buf_addf(&text, "%s/neap/plugin.lua", path.data);
  if (result == 0 && stat(text.data, &st) < 0) {
    result = np_types_write(path.data, err);
    np_buf_adds(&path, "/neap");
    if (result == 0) np_cli_wrote(path.data, json);
  }
  np_buf_free(&path);
  np_buf_free(&text);
  free(root);
  free(whole);
  return result;
}

/* A host that has served with the plugins that came with neap has its own from its next start on. */
static void tell_of_shipped(void) {
  char *shipped = np_shipped_folder();
  struct stat st;
  if (stat(shipped, &st) == 0)
    printf("\nplugins/ is new. A host whose neap.lua stands beside it takes its plugins from there alone, from its next start on.\n"
           "To have those that came with neap there too:  cp -rn %s/. plugins/\n",
           shipped);
  free(shipped);
}

static void tell(const struct work *w) {
  struct np_buf line = {0};
  const char *folder = w->line->values[PLUGINS_DIR];
  fill(&line, w->kind->line, strlen(w->kind->line), w->name);
  char *secret = line.data ? strstr(line.data, "_SECRET") : NULL; /* a variable has capitals and "_" */
  for (char *c = secret; c && c[-1] != '"'; c--)
    c[-1] = c[-1] == '-' ? '_' : c[-1] >= 'a' && c[-1] <= 'z' ? (char)(c[-1] - 'a' + 'A') : c[-1];
  printf("\nIts spec is run by  neap test %s%s%s\n", w->name, folder ? " --plugins " : "", folder ? folder : "");
  printf("It is put to work by a line in neap.lua:  %s\n", line.data);
  np_buf_free(&line);
  if (w->first && !folder) tell_of_shipped();
}

int np_new(const struct np_line *l) {
  struct work w = {.line = l, .plugins = l->values[PLUGINS_DIR] ? l->values[PLUGINS_DIR] : "plugins"};
  struct np_error err;
  int code = read_words(&w);
  bool json = l->values[JSON];
  if (code || !w.kind) return 2;
  if (check_unused(&w, &err) == 0 && write_plugin(&w, &err) == 0) {
    np_cli_wrote(w.plugin.data, json);
    np_cli_wrote(w.spec.data, json);
    code = write_rest(&w, &err) < 0;
    if (!code && !json) tell(&w);
  } else {
    code = 1;
  }
  if (code && json)
    np_client_error(stdout, err.text);
  else if (code)
    fprintf(stderr, "neap new: %s\n", err.text);
  np_buf_free(&w.plugin);
  np_buf_free(&w.spec);
  return code;
}
