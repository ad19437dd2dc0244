/* The verbs: a bit for the masks of the option table and a function each. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "options.h"

enum {
    RUN = 1 << 0,
    LOGITS = 1 << 1,
    TOKENIZE = 1 << 2,
    TEMPLATE = 1 << 3,
    INSPECT = 1 << 4,
    EXPLAIN = 1 << 5,
    VERIFY = 1 << 6,
    BENCH = 1 << 7,
    DOCTOR = 1 << 8,
    PERPLEXITY = 1 << 9,
    QUANTIZE = 1 << 10,
    SYNTH = 1 << 11,
    PROFILE = 1 << 12,
};

tn_status cli_run(const cli_options *o, tn_error *err);
tn_status cli_logits(const cli_options *o, tn_error *err);
tn_status cli_tokenize(const cli_options *o, tn_error *err);
tn_status cli_template(const cli_options *o, tn_error *err);
tn_status cli_inspect(const cli_options *o, tn_error *err);
tn_status cli_explain(const cli_options *o, tn_error *err);
tn_status cli_verify(const cli_options *o, tn_error *err);
tn_status cli_bench(const cli_options *o, tn_error *err);
tn_status cli_profile(const cli_options *o, tn_error *err);
tn_status cli_perplexity(const cli_options *o, tn_error *err);
tn_status cli_quantize(const cli_options *o, tn_error *err);
tn_status cli_synth(const cli_options *o, tn_error *err);
tn_status cli_doctor(const cli_options *o, tn_error *err);

#endif
