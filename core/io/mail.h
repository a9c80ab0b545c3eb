/* Mail out, by SMTP (RFC 5321), on one thread's event loop. libcurl connects: it resolves the name, reads the greeting, says EHLO, does STARTTLS and
 * AUTH (PLAIN or LOGIN), all without blocking. The rest of the dialog, from MAIL to the answer to the text, is mail_dialog.c's:
 * libcurl's own waits for that answer, and for the one to QUIT, in a call that blocks the loop.
 * A connection over which a mail has gone rests for some seconds and takes the next mail of the same place, user and certificates.
 * All functions: the loop's thread only, after np_fetch_global_init. */
#ifndef NP_IO_MAIL_H
#define NP_IO_MAIL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "io/fetch.h"

struct event_base;
struct np_mailer;
struct np_mail_call;

#define NP_MAIL_RECIPIENTS 100 /* of one mail: what any server has to take, RFC 5321 4.5.3.1.8 */

struct np_mail {   /* copied by np_mail_start */
  const char *url; /* "smtp://mail.example:587", "smtps://mail.example"; a path is what EHLO says. Without user and password */
  bool plain;      /* smtp without STARTTLS, which is required otherwise */
  const char *user, *password; /* NULL: none */
  const char *cert, *key, *ca; /* PEM, as in np_fetch_request */
  const char *from;            /* addresses as np_mail_is_address has them */
  const char *const *to;       /* 1 to NP_MAIL_RECIPIENTS */
  size_t to_count;
  const void *text; /* RFC 5322, in ASCII; of any line ends: it goes out with CRLF */
  size_t len;
  double timeout; /* seconds for all of it; > 0 */
};

struct np_mail_reply { /* what the server said */
  int status;          /* 250; 0: nothing yet */
  const char *text;    /* "2.1.5 Ok"; of several lines, with a blank between; without control characters */
};

struct np_mail_answer { /* borrowed, valid during the callback */
  /* NULL: the server has taken the mail, for at least one recipient. Else nobody has it, as far as can be told:
   *   "timeout" "resolve" "connect" "tls" "cut" "near" "bad_url" "other"   there was no answer, as in np_fetch_answer
   *   "later"      the server says to try again (4xx)
   *   "settings"   it refuses (5xx) what is the same for every mail: us, the user, the sender, or all of the recipients
   *   "refused"    it refuses (5xx) this text, or its size */
  const char *code;
  const char *why;                /* a sentence, where code is set */
  struct np_mail_reply last;      /* status 0 where it has said nothing */
  const struct np_mail_reply *to; /* to_count of them: of each recipient; status 0 where it was not asked */
};

typedef void np_mail_done(void *arg, const struct np_mail_answer *answer);

/* Of the options, ca_file, names_lead_anywhere, script and script_arg count. A script is asked as method "MAIL", with the headers "from: …", "to: …, …"
 * and, where there is one, "user: …"; its status is the server's last answer, its body the words, its headers "address: 550 words" of recipients, and "stage: auth",
 * "stage: mail" or "stage: data" where that answer is not to the text. */
struct np_mailer *np_mailer_new(struct event_base *base, const struct np_fetch_options *options, struct np_error *err);
void np_mailer_free(struct np_mailer *m); /* cancels what runs; not from within a callback */

/* Starts. The callback comes later, never from within this call. NULL and err where the mail makes no sense. A URL that cannot be asked comes back
 * as "bad_url". */
struct np_mail_call *np_mail_start(struct np_mailer *m, const struct np_mail *mail, np_mail_done *done, void *arg,
                                   struct np_error *err);
/* Gives up: the callback will not be called. What the server has of the text it may still take. */
void np_mail_cancel(struct np_mail_call *call);

/* A mailbox in ASCII, as "desk@ward.example": a dot-atom, @, a domain's name. No quoted parts, no comments, no SMTPUTF8. */
bool np_mail_is_address(const char *address);

#endif
