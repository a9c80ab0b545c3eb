/* What a change of a rule changes: two shadow runs over the same readings, compared message by message, and derived reading by derived reading. */
#ifndef NP_HOST_SHADOW_REPORT_H
#define NP_HOST_SHADOW_REPORT_H

#include "base/buf.h"
#include "host/shadow.h"

enum np_difference {
  NP_NEW,       /* only the new code sends or derives it */
  NP_LOST,      /* only the old code does */
  NP_DIFFERENT, /* both, with another body, or value */
  NP_FAILING,   /* the new code raises, where the old one does not: the reading or the timer would be held */
  NP_MENDED,    /* the other way round */
  NP_DIFFERENCES
};
extern const char *const np_difference_names[NP_DIFFERENCES]; /* "new" "gone" "different" "failing" "mended" */

struct np_shadow_change {
  enum np_difference what;
  char *destination, *device; /* owned; device "" where it concerns none, destination NULL where it is no message */
  char *metric;               /* owned: of a derived reading; NULL where it is none */
  char *timer, *key;          /* owned: NULL where a reading led to it */
  int64_t reading, at;        /* seq, 0: a timer; ms */
  char *before, *after; /* owned: bodies and readings, JSON with sorted keys, or what was raised; NULL on the side that has none */
};

struct np_shadow_report {
  struct np_shadow_covered covered;
  int64_t wanted; /* readings that were to be run */
  int counts[NP_DIFFERENCES];
  bool derives;                  /* one of both may derive readings */
  struct np_shadow_change *list; /* owned; by device, then in the order in which it would happen */
  size_t count;
};

/* Takes over both instances. Compared is what both were run on. -1 and err: then there is no report. */
int np_shadow_compare(struct np_instance *old, struct np_instance *fresh, struct np_epoch *to, struct np_reader *reader,
                      const struct np_shadow_span *span, struct np_shadow_report *report, struct np_error *err);
/* The same against what was sent and derived in truth. It takes over the instance. `sent` adds each derived reading by np_shadow_derived, with the reading
 * that led to it or NULL where a timer did, and each message by np_shadow_sent, with the reading that led to it, or NULL where a
 * timer did: such a one stands for the nearest that the run's timers would send to the same destination about the same device. */
struct np_shadow_record;
void np_shadow_sent(struct np_shadow_record *record, const struct np_reading *reading, const struct np_message *m);
void np_shadow_derived(struct np_shadow_record *record, const struct np_reading *cause, const struct np_derivation *d,
                       const struct np_reading *r);
int np_shadow_against(struct np_instance *in, struct np_epoch *to, struct np_reader *reader, const struct np_shadow_span *span,
                      int (*sent)(void *arg, struct np_shadow_record *record, struct np_error *err), void *arg,
                      struct np_shadow_report *report, struct np_error *err);
void np_shadow_report_free(struct np_shadow_report *r);
bool np_shadow_differs(const struct np_shadow_report *r);
/* "3 new, 1 gone, 2 different of the last 1,000 readings". */
void np_shadow_report_say(const struct np_shadow_report *r, struct np_buf *out);
/* The fields of one change, as JSON, without the braces. */
void np_shadow_change_json(const struct np_shadow_change *c, struct np_buf *out);

#endif
