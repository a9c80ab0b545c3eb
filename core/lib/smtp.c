/* neap.smtp: smtp.send { url =, from =, to = { … }, text = } hands a mail to a server, and returns when that has taken it. It looks as if it blocked, while the
 * lane does other work. It returns { status, text, refused } of the server's last answer and of the recipients it did not take, where it took at least one; else
 * nil, "what: why", a code, and where the server has answered such a table: timeout, resolve, connect, tls, cut, near, bad_url, limit, other; later (4xx), settings (it
 * refuses us, the user, the sender or all recipients), refused (this text, or its size). After timeout and cut it may have taken the mail all the same.
 * url is smtp://host:port, with STARTTLS, or smtps://host:port; a path is what EHLO says. text is the mail as RFC 5322 has it, in ASCII; the library `mail`
 * makes such texts. Only hosts that the plugin's settings name can be reached. Options: user, password (PLAIN or LOGIN; where the server offers no login, the mail is not sent: settings); starttls = false (smtp:// without
 * TLS, a password too); cert, key, ca (PEM, as neap.http has them); timeout (seconds or "10s", 60 s where absent).
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "base/buf.h"
#include "io/mail.h"
#include "lib/env.h"
#include "lib/options.h"
#include "lib/outgoing.h"
#include "lib/spend.h"

int luaopen_neap_smtp(lua_State *L);

#define CALL "neap.smtp.call"
#define TIMEOUT_DEFAULT 60.0
#define TEXT_MOST ((size_t)32 << 20)

struct call {
  struct np_outgoing out;
  struct np_mail mail;          /* until it is started; what it borrows is on the coroutine's stack */
  struct np_mail_call *running; /* NULL before and after */
  bool answered;
  size_t to_count;
  char code[16];         /* "" where it was taken */
  struct np_buf why;     /* owned */
  int status;            /* of the last answer; 0: none */
  struct np_buf text;    /* owned: its words */
  struct np_buf refused; /* owned: "index status words\0" of each recipient that was not taken */
  size_t refused_count;
};

static int close_call(lua_State *L) {
  struct call *c = luaL_checkudata(L, 1, CALL);
  if (c->running) np_mail_cancel(c->running);
  c->running = NULL;
  np_outgoing_end(&c->out);
  np_buf_free(&c->why);
  np_buf_free(&c->text);
  np_buf_free(&c->refused);
  return 0;
}

static void on_answer(void *arg, const struct np_mail_answer *a) {
  struct call *c = arg;
  c->running = NULL;
  c->answered = true;
  if (a->code) {
    strncpy(c->code, a->code, sizeof c->code - 1);
    np_buf_adds(&c->why, a->why);
  }
  c->status = a->last.status;
  if (c->status) np_buf_adds(&c->text, a->last.text);
  for (size_t i = 0; a->to && i < c->to_count; i++) {
    if (!a->to[i].status || a->to[i].status / 100 == 2) continue;
    np_buf_addf(&c->refused, "%zu %d %s", i + 1, a->to[i].status, a->to[i].text);
    np_buf_addc(&c->refused, 0);
    c->refused_count++;
  }
  c->out.env->wake(c->out.ticket);
}

/* The answer */

/* @class neap.Mailed: what a mail server has answered.
 * @field status integer its last answer's: 250
 * @field text string and the words: "2.0.0 Ok: queued as 4F1"
 * @field refused { to: string, status: integer, text: string }[] recipients that it has not taken
 */
static void push_answer(lua_State *L, struct call *c) {
  const char *line = np_buf_text(&c->refused);
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, c->status);
  lua_setfield(L, -2, "status");
  lua_pushlstring(L, np_buf_text(&c->text), c->text.len);
  lua_setfield(L, -2, "text");
  lua_createtable(L, (int)c->refused_count, 0);
  for (size_t i = 0; i < c->refused_count; i++, line += strlen(line) + 1) {
    char *at;
    lua_createtable(L, 0, 3);
    lua_rawgeti(L, 1, (lua_Integer)strtoul(line, &at, 10)); /* the recipients */
    lua_setfield(L, -2, "to");
    lua_pushinteger(L, strtol(at, &at, 10));
    lua_setfield(L, -2, "status");
    lua_pushstring(L, at + 1);
    lua_setfield(L, -2, "text");
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "refused");
}

