/* A Lua interpreter for the specs: neap's modules are preloaded as they are in the host, and `process` starts, signals and
 * reads programs. Usage: lua SCRIPT [ARG...] */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "base/log.h"
#include "lib/modules.h"

/* process.start({argv}, {env="A=b", cwd=, stdin=true}) -> pid, fd of its standard output and error together [, fd of stdin] */
static int process_start(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  size_t n = lua_rawlen(L, 1), envs = 0;
  char **argv = lua_newuserdatauv(L, (n + 1) * sizeof *argv, 0);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    argv[i] = (char *)luaL_checkstring(L, -1); /* stays anchored in the table */
    lua_pop(L, 1);
  }
  argv[n] = NULL;
  const char *cwd = NULL;
  if (lua_istable(L, 2)) {
    lua_getfield(L, 2, "cwd");
    cwd = lua_tostring(L, -1);
    lua_pop(L, 1);
    envs = lua_rawlen(L, 2);
  }
  int out[2];
  if (pipe2(out, O_CLOEXEC) < 0) return luaL_error(L, "pipe: %s", strerror(errno));
  pid_t pid = fork();
  if (pid < 0) return luaL_error(L, "fork: %s", strerror(errno));
  if (pid == 0) {
    for (size_t i = 1; i <= envs; i++) {
      lua_rawgeti(L, 2, (lua_Integer)i);
      putenv(strdup(lua_tostring(L, -1)));
    }
    if (cwd && chdir(cwd) < 0) _exit(126);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out[1], 1);
    dup2(out[1], 2);
    setpgid(0, 0);
    signal(SIGINT, SIG_DFL); /* ignored where the suite runs behind a shell's & or nohup: a program could not be interrupted */
    signal(SIGQUIT, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    close_range(3, ~0U, 0); /* a listener of the spec's would stay open in it */
    execvp(argv[0], argv);
    dprintf(2, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
  }
  close(out[1]);
  fcntl(out[0], F_SETFL, O_NONBLOCK);
  lua_pushinteger(L, pid);
  lua_pushinteger(L, out[0]);
  return 2;
}

/* process.read(fd, seconds) -> what is there, waiting at most so long for the first byte; nil at the end; "" where nothing came */
static int process_read(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  struct pollfd p = {.fd = fd, .events = POLLIN};
  if (poll(&p, 1, (int)(luaL_optnumber(L, 2, 0) * 1000)) <= 0) {
    lua_pushliteral(L, "");
    return 1;
  }
  char bytes[65536];
  ssize_t n = read(fd, bytes, sizeof bytes);
  if (n > 0)
    lua_pushlstring(L, bytes, (size_t)n);
  else if (n < 0 && errno == EAGAIN)
    lua_pushliteral(L, "");
  else
    lua_pushnil(L);
  return 1;
}

static int process_close(lua_State *L) {
  close((int)luaL_checkinteger(L, 1));
  return 0;
}

/* process.kill(pid, signal) -> true or false. Signals by number. A negative pid is a group. */
static int process_kill(lua_State *L) {
  lua_pushboolean(L, kill((pid_t)luaL_checkinteger(L, 1), (int)luaL_checkinteger(L, 2)) == 0);
  return 1;
}

/* process.wait(pid, block) -> nil while it runs; "exit"|"signal", code */
static int process_wait(lua_State *L) {
  int status;
  pid_t r = waitpid((pid_t)luaL_checkinteger(L, 1), &status, lua_toboolean(L, 2) ? 0 : WNOHANG);
  if (r <= 0) return 0;
  lua_pushstring(L, WIFEXITED(status) ? "exit" : "signal");
  lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
  return 2;
}

static int process_sleep(lua_State *L) {
  usleep((useconds_t)(luaL_checknumber(L, 1) * 1e6));
  return 0;
}

static int process_pid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

static int open_process(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"start", process_start}, {"read", process_read},   {"close", process_close}, {"kill", process_kill},
      {"wait", process_wait},   {"sleep", process_sleep}, {"pid", process_pid},     {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}

static int traceback(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  signal(SIGPIPE, SIG_IGN);
  np_log_setup(NP_INFO, true);
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (const luaL_Reg *m = np_modules_pure; m->name; m++) {
    lua_pushcfunction(L, m->func);
    lua_setfield(L, -2, m->name);
  }
  lua_pushcfunction(L, open_process);
  lua_setfield(L, -2, "process");
  lua_pop(L, 1);
  lua_createtable(L, argc, 0);
  for (int i = 1; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - 1);
  }
  lua_setglobal(L, "arg");
  lua_pushcfunction(L, traceback);
  if (luaL_loadfile(L, argv[1]) != LUA_OK || lua_pcall(L, 0, 0, -2) != LUA_OK) {
    dprintf(2, "%s\n", lua_tostring(L, -1));
    return 1;
  }
  lua_close(L);
  return 0;
}
