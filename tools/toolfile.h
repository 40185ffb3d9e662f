/* toolfile.h: the tools that `glm45 chat` offers: a JSON array as chat APIs declare them, each tool with one more member,
 * "command": ["program", "argument", ...], which is run with the call's arguments on its stdin and answers on its stdout.
 *
 * The one part of chat that reads JSON, and so the one that uses lib/base; chat.c sees only this header.
 */
#ifndef GLM_TOOLS_TOOLFILE_H
#define GLM_TOOLS_TOOLFILE_H

#include <glm45/glm45.h>

#include <stdbool.h>

struct toolfile;
int32_t toolfile_open(const char *path, struct toolfile **out, glm_error *err);
void toolfile_close(struct toolfile *t);
const char *toolfile_declared(const struct toolfile *t, size_t *size); /* the array without the commands */

struct tool_answer {
    char *text;      /* for the model, valid UTF-8; free() it */
    size_t size;
    bool failed;     /* the text says why */
};
/* Runs the tool's command. t may be NULL: then there is no such tool. False: out of memory. */
bool toolfile_run(const struct toolfile *t, const char *name, const char *arguments, size_t size, bool (*stop)(void),
    struct tool_answer *out);

#endif
