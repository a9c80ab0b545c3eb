/* Plugins: code (what one generation declared, shared and immutable) and instances (a lua_State of it on one lane). */
#ifndef NP_HOST_PLUGIN_H
#define NP_HOST_PLUGIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#include "base/error.h"
#include "host/filter.h"
#include "host/limits.h"
#include "host/quarantine.h"
#include "host/schema.h"
#include "host/terms.h"
#include "lib/env.h"

extern const char *const np_kind_names[3]; /* "vendor" "rule" "destination" */

/* What a new generation passes, in this order. */
enum np_gate_stage {
  NP_STAGE_SYNTAX,
  NP_STAGE_DECLARATIONS,
  NP_STAGE_CONFIGURATION,
  NP_STAGE_SPEC,
  NP_STAGE_SHADOW,
  NP_STAGE_CIRCLES,
  NP_STAGE_ROUTES,
  NP_STAGE_MIGRATION,
  NP_STAGES
};

/* Lua source of one file. */
struct np_source {
  char *name; /* owned: the name to require it by ("glucose.units"), "" for the plugin's own file */
  char *path; /* owned: where it was read, for messages */
  char *text; /* owned */
  size_t len;
};

/* What to build: filled by deploy; copied where kept. */
struct np_order {
  const char *instance;     /* "ward-3" */
  const char *plugin;       /* "sinocare" */
  const char *mount;        /* prefix for routes, "" or "/hospital-b" */
  const char *settings;     /* JSON object, from the configuration */
  const char *delivery;     /* JSON object: its terms of delivery, over the plugin's own; NULL */
  const char *settings_at;  /* for messages: "neap.lua: connections[1]" */
  const char *const *shows; /* connections whose data it may see besides its own, "*" for all; see host/config.h */
  size_t show_count;
  bool people;             /* it may read people's details */
  bool configured;         /* false: connected under its own name because every setting has a default */
  struct np_limits limits; /* in place of the kind's */
  struct np_source source;
  /* Finds the library `name` (in the bundle of a stored generation, or on disk); 0 and *found (borrowed), or -1 and err. */
  int (*library)(void *arg, const char *name, const struct np_source **found, struct np_error *err);
  bool (*destination)(void *arg, const char *name); /* is it configured? */
  enum np_gate_stage *stage;                        /* where it is, and so where it failed; may be NULL */
  void *arg;
};

struct np_route {
  struct np_code *code;                  /* borrowed: whose it is */
  char *method, *pattern;                /* owned; pattern with the mount in front */
  char *about;                           /* owned, may be NULL */
  struct np_schema *query, *path, *body; /* owned, each may be NULL */
  bool body_whole;                       /* body is a schema of one field "body": the whole of it, such as an array */
  size_t body_max;
  bool keep;   /* the raw request goes into the inbox */
  bool sealed; /* encrypted there: it has auth, or declares a person's or a secret field */
  int handler;
  int auth; /* run before the request is checked; 0 for none */
};

struct np_on {
  struct np_filter *filter; /* owned */
  char memory[28];          /* what the filter remembers is kept by: its hash, and "#2" for the second of the same */
  int handler;
};

struct np_job {
  char *name;     /* owned */
  int64_t period; /* ms */
  int handler;
};

struct np_command {
  char *name;             /* owned: "keys.issue" */
  char *about;            /* owned, may be NULL */
  struct np_schema *args; /* owned */
  char *args_json;        /* owned: the schema as JSON, for those who ask what it takes */
  int handler;
};

struct np_timer_decl {
  char *name; /* owned */
  int handler;
};

struct np_account_decl {
  char *name;    /* owned */
  int64_t early; /* ms before it expires; -1: neap's own */
  int handler;   /* its refresh */
};

struct np_budget_decl {
  char *name;                    /* owned */
  double per_second, per_minute; /* 0: no bound */
  int64_t per_month;
};

struct np_migration {
  int from; /* to from + 1 */
  int handler;
};

