/* The list of modules that need no host. */
#include "lib/modules.h"

#include "lib/spend.h"

struct np_spending np_spending;

const luaL_Reg np_modules_pure[] = {
    {"neap.crypto", luaopen_neap_crypto},
    {"neap.json", luaopen_neap_json},
    {"neap.time", luaopen_neap_time},
    {"neap.webhooks", luaopen_neap_webhooks},
    {NULL, NULL},
};
