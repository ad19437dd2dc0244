/* tenon explain: the graph before and after fusion, the kernels, the memory plan. */
#include "engine.h"
#include "out.h"
#include "verbs.h"

tn_status cli_explain(const cli_options *o, tn_error *err) {
    cli_engine e = {0};
    tn_explain_options options = {
        .phase = (tn_phase)o->phase,
        .format = o->json ? TN_FORMAT_JSON : (tn_format)o->format,
        .verbose = o->verbose,
    };
    if (o->json && o->format != TN_FORMAT_TEXT && o->format != TN_FORMAT_JSON)
        return cli_fail(err, TN_ERR_USAGE, "--json excludes other formats");
    cli_session_wish wish = cli_default_wish(o);
    wish.plan_only = true;
    tn_status status = cli_open_model(&e, o, &wish, err);
    if (!status) status = cli_open_session(&e, &wish, err);
    if (!status) status = tn_explain(e.session, &options, cli_stdout_sink(), err);
    cli_close(&e);
    return status;
}
