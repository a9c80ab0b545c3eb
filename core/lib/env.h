/* What the host lends to the modules that need it: the first member of every plugin instance, found from any lua_State of that instance
 * by np_env(). Modules know nothing else of the host. */
#ifndef NP_LIB_ENV_H
#define NP_LIB_ENV_H

#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "io/append.h"
#include "io/fetch.h"
#include "io/mail.h"
#include "io/mqtt.h"

struct event_base;
struct np_turn;

struct np_env {
  const char *name; /* the instance's: "ward-3" */
  struct event_base
      *base; /* the lane's, for io/aside.h; NULL while the chunk is being loaded, and in tests: there all is done in place */
  struct np_fetch *fetch;             /* the lane's; NULL while the chunk is being loaded */
  const struct np_appender *appender; /* the lane's; NULL likewise */
  struct np_mailer *mailer;           /* the lane's; NULL likewise */
  const struct np_mqtt_net *mqtt;     /* the lane's; NULL likewise */
  int64_t *now_slot;                  /* of the time module: 0 is the real clock */
  /* NULL where the verb may be used in the call that runs now; else a sentence that says why not and what to do instead. */
  const char *(*forbidden)(struct np_env *env, lua_State *L, const char *verb);
  /* Whether this instance may talk to that URL's host and port: those that its settings name. */
  bool (*may_reach)(struct np_env *env, const char *url);
  /* Whether a setting `folder` that a person has written in neap.lua is that folder: there it may write files. */
  bool (*may_write)(struct np_env *env, lua_State *L, const char *folder);
  /* A name for its connections to others, of letters and digits, at most 23: host, store and instance, "L" and its lane, "G" and its generation. */
  void (*identify)(struct np_env *env, char to[64]);
  /* Whether another generation is in force in its place; false where it is in force itself, or the instance is no more. */
  bool (*succeeded)(struct np_env *env);
  /* Seconds that the call that runs now may still take in all, waiting included. */
  double (*time_left)(struct np_env *env);
  /* Before a yield: a ticket for the call that runs now. wake() with it later, from the same thread, exactly once, makes the host resume
   * the coroutine with no values (never from within wake). While a ticket is out, what stands on the coroutine's stack stays alive. */
  void *(*ticket)(struct np_env *env);
  void (*wake)(void *ticket);
  /* The call that runs now asks by HTTP, and was answered: headers are "name: value\n" lines, status 0 where no answer came. Never two at once. */
  void (*asks)(struct np_env *env, const struct np_fetch_request *request);
  void (*got)(struct np_env *env, int status, const char *headers);
  /* May it write one more line of the log? It counts as written. */
  bool (*may_log)(struct np_env *env);
  /* Its calls out that are open at once are limited, of whatever kind. A turn for one more, given back by turn_end when the call is over. Where it is not *open, the
   * call takes a ticket and yields; it is woken when its turn has come or those seconds have passed: turn_came says which. */
  struct np_turn *(*turn)(struct np_env *env, double seconds, bool *open);
  bool (*turn_came)(struct np_env *env,
                    const struct np_turn *turn); /* where it has not, the call is marked as one that passed its limit */
  void (*turn_end)(struct np_turn *turn);
  int64_t (*turns)(const struct np_env *env); /* how many there are */
};

/* For a function of the module `who`, which waits: raises where it may not be called. there: whether the lane has what it waits for; it lends nothing
 * while the file is loaded. */
void np_env_may_wait(lua_State *L, struct np_env *env, const char *who, bool there);
/* For what can also be done in place, while the lane waits: the env where the call that runs now may wait instead; NULL where it may not, or there is no host. */
struct np_env *np_env_waits(lua_State *L, const char *who);

static inline struct np_env *np_env(lua_State *L) { return *(struct np_env **)lua_getextraspace(L); }

#endif
