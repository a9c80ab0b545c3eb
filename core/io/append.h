/* Appends lines to a file: whole and on disk, or not at all; each line once, as far as can be told. Whoever appends locks the file, so that lanes and
 * processes take turns. A line has an id, which stands in it at the same place in each line of the file: one that is found near the end is
 * not written again, so that a message which comes again after a kill makes no second line. What a kill left of a line is cut off before.
 *
 * The folder is there already and is no symbolic link; the name is a plain one. A file that is a link, or none at all, is refused. */
#ifndef NP_IO_APPEND_H
#define NP_IO_APPEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct event_base;
struct np_append_call;
struct np_fetch_request;
struct np_fetch_scripted;

#define NP_APPEND_TAIL (1u << 20) /* bytes at the end of what is written, in which ids are looked for */

struct np_append_line {
  const char *id, *text; /* the text without a line break; the id stands in it */
  size_t id_len, len;
};

struct np_append {
  const char *folder, *name; /* "/srv/ward", "readings.csv" */
  const char *head;          /* the first line of each file; NULL is none */
  const struct np_append_line *lines;
  size_t count;
  /* What is there is put aside as "readings-20260301T080000Z.csv", by its last change (UTC), where it would grow past so many bytes (0: never),
   * or where it was last changed on another day (UTC). */
  int64_t bytes_most;
  bool daily;
};

struct np_append_result {
  const char *code;       /* NULL: done. "folder", "name", "full", "busy", "timeout", "other" */
  char why[600];          /* a sentence, where code is set */
  int64_t written, known; /* lines; known ones stood there already */
  int64_t cut;            /* bytes that were left of a line */
};

/* The work itself: takes as long as the disk does. `patience`: seconds that it waits for others to unlock. Any thread. */
void np_append_run(const struct np_append *a, double patience, struct np_append_result *result);

/* On a lane: the same on a thread of its own. */
struct np_appender {
  struct event_base *base; /* borrowed */
  /* A test's: answers in place of the disk, asked as "APPEND file:///folder/name" with the lines as body. NULL: the disk. */
  void (*script)(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer);
  void *script_arg;
};
typedef void np_append_done(void *arg, const struct np_append_result *result);
/* Copies a. The callback comes later, on the loop, after `timeout` seconds at the latest; the thread may go on then. NULL and err: none is to be had. */
struct np_append_call *np_append_start(const struct np_appender *on, const struct np_append *a, double timeout,
                                       np_append_done *done, void *arg, struct np_error *err);
void np_append_cancel(struct np_append_call *call); /* the callback will not be called; the thread goes on by itself */

/* "readings.csv": letters, digits, ". _ -", not beginning with a dot or "-". */
bool np_append_is_name(const char *name);

#endif
