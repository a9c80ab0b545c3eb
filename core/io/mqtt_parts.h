/* Private to core/io/mqtt*.c. */
#ifndef NP_IO_MQTT_PARTS_H
#define NP_IO_MQTT_PARTS_H

#include <openssl/ssl.h>

#include "base/arena.h"
#include "io/aside.h"
#include "io/mqtt.h"

struct event;
struct mosquitto;
struct mqtt5__property; /* of libmosquitto */

/* The way to a broker, as a thread of its own finds it (mqtt_way.c). */

struct np_mqtt_tls {
  SSL_CTX *context; /* owned */
  char host[256];   /* whose certificate it has to be */
  char why[200];    /* why the last one was not taken; "" where none was refused */
};

struct np_mqtt_way {
  struct np_aside_job job; /* first */
  /* What is asked; owned. */
  char *host, *cert, *key, *ca, *ca_file;
  int port;
  bool anywhere; /* a name may lead to this machine */
  bool tls_wanted;
  /* What was found. */
  const char *code; /* NULL: all of it */
  char why[520];
  char **addresses; /* owned, and each: numeric */
  size_t count;
  struct np_mqtt_tls *tls; /* owned, where it was wanted */
};

/* A job for np_aside_start. with_tls: the certificates are to be read too. */
struct np_mqtt_way *np_mqtt_way_new(const struct np_mqtt_net *net, const struct np_mqtt_options *o, bool with_tls);
void np_mqtt_tls_free(struct np_mqtt_tls *tls);

/* The client (mqtt.c). */

enum np_mqtt_state { NP_MQTT_DOWN, NP_MQTT_SEEKING, NP_MQTT_CONNECTING, NP_MQTT_GREETING, NP_MQTT_UP };

struct np_mqtt {
  const struct np_mqtt_net *net; /* borrowed */
  struct np_mqtt_options o;      /* its texts in arena */
  struct np_arena arena;
  enum np_mqtt_state state;
  struct np_aside *seeking; /* while SEEKING */
  char **addresses;         /* owned, and each; of the attempt that is made */
  size_t address_count, next_address;
  struct np_mqtt_tls *tls; /* owned; made once */
  int fd; /* owned: of the same socket as libmosquitto's, which closes its own before the loop could forget it; -1 where there is none */
  struct mosquitto *m;                       /* owned; NULL while DOWN or SEEKING */
  struct event *readable, *writable, *timer; /* owned */
  int64_t until;                             /* us: the end of the attempt */
  uint64_t connection;                       /* how many there have been */
  int inflight;                              /* messages sent and not settled, of all calls */
  struct np_mqtt_call *first, **last;        /* not over yet, in order */
  bool greeted, closed, no_retain;           /* noted by callbacks */
  bool answered, endless; /* likewise: what was read last had an answer in it; the broker sends and sends, and answers nothing */
  uint64_t heard;         /* bytes that had come with the last answer */
  int connack;            /* likewise: with which it was greeted */
  int reason;             /* likewise: with which the broker has closed it; 0 where it said none */
  char said[200];         /* likewise: the last error that libmosquitto logged */
  char why[520];
};

void np_mqtt_start(struct np_mqtt *m); /* where it is DOWN: connects */
void np_mqtt_lose(struct np_mqtt *m, const char *why);

/* Its calls (mqtt_call.c). */

struct np_mqtt_call {
  struct np_mqtt *m; /* borrowed; NULL: its client is gone */
  struct np_mqtt_call *next;
  const struct np_mqtt_message *messages; /* borrowed */
  size_t count, sent, settled;
  size_t hint;                      /* where the next acknowledgement is looked for first */
  int *mids;                        /* owned: of each that was sent and is not settled; else 0 */
  struct np_mqtt_outcome *outcomes; /* owned */
  uint64_t connection;
  struct event *timer; /* owned */
  np_mqtt_done *done;
  void *arg;
};

void np_mqtt_pump(struct np_mqtt *m); /* sends as many as may be under way */
void np_mqtt_acknowledged(struct np_mqtt *m, int mid, int reason);
void np_mqtt_end_settled(struct np_mqtt *m);
void np_mqtt_end_strangers(struct np_mqtt *m); /* those that ask for another connection than it is now */
/* code: of the whole call; NULL where the outcomes say it. */
void np_mqtt_end(struct np_mqtt_call *c, const char *code, const char *why);
/* What is not settled has that outcome. */
void np_mqtt_end_open(struct np_mqtt_call *c, const char *code, int reason, const char *why);
int np_mqtt_properties(const struct np_mqtt_message *g, struct mqtt5__property **p);

#endif
