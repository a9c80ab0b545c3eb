/* The gate: what a new generation has to pass before it is in force. Syntax, declarations and configuration are what a build tells; then come its own
 * spec and, for a rule, a shadow run beside what is in force, which take their time on a thread of the gate's own while the old generation serves; then
 * its routes. Where the policy is "hold", a rule whose messages would be others waits for neap approve. Main thread. */
#ifndef NP_HOST_GATE_H
#define NP_HOST_GATE_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"
#include "host/plugin.h"

struct np_deploy;
struct np_unit;
struct np_want;
struct np_gate; /* what one unit's newest text has come to at the gate */
struct np_reader;
struct np_writeset;
struct np_gates; /* the thread, and what waits for it */

enum np_verdict {
  NP_VERDICT_NONE, /* it has not come so far */
  NP_VERDICT_PASSED,
  NP_VERDICT_FAILED,
  NP_VERDICT_LEFT_OUT,
  NP_VERDICT_RUNNING,
  NP_VERDICT_DIFFERS /* its messages would be others: it informs, or waits */
};
extern const char *const np_gate_stage_names[NP_STAGES];

/* Hooks of deploy. */
void np_gate_refused(struct np_unit *u, enum np_gate_stage stage, const char *why); /* the build or its routes failed there */
/* It is built, in u->built. False: it is not to be in force now; what is in force goes on. */
bool np_gate_let_in(struct np_deploy *d, struct np_unit *u, const struct np_want *want);
/* What was not let in, and has not changed, has to be looked at once more. */
bool np_gate_again(const struct np_deploy *d, const struct np_unit *u, const struct np_want *want);
void np_gate_forget(struct np_unit *u); /* its text is again what is in force */
/* At a start: its last good generation, for why not; with the settings that it had, where its newest has not passed the gate. */
void np_gate_fall_back(struct np_deploy *d, struct np_unit *u, const char *why);
void np_gate_record(struct np_unit *u, struct np_writeset *ws);     /* what is to be in force */
void np_gate_pinned(struct np_unit *u, const struct np_want *want); /* an operator has gone back: its text does not count */
/* Why its newest text is not in force, where it is for the gate alone: "low-glucose: waiting for approval: 3 new"; NULL. Borrowed until the gate
 * changes. */
const char *np_gate_holds(const struct np_unit *u);
void np_gate_free(struct np_gate *g);
void np_gates_free(struct np_gates *g); /* ends what runs */

/* Puts in force what waits. Its number; -1 and err: then nothing has changed. */
int np_deploy_approve(struct np_deploy *d, const char *instance, const char *cause, struct np_error *err);

/* For neap plugins and history. */
int np_gate_number(const struct np_gate *g); /* of the generation that it is about; 0 where it has none yet */
bool np_gate_waits(const struct np_gate *g); /* to be approved */
/* "waiting for approval: 3 new, 1 gone", "its spec is run"; NULL where nothing is to be said. Borrowed until the gate changes. */
const char *np_gate_says(const struct np_gate *g);
void np_gate_json(const struct np_gate *g, struct np_buf *out); /* "stages":[…] */

/* Where the store keeps what came of a generation: the JSON of its stages under "INSTANCE NUMBER", and of the messages that change, an object a
 * line, under "INSTANCE NUMBER messages"; a rule's settings in force, without its secrets, under "INSTANCE settings". */
#define NP_GATE_SPACE "neap.gate"
char *np_gate_settings(struct np_reader *reader, const char *instance); /* those; the caller's; NULL where there are none */
bool np_gate_settings_same(const char *kept, const char *canonical);    /* whether those are these */

#endif
