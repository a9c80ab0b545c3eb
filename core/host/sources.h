/* The Lua files under plugins/: a look at the folder as it is at one moment, and bundles of sources as a generation keeps them in the store. */
#ifndef NP_HOST_SOURCES_H
#define NP_HOST_SOURCES_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"
#include "host/plugin.h"

struct np_file {
  struct np_source
      source;    /* name: "low-glucose", or the library's "glucose.units"; path for messages: "plugins/rules/low-glucose.lua" */
  char *folder;  /* owned: "rules", "" at the top */
  char *error;   /* owned: why it cannot be used: not readable, or two files have its name; NULL where it can */
  bool library;  /* or a table: its name is then "table:wards" */
  char hash[65]; /* of its text */
};

struct np_sources {
  struct np_file *files; /* owned, sorted: libraries and plugins apart, by name */
  size_t count;
  char library_hash[65]; /* of all libraries together */
};

/* Reads every *.lua below root, symbolic links followed; not hidden ones, nor *_spec.lua. What is below lib/ is a library, what is below
 * tables/ a table, also where it is *.csv: a table is a library of another name. A root that
 * does not exist has no files. What has such a name and is no file that can be read, such as a folder or a link to nothing, is one with an error. */
#define NP_TABLE "table:" /* what the names of tables begin with */
int np_sources_read(struct np_sources *s, const char *root, struct np_error *err);
void np_sources_free(struct np_sources *s);
const struct np_file *np_sources_find(const struct np_sources *s, bool library, const char *name);
/* The plugin that was probably meant by a name that there is none of; NULL where none is like it. */
const char *np_sources_near(const struct np_sources *s, const char *name);

/* A generation's sources as one text that a person can read, and back. The first is the plugin's own file. */
void np_bundle_add(struct np_buf *bundle, const struct np_source *source);
/* Fills list (at most max) with sources that the caller frees by np_source_free. Their number, or -1. */
int np_bundle_read(const char *bundle, size_t len, struct np_source *list, int max, struct np_error *err);
void np_source_free(struct np_source *s);

void np_sha256_hex(const void *bytes, size_t n, char hex[65]);

#endif
