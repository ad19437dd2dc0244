#include "recorded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

float *tn_read_exact(const char *name, size_t n) {
    char path[600];
    snprintf(path, sizeof path, "%s/data/reference/%s.exact", TESTS_DIR, name);
    FILE *f = fopen(path, "rb");
    float *rows = n ? malloc(n * sizeof *rows) : NULL;
    bool ok = f && rows && fread(rows, sizeof *rows, n, f) == n && fgetc(f) == EOF;
    if (f) fclose(f);
    if (ok) return rows;
    free(rows);
    return NULL;
}

float *tn_run_tokens(tn_model *m, const int32_t *ids, int32_t n_tokens, int32_t n_vocab, tn_run_as as,
                     int32_t *launches) {
    tn_session *s;
    tn_error err = {0};
    tn_session_info info;
    tn_session_options options = {.n_ctx = n_tokens,
                                  .kv_type = as.f32 ? TN_KV_F32 : TN_KV_F16,
                                  .act = as.f32 ? TN_ACT_F32 : TN_ACT_INT8,
                                  .fuse = as.fuse,
                                  .all_logits = true};
    size_t cols = (size_t)n_vocab;
    float *all = malloc((size_t)n_tokens * cols * sizeof *all);
    assert_non_null(all);
    if (tn_session_open(&s, m, &options, &err) != TN_OK) fail_msg("%s", err.text);
    for (int32_t i = 0; i < n_tokens; i += as.chunk) {
        int32_t n = n_tokens - i < as.chunk ? n_tokens - i : as.chunk;
        if (tn_step(s, &(tn_batch){.ids = ids + i, .n_tokens = n}, &err) != TN_OK) fail_msg("%s", err.text);
        assert_int_equal(tn_logits_rows(s), n);
        for (int32_t k = 0; k < n; k++) memcpy(all + (size_t)(i + k) * cols, tn_logits(s, k), cols * sizeof *all);
    }
    tn_session_get_info(s, &info);
    if (launches) *launches = info.launches_decode;
    tn_session_close(&s);
    return all;
}
