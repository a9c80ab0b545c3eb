/* For clang-tidy alone (make lint), what the analyzer cannot see from one file: these of Lua's functions do not return, and np_fail is -1. */
#include <lua.h>

#include "base/error.h"
extern int luaL_error(lua_State *L, const char *format, ...) __attribute__((noreturn));
extern int luaL_argerror(lua_State *L, int arg, const char *text) __attribute__((noreturn));
extern int luaL_typeerror(lua_State *L, int arg, const char *name) __attribute__((noreturn));
#define np_fail(...) (np_fail(__VA_ARGS__), -1)
