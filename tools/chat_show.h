/* chat_show.h: how `glm45 chat` shows a turn: the answer on stdout; thought, calls and remarks beside it, dim, where a person
 * reads along, or on stderr. */
#ifndef GLM_TOOLS_CHAT_SHOW_H
#define GLM_TOOLS_CHAT_SHOW_H

#include "progress.h"
#include "terminal.h"
#include "toolfile.h"

#include <glm45/glm45.h>

struct show {
    struct terminal terminal;
    struct progress progress;
    bool thinking;             /* thoughts also where stdout is no terminal */
    uint32_t last;             /* type of the event shown last */
    bool fresh_line;           /* nothing is on the line yet */
};

FILE *show_remarks(const struct show *s); /* where they go */
void show_begin(struct show *s);          /* before a turn's first event */
void show_event(struct show *s, const glm_event *ev);
void show_result(struct show *s, const struct tool_answer *a);
void show_remark(struct show *s, const char *text); /* "[text]" on a line of its own */
void show_abort(struct show *s);          /* the turn failed: leaves the line */

#endif
