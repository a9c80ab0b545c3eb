/* neap test. A spec is NAME_spec.lua somewhere below the plugins' folder, most of them beside what they test, or a file that is given. */
#include "test/run.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/buf.h"
#include "base/log.h"
#include "host/client.h"
#include "host/config.h"
#include "host/shipped.h"
#include "io/fetch.h"
#include "io/mqtt.h"
#include "io/watch.h"
#include "test/spec.h"

#define DEPTH_MAX 8
#define QUIET_MS 30

struct files {
  char **list; /* owned */
  size_t count;
};

struct run {
  const struct np_test_options *options;
  char *plugins; /* owned */
  struct files files;
  long passed, failed;
  int64_t us; /* of the file that runs */
  long file_passed, file_failed;
};

/* Finding */

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_file(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool is_folder(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static void add(struct files *f, const char *path) {
  for (size_t i = 0; i < f->count; i++)
    if (strcmp(f->list[i], path) == 0) return;
  f->list = np_realloc(f->list, (f->count + 1) * sizeof *f->list);
  f->list[f->count++] = np_strdup(path);
}

static void free_files(struct files *f) {
  for (size_t i = 0; i < f->count; i++) free(f->list[i]);
  free(f->list);
  *f = (struct files){0};
}

static void look_into(struct files *f, const char *folder, int depth) {
  DIR *d = depth > DEPTH_MAX ? NULL : opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));) {
    struct np_buf path = {0};
    if (e->d_name[0] == '.') continue;
    np_buf_addf(&path, "%s/%s", folder, e->d_name);
    if (is_folder(path.data))
      look_into(f, path.data, depth + 1);
    else if (ends_with(e->d_name, "_spec.lua"))
      add(f, path.data);
    np_buf_free(&path);
  }
  if (d) closedir(d);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* "x/plugins/rules/a_spec.lua" -> "x/plugins"; NULL where no folder of that name is in it. */
static char *plugins_of(const char *path) {
  const char *found = NULL;
  for (const char *at = path; (at = strstr(at, "plugins/")); at++)
    if (at == path || at[-1] == '/') found = at;
  return found ? np_strndup(path, (size_t)(found - path) + strlen("plugins")) : NULL;
}

static char *find_plugins(const struct np_test_options *o) {
  if (o->plugins) return np_strdup(o->plugins);
  for (size_t i = 0; i < o->count; i++) {
    char *of = is_file(o->words[i]) ? plugins_of(o->words[i]) : NULL;
    if (of && is_folder(of)) return of;
    free(of);
  }
  return is_folder("plugins") ? np_strdup("plugins") : np_shipped_folder();
}

