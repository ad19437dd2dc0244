/* Writes the tiny models that the corpora of fuzz_gguf and fuzz_model begin with: seeds FOLDER. */
#include "tiny_model.h"

#include <stdio.h>

int main(int argc, char **argv) {
    for (int i = 0; argc == 2 && tn_tiny_arch(i); i++) {
        char path[4096];
        tn_error err;
        tn_tiny_options o = {tn_tiny_arch(i), TN_TYPE_F32, 8, i % 2 == 0};
        snprintf(path, sizeof path, "%s/%s.gguf", argv[1], o.arch);
        if (tn_tiny_write(&o, path, &err) == TN_OK) continue;
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return argc == 2 ? 0 : 2;
}
