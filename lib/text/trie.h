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

#define TRIE_LENGTHS 32u /* tokens of a slice have fewer characters */
#define TRIE_SLICES 4u

/* Tokens made of one kind of characters only. In many states of a grammar all of them are allowed, or all that are not too
 * long: then only the others need to be walked. */
struct trie_slice {
    uint32_t *shorter;   /* [TRIE_LENGTHS][n_word]: tokens of at most so many characters */
    uint32_t *rest;      /* [n_rest] nodes from which a token outside the slice can be reached, preorder */
    uint32_t *rest_next; /* [n_rest] index in rest behind the node's subtree */
    uint32_t n_rest;
};
struct trie_chars { /* the characters of a slice; sorted, disjoint */
    uint32_t n;
    struct {
        uint32_t lo, hi;
    } range[12];
};
/* From the most to the fewest: anything but quote, backslash, control and rare spaces; the same without the blank; letters
 * and digits; small letters. */
extern const struct trie_chars trie_slice_chars[TRIE_SLICES];

struct trie {
    struct mem *mem;
    struct trie_node *node; /* [n] preorder, without a root */
    struct trie_slice slice[TRIE_SLICES];
    uint32_t n, n_word, depth_max;
};

int32_t trie_open(struct mem *m, const struct tok *t, struct trie **out, glm_error *err);
void trie_close(struct trie *t);

static inline const uint32_t *trie_shorter(const struct trie *t, uint32_t slice, uint32_t n_char)
{
    return t->slice[slice].shorter + (size_t)(n_char < TRIE_LENGTHS ? n_char : TRIE_LENGTHS - 1) * t->n_word;
}

#endif