static void complain(const struct run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(const struct run *r, const char *format, ...) {
  char *text;
  va_list args;
  va_start(args, format);
  if (vasprintf(&text, format, args) < 0) abort(); /* out of memory */
  va_end(args);
  if (r->options->json)
    np_client_error(stdout, text);
  else
    fprintf(stderr, "neap test: %s\n", text);
  free(text);
}

/* A word is a spec's file, a plugin's file, or a plugin's name. -1 where it is none. */
static int add_word(struct run *r, const struct files *all, const char *word) {
  const char *slash = strrchr(word, '/');
  size_t before = r->files.count;
  struct np_buf name = {0};
  if (is_file(word) && ends_with(word, "_spec.lua")) {
    add(&r->files, word);
    return 0;
  }
  np_buf_adds(&name, slash ? slash + 1 : word);
  if (ends_with(name.data, ".lua")) name.data[name.len -= 4] = 0;
  np_buf_adds(&name, "_spec.lua");
  for (size_t i = 0; i < all->count; i++) {
    const char *last = strrchr(all->list[i], '/');
    if (strcmp(last ? last + 1 : all->list[i], name.data) == 0) add(&r->files, all->list[i]);
  }
  if (r->files.count == before) complain(r, "%s: no such file, and no %s below %s", word, name.data, r->plugins);
  np_buf_free(&name);
  return r->files.count == before ? -1 : 0;
}

static int find(struct run *r) {
  struct files all = {0};
  int result = 0;
  free_files(&r->files);
  look_into(&all, r->plugins, 0);
  if (all.count) qsort(all.list, all.count, sizeof *all.list, by_name);
  for (size_t i = 0; i < r->options->count; i++)
    if (add_word(r, &all, r->options->words[i]) < 0) result = -1;
  if (!r->options->count) {
    r->files = all;
    if (!all.count) complain(r, "no *_spec.lua below %s", r->plugins);
    return all.count ? 0 : -1;
  }
  free_files(&all);
  return result;
}

/* Telling */

static void tell_json(const struct np_test_result *t) {
  struct np_buf b = {0};
  np_buf_adds(&b, "{\"file\":");
  np_buf_add_json(&b, t->file, strlen(t->file));
  np_buf_addf(&b, ",\"line\":%d,\"name\":", t->line);
  np_buf_add_json(&b, t->name, strlen(t->name));
  np_buf_addf(&b, ",\"passed\":%s,\"ms\":%.3f", t->error ? "false" : "true", (double)t->us / 1000);
  if (t->error) {
    np_buf_adds(&b, ",\"error\":");
    np_buf_add_json(&b, t->error, strlen(t->error));
  }
  printf("%s}\n", b.data);
  np_buf_free(&b);
}

static void tell_failure(const struct np_test_result *t) {
  if (t->line)
    printf("FAILED  %s:%d: %s\n", t->file, t->line, t->name);
  else
    printf("FAILED  %s: %s\n", t->file, t->name);
  for (const char *at = t->error; *at;) {
    int n = (int)strcspn(at, "\n");
    printf("        %.*s\n", n, at);
    at += n + (at[n] == '\n');
  }
}

static void told(void *arg, const struct np_test_result *t) {
  struct run *r = arg;
  r->us += t->us;
  if (t->error)
    r->file_failed++;
  else
    r->file_passed++;
  if (r->options->json)
    tell_json(t);
  else if (t->error)
    tell_failure(t);
}

static void run_file(struct run *r, const struct np_sources *sources, const char *file) {
  struct np_error err;
  struct np_spec_run run = {
      .sources = sources, .plugins = r->plugins, .file = file, .seconds = r->options->seconds, .told = told, .arg = r};
  r->us = r->file_passed = r->file_failed = 0;
  if (np_spec_run(&run, &err) < 0) told(r, &(struct np_test_result){.file = file, .name = "the file", .error = err.text});
  r->passed += r->file_passed;
  r->failed += r->file_failed;
  if (r->options->json) return;
  if (!r->file_failed) printf("ok      %s (%ld in %.0f ms)\n", file, r->file_passed, (double)r->us / 1000);
  fflush(stdout);
}

/* All of it once. */
static void run_all(struct run *r) {
  struct np_sources sources;
  struct np_error err;
  r->passed = r->failed = 0;
  if (find(r) < 0) r->failed++;
  if (np_sources_read(&sources, r->plugins, &err) < 0) {
    complain(r, "%s", err.text);
    r->failed++;
  } else {
    for (size_t i = 0; i < r->files.count; i++) run_file(r, &sources, r->files.list[i]);
    np_sources_free(&sources);
  }
  if (r->options->json)
    printf("{\"summary\":{\"passed\":%ld,\"failed\":%ld}}\n", r->passed, r->failed);
  else
    printf("%ld passed, %ld failed\n", r->passed, r->failed);
  fflush(stdout);
}

static void on_change(void *arg) {
  struct run *r = arg;
  if (!r->options->json) printf("\n");
  run_all(r);
}

static int watch(struct run *r) {
  struct np_error err;
  struct event_base *base = event_base_new();
  struct np_watch *w = base ? np_watch_new(base, QUIET_MS, on_change, r, &err) : NULL;
  if (!w) {
    complain(r, "%s", base ? err.text : "no descriptor left");
    return 1;
  }
  np_watch_add(w, r->plugins);
  for (size_t i = 0; i < r->files.count; i++) np_watch_add(w, r->files.list[i]);
  if (!r->options->json) fprintf(stderr, "neap test: runs again when a file changes; Ctrl-C ends it\n");
  event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
  np_watch_free(w);
  event_base_free(base);
  return 0;
}

int np_test(const struct np_test_options *options) {
  struct run r = {.options = options, .plugins = find_plugins(options)};
  struct np_error err;
  if (np_fetch_global_init(&err) < 0 || np_mqtt_global_init(&err) < 0) {
    complain(&r, "%s", err.text);
    return 1;
  }
  np_log_setup(NP_DEBUG, true);
  run_all(&r);
  int code = r.failed || !r.passed;
  if (options->watch) code = watch(&r);
  free_files(&r.files);
  free(r.plugins);
  return code;
}
