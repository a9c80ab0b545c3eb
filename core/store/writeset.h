/* A write set: all that one handler wants to have happened. It is built on a lane, handed over to the keeper, committed whole
 * or not at all, and then shared read-only by whoever follows the commits. Strings live in its arena. */
#ifndef NP_STORE_WRITESET_H
#define NP_STORE_WRITESET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/mailbox.h"

struct np_text { /* borrowed from an arena; ptr NULL is absent; otherwise terminated */
  const char *ptr;
  size_t len;
};

enum np_value_type { NP_NUMBER_INT, NP_NUMBER_REAL, NP_STRING, NP_BOOL };

struct np_value {
  enum np_value_type type;
  int64_t i; /* NP_NUMBER_INT, NP_BOOL (0 or 1) */
  double d;  /* NP_NUMBER_REAL */
  struct np_text s;
};

/* As JSON has it: 12, 12.5, true, "12". */
struct np_buf;
void np_value_add_json(struct np_buf *b, const struct np_value *v);

enum np_quality { NP_VALID, NP_WARMUP, NP_INVALID };
enum np_trend { NP_TREND_NONE, NP_FLAT, NP_RISING_SLOWLY, NP_FALLING_SLOWLY, NP_RISING_FAST, NP_FALLING_FAST };
extern const char *const np_quality_names[3]; /* "valid" … */
extern const char *const np_trend_names[6];   /* NULL for none, "flat" … */

/* How a reading came about that no vendor sent: a rule, its connection, derived it. */
struct np_derivation {
  int64_t cause;             /* seq of the reading that the rule was run on; 0: it was a timer, of that name and key */
  int generation;            /* of the rule */
  struct np_text timer, key; /* absent where it was a reading */
};
#define NP_DEPTH_MAX 7

struct np_reading {
  int64_t seq;                                             /* given by the store; 0 before, and for a duplicate */
  struct np_text vendor, connection, device, metric, unit; /* unit may be absent */
  struct np_value value;
  int64_t at, received; /* ms UTC */
  struct np_text key;   /* the vendor's own id of this reading; may be absent */
  int64_t serial;       /* INT64_MIN where absent */
  int64_t interval;     /* ms between readings; 0 where absent */
  enum np_trend trend;
  enum np_quality quality;
  struct np_text extra; /* JSON object; may be absent */
  int partition;        /* of the device */
  bool quiet;           /* no rule is run on it: it was imported, or derived by a replay */
  int depth;            /* how many rules stand between it and what a vendor sent, NP_DEPTH_MAX at most; 0: a vendor's */
  const struct np_derivation
      *derivation; /* borrowed from the set, of a derived one that is to be written; NULL: not on record, or read */
};

struct np_message {                   /* what a rule sends to a destination */
  int64_t seq;                        /* given by the store */
  struct np_text id;                  /* stays the same over retries */
  struct np_text destination, device; /* device "" where it concerns none: order is kept for each pair */
  struct np_text body;                /* JSON */
  struct np_text source;              /* the rule instance that sent it */
  int64_t reading;                    /* seq of the reading that caused it, or 0 */
  int64_t created;                    /* ms */
  int generation;                     /* of the rule; 0: not on record */
  int64_t replayed;                   /* number of the replay that made it; 0: none did */
  int64_t about;   /* ms: the rule's present: when the reading had been received, or the timer was due; 0: not on record */
  int64_t since;   /* ms: from when it is counted how long it has been tried: created, or when a person had it tried again */
  int64_t expires; /* ms: not after; 0: it does not expire by itself */
  int attempts;    /* tries that have failed */
  int64_t due;     /* ms: not before */
  bool asks;       /* for an acknowledgement (NP_OP_ACK). Only written: np_reader_waiting tells */
};

