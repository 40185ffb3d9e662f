/* textfile.h: texts that a command is given as files, whole and as they are. */
#ifndef GLM_TOOLS_TEXTFILE_H
#define GLM_TOOLS_TEXTFILE_H

#include <stddef.h>

/* All of a file; path NULL: of stdin. NUL-terminated; free() it. NULL: an error line of the command was written. */
char *textfile_read(const char *command, const char *path, size_t *size);

#endif
