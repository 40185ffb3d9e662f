/* experts_int.h: a pass's use of the cache of experts, between pass.c and experts.c. */
#ifndef GLM_MODEL_EXPERTS_INT_H
#define GLM_MODEL_EXPERTS_INT_H

#include "model.h"

/* The chosen experts of a layer are computed window by window: those that are there first, then the others as they come.
 * A window is held while its operations run, and only while its pass does: a pass that waits for its host's next step
 * keeps nobody from anything. */
struct experts {
    struct net *net;           /* with a cache; else NULL, and none of the functions below may be called */
    struct cache_claim claim;
    struct ffn *ffn;           /* [n_expert] of those held their matrices; of expert 0 its shape at least */
    uint32_t *block, *count;   /* [n_expert] scratch */
    struct routing guess;      /* how a few rows would be routed in the next layer */
    float *guess_x;            /* [GUESS_ROWS, d_model] */
    void *guess_memory;
    bool fixed;                /* the window's operations have begun: it stays as it is */
    bool held;
};

/* With more rows most experts are used, and read in order anyway. */
#define GUESS_ROWS 4u

int32_t experts_open(struct experts *x, struct net *n, glm_error *err);
void experts_close(struct experts *x);
/* Rows have been grouped: the layer's experts are known, none of them is in a window. */
void experts_routed(struct experts *x, const struct net_layer *l, struct routing *rt, uint32_t n_row);
/* Holds the next window, or the one that is fixed. *there false: the time is up, or a stop was asked for. */
int32_t experts_take(struct experts *x, const struct net_layer *l, struct routing *rt, uint64_t deadline,
    const struct stop *stop, bool *there, glm_error *err);
bool experts_next(struct experts *x, const struct net_layer *l, struct routing *rt); /* window done; false: it was the last */
void experts_pause(struct experts *x, const struct net_layer *l, struct routing *rt); /* the pass stops running */
/* Whether the experts of the layer behind l are to be guessed: its router on what layer l has before its own experts. */
bool experts_can_guess(const struct experts *x, const struct net_layer *l, uint32_t n_row);
/* guess is filled in for the rows of layer l: what is missing there is read. */
void experts_guessed(struct experts *x, const struct net_layer *l, uint32_t n_row);

#endif
