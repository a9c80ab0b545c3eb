/* One client of the admin socket. Private to it. */
#ifndef NP_HOST_ADMIN_TALK_H
#define NP_HOST_ADMIN_TALK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "host/filter.h"
#include "host/host.h"

struct bufferevent;
struct event;
struct np_admin;

/* What is buffered for a client: below LOW more is made, from HIGH on none, and never more than MAX and one reading. */
#define NP_TALK_LOW ((size_t)64 << 10)
#define NP_TALK_HIGH ((size_t)128 << 10)
#define NP_TALK_MAX ((size_t)256 << 10)

enum np_talk_state {
  NP_TALK_ASKING,  /* its line has not come yet */
  NP_TALK_CALLING, /* a lane runs its command */
  NP_TALK_LISTING, /* devices are being sent */
  NP_TALK_SEEKING, /* a tail looks back for where it is to begin */
  NP_TALK_TAILING,
  NP_TALK_FEEDING, /* a tail of what is not read from the store: see feed.h */
  NP_TALK_ENDING,  /* closed when all is written */
};

struct np_talk {
  struct np_talk *next, **prev;
  struct np_admin *admin;  /* borrowed */
  struct np_host *host;    /* borrowed */
  struct bufferevent *bev; /* owned, with its socket */
  struct event *again;     /* owned: runs the next slice, in another turn of the loop */
  enum np_talk_state state;
  enum np_feed_kind feed;      /* FEEDING */
  char *choice[NP_FEED_NAMES]; /* owned: FEEDING: patterns; NULL takes any */
  int64_t lost;                /* FEEDING: items that it could not take, not told yet */
  struct np_filter *filter;    /* owned; of a tail */
  int64_t at;                  /* LISTING: the last device's id; SEEKING: where the slice ends; TAILING: the last reading's seq */
  int64_t wanted;              /* SEEKING: readings still to be found */
  int64_t count;               /* LISTING: devices sent */
  struct np_talk_dead *dead;   /* owned; of dead letters: which ones */
  struct np_talk_replays *replays;  /* owned; of replays: which ones */
  void (*slice)(struct np_talk *t); /* LISTING: the next page */
  struct np_call *call;             /* owned: what it asks for, until it is with a lane */
  uint64_t id;                      /* CALLING: by which the answer finds it */
  bool empty;                       /* of a reload: the folder of plugins is meant to be empty */
  bool people, forget;              /* of a request: with its headers and body; of a person: to be removed */
  bool rules;                       /* of an import: they are run on what it brings */
  char reference[40];               /* whose details; "" counts all */
  char instance[80];                /* whose generations: `at` and `wanted` are their numbers */
  char device[512], vendor[200];    /* of a tag; device: the id of what is to be explained, or acknowledged */
  struct np_writeset *set;          /* owned: of a tag or an acknowledgement, what is to be committed */
  struct np_buf out;                /* owned: lines being built */
};

bool np_talk_full(const struct np_talk *t); /* nothing more is to be made until the client has taken some */
void np_talk_send(struct np_talk *t);       /* what is in `out` */
void np_talk_end(struct np_talk *t);        /* sends it and closes when it is written */
void np_talk_fail(struct np_talk *t, const char *error);
void np_talk_again(struct np_talk *t, int ms); /* another slice soon; the first call counts */

/* A slice of work; called again until there is none. admin_tail.c */
int np_tail_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_tail_slice(struct np_talk *t);
/* A tail of a feed: begun; given an item, or told how many were lost; no longer wanted. admin_feed.c */
int np_feed_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_feed_give(struct np_talk *t, const struct np_feed_item *item);
void np_feed_tell_lost(struct np_talk *t);
void np_feed_end(struct np_talk *t);

/* A command. np_talk_find: the talk that waits for that answer, NULL where it has gone. admin_call.c */
int np_talk_call_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_call_new(struct np_talk *t, const char *connection, void (*answered)(struct np_call *call)); /* prepares t->call */
void np_talk_call(struct np_talk *t);                                                                     /* has it carried out */
/* A connection's requests, run again. admin_requests.c */
int np_talk_requests_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_requests(struct np_talk *t);
struct np_talk *np_talk_find(struct np_admin *a, uint64_t id);
/* A request of the inbox (`at`); a person. Begin reads what is asked for, the other answers. admin_people.c */
int np_talk_request_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_request(struct np_talk *t);
int np_talk_request_object(struct np_talk *t, int64_t id,
                           struct np_error *err); /* adds it: 1; 0 or -1: what was added is worth nothing */
void np_talk_log_shown(const struct np_talk *t, const char *event, const char *what, const char *which);
int np_talk_people_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_people(struct np_talk *t);
/* The story of what has the id in `device`. admin_explain.c */
int np_talk_explain_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_explain(struct np_talk *t);
/* A device's tags: shown, given and taken away. admin_tags.c */
int np_talk_tag_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_tag(struct np_talk *t);
/* A message is acknowledged, or those that wait for it are listed. admin_ack.c */
int np_talk_ack_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_ack(struct np_talk *t);
/* Generations of an instance. Begin reads what is asked for, the others answer. admin_generations.c */
int np_talk_generation_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_history(struct np_talk *t);
void np_talk_sources(struct np_talk *t);
void np_talk_rollback(struct np_talk *t);
void np_talk_approve(struct np_talk *t);
void np_talk_messages(struct np_talk *t);
void np_talk_release(struct np_talk *t);

/* Hands the client's socket over to an import. admin_import.c */
int np_talk_import_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_import(struct np_talk *t);

/* Goes on with a list, a page a time, the first one now. */
void np_talk_list(struct np_talk *t, void (*slice)(struct np_talk *t));
/* "anna", or "user 1000": who asks; false where that cannot be told. "neap rollback by anna". admin_generations.c */
bool np_talk_user(const struct np_talk *t, char *text, size_t size);
void np_talk_cause(const struct np_talk *t, const char *command, char *text, size_t size);
/* Replays of rules. admin_replays.c */
int np_talk_replays_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_replays(struct np_talk *t);
void np_talk_replays_free(struct np_talk *t);
/* Dead letters and destinations. admin_dead.c */
int np_talk_dead_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err);
void np_talk_dead(struct np_talk *t);
void np_talk_dead_free(struct np_talk *t);
void np_talk_destinations(struct np_talk *t);

#endif
