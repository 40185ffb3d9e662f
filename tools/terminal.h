/* terminal.h: what a conversation in a terminal needs of it: colours, text that cannot command it, lines, Ctrl-C. */
#ifndef GLM_TOOLS_TERMINAL_H
#define GLM_TOOLS_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct terminal {
    bool in, out;   /* stdin, stdout are terminals */
    bool colour;
    char *line;     /* of terminal_line */
    size_t capacity;
};

enum style { STYLE_PLAIN, STYLE_DIM, STYLE_BOLD, STYLE_TOOL };

void terminal_open(struct terminal *t);
void terminal_close(struct terminal *t);
void terminal_style(const struct terminal *t, FILE *to, enum style style);
/* On a terminal control characters other than newline and tab show as '?': neither a model nor a tool moves the cursor. */
void terminal_text(const struct terminal *t, FILE *to, const char *text, size_t size);

/* Reads a line without its end; one that ends in a backslash goes on with the next. NULL: the end of the input, or
 * Ctrl-C (*interrupted). */
char *terminal_line(struct terminal *t, const char *prompt, size_t *size, bool *interrupted);

bool terminal_waiting(const struct terminal *t); /* a person has typed a line: terminal_line will not wait */

/* From here on Ctrl-C calls `cancel(user)` (from the signal handler), or interrupts terminal_line where cancel is NULL. */
void terminal_on_interrupt(void (*cancel)(void *user), void *user);
bool terminal_interrupted(void); /* since the last terminal_on_interrupt */

#endif
