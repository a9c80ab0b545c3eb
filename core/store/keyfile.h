/* The key file: 64 hex digits, readable by its owner alone, made at the first start. The store keeps a check value of the key that it is sealed with. */
#ifndef NP_STORE_KEYFILE_H
#define NP_STORE_KEYFILE_H

#include <stdbool.h>

#include "store/seal.h"
#include "store/store.h"

/* The seal of this store, by the key file at `path`. A store that was never sealed gets a key where there is none yet (*made), durably before it is used.
 * NULL and err, which says what to do, where the file is missing though something is sealed with it, is not this store's, can be read by
 * others, or is none. Before the keeper has the store; the reader is the same store's. */
struct np_seal *np_keyfile_open(struct np_store *store, struct np_reader *reader, const char *path, bool *made,
                                struct np_error *err);

#endif
