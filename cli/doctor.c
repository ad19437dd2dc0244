/* tenon doctor: which backends, libraries and devices are here, and what to install for the rest. */
#include "out.h"
#include "verbs.h"

tn_status cli_doctor(const cli_options *o, tn_error *err) {
    return tn_doctor(o->json, cli_stdout_sink(), err);
}
