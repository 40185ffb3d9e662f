/* base_int.h: what the files of lib/base share with each other and with nobody else. */
#ifndef GLM_BASE_INT_H
#define GLM_BASE_INT_H

#include "base.h"

#include <stdarg.h>

/* Formats into to[capacity] (capacity > 0), NUL-terminated, cut at a UTF-8 boundary, ill-formed
 * bytes shown as '?'; returns the length. Knows %s %.*s %c %d %u %x %% with l, ll and z; stops at
 * anything else. */
size_t text_format(char *to, size_t capacity, const char *fmt, va_list args);

/* What an errno means, or NULL; 0 stands for a file that became shorter. strerror is neither locale-free nor safe among
 * threads. */
const char *os_errno_text(int reason);

/* Two numbers of a document have the same value, however they are spelled (json_number.c). */
bool decimal_equal(const struct json *a, const struct json *b);

#endif
