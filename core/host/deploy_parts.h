/* What deploy's files share: units, which are what may be in force under one name. deploy_unit.c finds what is wanted of each and builds it,
 * deploy_epoch.c puts it in force, deploy.c decides when. Private to them. Main thread. */
#ifndef NP_HOST_DEPLOY_PARTS_H
#define NP_HOST_DEPLOY_PARTS_H

#include <sys/types.h>

#include "host/build.h"
#include "host/deploy.h"
#include "host/gate.h"
#include "host/sources.h"

struct event;
struct np_watch;

#define NP_GONE_MS 400 /* a file has to be gone so long before its plugin is retired: some editors remove and write anew */

struct np_unit {
  char *instance, *plugin; /* owned */
  enum np_kind kind;       /* as listed or as built */
  bool configured, wanted;
  struct np_code *code;           /* a reference: in force; NULL where nothing is */
  struct np_instance **instances; /* owned array; the instances are the lanes' */
  char *good;                     /* owned: fingerprint of what is in force */
  char *tried;                    /* owned: fingerprint, with all libraries, of what was looked at last */
  char *bad;                      /* owned: the same of what failed last */
  char *error;                    /* owned: why */
  char *file;                     /* owned: as shown */
  bool last_good;                 /* in force is an older generation than the file */
  char *held;                     /* owned: why what was built, or that it is gone, is held back with others; NULL: it is not */
  char *held_before;              /* owned: the same of the look before */
  bool unconfigured;
  bool listed;  /* neap.lua listed it when what is in force, or built, was made */
  bool clashed; /* it failed for what others have, a route or rules: whatever changes there may free it */
  int64_t since, gone_since;
  const struct np_want *want; /* borrowed from deploy's: of the last look; NULL where nothing wants it */
  int last_number;            /* newest generation in the store */
  struct np_built built;      /* of this deploy, until it is in force */
  char *print;                /* owned: fingerprint of what built is */
  int version;                /* of what it keeps, as built found it */
  bool frozen;                /* what it keeps is not written meanwhile */
  bool stored;                /* its generation is in the store already */
  char *cause;                /* owned: why what was built is to be in force; NULL: its file or its settings have changed */
  char *refused;              /* owned: why its file was not let in, to be recorded */
  int pinned;                 /* the generation that was gone back to; 0: the file counts */
  char *pin_print;            /* owned: hash of the file then; NULL: pinned just now */
  bool pin_changed;           /* to be recorded */
  int before;                 /* on probation: the generation that was replaced; 0: not */
  uint64_t before_outcomes;
  int64_t probation_end;      /* ms on the monotonic clock */
  struct np_filters *filters; /* owned: what its former filters remember is being removed; NULL: it is not */
  struct np_gate *gate;       /* owned: what its newest text has come to there; NULL before the first */
};

struct np_wants {
  struct np_want *list; /* owned */
  size_t count;
  size_t rules; /* where the rules begin */
};

struct np_deploy {
  struct np_host *host;     /* NULL for `neap check` */
  struct np_config *config; /* borrowed: the host's, or newest */
  struct np_config *newest; /* owned: as neap.lua is now, without the command line's words; NULL before the first look */
  const char *plugins;      /* borrowed: the folder, as it was at the start */
  char *config_error;       /* owned: why neap.lua as it stands is not in force */
  char *unread;             /* owned: why the files cannot be read; NULL where they can */
  char *tls_error;          /* owned: why the certificate as it stands is not served; NULL where it is */
  char tls_print[65];       /* of the certificate and the key that are served */
  struct np_sources sources;
  dev_t folder_dev; /* of the folder when it had files: another one may stand in its place since */
  ino_t folder;
  bool bare;              /* what the epoch in force says of that */
  bool emptied;           /* somebody has said that it is empty on purpose; until it has files again */
  struct np_wants wants;  /* made of both at the last look */
  char names_hash[65];    /* of all that a unit may name: what failed for want of one is built again when there is another */
  struct np_unit **units; /* owned, sorted by instance */
  size_t unit_count;
  struct np_watch *watch;
  struct event *again;     /* looks once more after a while */
  struct event *probation; /* looks after new generations */
  bool gone;               /* at the last look a file was missing that may come back */
  int64_t waits_since;     /* ms on the monotonic clock: a set that is still being written is waited for; 0: none is */
  struct np_gates *gates;  /* owned; NULL before the first is wanted */
  int lanes;
  uint64_t epoch;
};

