/* tenon verify: fused against unfused, backend against reference; exit code 1 where a bound is broken. */
#include "out.h"
#include "verbs.h"

#include <stdlib.h>

tn_status cli_verify(const cli_options *o, tn_error *err) {
    if (!!o->model + o->rules + o->ops != 1)
        return cli_fail(err, TN_ERR_USAGE, "verify takes one of -m, --rules and --ops");
    if (!o->model && (o->file || o->fuse || o->kv_type != TN_KV_F16 || o->act != TN_ACT_INT8))
        return cli_fail(err, TN_ERR_USAGE, "verify: -f, --fuse, --kv-type and --act need -m");
    char *text = NULL;
    size_t len = 0;
    tn_status status = o->file ? cli_read_file(o->file, &text, &len, err) : TN_OK;
    if (status) return status;
    tn_verify_options options = {
        .what = o->model   ? TN_VERIFY_MODEL
                : o->rules ? TN_VERIFY_RULES
                           : TN_VERIFY_OPS,
        .backend = o->backend,
        .path = o->model,
        .text = text,
        .text_len = len,
        .fuse = o->fuse,
        .kv_type = (tn_kv_type)o->kv_type,
        .act = (tn_act_type)o->act,
        .threads = o->threads,
        .json = o->json,
        .webgpu_lib = o->webgpu_lib,
    };
    status = tn_verify(&options, cli_stdout_sink(), err);
    free(text);
    return status;
}
