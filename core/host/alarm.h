/* An alarm: a timer of one lane, counted in its live_timers while it is set. Zeroed but for lane, fn and arg it is valid and not set. Lane's thread. */
#ifndef NP_HOST_ALARM_H
#define NP_HOST_ALARM_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event_struct.h>

struct np_lane;

struct np_alarm {
  struct np_lane *lane;  /* borrowed */
  void (*fn)(void *arg); /* called after the lane has adopted what is in force: np_lane_sync leaves arg alive */
  void *arg;
  bool uncounted; /* the lane's own, left out of live_timers */
  bool set;
  struct event event;
  int64_t due; /* in a list */
  struct np_alarm *next;
};

/* A test's alarms, soonest first: a lane that has such a list (lane->alarms) leaves it to the test when they ring. */
struct np_alarms {
  struct np_alarm *first;
};
int64_t np_alarms_next(const struct np_alarms *list); /* ms; INT64_MAX where none is set */
void np_alarms_ring(struct np_alarms *list);          /* the first of them */

void np_alarm_set(struct np_alarm *a, int64_t ms); /* from now, in place of what was set; under 0 is 0 */
void np_alarm_stop(struct np_alarm *a);

/* Before the try after the n-th failure (from 1): one second, doubled each time, at most `most` ms. */
int64_t np_backoff(int n, int64_t most);

#endif
