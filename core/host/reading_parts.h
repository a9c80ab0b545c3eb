/* What the readers of a reading's text share: a reading that is being put together, field by field. Private to reading_*.c. */
#ifndef NP_HOST_READING_PARTS_H
#define NP_HOST_READING_PARTS_H

#include "host/reading_text.h"

enum np_cell_kind { NP_CELL_TEXT, NP_CELL_STRING, NP_CELL_NUMBER, NP_CELL_TRUE, NP_CELL_FALSE, NP_CELL_NULL, NP_CELL_TABLE };
struct np_cell {
  enum np_cell_kind kind; /* TEXT: CSV's, which may be meant as anything; the others are JSON's */
  const char *ptr;        /* borrowed; of a STRING what stands between the quotes, as it was written */
  size_t len;
  size_t at; /* where it stands */
};

struct np_draft {
  const struct np_reading_source *from;
  struct np_writeset *ws;
  struct np_reading *r;
  struct np_reading_fault *fault;
  unsigned seen;         /* a bit for each field that has a value */
  struct np_cell type;   /* CSV: the column's; ptr NULL where there is none */
  bool counted;          /* `at` was a number, */
  size_t at_place;       /* that stands there */
  struct np_buf scratch; /* owned: a string without its escapes */
};

void np_draft_begin(struct np_draft *d);
/* 0, or -1, *fault and err. A cell without content is no value. */
int np_draft_take(struct np_draft *d, enum np_reading_field field, const struct np_cell *cell, struct np_error *err);
/* All were taken: what has to be there is, and what was left out is filled in. */
int np_draft_end(struct np_draft *d, struct np_error *err);
void np_draft_free(struct np_draft *d);

/* The field of that name; NP_FIELDS and err where there is none. */
enum np_reading_field np_reading_field(const char *name, size_t len, bool csv, struct np_error *err);

/* The value at *at, past which *at goes, of JSON that is known to be well-formed. */
struct np_cell np_json_cell(const char *text, const char **at, const char *end);
void np_json_unescape(struct np_buf *out, const char *s, size_t len);

#endif
