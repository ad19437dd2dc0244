/* tenon doctor: which backends, libraries and devices are here, and what to install for the rest. */
#include "out.h"
#include "verbs.h"

tn_status cli_doctor(const cli_options *o, tn_error *err) {
    tn_doctor_options options = {.json = o->json, .webgpu_lib = o->webgpu_lib};
    return tn_doctor(&options, cli_stdout_sink(), err);
}
