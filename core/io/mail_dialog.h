/* The dialog of one mail, from MAIL to the answer to its text: bytes in, bytes out. Private to core/io/mail*.c. */
#ifndef NP_IO_MAIL_DIALOG_H
#define NP_IO_MAIL_DIALOG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "io/mail.h"

enum np_mail_stage { NP_MAIL_CONNECT, NP_MAIL_FROM, NP_MAIL_RCPT, NP_MAIL_DATA, NP_MAIL_TEXT };

struct np_mail_dialog {
  const char *from; /* borrowed, like `to` and `text` */
  char *const *to;
  size_t to_count;
  const char *text; /* its lines end with CRLF, the last one too */
  size_t len;

  enum np_mail_stage stage; /* of the last command */
  bool over;                /* nothing more is to be said */
  size_t next;              /* recipient that RCPT was said of */
  size_t accepted;          /* recipients */
  struct np_buf out;        /* owned: to be sent; who sends empties it */
  struct np_buf in;         /* owned: of a line that is not whole yet */
  struct np_buf words;      /* owned: of an answer that is not whole yet */
  size_t heard;             /* bytes of such an answer */
  struct np_mail_reply last;
  char *last_text;           /* owned: last.text */
  struct np_mail_reply *got; /* owned, with its texts: of each recipient */
};

/* d's first five are set, the rest zero. Puts the first command in d->out. `size`: the server wants to know it (RFC 1870). */
void np_mail_dialog_begin(struct np_mail_dialog *d, bool size);
/* Takes what the server sent. -1 and err where it is no SMTP, has no end, or answers what is in d->out still. */
int np_mail_dialog_take(struct np_mail_dialog *d, const char *bytes, size_t n, struct np_error *err);
/* Takes a line of an answer, "250-first" or "250 second", without acting upon it: what libcurl reads while it connects, and a test's. True where the
 * answer is whole, and is d->last. */
bool np_mail_dialog_line(struct np_mail_dialog *d, const char *line, size_t n);
/* -1 and err where an answer is longer than any that makes sense. */
int np_mail_dialog_bound(const struct np_mail_dialog *d, struct np_error *err);
/* The last answer is also the one of the recipient d->next. */
void np_mail_dialog_keep(struct np_mail_dialog *d);
/* What the answers come to: NULL where the mail is taken, else a code of np_mail_answer's and, in `why`, the sentence. */
const char *np_mail_dialog_judge(const struct np_mail_dialog *d, struct np_buf *why);
void np_mail_dialog_free(struct np_mail_dialog *d);

#endif
