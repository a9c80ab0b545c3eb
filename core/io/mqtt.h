/* MQTT out: libmosquitto as a publisher, driven by one thread's event loop. A client has one connection: it is made when it is first needed, kept, and
 * made anew when it is needed again after it was lost; nothing is sent again by itself. Sessions are clean. Names are resolved, and certificates read,
 * on a thread of its own (io/aside); libmosquitto is given addresses, so that nothing it does blocks.
 * All functions: the loop's thread only. np_mqtt_global_init once in main before threads start. */
#ifndef NP_IO_MQTT_H
#define NP_IO_MQTT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct event_base;
struct np_mqtt;
struct np_mqtt_call;
struct np_fetch_request;
struct np_fetch_scripted;

#define NP_MQTT_PAYLOAD_MAX 268435455u /* bytes: the protocol's bound */

struct np_mqtt_net {        /* what clients of one loop have in common */
  struct event_base *base;  /* borrowed */
  const char *ca_file;      /* borrowed: more trusted certificates, PEM; NULL is the system's */
  bool names_lead_anywhere; /* else a name that leads to loopback or a link-local address is not asked: see core/io/fetch_reach.h */
  /* A test's: answers in place of brokers, asked as "PUBLISH mqtt://host/topic" with the payload as body. NULL: the network. */
  void (*script)(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer);
  void *script_arg;
};

struct np_mqtt_pair { /* a user property: UTF-8 */
  const char *name, *value;
};

struct np_mqtt_message {
  const char *topic; /* NULL: none (of a will) */
  size_t topic_len;
  const void *payload;
  size_t len;
  int qos;
  bool retain;
  /* Version 5 only; left out in 3.1.1. */
  const char *content_type; /* NULL is none */
  const struct np_mqtt_pair *pairs;
  size_t pair_count;
};

struct np_mqtt_options { /* copied */
  const char *url;       /* for messages and scripts: "mqtts://broker.example" */
  const char *host;      /* a name or an address, an IPv6 one without brackets */
  int port;
  bool tls;
  const char *cert, *key, *ca; /* PEM, NULL: as in struct np_fetch_request */
  const char *client_id;
  const char *user, *password; /* NULL is none */
  int version;                 /* 5, or 3 for 3.1.1 */
  int keepalive;               /* seconds, 5 to 65535 */
  int inflight;                /* messages that wait for their acknowledgement at once, at most */
  struct np_mqtt_message will; /* what the broker says when the connection is lost without a goodbye */
};

struct np_mqtt_outcome {
  const char *code; /* NULL: acknowledged. "cut", "timeout", "refused", "too_large", "topic", "qos", "retain", "other"; static */
  int reason;       /* the broker's reason code (128 and more), where it said one; else 0 */
};

struct np_mqtt_answer { /* borrowed, valid during the callback */
  /* NULL: each message has its outcome, in the order given. Else no message was sent: "timeout", "resolve", "near", "connect", "tls", "auth",
   * "version", "busy", "settings", "cut", "other". */
  const char *code;
  const char *why; /* a sentence, where code is set; of outcomes, why the connection was lost where it was, else "" */
  const struct np_mqtt_outcome *outcomes;
  uint64_t connection; /* which one it was: the first is 1; 0 where there was none */
};
typedef void np_mqtt_done(void *arg, const struct np_mqtt_answer *answer);

int np_mqtt_global_init(struct np_error *err);
struct np_mqtt *np_mqtt_new(const struct np_mqtt_net *net, const struct np_mqtt_options *options); /* connects to nothing yet */
/* goodbye: the broker is told, and does not say the will; else it does. No callback is called any more; calls are still to be cancelled. */
void np_mqtt_free(struct np_mqtt *m, bool goodbye);

/* Connects where it is not, then sends count messages in order; none: it only connects. The callback comes later, never from within this call: when each
 * has been acknowledged or refused (QoS 0: written), the connection was lost, or after so many seconds. Messages are borrowed until then, or until
 * it is cancelled. connection: of which they have to be part (else "cut"); 0 is any.
 * Where the time is over for a message that was sent, the connection is given up, so that what is told as not sent does not arrive later. */
struct np_mqtt_call *np_mqtt_publish(struct np_mqtt *m, const struct np_mqtt_message *messages, size_t count, uint64_t connection,
                                     double seconds, np_mqtt_done *done, void *arg);
void np_mqtt_cancel(
    struct np_mqtt_call *call); /* the callback will not be called; what was sent and not acknowledged ends the connection */

/* Why a topic cannot be published to; NULL where it can. */
const char *np_mqtt_topic_wrong(const char *topic, size_t len);
const char *np_mqtt_reason(int reason); /* "Not authorized" */

#endif
