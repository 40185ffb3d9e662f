/* unzstd.c: stdin to stdout, out of its zstd frame: test data is packed, and no command-line zstd need be there. */
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

int main(void)
{
    ZSTD_DStream *d = ZSTD_createDStream();
    size_t in_size = ZSTD_DStreamInSize(), out_size = ZSTD_DStreamOutSize(), left = 1;
    void *in = malloc(in_size), *out = malloc(out_size);
    if (!d || !in || !out)
        return 1;
    for (size_t n; (n = fread(in, 1, in_size, stdin)) > 0;) {
        ZSTD_inBuffer from = { in, n, 0 };
        while (from.pos < from.size) {
            ZSTD_outBuffer to = { out, out_size, 0 };
            left = ZSTD_decompressStream(d, &to, &from);
            if (ZSTD_isError(left)) {
                fprintf(stderr, "unzstd: %s\n", ZSTD_getErrorName(left));
                return 1;
            }
            fwrite(out, 1, to.pos, stdout);
        }
    }
    ZSTD_freeDStream(d);
    free(in);
    free(out);
    return left != 0 || fflush(stdout) != 0;
}