/* Why a message is a dead letter: the destination refused it, it was tried for as long as may be, it was no longer worth anything. */
enum np_dead_reason { NP_DEAD_REFUSED, NP_DEAD_GAVE_UP, NP_DEAD_EXPIRED };
extern const char *const np_dead_reasons[3]; /* "refused", "gave up", "expired" */

struct np_attempt {       /* a try at delivering a message */
  int n;                  /* from 1 */
  int64_t at, took;       /* ms */
  int generation;         /* of the destination's plugin */
  int status;             /* of the answer; 0 for none */
  int batch;              /* so many messages went together */
  struct np_text outcome; /* "delivered", "again", "refused" */
  struct np_text error;   /* why, where not delivered; masked, as the answer is */
  struct np_text answer;  /* its start */
  /* Of one that failed and asked by HTTP, masked: "POST https://…\nname: value\n…", and the answer's headers, where there was one. */
  struct np_text request, reply;
};

enum np_op_kind {
  NP_OP_REQUEST,
  NP_OP_READING,
  NP_OP_DEVICE,
  NP_OP_EVENT,
  NP_OP_SEEN,
  NP_OP_PUT,
  NP_OP_ARM,
  NP_OP_FIRED,
  NP_OP_SEND,
  NP_OP_SENT,
  NP_OP_DEAD,
  NP_OP_HOLD,
  NP_OP_RELEASE,
  NP_OP_CURSOR,
  NP_OP_GENERATION,
  NP_OP_REPLAYED,
  NP_OP_TAG,
  NP_OP_ACK,
};

struct np_op {
  struct np_op *next;
  enum np_op_kind kind;
  union {
    struct { /* NP_OP_REQUEST: a vendor's request as it came, into the inbox */
      struct np_text instance, method, target, headers, body, remote; /* headers "Name: value\n"… */
      int64_t received;
      int generation;
      int status;             /* what it was answered */
      struct np_text outcome; /* "done", "refused", "failed" */
      struct np_text error;   /* why, where not done */
      int runs;               /* given by a reader: how often it was run again */
    } request;
    struct np_reading reading; /* NP_OP_READING; belongs to the REQUEST before it in the set, if there is one */
    struct {                   /* NP_OP_DEVICE: what is known of a device; absent fields keep what is stored */
      struct np_text vendor, connection, device, serial, model, name, owner, place, status, extra;
      struct np_text tags; /* sorted, a line each; "" is none */
      int online;          /* 0, 1, or -1 where absent */
      int64_t at;          /* when this was so; older news than what is stored changes nothing */
    } device;
    struct {                                                      /* NP_OP_EVENT: identity is (device, type, at, key) */
      struct np_text vendor, connection, device, type, key, data; /* data is JSON */
      int64_t at, received;
    } event;
    struct { /* NP_OP_SEEN: the handler read this key at this version; the set conflicts where it has changed since */
      struct np_text space, key;
      int64_t version; /* 0: it was absent */
    } seen;
    struct { /* NP_OP_PUT: value absent deletes; expires in ms, 0 never */
      struct np_text space, key, value;
      int64_t expires;
    } put;
    struct { /* NP_OP_ARM: due 0 disarms */
      struct np_text instance, name, key;
      int64_t due;
    } arm;
    struct { /* NP_OP_FIRED: removes the timer; the set conflicts where it is no longer armed for exactly this due */
      struct np_text instance, name, key;
      int64_t due;
    } fired;
    struct np_message send; /* NP_OP_SEND */
    struct {                /* NP_OP_SENT: what became of a message. state 'd' delivered, 'r' again at due, 'x' dead letter */
      int64_t seq;
      char state;
      int attempts, status; /* status: HTTP status of the last answer, 0 for none */
      int64_t at, due;
      struct np_text error, reason;   /* reason: of 'x', one of np_dead_reasons */
      struct np_text id, destination; /* of the message, for who follows the commits */
      struct np_attempt attempt;      /* that led to it; n 0: none did */
    } sent;
    struct
    { /* NP_OP_DEAD: what a person decided about a dead letter: 'r' tried again, under its id and in its place, 'x' dropped */
      int64_t seq;
      char action;
      struct np_text destination, device; /* the message's */
      int64_t at;
      struct np_text by;
      bool done; /* given by the store: it was there */
    } dead;
    struct
    { /* NP_OP_HOLD: a rule could not be run on this reading (key: what its filters had said, see host/rule.h) or timer (reading 0, name and key) */
      struct np_text instance, name, key, error;
      int64_t reading, at; /* at: ms: when it was held, or the timer was due */
      int generation;
    } hold;
    struct { /* NP_OP_RELEASE: that entry is dealt with; the set conflicts where it is gone */
      int64_t id;
    } release;
    struct { /* NP_OP_CURSOR: rules have dealt with this partition's readings up to seq; conflicts where it is not at `from` */
      int partition;
      int64_t from, seq;
    } cursor;
    struct { /* NP_OP_GENERATION: a plugin's code that is now in force (verdict "good") or was not let in ("bad") */
      struct np_text instance, file, hash, source, verdict, reason, cause;
      int64_t at;
      int number; /* 0 where it was not let in */
    } generation;
    struct
    { /* NP_OP_REPLAYED: a request of the inbox was run again, with this outcome; what it was before stays on record. Readings behind it in the set belong
              to it. The set conflicts where the request is gone, or has not been run again exactly `runs` times */
      int64_t id, at;
      int runs, generation, status;
      struct np_text outcome, error;
    } replayed;
    struct { /* NP_OP_TAG: an operator gives a device a tag, or takes it away; nothing where there is no such device */
      struct np_text vendor, device, tag;
      bool on;
    } tag;
    struct
    { /* NP_OP_ACK: somebody has acknowledged a message, wherever it is. The first one counts; nothing where the message is not known, or no longer kept */
      struct np_text id, record;                /* record: JSON, what is kept of it (host/ack.h) */
      int64_t at;                               /* ms */
      struct np_text by, note;                  /* in the record too; note may be absent */
      struct np_text rule, destination, device; /* the message's, for who follows the commits */
      bool done;                                /* given by the store: it is the first */
    } ack;
  } as;
};

