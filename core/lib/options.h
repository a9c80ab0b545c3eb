/* Options that a module's function is given as a table, at index 1: read by raw access; what is wrong raises, "http: timeout has to be …". */
#ifndef NP_LIB_OPTIONS_H
#define NP_LIB_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

/* Pushes the option; false and nothing pushed where it is absent. */
bool np_option(lua_State *L, const char *name);
/* Raises: the option's value is at the top of the stack. */
int np_option_wrong(lua_State *L, const char *who, const char *name, const char *what);
/* Raises where the table has a name that is none of these. */
void np_options_known(lua_State *L, const char *who, const char *const *names, size_t count);
/* A text without zero bytes, which stays on the stack; NULL where it is absent and not needed. */
const char *np_option_text(lua_State *L, const char *who, const char *name, bool needed);
/* The same, of PEM; it is never quoted, for it may be a key. */
const char *np_option_pem(lua_State *L, const char *who, const char *name);
/* `timeout`, in seconds: a number, or a duration such as "10s". */
double np_option_timeout(lua_State *L, const char *who, double otherwise);

#endif
