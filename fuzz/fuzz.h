/* A fuzz target is one file with this function. libFuzzer drives it, and replay.c, which runs a folder of inputs through it in
 * an ordinary build. A target stops the process where something is wrong that no sanitizer sees. */
#ifndef TN_FUZZ_H
#define TN_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
/* libFuzzer's, for targets that change inputs in a way of their own. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed);

#define FUZZ_CHECK(what)                                                                                             \
    do {                                                                                                             \
        if (what) break;                                                                                             \
        fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                                           \
        abort();                                                                                                     \
    } while (0)

#endif
