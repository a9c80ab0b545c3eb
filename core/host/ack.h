/* Acknowledgements: that somebody has taken note of a message. The first one of a message counts, and is kept as long as the message is. What is kept
 * of it is a JSON object: {"at": ms, "by": "anna", "note": "…"}, note only where there is one. */
#ifndef NP_HOST_ACK_H
#define NP_HOST_ACK_H

#include <stdbool.h>

#include <lua.h>

#include "store/store.h"

enum { NP_ACK_BY = 200, NP_ACK_NOTE = 2000 }; /* bytes at the most */

/* Whether they can be kept: -1 and err, "by: …". note absent: none. */
int np_ack_check(struct np_text by, struct np_text note, struct np_error *err);
/* Adds the operation to ws. 1; 0 where no message has that id, or it is no longer kept; -1 and err. */
int np_ack_add(struct np_writeset *ws, struct np_reader *r, const char *id, struct np_text by, struct np_text note, int64_t at,
               struct np_error *err);
/* Adds what there is to say of a message to an object that has begun: "acknowledged":{…}, or "unacknowledged":true where it asks for one and has none. */
int np_ack_line(struct np_buf *b, struct np_reader *r, const char *id, struct np_error *err);

/* plugin:acknowledge and plugin:acknowledged. */
int np_acknowledge(lua_State *L), np_acknowledged(lua_State *L);

#endif
