/* What a plugin asks of neap.mqtt: its options and messages, checked. All raise on misuse. */
#ifndef NP_LIB_MQTT_ASKED_H
#define NP_LIB_MQTT_ASKED_H

#include <lua.h>

#include "io/mqtt.h"

#define NP_MQTT_HOST_MAX 256

/* The options at 1. Their texts are kept in the table at `kept`. */
void np_mqtt_ask(lua_State *L, int kept, struct np_mqtt_options *o, char host[static NP_MQTT_HOST_MAX]);
/* The list of messages at `at`. Leaves on the stack what they borrow from. */
struct np_mqtt_message *np_mqtt_ask_messages(lua_State *L, int at, size_t *count);
/* The options of client:publish at `at`; what they do not say is left as it is. */
void np_mqtt_ask_publish(lua_State *L, int at, double *timeout, uint64_t *connection);
/* The value at `at`: seconds, a duration such as "10s", or nil. */
double np_mqtt_ask_seconds(lua_State *L, int at, const char *name, double otherwise);

#endif
