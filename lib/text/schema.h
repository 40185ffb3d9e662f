/* schema.h: JSON Schema (2020-12, draft 7) in a normal form that can be run. A schema is first a term: a place in the document,
 * a constant, or an and, or, not of terms. Normalising a term sorts what it allows by type: strings and numbers as languages,
 * the three words as bits, and objects and arrays as lists of shapes, each a conjunction of what it demands. Terms below a shape
 * stay terms until somebody asks, which is what makes recursion finite. What cannot be brought into this form is refused with
 * its JSON pointer.
 */
#ifndef GLM_TEXT_SCHEMA_H
#define GLM_TEXT_SCHEMA_H

#include "rx.h"

#define TERM_FALSE 0u
#define TERM_TRUE 1u
#define COUNT_INF UINT32_MAX

enum term_kind { TERM_KIND_FALSE, TERM_KIND_TRUE, TERM_KIND_PLACE, TERM_KIND_CONST, TERM_KIND_AND, TERM_KIND_OR, TERM_KIND_NOT };
enum term_state { TERM_NEW, TERM_BUSY, TERM_DONE };

#define WORD_NULL 1u
#define WORD_TRUE 2u
#define WORD_FALSE 4u

/* What a term allows. Lists hold indices of shapes; shape 0 is any object, any array. */
struct norm {
    uint32_t string; /* content, without quotes */
    uint32_t number;
    uint32_t words;
    uint32_t n_object, n_array;
    const uint32_t *object, *array;
};

struct term {
    uint8_t kind, state, live, is_child;
    const struct json *at;       /* PLACE, CONST */
    const uint32_t *part;        /* AND, OR, NOT: terms */
    uint32_t n_part;
    struct norm norm;            /* once DONE */
    uint32_t begun;              /* s->depth when it became BUSY */
    uint32_t next;
};

struct property {
    struct vocab_text name;
    uint32_t term;
    bool required;
};
/* Every key that `on` matches, and `off` does not, and that is not among the members of `declared`. */
struct each_key {
    uint32_t on, off, term;
    const struct json *declared;
};
struct some_key { /* at least one key that `on` matches and whose value fits */
    uint32_t on, off, term;
    const struct json *declared;
};
struct implied { /* with the first key comes the second */
    struct vocab_text key, then;
};

/* What an object must be. The second half is filled by schema_finish. */
struct object_shape {
    const struct property *property; /* by name */
    const struct each_key *each;
    const struct some_key *some;
    const struct implied *implied;
    uint32_t n_property, n_each, n_some, n_implied, min, max;

    bool finished, live, ready, is_call; /* is_call: the arguments of a call, between tags */
    uint32_t n_key, n_class;      /* keys are the properties' names; a class is a set of other keys */
    uint32_t *child;              /* [n_key + n_class] terms of values */
    uint32_t *class_keys;         /* [n_class] languages, disjoint; no key among them */
    uint32_t (*variant)[8];       /* [n_key + n_class] terms of values that also meet a set of `some`; NULL where n_some 0 */
    uint8_t *meets;               /* [n_key + n_class] which of `some` the key may meet */
    uint64_t *dead, *required;    /* [n_word] bits by key: no value fits; must be there */
    uint32_t (*then)[2];          /* [n_implied] pairs of keys */
    uint32_t n_word, class_count; /* class_count: keys in all classes, COUNT_INF where nobody could run out of them */
    uint32_t literals;            /* the keys' literal set */
    uint32_t first[2], next[2];   /* nodes: the first key, a later one; [1]: without classes */
    uint32_t raw[2];              /* a key as it is, without quotes */
};

struct counted { /* items from index `from` on that fit: at least lo, at most hi */
    uint32_t from, term, lo, hi;
};
struct array_shape {
    const uint32_t *prefix;
    uint32_t n_prefix, rest, min, max;
    struct counted counted;  /* term TERM_TRUE, lo 0: none */
    bool has_counted, unique;

    const struct json *at; /* for refusals */

    bool finished, live;
    uint32_t n_item;     /* from this index on all items are alike */
    uint32_t (*item)[3]; /* [n_item + 1]: terms of an item: plain, counted, not counted */
};

