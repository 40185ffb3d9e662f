/* loop.c: whether a model repeats itself. Looks at the last tokens only and owns no memory. */
#include "text.h"

#include <string.h>

#define REPEATS 3u    /* a loop is a run of tokens that came at least so many times again ... */
#define TOKENS_MIN 48u /* ... and so many tokens that repeat: short runs come up in honest text, too */

void text_loop_begin(struct text_loop *l) { memset(l, 0, sizeof *l); }

/* run[p - 1]: tokens at the end that equal the one p before. The smallest period wins; while its loop lasts, so do the
 * runs of its multiples, and the token that breaks it breaks them, too. */
bool text_loop_put(struct text_loop *l, int32_t id, uint32_t *period, uint64_t *length)
{
    uint64_t n_known = l->n < TEXT_LOOP_PERIOD ? l->n : TEXT_LOOP_PERIOD;
    bool was_looping = l->period && id == l->recent[(l->n - l->period) % TEXT_LOOP_PERIOD];
    uint32_t found = 0;

    for (uint32_t p = 1; p <= n_known; p++) {
        uint32_t *run = &l->run[p - 1];
        *run = id != l->recent[(l->n - p) % TEXT_LOOP_PERIOD] ? 0 : *run < UINT32_MAX ? *run + 1 : *run;
        if (!found && *run >= REPEATS * p && *run >= TOKENS_MIN)
            found = p;
    }
    l->recent[l->n++ % TEXT_LOOP_PERIOD] = id;
    if (was_looping)
        return false;
    l->period = found;
    if (!found)
        return false;
    *period = found;
    *length = (uint64_t)l->run[found - 1] + found;
    return true;
}
