/* What the gate's files share: gate.c decides, gate_run.c has the jobs run, gate_say.c tells. Private to them. Main thread. */
#ifndef NP_HOST_GATE_PARTS_H
#define NP_HOST_GATE_PARTS_H

#include "host/deploy_parts.h"
#include "host/gate.h"
#include "host/gate_job.h"

enum np_gate_state {
  NP_GATE_OPEN,    /* nothing holds it */
  NP_GATE_RUNNING, /* its job is to be run, or under way */
  NP_GATE_WAITING, /* to be approved */
  NP_GATE_REFUSED, /* its spec failed */
  NP_GATE_LET      /* it is let in when it is built the next time */
};

struct np_gate {
  struct {
    enum np_verdict verdict;
    char *said; /* owned; NULL: nothing */
  } stages[NP_STAGES];
  enum np_gate_state state;
  uint64_t turn; /* of its newest job; 0: none is wanted or under way */
  bool begun;    /* it is under way */
  bool approved;
  char *print;          /* owned: fingerprint of what it is about, with all libraries and names */
  char *own_print;      /* owned: the same with the libraries alone that it requires */
  char *spec_text;      /* owned: hash of the spec that was run, or is to be; NULL where it has none */
  const char *instance; /* borrowed: the unit's */
  char *says, *why;     /* owned: for people; why begins with the instance */
  int number;           /* its generation */
  char *hash;           /* owned: of its sources */
  char *settings;       /* owned: of what is built, with sorted keys; NULL: not known */
  struct np_code *old;  /* a reference: what it is compared with; NULL: what is in force when its job begins */
};

void np_gate_set(struct np_gate *g, enum np_gate_stage stage, enum np_verdict verdict, const char *said);
void np_gate_say_is(struct np_gate *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The hash of a spec's text; the caller's. NULL where there is none. */
char *np_gate_spec_hash(const struct np_deploy *d, const struct np_want *want);

/* Has the unit's job run, in its turn. */
void np_gates_want(struct np_deploy *d, struct np_gate *g);
/* What it needs of this thread. job->old and fresh stay NULL where they cannot be built: job->failed says why. old: what is in force; NULL: the newest
 * good one of the store. */
void np_gate_prepare(struct np_deploy *d, const struct np_want *want, const struct np_check *check, struct np_reader *reader,
                     const struct np_code *old, struct np_gate_job *job);
/* Builds one instance of the generation that `code` is, from the store, with its settings and limits; or, where code is NULL, of the newest good one, with
 * these settings (NULL: those that are wanted). */
int np_gate_rebuild(struct np_deploy *d, const struct np_want *want, struct np_reader *reader, const struct np_code *code,
                    const char *settings, struct np_built *built, struct np_error *err);
/* Whom messages may be sent to once what is built now is in force; a reference. The one instance that was built, which is the caller's then. */
struct np_epoch *np_gate_epoch(const struct np_deploy *d);
struct np_instance *np_gate_take(struct np_built *b);
/* What came of it, as verdicts. */
void np_gate_judge(struct np_gate *g, const struct np_gate_job *job);

#endif
