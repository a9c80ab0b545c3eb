/* For clang-tidy alone (make lint): these of Lua's functions do not return, which its headers do not say. */
#include <lua.h>
extern int luaL_error(lua_State *L, const char *format, ...) __attribute__((noreturn));
extern int luaL_argerror(lua_State *L, int arg, const char *text) __attribute__((noreturn));
extern int luaL_typeerror(lua_State *L, int arg, const char *name) __attribute__((noreturn));
