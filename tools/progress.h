/* progress.h: one line on a terminal's stderr while a person waits. Nothing is drawn where stderr is no terminal, nor for
 * waits of less than half a second.
 */
#ifndef GLM_TOOLS_PROGRESS_H
#define GLM_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what;
    uint64_t began, drawn; /* ns */
    bool on, visible;
};

uint64_t progress_now(void); /* ns, monotonic */
void progress_begin(struct progress *p, const char *what);
void progress_show(struct progress *p, double done, double total, const char *unit); /* cheap: draws ten times a second */
void progress_end(struct progress *p); /* takes the line away */

#endif
