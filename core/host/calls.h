/* Commands that an operator calls (`plugin:command`): from the main thread to a lane and back. A connection's commands run on the lane that its
 * name's hash gives; what a command wrote is committed before its result leaves the lane. */
#ifndef NP_HOST_CALLS_H
#define NP_HOST_CALLS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/mailbox.h"

struct np_host;
struct np_lane;

/* One call. Its thread owns it whole: the main thread's, from np_host_call the lane's, from `done` the main thread's again. */
struct np_call {
  struct np_node node;          /* first: on its way back */
  char *connection;             /* owned */
  char *name;                   /* owned: the command's; NULL: the connection's commands are listed */
  char *args;                   /* owned: a JSON object; NULL is {} */
  struct np_requests *requests; /* owned: these of its requests are run again; see host/replay.h. NULL: none */
  bool from_text; /* values of args may be text, as words of a command line are: numbers and booleans are read from it */
  bool any_args;  /* arguments that the command does not declare are passed on, not refused */
  /* Called on the main thread once it has been dealt with; frees it by np_call_free. Not called where the host ends before. */
  void (*done)(struct np_call *call);
  void *arg;   /* for `done` */
  uint64_t id; /* for `done` */
  /* Filled by the lane. */
  bool failed;
  struct np_buf answer;    /* owned: lines of JSON: {"result":…}; {"command", "about", "args"}… and {"summary":{commands}}; or
                           {"error", "kind", "field"} */
  struct np_mailbox *back; /* borrowed: the host's */
};
struct np_call *np_call_new(const char *connection);
void np_call_free(struct np_call *call);

void np_call_answer(struct np_call *call); /* it has been dealt with: sends it back. From its lane */
void np_call_refuse(struct np_call *call, const char *reason);

/* The calls of one lane. Lane's thread. */
struct np_calls;
struct np_calls *np_calls_new(struct np_lane *lane);
void np_calls_take(struct np_calls *c, struct np_call *call); /* runs it and sends it back when it has ended */
void np_calls_free(struct np_calls *c); /* those under way are dropped: nothing of them was committed, or answered */

#endif
