/* test_data.c: see test_data.h. */
#include "test_data.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

static char *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    ck_assert_int_eq(fseek(f, 0, SEEK_END), 0);
    *size = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*size + 1);
    ck_assert_ptr_nonnull(data);
    ck_assert_uint_eq(fread(data, 1, *size, f), *size);
    data[*size] = 0;
    fclose(f);
    return data;
}

char *test_load(const char *name, size_t *size)
{
    char path[1024];
    const char *folder = getenv("GLM_TEST_DATA");
    ck_assert_msg(folder != NULL, "GLM_TEST_DATA must name the folder tests/data");
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *data = read_file(path, size);
    if (data)
        return data;
    snprintf(path, sizeof path, "%s/%s.zst", folder, name);
    size_t packed_size;
    char *packed = read_file(path, &packed_size);
    ck_assert_msg(packed != NULL, "neither %s nor its plain form is there", path);
    unsigned long long full = ZSTD_getFrameContentSize(packed, packed_size);
    ck_assert_msg(full < 1ull << 32, "%s does not say its size", path);
    data = malloc((size_t)full + 1);
    ck_assert_ptr_nonnull(data);
    *size = ZSTD_decompress(data, (size_t)full, packed, packed_size);
    ck_assert_msg(*size == full, "%s is damaged", path);
    data[*size] = 0;
    free(packed);
    return data;
}

char *test_line(char **at)
{
    char *line = *at;
    if (!*line)
        return NULL;
    char *end = strchr(line, '\n');
    *at = end ? end + 1 : line + strlen(line);
    if (end)
        *end = 0;
    return line;
}
