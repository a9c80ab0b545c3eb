/* What is on record of what a replay runs its rule on: whether the rule itself has still to be run on that, and the messages that it sent of it. One
 * cause, a reading or a timer, at a time. The replay's thread. Private to the replays (host/replay_jobs.h). */
#ifndef NP_HOST_REPLAY_RECORD_H
#define NP_HOST_REPLAY_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "host/shadow.h"
#include "store/store.h"

struct np_on_record;

struct np_replay_record {
  /* Set by the owner, the rest zero. */
  struct np_reader *reader; /* borrowed */
  lua_State *L;             /* borrowed: brings bodies into one order of keys */
  const char *rule;         /* borrowed */
  int64_t number;           /* of the replay: what it has sent itself does not count */
  int64_t delivered_age;    /* ms that delivered messages are kept; 0: for ever */
  bool delivered_size;      /* there is a bound on how much of them is kept, too */

  bool waiting; /* of the cause: the rule itself has still to be run on it, and will send by itself */

  /* Its own. */
  struct np_writeset *ws;    /* owned: the texts */
  struct np_on_record *list; /* owned */
  size_t count;
  int64_t reading, at;
  const char *timer, *key; /* in ws; NULL: a reading */
};

/* Looks for what there is of this cause; nothing, where it is the one of before. -1 and err where the store cannot be read. */
int np_replay_record_read(struct np_replay_record *r, const struct np_shadow_cause *cause, struct np_error *err);
/* The id of the message on record that this one of the run is, as long as the cause is the same; from then on that one stands for no other. NULL: it is
 * not on record. */
const char *np_replay_record_find(struct np_replay_record *r, const struct np_message *m);
/* ms: of what is about a moment before that, nobody can tell what was sent; -1 and err. Asked after np_replay_record_read: what has been removed before
 * that is known by then. */
int64_t np_replay_record_from(struct np_replay_record *r, struct np_error *err);
void np_replay_record_free(struct np_replay_record *r);

#endif
