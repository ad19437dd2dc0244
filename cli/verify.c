/* tenon verify: fused against unfused, backend against reference; exit code 1 where a bound is broken. */
#include "out.h"
#include "verbs.h"

tn_status cli_verify(const cli_options *o, tn_error *err) {
    if (!!o->model + o->rules + o->ops != 1)
        return cli_fail(err, TN_ERR_USAGE, "verify takes one of -m, --rules and --ops");
    tn_verify_options options = {
        .what = o->model   ? TN_VERIFY_MODEL
                : o->rules ? TN_VERIFY_RULES
                           : TN_VERIFY_OPS,
        .backend = o->backend,
        .path = o->model,
        .threads = o->threads,
        .json = o->json,
    };
    return tn_verify(&options, cli_stdout_sink(), err);
}