struct schema {
    struct mem *mem;
    struct rx *rx;
    struct arena arena;
    const struct json *root;
    char prefix[64]; /* where root itself stands: goes before the pointers of refusals */
    glm_error *err;
    int32_t failed;
    bool is_oldest;      /* draft 4 or before: 1.0 is no integer */
    bool is_old, is_new; /* draft 7 or before, 2019-09 or later, as $schema says; neither: both are read */
    struct term *term;
    struct object_shape *object;
    struct array_shape *array;
    uint32_t n_term, term_cap, n_object, object_cap, n_array, array_cap;
    uint32_t *hash;
    uint32_t hash_mask;
    struct schema_id *id; /* (schema_ref.c) */
    uint32_t n_id, id_cap, depth, work, quick;
    uint32_t any_number, compared, integer; /* made once; 0: not yet */
};

int32_t schema_open(struct schema *s, struct mem *m, struct rx *x, glm_error *err);
void schema_close(struct schema *s);
/* Sets the document that places lie in; its references are collected. */
int32_t schema_document(struct schema *s, const struct json *root);
/* Normalises all that can be reached from a term, and what the shapes need at run time. The status of the first refusal. */
int32_t schema_finish(struct schema *s, const uint32_t *roots, uint32_t n);

/* Refuses: GLM_ESCHEMA, where = the pointer of `at` and then `below`. Returns TERM_FALSE. */
uint32_t schema_refuse(struct schema *s, const struct json *at, const char *below, const char *reason);
void schema_fail(struct schema *s, int32_t code, const struct json *at, const char *reason);
void *schema_alloc(struct schema *s, size_t n, size_t size); /* from the arena, zeroed; NULL: failed */

/* ---- terms (schema_term.c) ---- */
uint32_t term_place(struct schema *s, const struct json *at);
uint32_t term_const(struct schema *s, const struct json *value);
uint32_t term_and(struct schema *s, const uint32_t *part, uint32_t n);
uint32_t term_or(struct schema *s, const uint32_t *part, uint32_t n);
uint32_t term_and2(struct schema *s, uint32_t a, uint32_t b);
uint32_t term_not(struct schema *s, uint32_t a);
/* What it allows; NULL: failed, or the term is being normalised right now. */
const struct norm *term_norm(struct schema *s, uint32_t term);

/* ---- normal forms (schema_norm.c) ---- */
struct norm norm_any(struct schema *s);
struct norm norm_none(void);
struct norm norm_and(struct schema *s, const struct norm *a, const struct norm *b, const struct json *at);
struct norm norm_or(struct schema *s, const struct norm *a, const struct norm *b, const struct json *at);
struct norm norm_not(struct schema *s, const struct norm *a, const struct json *at);
struct norm norm_one_of(struct schema *s, const struct norm *a, uint32_t n, const struct json *at);
bool norm_is_none(struct schema *s, const struct norm *a);
bool term_is_none(struct schema *s, uint32_t term); /* found out with little effort; false: maybe not */

/* ---- shapes (schema_object.c, schema_array.c) ---- */
uint32_t properties_sort(struct schema *s, struct property *p, uint32_t n); /* by name; of equal ones the terms are joined */
uint32_t object_add(struct schema *s, const struct object_shape *o);
bool object_merge(struct schema *s, uint32_t a, uint32_t b, uint32_t *out); /* false: no object can be both */
uint32_t object_violations(struct schema *s, uint32_t a, uint32_t *out, uint32_t max); /* number; max + 1: too many */
uint32_t object_child(struct schema *s, const struct object_shape *o, const struct property *p);
void object_finish(struct schema *s, uint32_t i);
bool object_live(struct schema *s, struct object_shape *o);
void object_ready(struct schema *s, struct object_shape *o); /* once liveness is known: the languages of its keys */
uint32_t array_add(struct schema *s, const struct array_shape *a);
bool array_merge(struct schema *s, uint32_t a, uint32_t b, uint32_t *out, const struct json *at);
uint32_t array_violations(struct schema *s, uint32_t a, uint32_t *out, uint32_t max, const struct json *at);
void array_finish(struct schema *s, uint32_t i);
/* Whether an array with so many items, so many of them counted, can still be completed. */
bool array_feasible(const struct schema *s, const struct array_shape *a, uint32_t n_item, uint32_t n_counted);

/* ---- keywords (schema_read.c, schema_const.c, schema_ref.c) ---- */
struct norm schema_read(struct schema *s, const struct json *at);
struct norm schema_read_const(struct schema *s, const struct json *value);
struct norm schema_read_enum(struct schema *s, const struct json *list);
const uint32_t *schema_one(struct schema *s, uint32_t shape); /* a list of one shape, in the arena */
static inline struct vocab_text schema_name(const struct json *text) { return (struct vocab_text){ text->text, text->size }; }
const struct json *schema_resolve(struct schema *s, const struct json *at, const struct json *ref); /* NULL: failed */

#endif
