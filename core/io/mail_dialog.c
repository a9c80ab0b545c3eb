/* SMTP's commands and answers, RFC 5321, one by one: a mail's latency is of no account, and what each answer belongs to is plain. */
#include "io/mail_dialog.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define LINE_MAX 4096                 /* bytes; RFC 5321 4.5.3.1.5 has 512 */
#define ANSWER_MAX ((size_t)64 << 10) /* bytes of all its lines */
#define WORDS_MAX 300                 /* of an answer that are kept */

/* Commands */

static void say_rcpt(struct np_mail_dialog *d) {
  d->stage = NP_MAIL_RCPT;
  np_buf_addf(&d->out, "RCPT TO:<%s>\r\n", d->to[d->next]);
}

/* A line that begins with a full stop gets one more, for a full stop alone ends the text: RFC 5321 4.5.2. */
static void say_text(struct np_mail_dialog *d) {
  d->stage = NP_MAIL_TEXT;
  for (const char *line = d->text, *end = d->text + d->len; line < end;) {
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    size_t n = stop ? (size_t)(stop - line) + 1 : (size_t)(end - line);
    if (*line == '.') np_buf_addc(&d->out, '.');
    np_buf_add(&d->out, line, n);
    line += n;
  }
  np_buf_adds(&d->out, ".\r\n");
}

void np_mail_dialog_begin(struct np_mail_dialog *d, bool size) {
  d->stage = NP_MAIL_FROM;
  if (!d->got) d->got = np_alloc((d->to_count + 1) * sizeof *d->got);
  np_buf_addf(&d->out, "MAIL FROM:<%s>", d->from);
  if (size) np_buf_addf(&d->out, " SIZE=%zu", d->len);
  np_buf_adds(&d->out, "\r\n");
}

/* Answers */

static void add_words(struct np_buf *to, const char *s, size_t n) {
  if (to->len && to->len < WORDS_MAX && n) np_buf_addc(to, ' ');
  for (size_t i = 0, c; i < n && to->len < WORDS_MAX; i += c) {
    c = np_utf8_len(s + i, n - i);
    if (c == 0 || iscntrl((unsigned char)s[i])) {
      np_buf_addc(to, c ? ' ' : '?');
      c = 1;
    } else {
      np_buf_add(to, s + i, c);
    }
  }
}

bool np_mail_dialog_line(struct np_mail_dialog *d, const char *line, size_t n) {
  d->heard += n;
  while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
  if (n < 3 || !isdigit((unsigned char)line[0]) || !isdigit((unsigned char)line[1]) || !isdigit((unsigned char)line[2]))
    return false;
  if (n > 4) add_words(&d->words, line + 4, n - 4);
  if (n > 3 && line[3] == '-') return false;
  d->heard = 0;
  free(d->last_text);
  d->last_text = np_strdup(np_buf_text(&d->words));
  np_buf_clear(&d->words);
  d->last = (struct np_mail_reply){(line[0] - '0') * 100 + (line[1] - '0') * 10 + line[2] - '0', d->last_text};
  return true;
}

void np_mail_dialog_keep(struct np_mail_dialog *d) {
  struct np_mail_reply *r = &d->got[d->next];
  free((char *)(uintptr_t)r->text);
  *r = (struct np_mail_reply){d->last.status, np_strdup(d->last.text)};
  if (r->status / 100 == 2) d->accepted++;
}

int np_mail_dialog_bound(const struct np_mail_dialog *d, struct np_error *err) {
  return d->heard > ANSWER_MAX ? np_fail(err, "its answer has more than %zu bytes", ANSWER_MAX) : 0;
}

/* What comes before all of the command, or the text, is sent cannot be the answer to it. Only a refusal is believed there: of what goes on, or of us. */
static bool is_early(const struct np_mail_dialog *d) {
  bool refuses = d->last.status == 421 || (d->stage == NP_MAIL_TEXT && d->last.status >= 400);
  return d->out.len && !refuses;
}

