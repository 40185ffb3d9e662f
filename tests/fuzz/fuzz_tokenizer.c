/* fuzz_tokenizer.c: a tokenizer.json. One that opens must give plain text back, and no markup for it. */
#include "fuzz_checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem m;
    struct vocab_source src = {
        .kind = VOCAB_JSON, .where = "tokenizer.json", .json = (const char *)data, .json_size = size};

    mem_init(&m, NULL);
    fuzz_tokenizer(&m, &src, 0);
    FUZZ_CHECK(m.used == 0);
    return 0;
}