static int failed(lua_State *L, const char *why, const char *code) {
  lua_pushnil(L);
  lua_pushfstring(L, "smtp: %s", why);
  lua_pushstring(L, code);
  return 3;
}

static int answered(lua_State *L, int status, lua_KContext context) {
  (void)status;
  struct call *c = (struct call *)context;
  if (!c->answered) return luaL_error(L, "smtp: woken before the answer came");
  if (*c->code) failed(L, np_buf_text(&c->why), c->code);
  if (!c->status) return 3;
  push_answer(L, c);
  return *c->code ? 4 : 1;
}

/* The call */

static const char *address(lua_State *L, const char *where) {
  if (lua_type(L, -1) != LUA_TSTRING || strlen(lua_tostring(L, -1)) != lua_rawlen(L, -1) ||
      !np_mail_is_address(lua_tostring(L, -1)))
    luaL_error(L, "smtp: %s has to be an address in ASCII, such as \"desk@ward.example\"", where);
  return lua_tostring(L, -1);
}

/* Leaves the list on the stack. It is copied: who holds it could change it while the call waits. */
static const char **read_recipients(lua_State *L, size_t *count) {
  if (!np_option(L, "to")) luaL_error(L, "smtp: to is missing");
  if (lua_type(L, -1) != LUA_TTABLE) np_option_wrong(L, "smtp", "to", "a list of addresses");
  *count = lua_rawlen(L, -1);
  if (!*count || *count > NP_MAIL_RECIPIENTS) luaL_error(L, "smtp: to has to list 1 to %d addresses", NP_MAIL_RECIPIENTS);
  int given = lua_gettop(L);
  lua_createtable(L, (int)*count, 0);
  const char **to = lua_newuserdatauv(L, *count * sizeof *to, 0);
  for (size_t i = 0; i < *count; i++) {
    char where[32];
    snprintf(where, sizeof where, "to[%zu]", i + 1);
    lua_rawgeti(L, given, (lua_Integer)i + 1);
    to[i] = address(L, where);
    lua_rawseti(L, given + 1, (lua_Integer)i + 1);
  }
  return to;
}

static bool read_plain(lua_State *L, const char *url) {
  if (!np_option(L, "starttls")) return false;
  if (lua_type(L, -1) != LUA_TBOOLEAN) np_option_wrong(L, "smtp", "starttls", "true or false");
  bool plain = !lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (plain && strncmp(url, "smtps:", 6) == 0) luaL_error(L, "smtp: starttls = false is for smtp://, and url is smtps://");
  return plain;
}

static void read_text(lua_State *L, struct np_mail *mail) {
  if (!np_option(L, "text")) luaL_error(L, "smtp: text is missing");
  if (lua_type(L, -1) != LUA_TSTRING) np_option_wrong(L, "smtp", "text", "a string, the mail itself");
  mail->text = lua_tolstring(L, -1, &mail->len);
  if (mail->len > TEXT_MOST) luaL_error(L, "smtp: text is larger than %d MiB", (int)(TEXT_MOST >> 20));
  np_spend(L, (int64_t)(mail->len / 8));
}

/* @class neap.MailOptions: what smtp.send takes.
 * @field url string "smtp://mail.example:587", "smtps://mail.example"
 * @field from string the envelope's sender, an address
 * @field to string[] its recipients
 * @field text string the mail, as RFC 5322 has it, in ASCII
 * @field user? string
 * @field password? string
 * @field starttls? boolean false: smtp:// without TLS
 * @field cert? string the client's certificate, PEM
 * @field key? string its key, PEM
 * @field ca? string PEM: who is trusted, and nobody else is
 * @field timeout? string|number a duration; 60 s where absent
 */
