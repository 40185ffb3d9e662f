/* fuzz_gguf.c: a GGUF file: a header from the input, then zeros. The first two bytes say how many zeros, in 256 bytes. */
#include "fuzz_checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    struct fuzz_files f;
    size_t zeros = fuzz_byte(&in);

    zeros = (zeros | (size_t)fuzz_byte(&in) << 8) * 256 % (1 << 20);
    fuzz_files_init(&f);
    fuzz_files_add(&f, "m.gguf", in.at, in.left, zeros);
    fuzz_checkpoint(&f, "m.gguf", GLM_WEIGHTS_MAP);
    fuzz_files_free(&f);
    return 0;
}
