/* lines.h: JSON lines for the commands that scripts talk to: one document a line in, one a line out, each flushed at once
 * so that a peer can wait for its answer. Empty lines are passed over; the first bad line ends the command.
 */
#ifndef GLM_TOOLS_LINES_H
#define GLM_TOOLS_LINES_H

#include "../lib/base/base.h"

struct lines {
    const char *command;
    struct mem *mem;
    char *text;             /* of getline */
    size_t capacity;
    uint64_t number;        /* of the line last read, from 1 */
    struct json_doc doc;    /* lives until the next line */
    struct buf out;         /* the answer; cleared by lines_next */
    bool reading_failed;
    bool answers_bad_json;  /* a line that is no JSON, or nested too deep, is not the end: refused says why, doc is empty */
    glm_error refused;
};

void lines_open(struct lines *l, struct mem *m, const char *command);
void lines_close(struct lines *l);
/* The next line's document in l->doc. LINES_GO_ON; or the status to exit with, EXIT_FINE at the end of the input. */
#define LINES_GO_ON (-1)
int lines_next(struct lines *l);
/* Writes l->out and a newline. LINES_GO_ON or EXIT_FAILED. */
int lines_answer(struct lines *l);
/* "line 3: WHERE: MESSAGE", where is a JSON pointer. EXIT_FAILED. */
int lines_bad(const struct lines *l, const glm_error *err);

/* A member of the line's object. NULL: it is not there, or (with err set) of another type. JSON null counts as missing. */
const struct json *lines_member(const struct lines *l, const char *key, enum json_type type, bool needed, glm_error *err);

#endif
