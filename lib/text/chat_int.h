/* chat_int.h: what the chat files share: Python's view of text and of JSON values, which the
 * templates were written for. Read text.h first.
 */
#ifndef GLM_TEXT_CHAT_INT_H
#define GLM_TEXT_CHAT_INT_H

#include "text.h"

struct chat_view { /* a piece of somebody's text */
    const char *text;
    size_t size;
};

struct chat_view chat_strip(struct chat_view v); /* str.strip(), Unicode whitespace and all */
struct chat_view chat_strip_newlines(struct chat_view v, bool left, bool right);
bool chat_find(struct chat_view v, const char *what, struct chat_view *before,
    struct chat_view *after); /* first */
bool chat_find_last(struct chat_view v, const char *what, struct chat_view *after);
bool chat_ends_with(struct chat_view v, const char *what);

bool chat_truth(const struct json *v); /* bool(v); NULL, a member that is not there, is false */
void chat_put_str(
    struct buf *b, const struct json *v); /* str(v): a string bare, the rest as repr */

#endif
