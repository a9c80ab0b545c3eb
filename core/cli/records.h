/* A file's records, one after the other, whatever its size: lines, or records of CSV, whose quoted fields may hold line breaks. */
#ifndef NP_CLI_RECORDS_H
#define NP_CLI_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct np_records {
  int fd;   /* borrowed */
  bool csv; /* records of CSV; else lines */
  /* Its own: zeroed at first. */
  struct np_buf in; /* owned: what was read */
  size_t at;        /* of in: the next record */
  size_t looked;    /* of in: up to here there is no end of it */
  int state;        /* of CSV there */
  int64_t line;     /* of the record that was given last, from 1 */
  int64_t next;     /* of the one behind it; 0: nothing was read yet */
  bool ended;       /* nothing more can be read */
};

enum np_records_next { NP_RECORDS_ERROR = -1, NP_RECORDS_END, NP_RECORDS_ONE, NP_RECORDS_LATE };
/* The next record without its line's end, borrowed until the next call; empty lines are passed over. LATE: for wait_ms nothing came (-1: waits for ever).
 * ERROR and err: it cannot be read, or ends within a record. */
enum np_records_next np_records_next(struct np_records *r, int wait_ms, const char **record, size_t *len, struct np_error *err);
void np_records_free(struct np_records *r);

#endif