/* 421: the server closes the connection, whatever was asked. */
static void step(struct np_mail_dialog *d) {
  int kind = d->last.status / 100;
  bool goes_on = false;
  switch (d->stage) {
  case NP_MAIL_FROM:
    goes_on = kind == 2;
    if (goes_on) say_rcpt(d);
    break;
  case NP_MAIL_RCPT:
    np_mail_dialog_keep(d);
    goes_on = d->last.status != 421 && (d->next + 1 < d->to_count || d->accepted);
    if (goes_on && ++d->next < d->to_count) {
      say_rcpt(d);
    } else if (goes_on) {
      d->stage = NP_MAIL_DATA;
      np_buf_adds(&d->out, "DATA\r\n");
    }
    break;
  case NP_MAIL_DATA:
    goes_on = d->last.status == 354;
    if (goes_on) say_text(d);
    break;
  case NP_MAIL_CONNECT:
  case NP_MAIL_TEXT: break;
  }
  d->over = !goes_on;
}

int np_mail_dialog_take(struct np_mail_dialog *d, const char *bytes, size_t n, struct np_error *err) {
  for (const char *end = bytes + n; bytes < end && !d->over;) {
    const char *stop = memchr(bytes, '\n', (size_t)(end - bytes));
    size_t part = stop ? (size_t)(stop - bytes) + 1 : (size_t)(end - bytes);
    if (d->in.len + part > LINE_MAX) return np_fail(err, "its answer has a line of more than %d bytes", LINE_MAX);
    np_buf_add(&d->in, bytes, part);
    bytes += part;
    if (!stop) break;
    bool begins = d->in.len > 3 && isdigit((unsigned char)d->in.data[0]) && strchr("- \r\n", d->in.data[3]);
    if (!begins) return np_fail(err, "its answer is no SMTP");
    bool whole = np_mail_dialog_line(d, d->in.data, d->in.len);
    np_buf_clear(&d->in);
    if (np_mail_dialog_bound(d, err) < 0) return -1;
    if (whole && is_early(d)) return np_fail(err, "it answers %d to what was not said yet", d->last.status);
    if (whole) step(d);
  }
  return 0;
}

/* What it comes to */

static const char *const asked[] = {[NP_MAIL_CONNECT] = "",
                                    [NP_MAIL_FROM] = " to the sender",
                                    [NP_MAIL_RCPT] = " to a recipient",
                                    [NP_MAIL_DATA] = " to DATA",
                                    [NP_MAIL_TEXT] = " to the text"};

static const char *judge_recipients(const struct np_mail_dialog *d, struct np_buf *why) {
  const char *code = "settings";
  np_buf_adds(why, "takes none of the recipients");
  for (size_t i = 0; i < d->to_count && d->got[i].status; i++) {
    np_buf_addf(why, "%s %s: %d %s", i ? ";" : ":", d->to[i], d->got[i].status, d->got[i].text);
    if (d->got[i].status / 100 != 5) code = "later";
  }
  return code;
}

/* 552, 5.3.4: too large; of the sender all else is the same for every mail. */
static bool blames_text(const struct np_mail_dialog *d) {
  if (d->stage == NP_MAIL_FROM) return d->last.status == 552 || strncmp(d->last.text, "5.3.4", 5) == 0;
  return d->stage == NP_MAIL_DATA || d->stage == NP_MAIL_TEXT;
}

const char *np_mail_dialog_judge(const struct np_mail_dialog *d, struct np_buf *why) {
  int kind = d->last.status / 100;
  if (d->stage == NP_MAIL_TEXT && kind == 2) return NULL;
  if (d->stage == NP_MAIL_RCPT && !d->accepted && d->last.status != 421) return judge_recipients(d, why);
  np_buf_addf(why, "answered %d%s%s%s", d->last.status, asked[d->stage], *d->last.text ? ": " : "", d->last.text);
  if (kind == 4) return "later";
  if (kind == 5) return blames_text(d) ? "refused" : "settings";
  return "other"; /* nothing that has a meaning there */
}

void np_mail_dialog_free(struct np_mail_dialog *d) {
  for (size_t i = 0; d->got && i < d->to_count; i++) free((char *)(uintptr_t)d->got[i].text);
  free(d->got);
  free(d->last_text);
  np_buf_free(&d->out);
  np_buf_free(&d->in);
  np_buf_free(&d->words);
}
