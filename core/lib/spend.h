/* What takes long in C, where the virtual machine's hooks see nothing, counts on the budget of the call that runs. */
#ifndef NP_LIB_SPEND_H
#define NP_LIB_SPEND_H

#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

/* The host's, set before the first plugin is loaded; NULL where there is none. `spend` raises past the budget: hold nothing meanwhile.
 * `goes_on` does not raise. */
struct np_spending {
  void (*spend)(lua_State *L, int64_t instructions);
  bool (*goes_on)(lua_State *L);
};
extern struct np_spending np_spending;

/* An instruction takes some nanoseconds. */
static inline void np_spend(lua_State *L, int64_t instructions) {
  if (np_spending.spend) np_spending.spend(L, instructions);
}

static inline bool np_goes_on(lua_State *L) { return !np_spending.goes_on || np_spending.goes_on(L); }

#endif
