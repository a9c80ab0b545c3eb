/* Where an import goes: through the host that runs on the store, or, where none does, into the store itself. */
#ifndef NP_CLI_IMPORT_TO_H
#define NP_CLI_IMPORT_TO_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"
#include "host/import.h"

struct np_store;

struct np_import_to {
  bool rules;
  int fd;                 /* of the host; -1: there is none */
  struct np_store *store; /* owned, where there is no host */
  struct np_buf out, in;  /* owned */
};

/* -1 and err: then nothing is open. */
int np_import_open(struct np_import_to *to, const char *store, bool rules, struct np_error *err);
/* A batch: on disk, all of it, when this returns 0; -1 and err: nothing of it, or, where the host went away, perhaps all. */
int np_import_put(struct np_import_to *to, struct np_writeset *ws, struct np_import_count *count, struct np_error *err);
void np_import_close(struct np_import_to *to);

#endif
