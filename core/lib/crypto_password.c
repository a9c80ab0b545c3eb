/* Passwords of people, kept as scrypt (RFC 7914) in a text that says how it was made: $scrypt$ln=15,r=8,p=1$SALT$HASH, unpadded base64. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include "base/buf.h"
#include "io/aside.h"
#include "lib/crypto.h"
#include "lib/env.h"

enum { LOG_N = 15, BLOCKS = 8, LANES = 1, SALT = 16, HASH = 32 };
enum { STORED_MAX = 256, PART_MAX = 64 };
#define MEMORY_MAX ((uint64_t)160 << 20)

struct stored {
  unsigned log_n, r, p;
  uint8_t salt[PART_MAX], hash[PART_MAX];
  size_t salt_len, hash_len;
};

/* Each of the N·r·p blocks takes as long as some twenty instructions. */
static void spend(lua_State *L, const struct stored *s) { np_spend(L, ((int64_t)s->r * s->p << s->log_n) * 20); }

static bool derive(const struct stored *s, const char *password, size_t len, uint8_t *out) {
  bool ok =
      EVP_PBE_scrypt(password, len, s->salt, s->salt_len, (uint64_t)1 << s->log_n, s->r, s->p, MEMORY_MAX, out, s->hash_len) == 1;
  ERR_clear_error();
  return ok;
}

/* Deriving aside, while the lane does other work. */

#define CALL "neap.crypto.password"

struct job {
  struct np_aside_job job; /* first */
  struct stored s;
  bool ok;
  uint8_t out[PART_MAX];
  size_t len;
  char password[];
};

struct call {             /* a userdata of the function's, closed when that ends, however it ends */
  struct np_aside *aside; /* NULL before and after */
  struct np_env *env;     /* borrowed */
  void *ticket;
  struct stored s;
  enum { WAITING, LATE, REFUSED, DERIVED } state;
  uint8_t out[PART_MAX];
};

static void work(struct np_aside_job *job) {
  struct job *j = (struct job *)job;
  j->ok = derive(&j->s, j->password, j->len, j->out);
}

static void drop(struct np_aside_job *job) {
  struct job *j = (struct job *)job;
  OPENSSL_cleanse(j, sizeof *j + j->len);
  free(j);
}

static void on_done(void *arg, struct np_aside_job *job, bool finished) {
  struct call *c = arg;
  const struct job *j = (const struct job *)job;
  c->aside = NULL;
  c->state = !finished ? LATE : j->ok ? DERIVED : REFUSED;
  if (c->state == DERIVED) memcpy(c->out, j->out, sizeof c->out);
  c->env->wake(c->ticket);
}

static int close_call(lua_State *L) {
  struct call *c = luaL_checkudata(L, 1, CALL);
  if (c->aside) np_aside_cancel(c->aside);
  c->aside = NULL;
  return 0;
}

/* False: there is no thread to be had. */
static bool start(struct call *c, const char *password, size_t len) {
  struct np_error err;
  struct job *j = np_alloc(sizeof *j + len);
  *j = (struct job){.job = {.work = work, .drop = drop, .heavy = true}, .s = c->s, .len = len};
  memcpy(j->password, password, len);
  c->aside = np_aside_start(c->env->base, &j->job, c->env->time_left(c->env), on_done, c, &err);
  return c->aside != NULL;
}

/* Raises where nothing was derived: nobody shall take what that gives for a text to keep, or for a wrong password. */
static struct call *derived(lua_State *L, lua_KContext context, const char *who) {
  struct call *c = (struct call *)context;
  if (c->state == LATE) luaL_error(L, "%s: no time is left in this call", who);
  if (c->state == REFUSED) luaL_error(L, "%s: OpenSSL refuses, or there is no memory", who);
  if (c->state == WAITING) luaL_error(L, "%s: woken before it was done", who);
  return c;
}

/* Derives from the password at 1, then goes on with `then`, whose context it is: on a thread beside, where the call may wait, else in place. */
static int derive_then(lua_State *L, const struct stored *s, lua_KFunction then) {
  size_t len;
  const char *password = lua_tolstring(L, 1, &len);
  spend(L, s);
  struct call *c = lua_newuserdatauv(L, sizeof *c, 0);
  *c = (struct call){.s = *s, .env = np_env_waits(L, "crypto")};
  luaL_setmetatable(L, CALL);
  lua_toclose(L, -1);
  if (!c->env || !start(c, password, len)) {
    c->state = derive(s, password, len, c->out) ? DERIVED : REFUSED;
    return then(L, LUA_OK, (lua_KContext)c);
  }
  c->ticket = c->env->ticket(c->env);
  return lua_yieldk(L, 0, (lua_KContext)c, then);
}

