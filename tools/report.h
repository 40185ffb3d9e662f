/* report.h: how the commands of glm45 speak to a person: one line on stderr for an error, with the remedy, and the exit
 * status that goes with it.
 */
#ifndef GLM_TOOLS_REPORT_H
#define GLM_TOOLS_REPORT_H

#include <glm45/glm45.h>

#include <stdbool.h>

enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

#if defined(__GNUC__)
#  define REPORT_FORMAT __attribute__((format(printf, 2, 3)))
#else
#  define REPORT_FORMAT
#endif

/* "glm45 COMMAND: ..."; control characters of arguments and files show as '?'. */
int report_failed(const char *command, const char *fmt, ...) REPORT_FORMAT; /* EXIT_FAILED */
int report_usage(const char *command, const char *fmt, ...) REPORT_FORMAT;  /* EXIT_USAGE, names --help */
void report_note(const char *command, const char *fmt, ...) REPORT_FORMAT;  /* a warning, a remark */

int report_error(const char *command, const glm_error *err); /* "WHERE: MESSAGE"; EXIT_FAILED */
/* Flushes stdout. EXIT_FINE; EXIT_FAILED where this or a write before it failed: a reader that went away (a closed pipe)
 * needs no message. */
int report_flush(const char *command);

#endif
