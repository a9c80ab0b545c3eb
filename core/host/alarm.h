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
  bool set;
  struct event event;
};

void np_alarm_set(struct np_alarm *a, int64_t ms); /* from now, in place of what was set; under 0 is 0 */
void np_alarm_stop(struct np_alarm *a);

/* Before the try after the n-th failure (from 1): one second, doubled each time, at most `most` ms. */
int64_t np_backoff(int n, int64_t most);

#endif
