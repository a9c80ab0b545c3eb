/* How an answer of the admin socket is laid out: rows of cells, and what an object's fields look like. Private to the files client_*.c. */
#ifndef NP_HOST_CLIENT_ROW_H
#define NP_HOST_CLIENT_ROW_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

#define NP_SHOW_COLUMNS 8
#define NP_SHOW_ROWS 500 /* printed together */

enum colour { PLAIN, DIM, RED, GREEN, YELLOW };
extern const char *const np_show_colours[]; /* what begins each, on a terminal */

struct cell {
  char *text; /* owned */
  enum colour colour;
};

struct row {
  struct cell cells[NP_SHOW_COLUMNS];
  char *note; /* owned: a line of its own below; may be NULL */
};

struct np_show;
struct np_show_kind { /* of answer: what is done with its objects, each at index 1 of the state */
  const char *command;
  void (*line)(struct np_show *s, lua_State *L), (*summary)(struct np_show *s, lua_State *L);
  const char *const *heads; /* NULL: rows are printed without */
  size_t columns;
};

struct np_show {
  const struct np_show_kind *kind;
  bool headed, colour, quiet, shown; /* shown: a line was */
  size_t count;
  struct row rows[NP_SHOW_ROWS];
  size_t widths[NP_SHOW_COLUMNS];
  long failed;
  lua_State *L; /* owned */
};

/* A line of neap request --recording. client_recording.c */
void np_show_recording(struct np_show *s, lua_State *L);

/* A request that was run again; how many were. client_requests.c */
void np_show_request_run(struct np_show *s, lua_State *L);
void np_show_request_runs(struct np_show *s, lua_State *L);

/* The story that neap explain tells. client_explain.c */
void np_show_story(struct np_show *s, lua_State *L);

/* Lines of a tail that is not of readings. client_feed.c */
void np_show_match(struct np_show *s, lua_State *L);
void np_show_message(struct np_show *s, lua_State *L);
void np_show_attempt(struct np_show *s, lua_State *L);
void np_show_acked(struct np_show *s, lua_State *L);
extern const char *const np_show_match_heads[], *const np_show_message_heads[], *const np_show_attempt_heads[],
                                                                                    *const np_show_acked_heads[];

/* The kind of a command's answers; a tail's for all that has none of its own. */
const struct np_show_kind *np_show_kind_of(const char *command);
struct row *np_show_row(struct np_show *s); /* a new one, at the end */
void np_show_named(struct np_show *s, const char *name,
                   char *text); /* a row of a name and a text, which it takes over; none for "" */

/* Owned texts. Without control characters, C1 and what is not UTF-8 included: what comes from outside cannot steer the terminal. */
char *np_show_clean(const char *s, size_t n);
char *np_show_field(lua_State *L, const char *name); /* of the object at index 1; "" where it has none */
char *np_show_moment(lua_Integer ms);
char *np_show_moment_ago(lua_Integer ms);
lua_Integer np_show_number(lua_State *L, const char *name); /* 0 where it has none */

/* Prints a field's text, where it has one, line by line, each behind `before`. */
void np_show_lines(lua_State *L, const char *name, const char *before);

/* Dead letters, or a message with its attempts; destinations. client_dead.c */
void np_show_dead(struct np_show *s, lua_State *L);
void np_show_dead_summary(struct np_show *s, lua_State *L);
void np_show_destination(struct np_show *s, lua_State *L);
extern const char *const np_show_dead_heads[], *const np_show_destination_heads[];

/* A message that was acknowledged, or waits for it. client_ack.c */
void np_show_ack(struct np_show *s, lua_State *L);
void np_show_ack_summary(struct np_show *s, lua_State *L);
extern const char *const np_show_ack_heads[];

/* Replays: a table, one in full, one that is followed. client_replays.c */
void np_show_replay_row(struct np_show *s, lua_State *L);
void np_show_replay(struct np_show *s, lua_State *L);
void np_show_replay_progress(struct np_show *s, lua_State *L);
extern const char *const np_show_replay_heads[];

/* A message that a change of a rule changes, and all of them. client_gate.c */
void np_show_change(struct np_show *s, lua_State *L);
void np_show_changes(struct np_show *s, lua_State *L);
extern const char *const np_show_change_heads[];

#endif
