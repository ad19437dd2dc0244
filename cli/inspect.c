/* tenon inspect: what is in a GGUF file. */
#include "out.h"
#include "verbs.h"

tn_status cli_inspect(const cli_options *o, tn_error *err) {
    return tn_inspect(o->operand, o->json, cli_stdout_sink(), err);
}
