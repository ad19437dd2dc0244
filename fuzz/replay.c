/* Runs every file of some folders through a fuzz target. */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

/* What custom mutators call; nothing is mutated here. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max) {
    (void)data, (void)max;
    return n;
}

/* In a block of just its size, so that a sanitizer sees any byte too far. */
static int replay(const char *path) {
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f || fstat(fileno(f), &st)) return fprintf(stderr, "%s: cannot be read\n", path), 1;
    size_t n = (size_t)st.st_size;
    uint8_t *data = malloc(n ? n : 1);
    int failed = !data || fread(data, 1, n, f) != n;
    fclose(f);
    if (!failed) LLVMFuzzerTestOneInput(data, n);
    free(data);
    return failed;
}

int main(int argc, char **argv) {
    int files = 0, failed = 0;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        for (struct dirent *e; folder && (e = readdir(folder));) {
            char path[4096];
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            fprintf(stderr, "%s\n", path);
            failed += replay(path);
            files++;
        }
        if (folder) closedir(folder);
    }
    printf("%d inputs\n", files);
    return failed || files == 0;
}