struct np_wants
np_unit_wants(struct np_deploy *d);           /* what the files and the configuration want; its list is the caller's to free */
void np_unit_note_names(struct np_deploy *d); /* before the first of a kind is looked at */
struct np_unit *np_unit_find(struct np_deploy *d, const char *instance);
/* Builds it beside what is in force, where anything of it has changed; what fails says so and keeps what it had. */
void np_unit_look(struct np_deploy *d, const struct np_want *want, struct np_deploy_change *change);
void np_unit_fail(struct np_deploy *d, struct np_unit *u, const char *error);
bool np_unit_is_listed(const struct np_config *c, const char *name, bool as_plugin);
void np_unit_free(struct np_deploy *d, struct np_unit *u);
void np_unit_discard(struct np_deploy *d, struct np_unit *u); /* what was built, to be built again at the next look */
bool np_unit_same(const char *a, const char *b);              /* both there and equal */
void np_unit_set(char **at, const char *text);                /* an owned copy */
char *np_unit_text(const char *format, ...) __attribute__((format(printf, 1, 2))); /* the caller's */
/* At a start: its last good generation instead of what its file says, for why not; false where there is none. */
bool np_unit_fall_back(struct np_deploy *d, struct np_unit *u, const char *why);
struct np_build_context np_unit_context(struct np_deploy *d);
/* Two builds with one fingerprint would be the same. With the code that came of it, only the libraries that it requires count; without, all, and all names
 * of connections and destinations. The caller's. */
char *np_unit_fingerprint(const struct np_deploy *d, const struct np_code *code, const struct np_want *want);
char *np_unit_pinned_print(int number,
                           const struct np_want *want); /* the fingerprint of that generation with these settings; the caller's */

void np_unit_load_pin(struct np_deploy *d, struct np_unit *u);
void np_unit_record_pin(struct np_unit *u, struct np_writeset *ws);
/* True where it is pinned: what is pinned is in force, or built, or has failed. */
bool np_unit_look_pinned(struct np_deploy *d, struct np_unit *u, const struct np_want *want, struct np_deploy_change *change);
void np_unit_watch(struct np_deploy *d, struct np_unit *u, const struct np_code *before); /* it is in force now */
/* True where it is to be taken back for its quarantine; else the quarantine is written down, and broken off when its time has come. */
bool np_unit_look_quarantine(struct np_deploy *d, struct np_unit *u);
/* deploy_filters.c: a rule's code has taken the place of another; half a second's part of removing what is remembered by filters of neither. */
void np_unit_filters_changed(struct np_unit *u, const struct np_code *before);
void np_unit_filters_sweep(struct np_deploy *d, struct np_unit *u);
void np_unit_filters_free(struct np_unit *u);
void np_deploy_quarantine_rules(struct np_deploy *d); /* those of neap.lua are in force */
void np_deploy_tls_begin(struct np_deploy *d);        /* before the lanes read the certificate: what is in its files later is new */
void np_deploy_tls_look(struct np_deploy *d);         /* lanes serve it, if it is new and in order */
void np_deploy_watch_failures(struct np_deploy *d);

/* Looks at everything, once no set of changes is still being written. */
void np_deploy_look(struct np_deploy *d);
/* Something was decided about what was seen. It is put in force now: with the files as they are, or, in the middle of a set, as they were before it. */
void np_deploy_decided(struct np_deploy *d);
int np_deploy_read(struct np_deploy *d, struct np_error *err); /* all files as they are now */
void np_deploy_build(struct np_deploy *d,
                     struct np_deploy_change *change); /* looks at every unit: what has changed is built beside what is in force */
/* Discards what was built and has to be held back: where neap.lua says "atomic", all, while anything is not in order; else those that would run with
 * another text of a library than a plugin in force that cannot take it. True where something was: then the routes are others. */
bool np_deploy_hold(struct np_deploy *d, struct np_deploy_change *change);
/* Discards what was built and would have readings come back to rules that derive them. True where something was. */
bool np_deploy_circles(struct np_deploy *d, struct np_deploy_change *change);
/* Routes of all units, what was in force before the new ones, so that it is the newcomer who is refused. */
struct np_routes *np_deploy_routes(struct np_deploy *d, struct np_deploy_change *change);
/* The new generations, durably, with what else is in ws, which is used up. */
int np_deploy_record(struct np_deploy *d, struct np_writeset *ws, struct np_error *err);

/* deploy_state.c: what plugins keep is brought to the version that the new generations expect, as a part of the commit that records them. */
int np_unit_check_state(struct np_deploy *d, struct np_unit *u,
                        struct np_error *err); /* -1 where what was built cannot be in force on it */
/* False where one failed: it is discarded, and so ws has to be. */
bool np_deploy_migrate(struct np_deploy *d, struct np_writeset *ws, struct np_deploy_change *change);
void np_deploy_migrated(struct np_deploy *d); /* ws is committed */
/* It is not, and cannot be at this start: what needs it is discarded. True where anything was. */
bool np_deploy_not_migrated(struct np_deploy *d, const char *why, struct np_deploy_change *change);
void np_deploy_thaw(struct np_deploy *d); /* lanes have switched; or they will not, and what is in force goes on */
struct np_epoch *np_deploy_epoch(struct np_deploy *d, struct np_routes *routes);
bool np_deploy_all_adopted(const struct np_deploy *d);
void np_deploy_switch(struct np_deploy *d, struct np_epoch *e);
void np_deploy_settle(struct np_deploy *d,
                      struct np_deploy_change *change); /* what was built is in force: the units take it over */
void np_deploy_discard(struct np_deploy *d);            /* what was built is not */

#endif
