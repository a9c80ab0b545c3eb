/* Deploy: watches plugins and the configuration, builds generations beside those in force, and switches all lanes at one epoch. Main thread. */
#ifndef NP_HOST_DEPLOY_H
#define NP_HOST_DEPLOY_H

#include "host/host.h"

struct np_deploy;

/* What became of one plugin instance, for `neap plugins` and messages. Borrowed until the next deploy. */
struct np_status {
  const char *instance, *plugin, *file;
  enum np_kind kind;
  int generation; /* in force; 0: none */
  const char *
      state; /* "in force", "last good" (the file is broken, an older generation serves), "rolled back" (an older one serves, for somebody went back to it), "held" (configured, nothing to serve it),
                              "unconfigured" (it needs a setting) */
  /* or "quarantined", or "on trial" after that, see quarantine.h */
  const char *error;          /* why the file's present text is not in force, with file and line; NULL where it is */
  int64_t since;              /* ms: when the generation in force was switched to */
  const char *hash;           /* of its sources; NULL where nothing is in force */
  size_t memory;              /* bytes on all lanes, about */
  size_t memory_most;         /* of the lane that uses most */
  int64_t memory_max;         /* the limit on each lane */
  struct np_code *code;       /* in force; NULL where nothing is */
  const struct np_gate *gate; /* what its newest text has passed; NULL where it has not come to the gate */
};

struct np_deploy_change {
  int loaded, kept, failed, removed, waiting;
  int gone; /* whose file or entry is gone just now: out of force in a moment, unless it comes back */
};

struct np_deploy *np_deploy_new(struct np_host *host, struct np_error *err);
/* The first epoch: what builds, or its last good generation. Not yet staged on lanes. */
struct np_epoch *np_deploy_first(struct np_deploy *d);
int np_deploy_watch(struct np_deploy *d, struct np_error *err); /* from now on changes are deployed */
/* Goes back to a good generation, 0 being the newest good one before what is in force, and stays there until the file's text changes. The number
 * that is in force now, or -1 and err: then nothing has changed. */
int np_deploy_rollback(struct np_deploy *d, const char *instance, int number, const char *cause, struct np_error *err);
/* Ends its quarantine. Its generation, or -1 and err. */
int np_deploy_release(struct np_deploy *d, const char *instance, const char *cause, struct np_error *err);
/* Looks at everything now. empty: a folder without files is meant to be so, until there is one; otherwise what is in force goes on. */
struct np_deploy_change np_deploy_reload(struct np_deploy *d, bool empty);
/* Why neap.lua as it stands is not in force; NULL where it is. Borrowed until the next deploy. */
const char *np_deploy_config_error(const struct np_deploy *d);
/* Why the folder of plugins cannot be read, so that what is in force goes on; NULL where it can. Borrowed likewise. */
const char *np_deploy_unread(const struct np_deploy *d);
/* Why the certificate's files as they stand are not served; NULL where they are. */
const char *np_deploy_tls_error(const struct np_deploy *d);
size_t np_deploy_count(const struct np_deploy *d);
struct np_status np_deploy_status(const struct np_deploy *d, size_t i);
bool np_status_is_destination(const struct np_status *s); /* it takes messages, or would if it were in force */
bool np_deploy_is_destination(const struct np_deploy *d, const char *instance); /* there is one of that name */
void np_deploy_free(struct np_deploy *d);

struct np_check_options {
  struct np_config *config; /* borrowed */
  bool json;                /* an object for each plugin, with an array of the stages of the gate */
  const char *against;      /* path of a store, which a running host may use: nothing is written; NULL */
};
/* `neap check`: compiles and validates everything without putting it in force, and runs the specs that the configuration asks for; against a store, also
 * what each rule would send otherwise than the generation that is in force there. Prints a line for each trouble ("plugins/rules/x.lua:12: …") to
 * standard error, or "N plugins, all good" on standard output, and returns how many troubles there are. A rule that would send other messages is none. */
int np_deploy_check(const struct np_check_options *options);

#endif
