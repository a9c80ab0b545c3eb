/* One passage through the slow stages of the gate: a spec, and a shadow run. It is made on the main thread, run on any, and told of on the main one.
 * Private to the gate. */
#ifndef NP_HOST_GATE_JOB_H
#define NP_HOST_GATE_JOB_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/mailbox.h"
#include "host/build.h"
#include "host/shadow_report.h"

struct np_gate_job {
  struct np_node node;     /* first */
  char *instance;          /* owned */
  uint64_t turn;           /* of the gate that asked for it */
  char *store;             /* owned: path; NULL: no shadow run */
  int64_t time;            /* ms that each of the two may take */
  const atomic_bool *stop; /* may be NULL */
  /* The spec; NULL: none is to be run. */
  char *spec, *plugins; /* owned: paths */
  bool spec_passed;
  char *spec_said; /* owned: "14 passed", or what failed */
  /* The shadow run: of both, where it is to be. They are used up by it. */
  struct np_instance *old, *fresh; /* owned */
  struct np_epoch *to;             /* a reference */
  int64_t readings;
  bool compared;
  struct np_shadow_report report;
  char *failed; /* owned: why it could not be run */
  /* Of the new one, to be recorded. */
  char *bundle, *hash, *file; /* owned */
  size_t bundle_len;
};

void np_gate_job_run(struct np_gate_job *job);
void np_gate_job_free(struct np_gate_job *job);

/* The path of a plugin's spec: NAME_spec.lua beside it, or in spec/ there or at the top. The caller's; NULL where there is none. */
char *np_gate_spec_path(const char *plugins, const struct np_file *file);
/* Runs it in a child process of this program. 1 where all passed; *said is the caller's. */
int np_gate_spec_run(const char *spec, const char *plugins, int64_t ms, const atomic_bool *stop, char **said);

#endif
