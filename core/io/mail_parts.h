/* Calls and connections of mail out. Private to core/io/mail*.c. */
#ifndef NP_IO_MAIL_PARTS_H
#define NP_IO_MAIL_PARTS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "io/curl_loop.h"
#include "io/fetch_trust.h"
#include "io/mail.h"
#include "io/mail_dialog.h"

struct event;
struct np_mail_session;

struct np_mailer {
  struct np_curl curl;
  struct np_fetch_trust *trust; /* owned */
  bool names_lead_anywhere;
  void (*script)(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer); /* see fetch.h */
  void *script_arg;
  struct np_mail_call *calls;      /* all of them */
  struct np_mail_session *resting; /* the newest first */
  int resting_count;
};

/* Where a mail goes and as whom: texts one behind the other, each ended by a 0. A connection is for one place. */
struct np_mail_place {
  struct np_buf bytes; /* owned; wiped when freed */
};
enum np_mail_place_part { NP_MAIL_URL, NP_MAIL_PLAIN, NP_MAIL_USER, NP_MAIL_PASSWORD, NP_MAIL_CERT, NP_MAIL_KEY, NP_MAIL_CA };
const char *np_mail_place_part(const struct np_mail_place *p, enum np_mail_place_part which); /* "" is none */
void np_mail_place_copy(struct np_mail_place *to, const struct np_mail_place *from);
void np_mail_place_free(struct np_mail_place *p);

struct np_mail_call {
  struct np_mailer *m; /* borrowed */
  struct np_mail_call *prev, *next;
  struct event *soon, *deadline; /* owned */
  struct np_mail_place place;
  char *name;         /* owned: "host:port", NULL where the URL is bad */
  char *from, **to;   /* owned */
  struct np_buf text; /* owned */
  double timeout;
  struct np_mail_dialog dialog;
  struct np_mail_session *session; /* NULL before and after */
  bool fresh;                      /* no connection that has rested */
  const char *code;                /* static; set where it failed */
  struct np_buf why;               /* owned */
  np_mail_done *done;
  void *arg;
};

/* The dialog is over, or there is no going on: `code` NULL leaves it to the answers. Last: it frees the call, and may close the session. */
void np_mail_call_end(struct np_mail_call *call, const char *code, const char *why);

struct np_mail_session {
  struct np_mailer *m;                       /* borrowed */
  struct np_mail_session *next;              /* in m->resting */
  struct np_mail_call *call;                 /* NULL while it rests */
  CURL *easy;                                /* owned, in m's multi handle from the start to the end */
  struct event *readable, *writable, *tired; /* owned; NULL until it is connected */
  struct np_mail_place place;
  size_t sent;           /* of the dialog's out */
  char *name;            /* owned: "host:port" */
  bool near, size, used; /* a name led where it may not; the server wants sizes; a mail has gone over it */
  bool asks, known;      /* the server offers AUTH; it has taken user and password */
  char error[CURL_ERROR_SIZE];
};

/* Connects, and goes on with the call's dialog. */
void np_mail_session_open(struct np_mail_call *call);
/* One that rests and is for the call's place goes on with its dialog; false where there is none. */
bool np_mail_session_reuse(struct np_mail_call *call);
void np_mail_session_ended(struct np_mail_session *s, CURLcode result); /* curl is done with connecting */
void np_mail_session_rest(struct np_mail_session *s);
/* polite: between two mails, so that QUIT has its place; nobody waits for the answer. */
void np_mail_session_close(struct np_mail_session *s, bool polite);

#endif
