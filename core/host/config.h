/* neap.lua: the configuration, a Lua table with `env "NAME"` and `file "PATH"` for secrets. */
#ifndef NP_HOST_CONFIG_H
#define NP_HOST_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "host/plugin.h"
#include "store/store.h"

/* What a new generation has to pass beyond being built. */
struct np_check {
  bool spec;      /* its own spec, where it has one */
  int64_t shadow; /* of a rule: so many of the last readings are run on it and on what is in force; 0: none */
  int64_t time;   /* ms that the spec may take, and the shadow run */
  bool hold;      /* of a rule: where its messages would be others it waits for neap approve */
};

struct np_config_entry { /* a connection, rule or destination */
  enum np_kind kind;
  char *instance, *plugin, *mount; /* owned */
  char *settings;                  /* owned: JSON object */
  char *canonical;                 /* owned: the same with sorted keys, to compare */
  char *delivery;                  /* owned: JSON object with sorted keys, of terms.h; NULL where it says nothing */
  char *at;                        /* owned: "/etc/neap/neap.lua: rules[1]" */
  bool people;                     /* of a connection: may read people's details */
  struct np_limits limits;         /* its own over those for all; 0: the kind's */
  struct np_check check;
  char **shows; /* owned: of a connection: others whose data it may see, as plugin.data does; "*" for all */
  size_t show_count;
};

struct np_config {
  char *path;                     /* owned: absolute path of neap.lua, NULL where there is none */
  char *listen, *store, *plugins; /* owned; the paths absolute */
  char *certificate, *key;        /* owned, absolute; NULL: plain HTTP */
  char *key_file; /* owned, absolute: what is kept encrypted is sealed with this key; the store's path and ".key" by default */
  char *ca_file;  /* owned; more trusted certificates for outgoing calls; NULL */
  int lanes;
  int64_t probation;        /* ms that a new generation is watched for, to be taken back if it fails; 0: not; default 5 minutes */
  double drain;             /* seconds that SIGTERM waits for work under way; default 10 */
  int64_t quarantine_after; /* calls that went past a limit; 0: there is no quarantine; default 5 */
  int64_t quarantine_within, quarantine_hold, quarantine_most; /* ms; default 1, 1 and 30 minutes */
  struct np_keep
      keep[NP_KEPT_KINDS]; /* default 7 days of requests and delivered messages, 90 of failed requests, all of the rest */
  size_t queue;            /* the keeper's bound; default 4096 */
  size_t body_max;         /* default 4 MiB */
  double head_timeout, body_timeout, write_timeout, idle_timeout; /* seconds; 0: the server's defaults */
  struct np_limits limits;                                        /* for all; 0: the kind's */
  struct np_config_entry *entries;                                /* owned: connections, then rules, then destinations */
  size_t entry_count;
  struct np_check check; /* of plugins that the file does not list, and of those that say nothing else */
  bool atomic;           /* what is not in order holds back all that has changed */
  int64_t settle;        /* ms that files have to rest before they are looked at; default 30, or 300 where atomic */
  bool only_listed;      /* plugins that the file does not list are left alone, also where they need no settings */
};

struct np_config_flags { /* from the command line; NULL or 0 where not given. Paths are relative to the working directory */
  const char *listen, *store, *plugins;
  int lanes;
};

/* Reads it. path NULL: ./neap.lua where there is one, else defaults. NULL and err with file and line or the field:
 * "neap.lua: rules[1].limit: …", "neap.lua:12: '}' expected". Main thread. */
struct np_config *np_config_load(const char *path, const struct np_config_flags *flags, struct np_error *err);
void np_config_free(struct np_config *c);
/* What the plugin of that instance has to pass. */
struct np_check np_config_check(const struct np_config *c, const char *instance);
/* Only where the store is (absolute, the caller's to free), for the commands that talk to a running host: variables and files that are
 * missing do not matter unless the store's path is made of them. */
char *np_config_store(const char *path, const struct np_config_flags *flags, struct np_error *err);
/* Bytes: "64MiB", "4 MiB", "512KiB", "1048576". -1 where it is none. */
int np_config_bytes(const char *text, size_t *bytes);

#endif