static const char *const option_names[] = {"url",      "from", "to",  "text", "user",   "password",
                                           "starttls", "cert", "key", "ca",   "timeout"};

/* Stack: the options, the call, and then what the mail borrows. */
static void read_mail(lua_State *L, struct np_mail *mail) {
  luaL_checkstack(L, 20, "smtp");
  np_options_known(L, "smtp", option_names, sizeof option_names / sizeof *option_names);
  mail->url = np_option_text(L, "smtp", "url", true);
  mail->plain = read_plain(L, mail->url);
  mail->user = np_option_text(L, "smtp", "user", false);
  mail->password = np_option_text(L, "smtp", "password", false);
  if (mail->password && !mail->user) luaL_error(L, "smtp: password is given without user");
  mail->cert = np_option_pem(L, "smtp", "cert");
  mail->key = np_option_pem(L, "smtp", "key");
  mail->ca = np_option_pem(L, "smtp", "ca");
  if (mail->key && !mail->cert) luaL_error(L, "smtp: key is given without cert");
  if (!np_option(L, "from")) luaL_error(L, "smtp: from is missing");
  mail->from = address(L, "from");
  mail->timeout = np_option_timeout(L, "smtp", TIMEOUT_DEFAULT);
  read_text(L, mail);
  mail->to = read_recipients(L, &mail->to_count); /* last: the list's copy is below the top of the stack */
}

/* Its turn has come, or nobody's has ended in time. Stack: the options, the call, what the mail borrows; the copy of the recipients at the top but one. */
static int set_out(lua_State *L, struct call *c) {
  int top = lua_gettop(L);
  const char *code = np_outgoing_seconds(L, &c->out, &c->mail.timeout);
  if (code) return failed(L, lua_tostring(L, -1), code);
  struct np_error err;
  c->running = np_mail_start(c->out.env->mailer, &c->mail, on_answer, c, &err);
  if (!c->running) return luaL_error(L, "smtp: %s", err.text);
  lua_pushvalue(L, top - 1); /* it takes the options' place, which may be garbage now */
  lua_replace(L, 1);
  lua_settop(L, 2);
  return np_outgoing_wait(L, &c->out, (lua_KContext)c, answered);
}

static int after_turn(lua_State *L, int status, lua_KContext context) {
  (void)status;
  return set_out(L, (struct call *)context);
}

/* smtp.send(options): hands a mail to a server.
 * @param options neap.MailOptions
 * @return neap.Mailed? res, string? why, string? code, neap.Mailed? answer
 */
static int send_mail(lua_State *L) {
  struct np_env *env = np_env(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  np_env_may_wait(L, env, "smtp", env->mailer != NULL);
  struct call *c = lua_newuserdatauv(L, sizeof *c, 0);
  *c = (struct call){.out = {.env = env, .who = "smtp"}};
  luaL_setmetatable(L, CALL);
  lua_toclose(L, 2);
  read_mail(L, &c->mail);
  if (!env->may_reach(env, c->mail.url))
    return luaL_error(
        L, "smtp: %s may not reach that server: only hosts named in its settings can be reached; let a setting hold the URL",
        env->name);
  c->to_count = c->mail.to_count;
  if (np_outgoing_begin(&c->out, c->mail.timeout)) return set_out(L, c);
  return np_outgoing_wait(L, &c->out, (lua_KContext)c, after_turn);
}

int luaopen_neap_smtp(lua_State *L) {
  static const luaL_Reg call_methods[] = {{"__gc", close_call}, {"__close", close_call}, {NULL, NULL}};
  static const luaL_Reg verbs[] = {{"send", send_mail}, {NULL, NULL}};
  luaL_newmetatable(L, CALL);
  luaL_setfuncs(L, call_methods, 0);
  lua_pop(L, 1);
  luaL_newlib(L, verbs);
  return 1;
}
