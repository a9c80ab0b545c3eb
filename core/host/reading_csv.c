/* A reading from a record of CSV. */
#include <string.h>

#include "base/utf8.h"
#include "host/reading_parts.h"

struct csv {
  const char *text, *at, *end;
  struct np_buf *cells; /* what was quoted, without the quotes: never more than the record is long, so it does not move */
  struct np_reading_fault *fault;
};

static int wrong(struct csv *c, const char *at, const char *why, struct np_error *err) {
  *c->fault = (struct np_reading_fault){.at = (size_t)(at - c->text)};
  return np_fail(err, "%s", why);
}

static int read_quoted(struct csv *c, struct np_cell *cell, struct np_error *err) {
  const char *start = c->at++;
  size_t from = c->cells->len;
  for (;; c->at++) {
    if (c->at == c->end) return wrong(c, start, "this quote is not closed", err);
    if (*c->at == '"' && (++c->at == c->end || *c->at != '"')) break;
    np_buf_addc(c->cells, *c->at);
  }
  if (c->at < c->end && *c->at != ',')
    return wrong(c, c->at, "after a closing quote only a comma can stand, or the line's end", err);
  *cell = (struct np_cell){.ptr = np_buf_text(c->cells) + from, .len = c->cells->len - from, .at = (size_t)(start - c->text)};
  return 0;
}

/* The next cell; what is behind it is a comma or the end. */
static int read_cell(struct csv *c, struct np_cell *cell, struct np_error *err) {
  if (c->at < c->end && *c->at == '"') return read_quoted(c, cell, err);
  const char *start = c->at;
  for (; c->at < c->end && *c->at != ','; c->at++)
    if (*c->at == '"') return wrong(c, c->at, "a quote inside of a field: put the whole field in quotes, and write it twice", err);
  *cell = (struct np_cell){.ptr = start, .len = (size_t)(c->at - start), .at = (size_t)(start - c->text)};
  return 0;
}

/* The cells of a record: how many, or -1. */
static int read_cells(struct csv *c, struct np_cell *cells, size_t most, struct np_error *err) {
  size_t n = 0;
  np_buf_reserve(c->cells, (size_t)(c->end - c->text) + 1);
  for (;; c->at++) {
    if (n == most) return wrong(c, c->at, "there are more fields than columns", err);
    if (read_cell(c, &cells[n++], err) < 0) return -1;
    if (c->at == c->end) return (int)n;
  }
}

static int name_columns(struct csv *c, const struct np_cell *cells, int n, struct np_reading_columns *columns,
                        struct np_error *err) {
  for (int i = 0; i < n; i++) {
    c->fault->at = cells[i].at;
    if (n == 1 && memchr(cells[i].ptr, ';', cells[i].len))
      return np_fail(err, "columns are separated by commas, not by semicolons");
    columns->fields[i] = np_reading_field(cells[i].ptr, cells[i].len, true, err);
    if (columns->fields[i] == NP_FIELDS) return -1;
    for (int k = 0; k < i; k++)
      if (columns->fields[k] == columns->fields[i])
        return np_fail(err, "there are two columns %s", np_reading_fields[columns->fields[i]]);
  }
  c->fault->at = 0;
  columns->count = (size_t)n;
  return 0;
}

static int check_columns(const struct np_reading_columns *columns, const struct np_reading_source *from, struct np_error *err) {
  static const enum np_reading_field needed[] = {NP_FIELD_DEVICE, NP_FIELD_METRIC, NP_FIELD_VALUE, NP_FIELD_AT, NP_FIELD_VENDOR};
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
    size_t k = 0;
    while (k < columns->count && columns->fields[k] != needed[i]) k++;
    bool given = k < columns->count || (needed[i] == NP_FIELD_VENDOR && from->vendor);
    if (!given && needed[i] == NP_FIELD_VENDOR)
      return np_fail(err, "whose devices are these? There is no column vendor, and no --vendor");
    if (!given) return np_fail(err, "there is no column %s: the first line names the columns", np_reading_fields[needed[i]]);
  }
  return 0;
}

int np_reading_read_head(const char *record, size_t len, const struct np_reading_source *from, struct np_reading_columns *columns,
                         struct np_reading_fault *fault, struct np_error *err) {
  struct np_cell cells[NP_READING_COLUMNS_MAX + 1];
  struct np_buf text = {0};
  struct csv c = {.text = record, .at = record, .end = record + len, .cells = &text, .fault = fault};
  *fault = (struct np_reading_fault){0};
  int n = read_cells(&c, cells, NP_READING_COLUMNS_MAX + 1, err);
  int result = n < 0 ? -1 : name_columns(&c, cells, n, columns, err);
  np_buf_free(&text);
  return result < 0 ? -1 : check_columns(columns, from, err);
}

static int take_cells(struct np_draft *d, const struct np_reading_columns *columns, const struct np_cell *cells,
                      struct np_error *err) {
  for (size_t i = 0; i < columns->count; i++) /* how the value is meant comes first */
    if (columns->fields[i] == NP_FIELD_TYPE && np_draft_take(d, NP_FIELD_TYPE, &cells[i], err) < 0) return -1;
  for (size_t i = 0; i < columns->count; i++)
    if (columns->fields[i] != NP_FIELD_TYPE && np_draft_take(d, columns->fields[i], &cells[i], err) < 0) return -1;
  return np_draft_end(d, err);
}

int np_reading_read_csv(const struct np_reading_columns *columns, const char *record, size_t len,
                        const struct np_reading_source *from, struct np_writeset *ws, struct np_reading *r,
                        struct np_reading_fault *fault, struct np_error *err) {
  struct np_cell cells[NP_READING_COLUMNS_MAX];
  struct np_buf text = {0};
  struct csv c = {.text = record, .at = record, .end = record + len, .cells = &text, .fault = fault};
  struct np_draft d = {.from = from, .ws = ws, .r = r, .fault = fault};
  np_draft_begin(&d);
  int result = read_cells(&c, cells, columns->count, err);
  if (result >= 0 && (size_t)result < columns->count) result = wrong(&c, c.end, "there are fewer fields than columns", err);
  if (result >= 0) result = take_cells(&d, columns, cells, err);
  np_draft_free(&d);
  np_buf_free(&text);
  return result;
}
