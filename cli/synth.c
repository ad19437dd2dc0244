/* tenon synth: a model of a published shape with random weights. */
#include "engine.h"
#include "out.h"
#include "verbs.h"

tn_status cli_synth(const cli_options *o, tn_error *err) {
    tn_synth_options options = {
        .type = o->type,
        .n_layer = o->n_layer,
        .seed = o->seed < 0 ? 0 : (uint64_t)o->seed,
        .progress = cli_on_progress,
        .data = (void *)o,
    };
    return tn_synth_file(o->operand, o->output, &options, err);
}
