/* Whether a rule's filters match a reading that is in the store, and why: computed now, with what is known now. What they had remembered when the reading
 * came has gone on since, so that what depends on it is told as unknown. */
#include <string.h>

#include "host/admin_line.h"
#include "host/story.h"

static const char *const words[] = {[NP_WHY_NO] = "no", [NP_WHY_YES] = "yes", [NP_WHY_UNKNOWN] = "unknown"};

static int facts(void *arg, const struct np_reading *r, const struct np_facts **out, struct np_error *err) {
  struct np_story *s = arg;
  return np_facts_find(&s->facts, s->host->reader, r->vendor, r->device, out, err);
}

static int before(void *arg, const struct np_reading *r, int64_t to, np_reading_fn *fn, void *fn_arg, struct np_error *err) {
  struct np_story *s = arg;
  return np_reader_before(s->host->reader, r->vendor.ptr, r->device.ptr, r->metric.ptr, to, r->seq, fn, fn_arg, err);
}

static void add_why(void *arg, const char *field, enum np_why why, const char *sentence) {
  struct np_buf *b = ((struct np_story *)arg)->out;
  np_story_next(b);
  np_line_begin(b);
  np_line_text(b, "field", field);
  np_line_text(b, "fits", words[why]);
  np_line_text(b, "why", sentence);
  np_buf_addc(b, '}');
}

enum np_why np_story_matches(struct np_story *s, const struct np_status *rule, const struct np_reading *r) {
  const struct np_filter_world world = {.facts = facts, .before = before, .arg = s};
  enum np_why best = NP_WHY_NO;
  np_story_field(s->out, "filters");
  np_buf_addc(s->out, '[');
  for (size_t i = 0; i < rule->code->on_count; i++) {
    np_story_next(s->out);
    np_buf_adds(s->out, "{\"why\":[");
    enum np_why why = np_filter_why(rule->code->ons[i].filter, r, &world, add_why, s);
    np_buf_addf(s->out, "],\"matches\":\"%s\"}", words[why]);
    if (why == NP_WHY_YES || (why == NP_WHY_UNKNOWN && best == NP_WHY_NO)) best = why;
  }
  np_buf_addc(s->out, ']');
  np_line_text(s->out, "matches", words[best]);
  return best;
}
