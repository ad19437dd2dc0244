/* Every op alone on the backend against the reference, on odd shapes, on identical inputs. An op is a pattern of one line. */
#include "base/mem.h"
#include "verify.h"

#include <stdio.h>
#include <string.h>

/* Odd widths, heads that do not fill a vector, one head and many, windows inside and across pages. */
static const tn_sizes sizes[] = {
    {1, 1, 8, 1, 1, 2, false, 1, 0, {0}, true, TN_KV_F32, TN_OPERAND_VALUE, 70},
    {7, 5, 8, 3, 1, 6, true, 0, 0, {0}, true, TN_KV_F16, TN_OPERAND_SLICE, 7},
    {33, 17, 24, 5, 5, 22, true, 65, 0, {0}, true, TN_KV_F32, TN_OPERAND_WEIGHT, 70},
    {48, 31, 40, 6, 2, 40, false, 2, 4, {0}, true, TN_KV_F32, TN_OPERAND_REPEATS, 7},
    {100, 63, 64, 4, 2, 64, false, 0, 0, {0}, true, TN_KV_F16, TN_OPERAND_SWAPPED, 70, 1.0f},
    {32, 65, 128, 2, 1, 64, true, 9, 30, {0}, true, TN_KV_F32, TN_OPERAND_VALUE, 7, 0.7f},
    {96, 48, 32, 4, 4, 16, false, 0, 0, {0}, false, TN_KV_Q8_0, TN_OPERAND_REPEATS, 70},
    {576, 50, 256, 2, 1, 256, true, 30, 0, {0}, false, TN_KV_F16, TN_OPERAND_WEIGHT, 7},
    {256, 34, 64, 3, 3, 32, false, 0, 0, {0}, false, TN_KV_F32, TN_OPERAND_SLICE, 7},
    {768, 16, 16, 16, 2, 16, true, 0, 2, {0}, true, TN_KV_Q8_0, TN_OPERAND_VALUE, 7},
};
/* The same on data that is hard: huge values in a cache of 16 bits would be infinite, so it is of 32. */
static const tn_sizes hard[] = {
    {7, 5, 8, 3, 1, 6, true, 1, 0, {0}, true, TN_KV_F16, TN_OPERAND_SLICE, 7, .input = TN_FILL_TINY},
    {160, 33, 64, 4, 2, 64, false, 1, 0, {0}, true, TN_KV_F32, TN_OPERAND_VALUE, 70, .input = TN_FILL_TINY},
    {512, 34, 32, 4, 4, 16, true, 3, 4, {0}, false, TN_KV_Q8_0, TN_OPERAND_WEIGHT, 7, .input = TN_FILL_TINY},
    {1, 1, 8, 1, 1, 2, false, 1, 0, {0}, true, TN_KV_F32, TN_OPERAND_VALUE, 70, .input = TN_FILL_HUGE},
    {31, 9, 16, 3, 1, 16, true, 0, 0, {0}, true, TN_KV_F32, TN_OPERAND_VALUE, 70, .input = TN_FILL_HUGE},
    {160, 63, 64, 4, 2, 64, true, 0, 9, {0}, true, TN_KV_F32, TN_OPERAND_REPEATS, 7, .input = TN_FILL_HUGE},
    {256, 17, 32, 2, 1, 32, false, 2, 0, {0}, false, TN_KV_F32, TN_OPERAND_SWAPPED, 7, .input = TN_FILL_HUGE},
    {33, 31, 16, 6, 3, 16, false, 0, 0, {0}, true, TN_KV_F16, TN_OPERAND_VALUE, 7, .input = TN_FILL_EQUAL},
    {256, 40, 64, 2, 2, 32, true, 9, 0, {0}, false, TN_KV_Q8_0, TN_OPERAND_VALUE, 70, .input = TN_FILL_EQUAL},
};
enum { N_HARD = sizeof hard / sizeof *hard };
enum { N_SIZES = sizeof sizes / sizeof *sizes };

typedef struct run {
    tn_report *report;
    const tn_verify_rigs *rigs;
    tn_rig_weights weights;
    const char *only;
    tn_error *err;
    bool collecting; /* only the weights: the first of two rounds */
    int n_checks;
} run;

/* As ops.def says; but a rounded element of the cache may fall to the other side, and GPUs may take denormals for 0. */
static tn_near nearness(const tn_rig *rig, tn_op op, const tn_sizes *s) {
    tn_near near = {tn_ops[op].bound, tn_ops[op].grain, rig->zero};
    bool cache = op == TN_OP_ATTENTION || op == TN_OP_KV_WRITE;
    if (cache && s->kv != TN_KV_F32) near.bound = 1e-7;
    if (near.bound == 0 && s->input == TN_FILL_TINY && !rig->exact) near.bound = 1e-12;
    return near;
}

