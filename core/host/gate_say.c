/* What the gate has found, told. */
#include <string.h>

#include "host/gate_parts.h"

const char *const np_gate_stage_names[NP_STAGES] = {"syntax", "declarations", "configuration", "spec",
                                                    "shadow", "circles",      "routes",        "migration"};
static const char *const verdict_names[] = {"not reached", "passed", "failed", "left out", "running", "differs"};

void np_gate_json(const struct np_gate *g, struct np_buf *out) {
  np_buf_adds(out, "\"stages\":[");
  for (int i = 0; i < NP_STAGES; i++) {
    np_buf_addf(out, "%s{\"stage\":\"%s\",\"verdict\":\"%s\"", i ? "," : "", np_gate_stage_names[i],
                verdict_names[g->stages[i].verdict]);
    if (g->stages[i].said) {
      np_buf_adds(out, ",\"said\":");
      np_buf_add_json(out, g->stages[i].said, strlen(g->stages[i].said));
    }
    np_buf_addc(out, '}');
  }
  np_buf_addc(out, ']');
}
