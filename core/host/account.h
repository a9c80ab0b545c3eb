/* Accounts: a vendor's tokens, refreshed once for all lanes. One entry for each connection, account and key; it holds the newest token that is stored, one
 * that is not stored yet, and who waits. Under the broker's lock unless it says otherwise. */
#ifndef NP_HOST_ACCOUNT_H
#define NP_HOST_ACCOUNT_H

#include "host/broker.h"
#include "host/plugin.h"

#define NP_ACCOUNTS "neap.accounts" /* space of the store; key "CONNECTION/ACCOUNT/KEY", or as the text of np_account_text */

struct np_token { /* immutable; its references are counted under the lock */
  int refs;
  int64_t serial;            /* counts up with each refresh of the entry, for ever */
  int64_t obtained, expires; /* ms; INT64_MAX: it does not expire */
  char *json;                /* owned: what the refresh returned */
  size_t len;
};

struct np_account {
  char *id;                 /* owned: "CONNECTION/ACCOUNT/KEY" */
  char *connection;         /* owned */
  const char *name;         /* in id: "ACCOUNT/KEY", or "ACCOUNT" where the key is "" */
  char *shown;              /* owned: for logs and people: a key may be somebody's number, so "ACCOUNT/" and a part of its hash */
  bool known;               /* the store has been asked */
  bool bad;                 /* the vendor says that current is no good */
  bool working;             /* a refresh, or the storing of one, is under way */
  struct np_token *current; /* a reference: what calls get; stored */
  struct np_token *fresh;   /* a reference: what a refresh gave and is not stored yet */
  int64_t early;            /* ms: from then on current is refreshed in the background */
  struct np_waits waiting;  /* struct np_token_call */
  /* After a refresh that failed: by which generation, how often in a row, and when there may be another. */
  int generation, failures;
  int64_t not_before; /* us on the monotonic clock */
  char *why;          /* owned: NULL where the last one did not fail */
  const char *code;   /* static */
  unsigned reloads;   /* of the broker, when the last refresh began */
};

/* What a call of account:token got: one of token and why, a reference and a copy; both NULL while it waits. */
struct np_token_call {
  struct np_wait wait;        /* first */
  struct np_account *account; /* borrowed: lives as long as the broker */
  struct np_token *token;
  char *why;        /* owned */
  const char *code; /* static: "denied" "again" "quota" */
};

/* Without the lock; reads the store where it is not known yet. -1 and err where that cannot be read. */
struct np_account *np_account_find(struct np_lane *lane, const char *connection, const char *name, const char *key, size_t key_len,
                                   int64_t early, struct np_error *err);
/* A token, a refusal, or true: the call has to wait (it stands in the list). Without the lock. */
bool np_account_ask(struct np_token_call *c, struct np_instance *in, const struct np_account_decl *decl);
/* That token is no good. false where id is none of that account's. Without the lock. */
bool np_account_expired(struct np_broker *b, const char *connection, const char *name, const char *id, int64_t serial);
void np_token_unref(struct np_token *t); /* with the lock */
/* The token, a table at idx, is masked in what the running call logs and raises. */
void np_token_hide(lua_State *L, int idx);

/* An operator's reload: what was denied is tried again. Without the lock. */
void np_accounts_reload(struct np_broker *b);
/* ,"accounts":[…] of a connection whose generation that is, and where one is denied ,"denied":"…". Without the lock. */
void np_accounts_describe(struct np_broker *b, const char *connection, int generation, struct np_buf *out);
void np_accounts_settle(struct np_broker *b, struct np_writeset *ws);
void np_accounts_free(struct np_broker *b);

/* The newest that there is, stored or not; NULL. Borrowed under the lock. */
struct np_token *np_account_newest(const struct np_account *a);
void np_account_got(struct np_account *a, struct np_token *t); /* takes t over: it is fresh */
/* Fresh is stored: whoever waits gets it. */
void np_account_stored(struct np_broker *b, struct np_account *a, int64_t early);
/* Whoever waits is told why; there is no other refresh before the back-off is over. ms until then. */
int64_t np_account_failed(struct np_broker *b, struct np_account *a, int generation, const char *why, const char *code);
/* Fresh could not be stored: whoever waits is told why; the next call tries again. */
void np_account_not_stored(struct np_account *a, const char *why);
/* Adds the storing of t to a set. */
void np_account_put(struct np_broker *b, struct np_writeset *ws, const struct np_account *a, const struct np_token *t);

/* core.account(name) -> what plugin:account returns: account_verbs.c. */
int np_account_handle(lua_State *L);

/* A refresh: refresh.c. Takes the account's place as `working`. With the lock. */
struct np_refresh *np_refresh_new(struct np_account *a, struct np_instance *in, const struct np_account_decl *decl);
bool np_refresh_is_of(const struct np_task *t, const struct np_account *a); /* is that call a refresh of that entry? */
void np_refresh_link(struct np_refresh **list, struct np_refresh *r);
void np_refresh_run(struct np_lane *lane, struct np_refresh *list); /* without the lock */
void np_refresh_leave(struct np_lane *lane);                        /* without the lock */

#endif
