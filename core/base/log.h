/* The log: one line an event on standard error, for people on a terminal, as JSON otherwise. Any thread.
 * Secrets and people's details are masked by value: wherever such a string stands in a line, "***" stands instead. So it does for user and password in URLs. */
#ifndef NP_BASE_LOG_H
#define NP_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum np_log_level { NP_DEBUG, NP_INFO, NP_WARN, NP_ERROR };

/* At start, before other threads run. For people (not json) it is coloured on a terminal, or where CLICOLOR_FORCE is set, but for NO_COLOR. */
void np_log_setup(enum np_log_level least, bool json);
bool np_log_is_json(void);

/* From now on a thread of its own writes the lines, so that a reader who does not read, of a pipe or a terminal, holds up nobody else: at most 1 MiB
 * waits, what does not fit is dropped and counted. Before this, and after the stop, lines are written at once. */
void np_log_start(void);
void np_log_stop(void); /* writes what waits, for a second at the most */

/* One event: a short constant sentence, then name, value pairs of strings, ended by NULL. A NULL value leaves its pair out. */
void np_log(enum np_log_level level, const char *event, ...) __attribute__((sentinel));
bool np_log_wants(enum np_log_level level); /* would a line of it be written? */
/* The same with the pairs in an array of 2 * n strings. */
void np_log_pairs(enum np_log_level level, const char *event, const char *const *pairs, size_t n);

/* A test's: lines go there instead of standard error, values masked. NULL: they are written again. Not while other threads run. */
typedef void np_log_taken(void *arg, enum np_log_level level, const char *event, const char *const *pairs, size_t n);
void np_log_divert(np_log_taken *taken, void *arg);

/* Masks value in every line from now on, in all threads. Under 4 bytes it is ignored, for it would mask ordinary text. */
void np_mask_secret(const char *value, size_t len);

/* What the calling thread is working on may carry people's details: masked while the list is set. Borrowed. */
struct np_mask {
  const struct np_mask *next;
  const char *value;
  size_t len;
};
void np_mask_people(const struct np_mask *list);

/* Lines of the calling thread are dropped while it is hushed: it plays through what has long been. */
void np_log_hush(bool hushed);

/* A new string, the caller's to free: text with secrets and the calling thread's people masked, and what says in a URL who asks. */
char *np_mask_text(const char *text, size_t len);
/* The same for a value that is quoted because it is none of those that were expected: also of a URL that lacks its "https://". */
char *np_mask_quoted(const char *text, size_t len);

#endif