enum np_outcome {
  NP_COMMITTED, /* durable */
  NP_CONFLICT,  /* nothing happened: what it had read has changed; run the handler again */
  NP_FAILED     /* nothing happened: the store could not; error says why */
};

struct np_writeset {
  struct np_node node; /* first: cast from the mailbox's node */
  struct np_arena arena;
  struct np_op *first, **last;
  size_t count;
  int refs; /* atomic */
  /* Filled by the keeper before it answers. */
  enum np_outcome outcome;
  char error[256];
  int64_t request_id; /* inbox id of the last NP_OP_REQUEST, or 0 */
  size_t fresh;       /* readings that were new */
  size_t too_old;     /* readings that were refused, for newer ones of their series have been removed */
  /* Whom to answer: np_mailbox_force(reply_to, &node) when the outcome is known. NULL: nobody. Set by the submitter. */
  struct np_mailbox *reply_to;
  void *owner; /* the submitter's own */
};

struct np_writeset *np_writeset_new(void);
void np_writeset_ref(struct np_writeset *ws);
void np_writeset_unref(struct np_writeset *ws);                                   /* frees with the last */
struct np_op *np_writeset_add(struct np_writeset *ws, enum np_op_kind kind);      /* zeroed apart from kind; appended */
struct np_text np_writeset_text(struct np_writeset *ws, const char *s, size_t n); /* s NULL gives absent */
/* Marks a place and takes back everything added after it (arena memory is kept until the set is freed). */
struct np_writeset_mark {
  struct np_op **last;
  size_t count;
};
struct np_writeset_mark np_writeset_mark(const struct np_writeset *ws);
void np_writeset_undo(struct np_writeset *ws, struct np_writeset_mark mark);

#endif
