/* The plugins that came with this neap: share/neap/plugins beside the bin/ that its program is in, or else where `make install` was to put them. */
#ifndef NP_HOST_SHIPPED_H
#define NP_HOST_SHIPPED_H

#include <stdbool.h>

/* Their folder, which may be missing. The caller's to free. */
char *np_shipped_folder(void);
/* For a file that the plugins' folder in use does not have: "; neap came with one: copy it from PATH", or "" where it came with none.
 * The caller's to free. A plugin's chunk may ask a thousand times, so it looks at a few paths and does not read the folder. */
char *np_shipped_hint(bool library, const char *name);

#endif
