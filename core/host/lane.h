/* A lane: a thread with its event loop, listener, HTTP client and an instance of every plugin in force. Lanes share nothing mutable
 * but mailboxes. An epoch is what is in force: immutable, shared by all lanes, apart from each lane's own instances in it. */
#ifndef NP_HOST_LANE_H
#define NP_HOST_LANE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/mailbox.h"
#include "host/facts.h"
#include "host/plugin.h"
#include "host/rules.h"
#include "io/append.h"
#include "io/fetch.h"
#include "io/mqtt.h"
#include "io/routes.h"
#include "io/serve.h"
#include "store/keeper.h"

struct event;
struct event_base;
struct np_host;

/* One configured instance's place in an epoch. */
struct np_slot {
  char *instance;               /* owned */
  enum np_kind kind;            /* of what is in force, or what the configuration lists it as */
  struct np_code *code;         /* a reference; NULL: configured but not in force, its work is held */
  struct np_instance **on_lane; /* owned array: [lane]; NULL where code is */
  char *why_not;                /* owned: where code is NULL */
};

struct np_epoch {
  int refs; /* atomic */
  uint64_t number;
  struct np_slot *slots; /* owned */
  size_t slot_count;
  struct np_routes *routes; /* owned; values are struct np_route */
  struct np_rules *rules;   /* owned; made of the slots once they are complete */
  bool bare; /* there are no files at all, and nobody has said that it is meant so: what rules would be run on waits */
};
void np_epoch_ref(struct np_epoch *e);
void np_epoch_unref(struct np_epoch *e);
/* NULL where there is none. */
const struct np_slot *np_epoch_slot(const struct np_epoch *e, const char *instance);
/* Whether messages may be sent to it: a destination, or a connection that delivers. What is not in force and could be either holds them. */
bool np_slot_takes_messages(const struct np_slot *slot);

struct np_alarms;
struct np_router;
struct np_courier;
struct np_jobs;
struct np_calls;
struct np_replays;
struct np_call;

struct np_lane {
  int index;
  struct np_host *host; /* borrowed */
  pthread_t thread;
  struct event_base *base;           /* owned */
  struct np_server *server;          /* owned */
  struct np_fetch *fetch;            /* owned */
  struct np_mailer *mailer;          /* owned */
  struct np_appender appender;       /* of files */
  struct np_mqtt_net mqtt;           /* of brokers */
  struct np_reader *reader;          /* owned */
  struct np_facts_cache facts;       /* of the devices whose readings are routed here */
  struct np_epoch *epoch;            /* a reference: what this lane has adopted */
  _Atomic(struct np_epoch *) staged; /* a reference: to be adopted when host->epoch reaches its number */
  _Atomic uint64_t adopted;          /* number of the epoch adopted: the next may be staged once all lanes are there */
  struct np_mailbox answers;         /* struct np_writeset that the keeper has dealt with */
  struct np_mailbox letters;         /* struct np_letter */
  struct event *on_answers, *on_letters, *on_woken, *tick;
  struct np_task *woken, **woken_tail;
  struct np_instance *retired; /* waiting for live to be 0 */
  atomic_bool behind;          /* a commit notice was dropped: look into the store */
  struct np_router *router;    /* owned */
  struct np_courier *courier;  /* owned */
  struct np_jobs *jobs;        /* owned */
  struct np_calls *calls;      /* owned */
  struct np_replays *replays;  /* owned */
  struct np_alarms *alarms;    /* borrowed: a test's, see host/alarm.h; NULL where the real clock counts */
  int requests;                /* under way */
  size_t request_bytes;        /* of their bodies */
  bool draining;
  atomic_bool quiet; /* draining, and nothing is under way any more */
  /* For `neap plugins` and specs; written by the lane, read by anyone. */
  atomic_int live_tasks, live_states, live_timers;
  atomic_long served, refused, failed;
  atomic_long backlog; /* readings that rules have yet to be run on, as far as the lane knows of them */
};

/* Messages to a lane. */
enum np_letter_kind {
  NP_LETTER_COMMIT,
  NP_LETTER_EPOCH,
  NP_LETTER_CALL,
  NP_LETTER_BROKER,
  NP_LETTER_QUARANTINE,
  NP_LETTER_TLS,
  NP_LETTER_DRAIN,
  NP_LETTER_STOP
};
struct np_letter {
  struct np_node node;
  enum np_letter_kind kind;
  struct np_call *call; /* CALL: handed over */
  struct np_tls *tls;   /* TLS: handed over; the certificate that its server goes on with */
  size_t n;
  struct np_writeset *sets[]; /* COMMIT: references; those with readings or messages for this lane's partitions */
};

static inline bool np_lane_has(const struct np_lane *lane, int partition, int lanes) { return partition % lanes == lane->index; }

/* Who handles the keeper's answer: the first member of what ws->owner points to. */
struct np_waiter {
  void (*answered)(struct np_waiter *w, struct np_writeset *ws); /* owns one reference of ws */
};

/* Makes a lane whose first epoch is staged; it listens, so that its port is known, and answers once begun. */
struct np_lane *np_lane_start(struct np_host *host, int index, struct np_epoch *first, struct np_error *err);
int np_lane_begin(struct np_lane *lane, struct np_error *err); /* starts its thread, once host->lanes is complete */
void np_lane_enter(struct np_lane *lane); /* what that thread does before it runs the loop: a test runs the loop itself */
void np_lane_send(struct np_lane *lane, struct np_letter *letter); /* any thread */
void np_lane_join(struct np_lane *lane);                           /* waits for its thread to end, after NP_LETTER_STOP */
void np_lane_free(struct np_lane *lane);                           /* after the keeper has stopped, for it answers to the lane */
/* At the start of every event that is somebody's work: adopts the staged epoch if its moment has come. */
void np_lane_sync(struct np_lane *lane);
void np_lane_soon(struct np_lane *lane); /* its tick comes before it sleeps again */
/* Pins and unpins an instance: while pinned it is not closed. */
struct np_instance *np_lane_instance(struct np_lane *lane, const struct np_slot *slot);
void np_lane_pin(struct np_lane *lane, struct np_instance *in);
void np_lane_unpin(struct np_lane *lane, struct np_instance *in);
/* For np_env: see there. Both of an instance that its lane has adopted. */
void np_lane_identify(struct np_env *env, char to[64]);
bool np_lane_succeeded(struct np_env *env);
/* Submits with the answer to `waiter` on this lane. force: past the keeper's bound. -1: not taken, ws is still the caller's. */
int np_lane_submit(struct np_lane *lane, struct np_writeset *ws, struct np_waiter *waiter, bool force);

#endif
