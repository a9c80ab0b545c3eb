/* Readings that were measured long ago, into the store: what `neap import` does, for a host that runs and for one that does not. A batch is a write set of
 * readings; what it has in common with another's is by the readings' identity, so an import that was broken off is begun again. */
#ifndef NP_HOST_IMPORT_H
#define NP_HOST_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "store/writeset.h"

enum { NP_IMPORT_READINGS = 1000, NP_IMPORT_BYTES = 1 << 20 }; /* a batch is complete with either */

struct np_import_count {
  int64_t fresh;   /* are new in the store */
  int64_t known;   /* were there already */
  int64_t too_old; /* are older than what has been removed of their series, and were not taken */
};
void np_import_add(struct np_import_count *to, const struct np_import_count *more);

/* Completes the readings of a batch that is about to be committed. Without rules they are quiet, and were received when they say so, or else now; with rules
 * all of them are received now. */
void np_import_prepare(struct np_writeset *ws, bool rules, int64_t now);
/* What became of a set that is committed. */
struct np_import_count np_import_counted(const struct np_writeset *ws);

/* A host's end of it: a thread of its own that takes batches from a client and has the keeper commit them, one after the other, each when the lanes have little
 * else to do. The client sends {"command":"import"} (admin.h) and is answered {"importing":true}; then it sends, for each batch, its length in bytes as a
 * line, and so many bytes of NDJSON (reading_text.h), and is answered {"new", "known", "too_old"} once it is on disk, or {"error"}, which ends it. */
struct np_host;
struct np_importer;

/* fd: the client's socket, taken over. Main thread, as all below. NULL and err. */
struct np_importer *np_importer_start(struct np_host *host, int fd, bool rules, const char *by, struct np_error *err);
bool np_importer_done(const struct np_importer *im);
void np_importer_end(struct np_importer *im);  /* soon: after the batch that is under way */
void np_importer_free(struct np_importer *im); /* waits for that. Before the keeper stops; NULL is fine */

#endif
