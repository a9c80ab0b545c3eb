/* Calls of mail out: checked and copied, given to a connection, told. */
#include "io/mail.h"

#include <ctype.h>
#include <event2/event.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "io/mail_parts.h"

#define LINE_MOST 998 /* bytes, without its CRLF */

/* Addresses, RFC 5321 4.1.2 and 4.5.3.1 */

static bool is_atext(char c) { return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+/=?^_`{|}~-", c)); }
static bool is_ldh(char c) { return isalnum((unsigned char)c) || c == '-'; }

/* Words of such characters with a full stop between. */
static bool is_dotted(const char *s, size_t n, bool (*is)(char c), size_t most, size_t word_most) {
  size_t word = 0;
  if (!n || n > most) return false;
  for (size_t i = 0; i < n; i++) {
    if (s[i] == '.' ? !word : !is(s[i]) || ++word > word_most) return false;
    if (s[i] == '.') word = 0;
  }
  return word > 0;
}

bool np_mail_is_address(const char *address) {
  const char *at = strchr(address, '@');
  return at && is_dotted(address, (size_t)(at - address), is_atext, 64, 64) && is_dotted(at + 1, strlen(at + 1), is_ldh, 255, 63);
}

/* Making and freeing */

/* Sets call's name, or says what is wrong with the URL. */
static const char *read_url(struct np_mail_call *call, const char *url) {
  CURLU *u = curl_url();
  char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL, *password = NULL;
  const char *wrong = NULL;
  CURLUcode bad = u ? curl_url_set(u, CURLUPART_URL, url, 0) : CURLUE_OUT_OF_MEMORY;
  if (bad != CURLUE_OK)
    wrong = "it is not a URL";
  else if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) || (strcmp(scheme, "smtp") != 0 && strcmp(scheme, "smtps") != 0))
    wrong = "only smtp and smtps URLs take mail";
  else if (!curl_url_get(u, CURLUPART_USER, &user, 0) || !curl_url_get(u, CURLUPART_PASSWORD, &password, 0))
    wrong = "user and password are not a part of the URL";
  else if (curl_url_get(u, CURLUPART_HOST, &host, 0) || curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT))
    wrong = "it has no host";
  if (!wrong) {
    struct np_buf name = {0};
    np_buf_addf(&name, "%s:%s", host, port);
    for (char *c = name.data; *c; c++) *c = (char)tolower((unsigned char)*c);
    call->name = name.data;
  }
  curl_free(scheme), curl_free(host), curl_free(port), curl_free(user), curl_free(password);
  curl_url_cleanup(u);
  return wrong;
}

static void add_part(struct np_mail_place *p, const char *s) { np_buf_add(&p->bytes, s ? s : "", (s ? strlen(s) : 0) + 1); }

/* What any server takes, without asking for extensions: RFC 5321 4.5.3.1.6, RFC 5322 2.1.1. */
static bool is_plain_text(const char *s, size_t n) {
  for (size_t i = 0, line = 0; i < n; i++) {
    line = s[i] == '\n' ? 0 : line + (s[i] != '\r');
    if (!s[i] || (unsigned char)s[i] > 126 || line > LINE_MOST) return false;
  }
  return true;
}

/* With CRLF at each line's end, the last one's too. */
static void add_text(struct np_buf *to, const char *s, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (s[i] == '\r' && i + 1 < n && s[i + 1] == '\n') continue;
    if (s[i] == '\n' || s[i] == '\r')
      np_buf_add(to, "\r\n", 2);
    else
      np_buf_addc(to, s[i]);
  }
  if (!to->len || to->data[to->len - 1] != '\n') np_buf_add(to, "\r\n", 2);
}

static int check(const struct np_mail *mail, struct np_error *err) {
  if (!np_mail_is_address(mail->from)) return np_fail(err, "the sender is no address");
  if (mail->to_count < 1 || mail->to_count > NP_MAIL_RECIPIENTS)
    return np_fail(err, "a mail has 1 to %d recipients, not %zu", NP_MAIL_RECIPIENTS, mail->to_count);
  for (size_t i = 0; i < mail->to_count; i++)
    if (!np_mail_is_address(mail->to[i])) return np_fail(err, "recipient %zu is no address", i + 1);
  if (!is_plain_text(mail->text, mail->len))
    return np_fail(err, "a mail's text is ASCII, in lines of at most %d bytes: all else has to be encoded (RFC 2045, 2047)",
                   LINE_MOST);
  if (mail->password && *mail->password && !(mail->user && *mail->user)) return np_fail(err, "a password needs its user");
  if (mail->key && *mail->key && !(mail->cert && *mail->cert)) return np_fail(err, "a client's key needs its certificate");
  if (!(mail->timeout > 0) || mail->timeout > 1e9) return np_fail(err, "the timeout must be more than 0 seconds");
  return 0;
}

static void unlink_call(struct np_mail_call *call) {
  if (call->prev)
    call->prev->next = call->next;
  else
    call->m->calls = call->next;
  if (call->next) call->next->prev = call->prev;
}

static void free_call(struct np_mail_call *call) {
  event_free(call->soon);
  event_free(call->deadline);
  np_mail_dialog_free(&call->dialog); /* it knows how many recipients there are */
  np_mail_place_free(&call->place);
  for (size_t i = 0; i < call->dialog.to_count; i++) free(call->to[i]);
  free(call->to);
  free(call->from);
  free(call->name);
  np_buf_free(&call->text);
  np_buf_free(&call->why);
  free(call);
}

/* The end of a call */

static void tell(struct np_mail_call *call) {
  struct np_buf why = {0};
  if (call->name) np_buf_addf(&why, "%s: ", call->name);
  np_buf_adds(&why, np_buf_text(&call->why));
  struct np_mail_answer a = {
      .code = call->code, .why = call->code ? np_buf_text(&why) : NULL, .last = call->dialog.last, .to = call->dialog.got};
  unlink_call(call);
  call->done(call->arg, &a);
  np_buf_free(&why);
  free_call(call);
}

static void begin(struct np_mail_call *call);

/* A connection that had rested was closed meanwhile, and the server has nothing of the text: it is tried with a new one. */
static bool begin_anew(struct np_mail_call *call) {
  struct np_mail_dialog *d = &call->dialog;
  bool gone = !call->code ? d->last.status == 421 : strcmp(call->code, "cut") == 0;
  if (!gone || !call->session->used || d->stage == NP_MAIL_TEXT) return false;
  np_mail_session_close(call->session, false);
  np_mail_dialog_free(d);
  *d = (struct np_mail_dialog){.from = d->from, .to = d->to, .to_count = d->to_count, .text = d->text, .len = d->len};
  call->session = NULL;
  call->code = NULL;
  call->fresh = true;
  begin(call);
  return true;
}

void np_mail_call_end(struct np_mail_call *call, const char *code, const char *why) {
  struct np_mail_session *s = call->session;
  call->code = code;
  if (s && begin_anew(call)) return;
  if (code)
    np_buf_adds(&call->why, why);
  else
    call->code = np_mail_dialog_judge(&call->dialog, &call->why);
  call->session = NULL;
  if (s && !call->code)
    np_mail_session_rest(s);
  else if (s)
    np_mail_session_close(s, !code && !call->dialog.out.len); /* a farewell within a text would be a part of it */
  tell(call);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_mail_call *call = arg;
  char why[160];
  bool said = call->dialog.stage == NP_MAIL_TEXT && !call->dialog.out.len; /* all of it is sent */
  snprintf(why, sizeof why, "no answer within %g s%s", call->timeout, said ? "; it had the text, and may have taken it" : "");
  np_mail_call_end(call, "timeout", why);
}

/* Scripts: see fetch.h */

/* The recipients whom the script's headers name have that answer, all others are taken. True where one is. */
static bool script_recipients(struct np_mail_dialog *d, const char *headers) {
  for (d->next = 0; d->next < d->to_count; d->next++) {
    const char *to = d->to[d->next], *line = headers;
    size_t n = strlen(to);
    while (*line && (strncasecmp(line, to, n) != 0 || line[n] != ':')) line = strchr(line, '\n') + 1;
    const char *said = *line ? line + n + 1 + strspn(line + n + 1, " ") : "250 Ok\n";
    np_mail_dialog_line(d, said, strcspn(said, "\n"));
    np_mail_dialog_keep(d);
  }
  return d->accepted > 0;
}

static enum np_mail_stage script_stage(const char *headers) {
  if (strstr(headers, "stage: auth\n")) return NP_MAIL_CONNECT;
  if (strstr(headers, "stage: mail\n")) return NP_MAIL_FROM;
  return strstr(headers, "stage: data\n") ? NP_MAIL_DATA : NP_MAIL_TEXT;
}

static void take_script(struct np_mail_call *call, const struct np_fetch_scripted *a) {
  struct np_mail_dialog *d = &call->dialog;
  struct np_buf line = {0};
  const char *headers = np_buf_text(&a->headers);
  np_buf_addf(&line, "%03d %s", a->status, np_buf_text(&a->body));
  d->got = np_alloc((d->to_count + 1) * sizeof *d->got);
  d->stage = script_stage(headers);
  if (d->stage >= NP_MAIL_RCPT && !script_recipients(d, headers))
    d->stage = NP_MAIL_RCPT;
  else
    np_mail_dialog_line(d, line.data, line.len);
  np_buf_free(&line);
  np_mail_call_end(call, NULL, NULL);
}

static void ask_script(struct np_mail_call *call) {
  struct np_fetch_scripted a = {0};
  struct np_buf from = {0}, to = {0}, user = {0};
  np_buf_addf(&from, "from: %s", call->from);
  for (size_t i = 0; i < call->dialog.to_count; i++) np_buf_addf(&to, "%s %s", i ? "," : "to:", call->to[i]);
  np_buf_addf(&user, "user: %s", np_mail_place_part(&call->place, NP_MAIL_USER));
  const char *headers[] = {from.data, to.data, user.data};
  struct np_fetch_request r = {.method = "MAIL",
                               .url = np_mail_place_part(&call->place, NP_MAIL_URL),
                               .headers = headers,
                               .header_count = *np_mail_place_part(&call->place, NP_MAIL_USER) ? 3 : 2,
                               .body = call->text.data,
                               .body_len = call->text.len,
                               .timeout = call->timeout};
  call->m->script(call->m->script_arg, &r, &a);
  np_buf_free(&from), np_buf_free(&to), np_buf_free(&user);
  if (a.code)
    np_mail_call_end(call, a.code, a.why);
  else
    take_script(call, &a);
  np_buf_free(&a.headers), np_buf_free(&a.body);
}

/* Running */

static void begin(struct np_mail_call *call) {
  if (call->m->script)
    ask_script(call);
  else if (call->fresh || !np_mail_session_reuse(call))
    np_mail_session_open(call);
}

static void on_soon(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_mail_call *call = arg;
  if (call->code)
    tell(call);
  else
    begin(call);
}

static struct np_mail_call *copy(struct np_mailer *m, const struct np_mail *mail) {
  struct np_mail_call *call = np_alloc(sizeof *call);
  const char *parts[] = {mail->url, mail->plain ? "plain" : "", mail->user, mail->password, mail->cert, mail->key, mail->ca};
  call->m = m;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) add_part(&call->place, parts[i]);
  call->from = np_strdup(mail->from);
  call->to = np_alloc(mail->to_count * sizeof *call->to);
  for (size_t i = 0; i < mail->to_count; i++) call->to[i] = np_strdup(mail->to[i]);
  add_text(&call->text, mail->text, mail->len);
  call->timeout = mail->timeout;
  call->dialog = (struct np_mail_dialog){
      .from = call->from, .to = call->to, .to_count = mail->to_count, .text = call->text.data, .len = call->text.len};
  return call;
}

struct np_mail_call *np_mail_start(struct np_mailer *m, const struct np_mail *mail, np_mail_done *done, void *arg,
                                   struct np_error *err) {
  if (check(mail, err) < 0) return NULL;
  struct np_mail_call *call = copy(m, mail);
  call->done = done;
  call->arg = arg;
  call->soon = evtimer_new(m->curl.base, on_soon, call);
  call->deadline = evtimer_new(m->curl.base, on_deadline, call);
  if (!call->soon || !call->deadline) abort(); /* as np_alloc */
  double whole;
  double part = modf(mail->timeout, &whole);
  event_add(call->deadline, &(struct timeval){.tv_sec = (time_t)whole, .tv_usec = (suseconds_t)(part * 1e6)});
  const char *wrong = read_url(call, mail->url);
  if (wrong) {
    call->code = "bad_url";
    np_buf_adds(&call->why, wrong);
  }
  call->next = m->calls;
  if (m->calls) m->calls->prev = call;
  m->calls = call;
  event_active(call->soon, EV_TIMEOUT, 0);
  return call;
}

void np_mail_cancel(struct np_mail_call *call) {
  if (call->session) np_mail_session_close(call->session, false);
  unlink_call(call);
  free_call(call);
}

/* The mailer */

static void ended(void *arg, CURL *easy, CURLcode result) {
  (void)arg;
  struct np_mail_session *s = NULL;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &s);
  if (s->call) np_mail_session_ended(s, result);
}

static void settled(void *arg) { (void)arg; }

struct np_mailer *np_mailer_new(struct event_base *base, const struct np_fetch_options *o, struct np_error *err) {
  struct np_mailer *m = np_alloc(sizeof *m);
  m->curl = (struct np_curl){.base = base, .ended = ended, .settled = settled, .arg = m};
  m->names_lead_anywhere = o->names_lead_anywhere;
  m->script = o->script;
  m->script_arg = o->script_arg;
  m->trust = np_fetch_trust_new(o->ca_file, err);
  if (m->trust && np_curl_open(&m->curl) == 0) return m;
  if (m->trust) np_fail(err, "mail out does not start: out of memory or descriptors");
  np_mailer_free(m);
  return NULL;
}

void np_mailer_free(struct np_mailer *m) {
  if (!m) return;
  for (struct np_mail_call *call = m->calls, *next; call; call = next) {
    next = call->next;
    np_mail_cancel(call);
  }
  for (struct np_mail_session *s = m->resting, *next; s; s = next) {
    next = s->next;
    np_mail_session_close(s, true);
  }
  np_curl_close(&m->curl);
  np_fetch_trust_free(m->trust);
  free(m);
}
