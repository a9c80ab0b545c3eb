/* The two generations' files are put into a folder for each, and diff(1) is run: POSIX has it everywhere, and people know its form. */
#include "host/client_diff.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "lib/json.h"

extern char **environ;

struct np_diff {
  char folder[64];
  lua_State *L; /* owned */
  long long a, b;
};

struct np_diff *np_diff_new(struct np_error *err) {
  struct np_diff *d = np_alloc(sizeof *d);
  const char *tmp = getenv("TMPDIR");
  snprintf(d->folder, sizeof d->folder, "%.40s/neap-diff-XXXXXX", tmp && *tmp == '/' && strlen(tmp) < 40 ? tmp : "/tmp");
  d->L = luaL_newstate();
  if (d->L && mkdtemp(d->folder)) return d;
  np_fail(err, "%s: %s", d->folder, strerror(errno));
  if (d->L) lua_close(d->L);
  free(d);
  return NULL;
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *at) {
  (void)st, (void)what, (void)at;
  return remove(path);
}

void np_diff_free(struct np_diff *d) {
  if (!d) return;
  nftw(d->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  lua_close(d->L);
  free(d);
}

/* The path is one that a host made of names below plugins/; what could leave the folder is refused all the same. */
static int write_file(const struct np_diff *d, long long generation, const char *path, const char *text, size_t len,
                      struct np_error *err) {
  struct np_buf at = {0};
  if (strstr(path, "..")) return np_fail(err, "not a plugin's path: %.200s", path);
  np_buf_addf(&at, "%s/%lld/%s", d->folder, generation, path);
  for (char *slash = at.data + strlen(d->folder) + 1; (slash = strchr(slash, '/')); slash++) {
    *slash = 0;
    mkdir(at.data, 0700);
    *slash = '/';
  }
  FILE *f = fopen(at.data, "we");
  bool written = f && fwrite(text, 1, len, f) == len;
  if (f && fclose(f) != 0) written = false;
  int status = written ? 0 : np_fail(err, "%s: %s", at.data, strerror(errno));
  np_buf_free(&at);
  return status;
}

int np_diff_line(struct np_diff *d, const char *line, size_t len, struct np_error *err) {
  lua_State *L = d->L;
  lua_settop(L, 0);
  if (np_json_decode(L, line, len, err) < 0) return -1;
  if (lua_getfield(L, 1, "error") == LUA_TSTRING) return np_fail(err, "%s", lua_tostring(L, -1));
  if (lua_getfield(L, 1, "summary") == LUA_TTABLE) {
    lua_getfield(L, -1, "a");
    d->a = lua_tointeger(L, -1);
    lua_getfield(L, -2, "b");
    d->b = lua_tointeger(L, -1);
    return 0;
  }
  size_t size;
  lua_getfield(L, 1, "generation");
  long long generation = lua_tointeger(L, -1);
  lua_getfield(L, 1, "file");
  lua_getfield(L, 1, "text");
  const char *text = lua_tolstring(L, -1, &size), *path = lua_tostring(L, -2);
  if (!text || !path) return np_fail(err, "the host's answer cannot be read");
  return write_file(d, generation, path, text, size, err);
}

int np_diff_show(struct np_diff *d, struct np_error *err) {
  char a[32], b[32];
  snprintf(a, sizeof a, "%lld", d->a);
  snprintf(b, sizeof b, "%lld", d->b);
  if (d->a == d->b || chdir(d->folder) < 0) return 0;
  mkdir(a, 0700), mkdir(b, 0700); /* one that has no file is empty */
  fflush(stdout);
  char *const argv[] = {"diff", "-ruN", a, b, NULL};
  pid_t pid;
  int status, why = posix_spawnp(&pid, "diff", NULL, NULL, argv, environ);
  if (why) {
    np_fail(err, "diff cannot be run: %s", strerror(why));
    return 2;
  }
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
  if (code == 0)
    fprintf(stderr, "neap diff: generations %s and %s have the same text; it may be that their settings differ\n", a, b);
  return code;
}
