/* log.c: one line to the host's logger. Owns nothing; the text lives on the stack for the length of
 * the call. */
#include "base_int.h"

void log_put(const glm_logger *log, uint32_t level, const char *fmt, ...)
{
    char text[1024];
    size_t size;
    va_list args;

    if (!log || !log->write || level > log->max_level)
        return;
    va_start(args, fmt);
    size = text_format(text, sizeof text, fmt, args);
    va_end(args);
    log->write(log->user, level, text, size);
}
