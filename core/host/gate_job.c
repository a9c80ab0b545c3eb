/* The slow stages of the gate. */
#include "host/gate_job.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"

static void run_shadow(struct np_gate_job *job) {
  struct np_error err;
  struct np_reader *reader = np_reader_open(job->store, &err);
  int64_t last = reader ? np_reader_last_seq(reader) : -1;
  struct np_shadow_span span = {.after = last > job->readings ? last - job->readings : 0,
                                .upto = last,
                                .until = np_now_ms(),
                                .work_us = job->time * 1000,
                                .stop = job->stop};
  if (reader && last < 0) np_fail(&err, "the store cannot be read");
  if (last < 0) {
    job->failed = np_strdup(err.text);
  } else {
    struct np_instance *old = job->old, *fresh = job->fresh;
    job->old = job->fresh = NULL;
    if (last == 0) span.upto = 1; /* nothing yet: 0 would be all */
    if (np_shadow_compare(old, fresh, job->to, reader, &span, &job->report, &err) < 0)
      job->failed = np_strdup(err.text);
    else
      job->compared = true;
    job->report.wanted = last - span.after;
  }
  if (reader) np_reader_close(reader);
}

void np_gate_job_run(struct np_gate_job *job) {
  if (job->spec) {
    job->spec_passed = np_gate_spec_run(job->spec, job->plugins, job->time, job->stop, &job->spec_said);
    if (!job->spec_passed) return;
  }
  if (job->old && job->fresh) run_shadow(job);
}

void np_gate_job_free(struct np_gate_job *job) {
  if (!job) return;
  if (job->old) np_instance_close(job->old);
  if (job->fresh) np_instance_close(job->fresh);
  np_epoch_unref(job->to);
  np_shadow_report_free(&job->report);
  free(job->instance), free(job->store), free(job->spec), free(job->plugins), free(job->spec_said), free(job->failed);
  free(job->bundle), free(job->hash), free(job->file);
  free(job);
}