static tn_status compare(run *r, tn_check *c, tn_pattern_graph *g, tn_op op, const tn_sizes *s, const char *where) {
    const tn_near near = nearness(&r->rigs->device, op, s);
    const tn_rig_options o = {"none", s->act_f32, s->kv};
    tn_status status = TN_OK;
    for (int32_t k = 0; k < g->n_sinks && status == TN_OK; k++) {
        tn_table got = {0}, want = {0};
        g->g.output = g->sink[k];
        status = tn_rig_measure(&r->rigs->device, &g->g, &o, &got, r->err);
        if (status == TN_OK) status = tn_rig_measure(&r->rigs->reference, &g->g, &o, &want, r->err);
        if (status == TN_OK) {
            c->cases++;
            if (near.bound == 0)
                tn_check_equal(c, &got, &want, where);
            else
                tn_check_near(c, &got, &want, &near, where);
        }
        tn_free(got.p);
        tn_free(want.p);
    }
    return tn_check_case(c, status, where, r->err);
}

static tn_status try_case(run *r, tn_check *c, tn_op op, const tn_sizes *s, bool one_token) {
    const tn_rule alone = {.name = tn_ops[op].name, .line = {{'Y', UINT64_C(1) << op, ""}}};
    tn_pattern p = {.rule = &alone, .kind = {(int)op}, .many = 1};
    tn_pattern_graph g;
    tn_status status = tn_pattern_build(&g, &p, s, 0, one_token, &r->weights, r->err);
    if (status != TN_OK) return status == TN_ERR_USAGE ? TN_OK : status;
    char where[160];
    snprintf(where, sizeof where, "%s, %d to %d columns, heads %d/%d of %d%s%s", one_token ? "decode" : "prefill",
             s->width, s->n_out, s->n_head, s->n_kv, s->head_dim, s->act_f32 ? "" : ", int8", tn_fill_name(s->input));
    if (!r->collecting) status = compare(r, c, &g, op, s, where);
    tn_pattern_free(&g);
    return status;
}

/* One op (with one type of weight, where it has one), in these sizes and both phases. */
static tn_status check_op(run *r, tn_op op, int type, bool on_hard) {
    tn_check c = {0};
    const char *of = type < 0 ? "" : tn_type_get((uint32_t)type)->name;
    snprintf(c.name, sizeof c.name, "op %s%s%s%s", tn_ops[op].name, *of ? " " : "", of,
             on_hard ? ", hard inputs" : "");
    tn_status status = TN_OK;
    int n = (on_hard ? N_HARD : N_SIZES) * 4, turn = r->rigs->turn;
    int first = turn && !r->collecting ? (r->n_checks++ * 5 + turn * (n / 4 + 1)) % n : 0;
    for (int i = 0; i < n && status == TN_OK && !(turn && c.cases); i++) { /* both phases, f32 and int8 activations */
        int at = (first + i) % n;
        tn_sizes s = on_hard ? hard[at / 4] : sizes[at / 4];
        s.type[0] = s.type[1] = type < 0 ? TN_TYPE_F32 : (tn_type)type;
        s.act_f32 = at & 1;
        if (type < 0 && s.act_f32) continue; /* nothing that it changes */
        status = try_case(r, &c, op, &s, at & 2);
    }
    if (r->collecting || status != TN_OK) return status;
    if (!c.cases) tn_check_fail(&c, "no case: what the op needs is not known here");
    tn_report_check(r->report, &c);
    return TN_OK;
}

static tn_status check_ops(run *r) {
    tn_status status = TN_OK;
    uint64_t types = r->rigs->device.backend->caps(r->rigs->device.device)->weight_types;
    for (int op = 0; op < TN_OP_COUNT && status == TN_OK; op++) {
        if (tn_ops[op].class == TN_LEAF || (r->only && strcmp(r->only, tn_ops[op].name))) continue;
        bool typed = tn_ops[op].class == TN_MATMUL || op == TN_OP_EMBED;
        for (int on_hard = 0; on_hard < 2; on_hard++) {
            if (!typed && status == TN_OK) status = check_op(r, (tn_op)op, -1, on_hard);
            for (uint32_t type = 0; typed && type < TN_TYPE_LIMIT && status == TN_OK; type++)
                if (types >> type & 1 && tn_type_get(type)) status = check_op(r, (tn_op)op, (int)type, on_hard);
        }
    }
    return status;
}

tn_status tn_verify_ops(tn_report *report, const tn_verify_rigs *rigs, const char *only, tn_error *err) {
    tn_error unheard;
    run r = {.report = report, .rigs = rigs, .only = only, .err = err ? err : &unheard, .collecting = true};
    const tn_rig *rig[] = {&rigs->device, &rigs->reference};
    tn_status status = check_ops(&r);
    for (int k = 0; k < 2 && status == TN_OK; k++)
        status = rig[k]->backend->put_weights(rig[k]->device, r.weights.p, r.weights.n, NULL, NULL, err);
    r.collecting = false;
    if (status == TN_OK) status = check_ops(&r);
    tn_rig_weights_free(&r.weights);
    return status;
}
