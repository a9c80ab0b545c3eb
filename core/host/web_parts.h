/* What the files of a request's life share; nobody else includes it. web.c has its events, from the head to the answer; web_call.c what of the plugin
 * is called for it, and what that returned. */
#ifndef NP_HOST_WEB_PARTS_H
#define NP_HOST_WEB_PARTS_H

#include "host/alarm.h"
#include "host/answer.h"
#include "host/host.h"
#include "host/lane.h"
#include "host/ledger.h"
#include "host/task.h"
#include "host/web.h"
#include "host/webreq.h"

struct np_web_call {       /* one request */
  struct np_waiter waiter; /* first: the keeper's answer finds its way back by it */
  struct np_lane *lane;
  struct np_request *req;
  struct np_epoch *epoch;       /* a reference: keeps the route alive */
  const struct np_route *route; /* borrowed from an instance's code, which `in` pins */
  struct np_route_match match;
  struct np_instance *in; /* pinned */
  struct np_task task;
  struct np_overlay overlay;
  struct np_writeset *ws; /* owned until submitted */
  struct np_op *kept;     /* the REQUEST in ws, NULL where it is not kept */
  struct np_answer answer;
  struct np_refusal refusal; /* what is refused, while a refusal is being worded */
  const char *outcome;       /* "done" "refused" "failed" */
  char *error;               /* owned: why not done */
  int tries;
  struct np_alarm later;    /* what it reads and writes is being migrated: it runs again after that */
  bool asking;              /* auth runs, the handler does not yet */
  bool declined;            /* the handler, or auth, returned nil and why */
  bool over;                /* the lane stops before it has been answered: its task is dropped */
  struct np_stream *stream; /* of its answer, while it goes on */
  size_t bytes;             /* counted in lane->request_bytes */
  struct np_replay *replay; /* NULL: it has come just now, and is answered */
  struct np_op *replayed;   /* its mark in ws */
};

/* A fresh write set, with the request in it as it came. */
void np_web_begin_set(struct np_web_call *w);

/* For np_task: the handler and the request, or auth before it; plugin:refuse and the refusal. In the protected call; owner is the np_web_call. */
int np_web_push(lua_State *L, struct np_task *t);
int np_web_push_refusal(lua_State *L, struct np_task *t);

/* For np_task: what a handler, auth or plugin:refuse returned. */
void np_web_take(lua_State *L, struct np_task *t, int n);

/* The refusal is the request's outcome, and is kept with it. */
void np_web_note_refusal(struct np_web_call *w);

#endif
