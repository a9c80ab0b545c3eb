/* Alarms on libevent's timers, or in a test's list. */
#include "host/alarm.h"

#include <event2/event.h>

#include "base/clock.h"
#include "host/lane.h"

static void count(struct np_alarm *a, bool set) {
  a->set = set;
  if (!a->uncounted) atomic_fetch_add_explicit(&a->lane->live_timers, set ? 1 : -1, memory_order_relaxed);
}

static void ring(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_alarm *a = arg;
  count(a, false);
  np_lane_sync(a->lane);
  a->fn(a->arg);
}

/* Those of one moment ring in the order in which they were set. */
static void enter(struct np_alarms *list, struct np_alarm *a) {
  struct np_alarm **at = &list->first;
  while (*at && (*at)->due <= a->due) at = &(*at)->next;
  a->next = *at;
  *at = a;
}

static void leave(struct np_alarms *list, struct np_alarm *a) {
  struct np_alarm **at = &list->first;
  while (*at != a) at = &(*at)->next;
  *at = a->next;
}

void np_alarm_set(struct np_alarm *a, int64_t ms) {
  np_alarm_stop(a);
  if (ms < 0) ms = 0;
  count(a, true);
  if (a->lane->alarms) {
    a->due = np_now_ms() + ms;
    enter(a->lane->alarms, a);
    return;
  }
  event_assign(&a->event, a->lane->base, -1, 0, ring, a);
  event_add(&a->event, &(struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000});
}

void np_alarm_stop(struct np_alarm *a) {
  if (!a->set) return;
  if (a->lane->alarms)
    leave(a->lane->alarms, a);
  else
    event_del(&a->event);
  count(a, false);
}

int64_t np_alarms_next(const struct np_alarms *list) { return list->first ? list->first->due : INT64_MAX; }

void np_alarms_ring(struct np_alarms *list) {
  struct np_alarm *a = list->first;
  leave(list, a);
  ring(-1, 0, a);
}

int64_t np_backoff(int n, int64_t most) {
  int64_t ms = 1000;
  while (--n > 0 && ms < most) ms *= 2;
  return ms < most ? ms : most;
}
