/* safetensors_out.h: a safetensors file of float32 tensors, written in any order of rows, so that no tensor has to be in
 * memory whole. It appears under its name only when it is complete.
 */
#ifndef GLM_TOOLS_SAFETENSORS_OUT_H
#define GLM_TOOLS_SAFETENSORS_OUT_H

#include "synth.h"

#define ST_OUT_TENSORS 4

struct st_tensor {
    const char *name;
    uint32_t n_dim;
    uint64_t dim[3];
    uint64_t begin, end; /* bytes behind the header */
};
struct st_out {
    struct synth_file file;
    struct st_tensor tensor[ST_OUT_TENSORS];
    uint32_t n;
    uint64_t data;       /* offset of the first tensor */
};

/* First every tensor; GLM_ELIMIT where its size is beyond any file. Names are plain ASCII. */
int32_t st_out_add(struct st_out *o, const char *name, uint32_t n_dim, const uint64_t *dim, glm_error *err);
int32_t st_out_open(struct st_out *o, struct mem *m, const char *path, glm_error *err);
/* n floats of tensor i from its element `first` on. */
int32_t st_out_put(struct st_out *o, uint32_t i, uint64_t first, const float *values, uint64_t n, glm_error *err);
int32_t st_out_finish(struct st_out *o, glm_error *err);
void st_out_drop(struct st_out *o); /* frees; a file that is not finished goes. A zeroed one is fine */

#endif
