/* Requests: from the server's callbacks through a plugin's handler and the keeper to the answer. Lane's thread. */
#ifndef NP_HOST_WEB_H
#define NP_HOST_WEB_H

#include "io/serve.h"

extern const struct np_server_handler np_web; /* its arg is the struct np_lane */

#endif
