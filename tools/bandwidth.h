/* bandwidth.h: what the memory gives to n threads that only read, the bound that decoding is compared with. */
#ifndef GLM_TOOLS_BANDWIDTH_H
#define GLM_TOOLS_BANDWIDTH_H

#include <stddef.h>
#include <stdint.h>

struct bandwidth;
/* A buffer of at most `most` bytes, and of a quarter of the free memory. NULL: out of memory. */
struct bandwidth *bandwidth_open(uint32_t n_threads, size_t most);
void bandwidth_close(struct bandwidth *b);
double bandwidth_measure(struct bandwidth *b); /* bytes a second, over about 0.2 s; 0: threads cannot be started */
size_t bandwidth_size(const struct bandwidth *b);
uint32_t bandwidth_cores(void); /* what the library takes by default: the cores of this process, at most 8 */

#endif
