/* What is to be known of the processor. */
#include "backend/cpu/cpu.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* "model name" of the first processor; on machines whose kernel does not tell, nothing. */
void tn_processor_name(char *out, size_t cap) {
    char line[300];
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (cap) *out = 0;
    while (f && fgets(line, sizeof line, f)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !value) continue;
        snprintf(out, cap, "%.*s", (int)strcspn(value + 1, "\n") - 1, value + 2);
        break;
    }
    if (f) fclose(f);
}

void tn_cpu_facts(const tn_device *d, tn_buf *b) {
    static const struct {
        const char *name;
        int id;
    } caches[] = {{"L1", _SC_LEVEL1_DCACHE_SIZE}, {"L2", _SC_LEVEL2_CACHE_SIZE}, {"L3", _SC_LEVEL3_CACHE_SIZE}};
    (void)d;
    char processor[200];
    tn_processor_name(processor, sizeof processor);
    if (*processor) tn_buf_printf(b, "processor: %s\n", processor);
    tn_buf_printf(b, "cores: %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
    tn_buf_str(b, "kernels:");
    for (tn_isa isa = TN_ISA_REF; isa < TN_ISA_COUNT; isa++)
        tn_buf_printf(b, " %s%s", tn_isa_name(isa), tn_isa_has(isa) ? "" : " (not on this processor)");
    tn_buf_str(b, "\ncaches:");
    for (size_t i = 0; i < sizeof caches / sizeof *caches; i++) {
        long bytes = sysconf(caches[i].id);
        if (bytes > 0) tn_buf_printf(b, " %s %ld KiB", caches[i].name, bytes >> 10);
    }
    tn_buf_printf(b, "\nmemory: %.1f GiB\n",
                  (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (double)(1 << 30));
}
