/* What the files of a spec's state share. Private to them. */
#ifndef NP_TEST_SPEC_PARTS_H
#define NP_TEST_SPEC_PARTS_H

#include <lua.h>

#include "host/plugin.h"
#include "test/spec.h"
#include "test/world.h"

struct np_spec {
  struct np_instance in; /* first: what the sandbox's functions find; it runs no task */
  struct np_code code;   /* its limits */
  const struct np_spec_run *run;
  struct np_world *world; /* owned: of the test that runs; NULL between tests */
  lua_State *L;           /* owned */
  lua_State *calling;     /* the coroutine that calls into the world now */
  int answer;             /* ref: the function that answers HTTP out */
  int64_t until_us;       /* on np_work_us: a test ends by then */
  bool over;
};

static inline struct np_spec *np_spec_of(lua_State *L) { return (struct np_spec *)np_env(L); }
/* The world of the test that runs. Raises where none does. */
struct np_world *np_spec_world(lua_State *L);
/* Adds the verbs of neap.test to the table at the top. */
void np_spec_verbs(lua_State *L);
void np_spec_look(lua_State *L); /* and those that look at what has happened */
/* Of np_world_new: asks the spec's function. */
void np_spec_script(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer);

#endif
