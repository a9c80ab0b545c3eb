/* Readings as text, as `neap export` writes them and `neap import` takes them: a line of NDJSON, or a record of CSV (RFC 4180). What is written is read back
 * as the same reading, but for what one store knows of it: seq, partition, whether it is quiet, and what led to a derived one. Any thread. Knows nothing of Lua. */
#ifndef NP_HOST_READING_TEXT_H
#define NP_HOST_READING_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/zone.h"
#include "store/writeset.h"

enum { NP_READING_TEXT_MAX = 16 << 20 }; /* bytes of a line or record that is read */

enum np_reading_field { /* in the order of CSV's columns */
                        NP_FIELD_AT,
                        NP_FIELD_VENDOR,
                        NP_FIELD_CONNECTION,
                        NP_FIELD_DEVICE,
                        NP_FIELD_METRIC,
                        NP_FIELD_VALUE,
                        NP_FIELD_UNIT,
                        NP_FIELD_RECEIVED,
                        NP_FIELD_KEY,
                        NP_FIELD_SERIAL,
                        NP_FIELD_INTERVAL,
                        NP_FIELD_TREND,
                        NP_FIELD_QUALITY,
                        NP_FIELD_EXTRA,
                        NP_FIELD_DEPTH, /* of a derived one */
                        NP_FIELD_TYPE,  /* of CSV alone, and read only: how a value is meant */
                        NP_FIELDS
};
extern const char *const np_reading_fields[NP_FIELDS]; /* "at" … */

/* Each with its line's end. Of NDJSON `received` is left out where it is NP_RECEIVED_UNKNOWN. */
void np_reading_write_json(struct np_buf *b, const struct np_reading *r);
void np_reading_write_head(struct np_buf *b); /* the names of CSV's columns */
void np_reading_write_csv(struct np_buf *b, const struct np_reading *r);

#define NP_RECEIVED_UNKNOWN INT64_MIN

struct np_reading_source { /* what lines do not say of themselves */
  const char *vendor,
      *connection; /* of those that name none. NULL: the vendor has to be named; the connection is then called as the vendor */
  const struct np_zone *zone; /* of times without an offset; NULL: they are refused */
  bool checked;               /* another np_reading_read_… has taken them: a time near 1970 is meant so */
};

struct np_reading_fault { /* where it is wrong */
  size_t at;              /* the byte in the line or record, from 0 */
  const char *field;      /* NULL: none in particular */
};

/* Reads one without its line's end; texts are copied into ws. `received` is NP_RECEIVED_UNKNOWN where it is not said. 0, or -1, *fault and err: what is wrong,
 * without the field's name. A field that is not known is wrong. */
int np_reading_read_json(const char *line, size_t len, const struct np_reading_source *from, struct np_writeset *ws,
                         struct np_reading *r, struct np_reading_fault *fault, struct np_error *err);

enum { NP_READING_COLUMNS_MAX = NP_FIELDS };
struct np_reading_columns {
  enum np_reading_field fields[NP_READING_COLUMNS_MAX];
  size_t count;
};
int np_reading_read_head(const char *record, size_t len, const struct np_reading_source *from, struct np_reading_columns *columns,
                         struct np_reading_fault *fault, struct np_error *err);
int np_reading_read_csv(const struct np_reading_columns *columns, const char *record, size_t len,
                        const struct np_reading_source *from, struct np_writeset *ws, struct np_reading *r,
                        struct np_reading_fault *fault, struct np_error *err);

#endif
