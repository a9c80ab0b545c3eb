/* A plugin's spec, run by `neap test` in a child process, so that nothing of it can hold up this one. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/gate_job.h"
#include "lib/json.h"

#define OUTPUT_MOST ((size_t)4 << 20)
#define LOOK_MS 50 /* whether it is to stop */
#define SAID_MOST 400

extern char **environ;

char *np_gate_spec_path(const char *plugins, const struct np_file *file) {
  const char *folders[] = {file->folder, file->folder, ""}, *below[] = {"", "/spec", "/spec"};
  for (int i = 0; i < 3; i++) {
    struct np_buf b = {0};
    np_buf_addf(&b, "%s%s%s%s/%s_spec.lua", plugins, *folders[i] ? "/" : "", folders[i], below[i], file->source.name);
    if (access(b.data, R_OK) == 0) return b.data;
    np_buf_free(&b);
  }
  return NULL;
}

static pid_t start(const char *spec, const char *plugins, int64_t ms, int out) {
  char seconds[24];
  snprintf(seconds, sizeof seconds, "%" PRId64, ms / 1000 + 1);
  char *const argv[] = {"neap", "test", (char *)spec, "--plugins", (char *)plugins, "--json", "--timeout", (char *)seconds, NULL};
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t none;
  pid_t pid = -1;
  sigemptyset(&none);
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, out, STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  int why = posix_spawn(&pid, "/proc/self/exe", &files, &attributes, argv, environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  errno = why;
  return why ? -1 : pid;
}

/* All that it says. False where it took too long, said too much, or was to stop. */
static bool read_all(int fd, int64_t ms, const atomic_bool *stop, struct np_buf *out) {
  int64_t end = np_work_us() / 1000 + ms;
  while (np_work_us() / 1000 < end && !(stop && atomic_load(stop)) && out->len < OUTPUT_MOST) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, LOOK_MS) <= 0) continue;
    ssize_t n = read(fd, np_buf_reserve(out, 65536), 65536);
    if (n == 0) return true;
    if (n > 0) out->len += (size_t)n;
  }
  return false;
}

struct telling {
  const char *spec;
  struct np_buf *output, said;
  long passed, failed;
  bool closed; /* its summary has come */
};

static void take_line(lua_State *L, struct telling *t, const char *line, size_t n) {
  struct np_error err;
  lua_settop(L, 1);
  if (n == 0 || *line != '{' || np_json_decode(L, line, n, &err) < 0) return;
  if (lua_getfield(L, 2, "summary") == LUA_TTABLE) {
    lua_getfield(L, 3, "passed");
    lua_getfield(L, 3, "failed");
    t->passed = (long)lua_tointeger(L, 4);
    t->failed = (long)lua_tointeger(L, 5);
    t->closed = true;
    return;
  }
  lua_settop(L, 2);
  if (t->said.len || lua_getfield(L, 2, "error") != LUA_TSTRING) return; /* the first failure is told */
  lua_getfield(L, 2, "name");
  lua_getfield(L, 2, "line");
  const char *file = strrchr(t->spec, '/');
  np_buf_addf(&t->said, "%s:%lld: %s: %.300s", file ? file + 1 : t->spec, (long long)lua_tointeger(L, 5), luaL_optstring(L, 4, ""),
              lua_tostring(L, 3));
}

static int tell(lua_State *L) {
  struct telling *t = lua_touserdata(L, 1);
  for (size_t at = 0; at < t->output->len;) {
    const char *line = t->output->data + at, *stop = memchr(line, '\n', t->output->len - at);
    size_t n = stop ? (size_t)(stop - line) : t->output->len - at;
    take_line(L, t, line, n);
    at += n + 1;
  }
  return 0;
}

/* 1 where the child's words and its exit code say that all passed. */
static int judge(struct telling *t, int status, char **said) {
  struct np_buf b = {0};
  lua_State *L = luaL_newstate();
  if (!L) abort(); /* out of memory */
  lua_pushcfunction(L, tell);
  lua_pushlightuserdata(L, t);
  bool read = lua_pcall(L, 1, 0, 0) == LUA_OK;
  lua_close(L);
  bool passed = read && t->closed && t->passed && !t->failed && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (passed)
    np_buf_addf(&b, "%ld passed", t->passed);
  else if (t->closed && t->failed)
    np_buf_addf(&b, "%ld of %ld failed: %s", t->failed, t->failed + t->passed, np_buf_text(&t->said));
  else if (t->closed)
    np_buf_adds(&b, "it has no tests");
  else if (WIFSIGNALED(status))
    np_buf_addf(&b, "it ended by signal %d", WTERMSIG(status));
  else
    np_buf_addf(&b, "it ended without a result: %.*s", t->output->len < SAID_MOST ? (int)t->output->len : SAID_MOST,
                np_buf_text(t->output));
  np_buf_free(&t->said);
  *said = b.data;
  return passed;
}

int np_gate_spec_run(const char *spec, const char *plugins, int64_t ms, const atomic_bool *stop, char **said) {
  int ends[2], status = 0;
  struct np_buf output = {0};
  if (pipe2(ends, O_CLOEXEC) < 0) {
    *said = np_strdup("it cannot be run: no descriptor left");
    return 0;
  }
  pid_t pid = start(spec, plugins, ms, ends[1]);
  int why = errno;
  close(ends[1]);
  bool whole = pid > 0 && read_all(ends[0], ms, stop, &output);
  close(ends[0]);
  if (pid > 0 && !whole) kill(pid, SIGKILL);
  while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  int passed = 0;
  struct np_buf b = {0};
  struct telling t = {.spec = spec, .output = &output};
  if (pid < 0)
    np_buf_addf(&b, "it cannot be run: %s", strerror(why));
  else if (whole)
    passed = judge(&t, status, &b.data);
  else if (output.len >= OUTPUT_MOST)
    np_buf_adds(&b, "it says too much");
  else
    np_buf_addf(&b, "it was ended: it took longer than %g s (check.time)", (double)ms / 1000);
  np_buf_free(&output);
  *said = b.data;
  return passed;
}
