/* fuzz_folder.c: a whole Hugging Face folder: config.json, generation_config.json, tokenizer_config.json,
 * chat_template.jinja, tokenizer.json and model.safetensors, in this order, with 0xff 0xff between; an empty part is a
 * file that is not there. The first byte says how the weights are opened. */
#include "fuzz_checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"m/config.json", "m/generation_config.json", "m/tokenizer_config.json",
        "m/chat_template.jinja", "m/tokenizer.json", "m/model.safetensors"};
    struct fuzz_in in = {data, size};
    struct fuzz_files f;
    uint32_t weights = fuzz_byte(&in) % 3;

    fuzz_files_init(&f);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        size_t n = in.left;
        const char *bytes = i + 1 < ARRAY_LEN(names) ? fuzz_part(&in, &n) : (const char *)in.at;
        if (n > 0)
            fuzz_files_add(&f, names[i], bytes, n, 0);
    }
    fuzz_checkpoint(&f, "m", weights);
    fuzz_files_free(&f);
    return 0;
}
