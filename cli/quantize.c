/* tenon quantize: a model's file with weights of fewer bits, as llama-quantize makes it. */
#include "engine.h"
#include "out.h"
#include "verbs.h"

tn_status cli_quantize(const cli_options *o, tn_error *err) {
    tn_quantize_options options = {
        .type = o->operands[2],
        .threads = o->threads,
        .pure = o->pure,
        .allow_requantize = o->allow_requantize,
        .log = cli_on_log,
        .progress = cli_on_progress,
        .data = (void *)o,
    };
    return tn_quantize_file(o->operands[0], o->operands[1], &options, err);
}
