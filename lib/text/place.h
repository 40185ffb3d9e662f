/* place.h: a JSON pointer put together for an error message. On the stack, cut where it grows too
 * long. */
#ifndef GLM_TEXT_PLACE_H
#define GLM_TEXT_PLACE_H

#include <stddef.h>
#include <string.h>

struct place {
    char text[128];
    size_t size;
};

static inline void place_text(struct place *p, const char *text)
{
    size_t n = strlen(text);
    if (n > sizeof p->text - 1 - p->size)
        n = sizeof p->text - 1 - p->size;
    memcpy(p->text + p->size, text, n);
    p->size += n;
    p->text[p->size] = 0;
}

static inline void place_index(struct place *p, size_t i)
{
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = 0;
    do {
        digits[--at] = (char)('0' + i % 10);
        i /= 10;
    } while (i > 0);
    digits[--at] = '/';
    place_text(p, digits + at);
}

#endif
