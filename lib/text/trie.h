/* trie.h: the vocabulary's plain tokens as a byte trie, in preorder, so that one pass over an array visits a token's prefix
 * before the token and may skip whole subtrees. Built once per tokenizer; immutable. Added tokens are not in it: they are
 * markup and never spell text.
 */
#ifndef GLM_TEXT_TRIE_H
#define GLM_TEXT_TRIE_H

#include "text.h"

struct trie_node {
    uint32_t size;  /* nodes of the subtree, this one included: i + size is the next one beside or above it */
    int32_t id;     /* the token that ends here, or -1 */
    uint16_t depth; /* 1 for a first byte */
    uint8_t byte;
};

#define TRIE_PLAIN_MAX 32u /* plain tokens have fewer characters */

struct trie {
    struct mem *mem;
    struct trie_node *node; /* [n] preorder, without a root */
    uint32_t *rest;         /* [n_rest] nodes from which a token can be reached that is in no list of plain ones, preorder */
    uint32_t *rest_next;    /* [n_rest] index in rest behind the node's subtree */
    uint32_t *plain;        /* [TRIE_PLAIN_MAX][n_word]: tokens of at most so many characters that are whole, and neither
                             * quote, backslash nor control */
    uint32_t n, n_rest, n_token, n_word, depth_max;
};

int32_t trie_open(struct mem *m, const struct tok *t, struct trie **out, glm_error *err);
void trie_close(struct trie *t);

static inline const uint32_t *trie_plain(const struct trie *t, uint32_t n_char)
{
    return t->plain + (size_t)(n_char < TRIE_PLAIN_MAX ? n_char : TRIE_PLAIN_MAX - 1) * t->n_word;
}

#endif