/* One generation of an instance: what its chunk declared. Immutable after the build; shared by lanes. */
struct np_code {
  int refs;                                          /* atomic */
  char *instance, *plugin, *file, *mount, *settings; /* owned */
  char *hash;                                        /* owned: SHA-256 of its sources, hex */
  int number;                                        /* the generation; given by deploy */
  enum np_kind kind;
  bool people; /* the configuration lets it read people's details */
  struct np_limits limits;
  struct np_uses uses;
  struct np_quarantine quarantine;
  struct np_route *routes;
  size_t route_count;
  struct np_on *ons;
  size_t on_count;
  struct np_job *jobs;
  size_t job_count;
  struct np_timer_decl *timers;
  size_t timer_count;
  char **derives; /* owned: metrics that a rule may emit */
  size_t derive_count;
  struct np_command *commands;
  size_t command_count;
  struct np_account_decl *accounts;
  size_t account_count;
  struct np_budget_decl *budgets;
  size_t budget_count;
  struct np_migration *migrations; /* without a gap */
  size_t migration_count;
  _Atomic int64_t state_row; /* of the version of what it keeps, in the store: see host/state.h */
  size_t handler_count;
  int refuse;                /* handler, 0 where it gave none */
  int deliver;               /* handler, 0 where it is no destination */
  struct np_terms terms;     /* of its deliveries */
  struct np_schema *options; /* owned; of a destination */
  char **hosts;              /* owned: "host:port" it may reach */
  size_t host_count;
  char **keys; /* owned: what the first copy registered, in its order: the prelude brings the others' into it */
  size_t key_count;
  _Atomic uint64_t
      outcomes; /* of its calls: the last NP_OUTCOMES as bits, 1 where one failed, the newest lowest; above them how many there were */
  char **libraries; /* owned: names it required, itself or by another library */
  size_t library_count;
  char (*library_hashes)[65]; /* owned: of the text that each had; given by build.c */
  char **sees;                /* owned: connections whose rows of the store it may see: itself and what `shows` lists */
  size_t see_count;
  bool sees_all;
};
#define NP_OUTCOMES 20
void np_code_note(struct np_code *c, bool failed); /* a call of it has ended. Any thread */
void np_code_ref(struct np_code *c);
void np_code_unref(struct np_code *c);

struct np_task;
struct np_lane;

/* One lua_State of a generation. Built on the main thread, then owned by its lane. */
struct np_instance {
  struct np_env env;        /* first: np_env() finds it */
  struct np_code *code;     /* a reference */
  lua_State *L;             /* owned */
  struct np_lane *lane;     /* borrowed; NULL until it is adopted */
  _Atomic size_t memory;    /* bytes in use; written by its thread, read by anyone */
  size_t memory_max;        /* allocation fails past it */
  struct np_task *running;  /* the call that runs now, NULL between calls */
  int handlers;             /* ref: the table of handlers */
  int settings;             /* ref: the checked settings (a destination's options) */
  uint64_t calls;           /* begun so far */
  int live;                 /* calls begun and not ended, and requests whose body is still coming */
  int64_t held_seen;        /* of a rule: the newest held entry that its lane's router has found for it */
  bool held_more;           /* and there are more after it */
  bool held_for_quarantine; /* of them, only those that its quarantine held are looked for */
  int64_t taken_up;         /* the end of its quarantine that its lane has last taken up: see quarantine.h */
  bool fresh;               /* adopted by the epoch that is being adopted now */
  bool retired;             /* no longer in force: closed when live is 0 */
  struct np_instance *next_retired;
  lua_State *idle[8]; /* coroutines that can be used again, each with its ref */
  int idle_refs[8];
  int idle_count;
  struct np_log_budget log;
  struct np_turns turns;
  struct np_store_budget kept;
  void *building; /* while the chunk is loaded: private to plugin.c */
};

/* Builds one instance. The first of a generation also makes its code (*code NULL before); the others are checked against it. NULL
 * and err, with file and line where there is one; *unconfigured is set where a setting is missing that only a person can give and
 * order->configured is false. Any thread, one at a time for one code. */
struct np_instance *np_instance_build(const struct np_order *order, struct np_code **code, bool *unconfigured,
                                      struct np_error *err);
void np_instance_close(struct np_instance *in); /* with nothing running in it */
#endif
