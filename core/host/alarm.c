/* Alarms on libevent's timers. */
#include "host/alarm.h"

#include <event2/event.h>

#include "host/lane.h"

static void ring(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_alarm *a = arg;
  a->set = false;
  atomic_fetch_sub_explicit(&a->lane->live_timers, 1, memory_order_relaxed);
  np_lane_sync(a->lane);
  a->fn(a->arg);
}

void np_alarm_set(struct np_alarm *a, int64_t ms) {
  np_alarm_stop(a);
  if (ms < 0) ms = 0;
  event_assign(&a->event, a->lane->base, -1, 0, ring, a);
  a->set = true;
  atomic_fetch_add_explicit(&a->lane->live_timers, 1, memory_order_relaxed);
  event_add(&a->event, &(struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000});
}

void np_alarm_stop(struct np_alarm *a) {
  if (!a->set) return;
  event_del(&a->event);
  a->set = false;
  atomic_fetch_sub_explicit(&a->lane->live_timers, 1, memory_order_relaxed);
}

int64_t np_backoff(int n, int64_t most) {
  int64_t ms = 1000;
  while (--n > 0 && ms < most) ms *= 2;
  return ms < most ? ms : most;
}
