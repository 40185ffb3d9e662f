/* test_data.h: the files of tests/data, for tests: whole, decompressed where only NAME.zst is
 * there, line by line. */
#ifndef GLM_TESTS_TEST_DATA_H
#define GLM_TESTS_TEST_DATA_H

#include <stddef.h>

/* The file $GLM_TEST_DATA/name, NUL-terminated; free() it. The test fails if it is not there. */
char *test_load(const char *name, size_t *size);
/* Cuts the next line off *at (its end becomes a NUL); NULL at the end. */
char *test_line(char **at);

#endif
