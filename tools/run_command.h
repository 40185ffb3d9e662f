/* run_command.h: runs a program without a shell: text to its stdin, its stdout back, with limits. */
#ifndef GLM_TOOLS_RUN_COMMAND_H
#define GLM_TOOLS_RUN_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#define COMMAND_OUTPUT (1u << 20)

struct command_result {
    char *output;          /* NUL-terminated; free() it */
    size_t size;
    int status;            /* exit status; 128 + signal */
    bool timed_out, cut, stopped;
    const char *problem;   /* not NULL: it could not be run, and why */
};

/* `stop`, if not NULL, is asked several times a second; true ends the program. The program runs in a process group of its
 * own, which is killed when a limit is reached: the seconds given, COMMAND_OUTPUT bytes. Its stderr is ours. SIGPIPE must
 * be ignored: a program need not read its input. */
void run_command(char *const argv[], const char *input, size_t size, unsigned seconds, bool (*stop)(void),
    struct command_result *out);

#endif