static int hash_derived(lua_State *L, int status, lua_KContext context) {
  (void)status;
  const struct call *c = derived(L, context, "password_hash");
  char text[STORED_MAX];
  int n = snprintf(text, sizeof text, "$scrypt$ln=%u,r=%u,p=%u$", c->s.log_n, c->s.r, c->s.p);
  for (int part = 0; part < 2; part++) {
    n += (int)np_base64(text + n, part ? c->out : c->s.salt, part ? HASH : SALT, false);
    while (text[n - 1] == '=') n--;
    if (!part) text[n++] = '$';
  }
  lua_pushlstring(L, text, (size_t)n);
  return 1;
}

/*** Makes the text to keep of a password. Takes 32 MB and a tenth of a second, in which the lane does other work; where a call may not wait, as in a
 * rule or a coroutine of your own, it does nothing else. Counts as 5 million instructions.
 * @param password string  @return string */
static int password_hash(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_settop(L, 1);
  struct stored s = {.log_n = LOG_N, .r = BLOCKS, .p = LANES, .salt_len = SALT, .hash_len = HASH};
  if (RAND_bytes(s.salt, SALT) != 1) {
    ERR_clear_error();
    return luaL_error(L, "password_hash: OpenSSL refuses, or there is no memory");
  }
  return derive_then(L, &s, hash_derived);
}

/* One unpadded base64 part of 8 to 64 bytes. */
static bool read_part(const char *text, size_t n, uint8_t *out, size_t *len) {
  char padded[NP_BASE64_SIZE(PART_MAX)];
  uint8_t bytes[PART_MAX + 2];
  size_t whole = (n + 3) / 4 * 4;
  if (n % 4 == 1 || whole > sizeof padded || memchr(text, '=', n)) return false;
  memcpy(padded, text, n);
  memset(padded + n, '=', whole - n);
  ptrdiff_t got = np_unbase64(bytes, padded, whole, NP_BASE64_STRICT);
  if (got < 8 || got > PART_MAX) return false;
  memcpy(out, bytes, *len = (size_t)got);
  return true;
}

/* False where the text was not made by scrypt, or with costs beyond what a lane should bear. */
static bool read_stored(const char *text, struct stored *s) {
  int from = 0;
  if (sscanf(text, "$scrypt$ln=%2u,r=%2u,p=%2u$%n", &s->log_n, &s->r, &s->p, &from) != 3 || !from) return false;
  if (s->log_n < 10 || s->log_n > 17 || s->r < 1 || s->r > 16 || s->p < 1 || s->p > 4) return false;
  if (((uint64_t)128 * s->r << s->log_n) > (uint64_t)128 << 20) return false;
  const char *salt = text + from, *hash = strchr(salt, '$');
  return hash && read_part(salt, (size_t)(hash - salt), s->salt, &s->salt_len) &&
         read_part(hash + 1, strlen(hash + 1), s->hash, &s->hash_len);
}

static int hash_compared(lua_State *L, int status, lua_KContext context) {
  (void)status;
  const struct call *c = derived(L, context, "password_verify");
  lua_pushboolean(L, CRYPTO_memcmp(c->out, c->s.hash, c->s.hash_len) == 0);
  return 1;
}

/*** Tells whether the password is the one that the stored text was made of. Takes as long as password_hash, in the same way.
 * @param password string  @param stored string
 * @return boolean? or nil, why, "format" where the stored text is none of scrypt's, or asks for more than 128 MB */
static int password_verify(lua_State *L) {
  size_t stored_len;
  luaL_checkstring(L, 1);
  const char *text = luaL_checklstring(L, 2, &stored_len);
  struct stored s;
  if (stored_len >= STORED_MAX || strlen(text) != stored_len || !read_stored(text, &s))
    return np_crypto_no(L, "password_verify", "the stored text is not one that this reads", "format");
  lua_settop(L, 2);
  return derive_then(L, &s, hash_compared);
}

const luaL_Reg np_crypto_password[] = {{"password_hash", password_hash}, {"password_verify", password_verify}, {NULL, NULL}};

void np_crypto_password_open(lua_State *L) {
  static const luaL_Reg methods[] = {{"__gc", close_call}, {"__close", close_call}, {NULL, NULL}};
  luaL_newmetatable(L, CALL);
  luaL_setfuncs(L, methods, 0);
  lua_pop(L, 1);
}
