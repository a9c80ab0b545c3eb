/* Builds one unit: an instance on each lane of what the sources and the configuration say of it, or of its last good generation. */
#ifndef NP_HOST_BUILD_H
#define NP_HOST_BUILD_H

#include "host/config.h"
#include "host/plugin.h"
#include "host/sources.h"

/* What is wanted of one instance: borrowed from the configuration, or made of a plugin's file alone. */
struct np_want {
  const char *instance, *plugin, *mount, *settings, *canonical, *at;
  const char *delivery;           /* NULL: the plugin's own terms */
  const struct np_limits *limits; /* in place of the kind's; NULL: none */
  const char *const *shows;       /* connections whose data it may see too */
  size_t show_count;
  bool configured, people;
  enum np_kind kind;          /* as listed; only where configured */
  const struct np_file *file; /* NULL where there is none of that name */
};

struct np_built {
  struct np_code *code;           /* a reference; NULL where it failed */
  struct np_instance **instances; /* owned array, one a lane */
  struct np_instance *spare;      /* owned: one more, for migrations to run in; NULL where it has none */
  char *bundle;                   /* owned: the sources, for the store */
  size_t bundle_len;
  enum np_gate_stage stage; /* where it failed */
  bool unconfigured;        /* it failed for want of a setting, and nobody listed it */
};

struct np_build_context {
  const struct np_sources *sources;
  const struct np_config *config;
  int lanes;
  /* Whether that connection delivers, or may do so once it is in force. */
  bool (*delivers)(void *arg, const char *instance);
  void *arg;
};

/* -1 and err with file and line. */
int np_build(const struct np_build_context *context, const struct np_want *want, struct np_built *built, struct np_error *err);
/* The same from a bundle of the store. */
int np_build_stored(const struct np_build_context *context, const struct np_want *want, const char *bundle, size_t len,
                    struct np_built *built, struct np_error *err);
void np_built_discard(struct np_built *b, int lanes); /* closes the instances, which no lane has seen */

#endif
