/* Lines of JSON for the admin socket. Private to it. */
#ifndef NP_HOST_ADMIN_LINE_H
#define NP_HOST_ADMIN_LINE_H

#include "base/buf.h"
#include "host/deploy.h"
#include "host/gate.h"
#include "store/store.h"

/* One object a line: begin, any fields, end. Secrets in texts are masked. */
void np_line_begin(struct np_buf *b);
void np_line_text(struct np_buf *b, const char *name, const char *value); /* NULL is left out */
void np_line_value(struct np_buf *b, const struct np_value *v);           /* "value":… */
void np_line_int(struct np_buf *b, const char *name, int64_t value);
void np_line_more(struct np_buf *b, const char *fields, size_t n); /* JSON as it stands: "name":value,… */
void np_line_end(struct np_buf *b);

void np_line_error(struct np_buf *b, const char *error);
void np_line_reading(struct np_buf *b, const struct np_reading *r);
void np_line_device(struct np_buf *b, const struct np_device *d);
void np_line_status(struct np_buf *b, const struct np_status *s, struct np_host *host);
void np_line_gate(struct np_buf *b, const struct np_gate *g); /* nothing where it is NULL */
void np_line_summary(struct np_buf *b, struct np_host *host);
void np_line_message(struct np_buf *b, const struct np_sent *s); /* and what has become of it; without its body */
/* A message's body, without what its destination's terms redact: nothing of it where the destination is not in force. */
void np_line_body(struct np_buf *b, struct np_host *host, const char *destination, struct np_text body);
void np_line_attempt(struct np_buf *b, const struct np_attempt *a);
void np_line_exchange(struct np_buf *b,
                      const struct np_attempt *a); /* what it asked and was answered, headers too, where that is kept */
/* How a destination's circuit stands: circuit, and failures, failing_since, next_probe, paused_until where there are any; probed is for people. */
void np_line_outlet(struct np_buf *b, struct np_host *host, const char *destination);
void np_line_change(struct np_buf *b, struct np_deploy_change change);

#endif
