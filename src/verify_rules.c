/* The pattern is the specification: every rule, in every form, as a small graph that is run unfused on the reference and
 * fused on the backend. A form is a choice of OPT lines, of what each line is (one of its ops, or a launch that another
 * rule fused), and of the members of a MANY line. */
#include "base/mem.h"
#include "verify.h"

#include <stdio.h>
#include <string.h>

/* Rows of many widths, heads of three sizes, every block type. */
/* clang-format off */
static const tn_sizes sizes[] = {
    {32, 64, 16, 4, 2, 16, false, 0, 0, {TN_TYPE_F32, TN_TYPE_F32}, true, TN_KV_F32, TN_OPERAND_VALUE, 70},
    {64, 96, 32, 4, 1, 16, true, 5, 0, {TN_TYPE_Q8_0, TN_TYPE_Q4_0}, false, TN_KV_F32, TN_OPERAND_SWAPPED, 70},
    {96, 40, 64, 2, 2, 64, false, 0, 3, {TN_TYPE_F16, TN_TYPE_F32}, true, TN_KV_F16, TN_OPERAND_SLICE, 7},
    {160, 64, 32, 6, 3, 32, false, 0, 0, {TN_TYPE_Q4_1, TN_TYPE_Q5_0}, false, TN_KV_F16, TN_OPERAND_WEIGHT, 7},
    {576, 160, 64, 4, 2, 64, true, 0, 0, {TN_TYPE_Q4_1, TN_TYPE_Q8_0}, false, TN_KV_Q8_0, TN_OPERAND_REPEATS, 7},
    {256, 64, 16, 8, 1, 8, true, 0, 0, {TN_TYPE_Q4_K, TN_TYPE_Q6_K}, false, TN_KV_F16, TN_OPERAND_VALUE, 7},
    {512, 32, 16, 2, 1, 16, false, 3, 0, {TN_TYPE_Q2_K, TN_TYPE_Q3_K}, false, TN_KV_F32, TN_OPERAND_WEIGHT, 7},
    {256, 32, 32, 2, 2, 32, true, 0, 0, {TN_TYPE_IQ4_NL, TN_TYPE_IQ4_XS}, false, TN_KV_Q8_0, TN_OPERAND_SLICE, 7},
    {256, 96, 32, 8, 4, 32, false, 0, 9, {TN_TYPE_Q5_K, TN_TYPE_Q4_0}, true, TN_KV_F16, TN_OPERAND_SWAPPED, 7},
    {64, 33, 16, 4, 4, 16, false, 0, 0, {TN_TYPE_BF16, TN_TYPE_Q5_1}, true, TN_KV_F32, TN_OPERAND_REPEATS, 70},
    /* hard inputs */
    {160, 64, 32, 6, 3, 32, true, 0, 0, {TN_TYPE_Q8_0, TN_TYPE_Q4_0}, false, TN_KV_F16, TN_OPERAND_VALUE, 7, 0, TN_FILL_TINY},
    {256, 40, 16, 4, 2, 16, false, 1, 0, {TN_TYPE_F32, TN_TYPE_F16}, true, TN_KV_F32, TN_OPERAND_WEIGHT, 7, 0, TN_FILL_TINY},
    {160, 40, 16, 4, 2, 16, false, 3, 0, {TN_TYPE_F32, TN_TYPE_F16}, true, TN_KV_F32, TN_OPERAND_REPEATS, 7, 0, TN_FILL_HUGE},
    {256, 32, 32, 4, 4, 16, false, 0, 9, {TN_TYPE_Q4_K, TN_TYPE_Q6_K}, false, TN_KV_F32, TN_OPERAND_WEIGHT, 7, 0, TN_FILL_HUGE},
    {64, 32, 32, 2, 1, 32, true, 0, 0, {TN_TYPE_Q8_0, TN_TYPE_Q5_0}, false, TN_KV_Q8_0, TN_OPERAND_VALUE, 70, 0, TN_FILL_EQUAL},
};
/* clang-format on */
enum { N_SIZES = sizeof sizes / sizeof *sizes, MAX_SEEN = 2 }; /* values looked at in one case */

/* Against the reference: sums are made in another order; an int8 value may be rounded to the other side by that, and an
 * element of the cache, too. */
static double bound_of(const tn_pattern_graph *p, const tn_sizes *s) {
    bool int8 = p->quantizes || (!s->act_f32 && s->type[0] != TN_TYPE_F32);
    if (int8 || (p->attends && s->kv == TN_KV_Q8_0)) return 2e-5;
    return p->attends && s->kv == TN_KV_F16 ? 1e-7 : 1e-11;
}

typedef struct run {
    tn_report *report;
    const tn_verify_rigs *rigs;
    tn_rig_weights weights;
    tn_error *err;
    bool collecting; /* only the weights: the first of two rounds */
    int32_t n_forms;
    bool line_fused[TN_MAX_LINES][64], absent_fused[1 << TN_MAX_LINES]; /* of the rule in hand */
} run;

/* A pattern with its sizes, in one phase. */
typedef struct trial {
    const run *r;
    tn_check *c;
    const tn_pattern *p;
    const tn_sizes *s;
    tn_pattern_graph g;
    char where[160];
    bool fired, fused; /* the rule did; the whole pattern is one launch */
    bool denied;       /* the backend has no kernel for that */
} trial;

/* ---- one case ---- */

/* "matmul_add,group": the rule and the makers of its launches. */
static void spec_of(char *to, size_t n, const tn_pattern *p) {
    snprintf(to, n, "%s", p->rule->name);
    for (int i = 0; i < TN_MAX_LINES && p->rule->line[i].slot; i++)
        if (p->kind[i] >= TN_KIND_FIRST && !(p->absent >> i & 1))
            snprintf(to + strlen(to), n - strlen(to), ",%s", p->maker[i]->name);
}

static int32_t find_node(const tn_graph *g, const char *name) {
    for (int32_t i = 0; i < g->n; i++)
        if (!strcmp(g->nodes[i].name, name)) return i;
    return -1;
}

/* The pattern's nodes in the plan's graph, those that lowering put between them included. */
static int32_t planned_nodes(int32_t *to, const tn_plan *plan, const tn_pattern_graph *p) {
    const tn_graph *g = &plan->graph;
    int32_t n = 0;
    for (int32_t i = 0; i < g->n && n < TN_PATTERN_NODES; i++) {
        bool inner = false, lowered = find_node(&p->g, g->nodes[i].name) < 0;
        for (int32_t k = 0; k < p->n_inner; k++) inner |= !strcmp(p->g.nodes[p->inner[k]].name, g->nodes[i].name);
        for (int32_t k = 0; lowered && k < n; k++) inner |= to[k] == g->nodes[i].src[0].node;
        if (inner) to[n++] = i;
    }
    return n;
}

static const tn_rule_log *log_of(const tn_plan *plan, const tn_rule *rule) {
    const tn_partition *p = &plan->partition;
    int32_t i = 0;
    while (i + 1 < p->n_rules && strcmp(p->log[i].name, rule->name)) i++;
    return &p->log[i];
}

/* Whether a rule is the last of "norm, norm_matmuls", which made the launch. */
static bool made_by(const char *rules, const char *name) {
    size_t n = rules ? strlen(rules) : 0, m = strlen(name);
    return n >= m && !strcmp(rules + n - m, name) && (n == m || rules[n - m - 1] == ' ');
}

/* Whether all of the pattern's nodes are in one launch, which the rule made. If not there must be a reason: the backend's,
 * the rule's own condition, or another match of the rule that came first (an operand may match as well). */
static void judge(trial *t, const tn_plan *plan) {
    const tn_rig *rig = &t->r->rigs->device;
    int32_t nodes[TN_PATTERN_NODES], n = planned_nodes(nodes, plan, &t->g), launch = plan->partition.owner[nodes[0]];
    const tn_rule_log *log = log_of(plan, t->p->rule);
    t->fired = log->fired > 0;
    t->fused = t->fired && made_by(plan->partition.launch[launch].rules, t->p->rule->name);
    for (int32_t i = 1; i < n; i++) t->fused &= plan->partition.owner[nodes[i]] == launch;
    if (t->fused) return;
    const char *why = rig->backend->find_kernel(rig->device, &plan->graph, nodes, n, NULL);
    t->denied = why != NULL;
    if (!why && t->fired) why = "another match came first";
    if (!why && t->p->rule->legal && log->rejects) why = log->rejects->reason;
    if (why)
        snprintf(t->c->refusal, sizeof t->c->refusal, "%s", why);
    else
        tn_check_fail(t->c, "%s: the rule did not fire", t->where);
}

/* On the device, where the rule fires. */
static tn_status run_fused(trial *t, const tn_rig_options *o, tn_table *result, tn_error *err) {
    const tn_rig *rig = &t->r->rigs->device;
    tn_plan plan;
    tn_status status = tn_rig_plan(rig, &plan, &t->g.g, o, err);
    if (status != TN_OK) return status;
    judge(t, &plan);
    if (t->fired) status = tn_rig_run(rig, &plan, o->kv, result, err);
    tn_plan_free(&plan);
    return status;
}

/* Fused, unfused and on the reference, seen through one sink. */
static tn_status compare_sink(trial *t, const char *spec, tn_error *err) {
    tn_table fused = {0}, unfused = {0}, reference = {0};
    const tn_rig *rig = &t->r->rigs->device;
    const tn_near near = {bound_of(&t->g, t->s), 32, rig->zero};
    tn_rig_options o = {spec, t->s->act_f32, t->s->kv}, plain = {"none", o.act_f32, o.kv};
    tn_status status = run_fused(t, &o, &fused, err);
    if (status != TN_OK || !t->fired) goto done;
    bool whole = !t->r->rigs->turn;
    if (whole) status = tn_rig_measure(rig, &t->g.g, &plain, &unfused, err);
    if (status == TN_OK) status = tn_rig_measure(&t->r->rigs->reference, &t->g.g, &plain, &reference, err);
    if (status != TN_OK) goto done;
    t->c->cases++;
    if (whole && rig->exact) tn_check_equal(t->c, &fused, &unfused, t->where);
    if (whole) tn_check_near(t->c, &unfused, &reference, &near, t->where);
    tn_check_near(t->c, &fused, &reference, &near, t->where);
done:
    tn_free(fused.p);
    tn_free(unfused.p);
    tn_free(reference.p);
    return status;
}

static tn_status compare(trial *t, bool one_token, unsigned exposed, tn_error *err) {
    char spec[200];
    const tn_sizes *s = t->s;
    tn_status status = TN_OK;
    spec_of(spec, sizeof spec, t->p);
    snprintf(t->where, sizeof t->where, "%s of width %d to %d, heads %d/%d of %d, %s and %s%s%s",
             one_token ? "decode" : "prefill", s->width, s->n_out, s->n_head, s->n_kv, s->head_dim,
             tn_type_get(s->type[0])->name, tn_type_get(s->type[1])->name, tn_fill_name(s->input),
             exposed ? ", seen outside" : "");
    int32_t most = t->r->rigs->turn ? 1 : MAX_SEEN, n = t->g.n_sinks < most ? t->g.n_sinks : most;
    for (int32_t k = 0; k < n && status == TN_OK && (k == 0 || t->fired); k++) { /* others with other sizes */
        t->g.g.output = t->g.sink[(k + (int32_t)(s - sizes)) % t->g.n_sinks];
        status = compare_sink(t, spec, err);
    }
    *(t->fused ? &t->c->fused : &t->c->refused) += 1;
    t->c->denied += !t->fused && t->denied;
    return tn_check_case(t->c, status, t->where, err);
}

/* One case: sizes that do not suit the pattern are left out. */
static tn_status try_case(run *r, tn_check *c, const tn_pattern *p, int size, unsigned exposed, bool one_token) {
    trial t = {.r = r, .c = c, .p = p, .s = &sizes[size]};
    tn_status status = tn_pattern_build(&t.g, p, t.s, exposed, one_token, &r->weights, r->err);
    if (status != TN_OK) return status == TN_ERR_USAGE ? TN_OK : status;
    if (!r->collecting) status = compare(&t, one_token, exposed, r->err);
    tn_pattern_free(&t.g);
    return status;
}

/* ---- forms ---- */

static void name_form(tn_check *c, const tn_pattern *p) {
    const char *comma = ": ";
    size_t n = sizeof c->name;
    snprintf(c->name, n, "rule %s", p->rule->name);
    for (int i = 0; i < TN_MAX_LINES && p->rule->line[i].slot; i++) {
        size_t at = strlen(c->name);
        if (p->absent >> i & 1) continue;
        snprintf(c->name + at, n - at, "%s%s", comma, tn_kind_name(p->kind[i]));
        at = strlen(c->name);
        if (p->kind[i] >= TN_KIND_FIRST)
            snprintf(c->name + at, n - at, " (%s%s)", p->maker[i]->name, p->bare[i] ? ", bare" : "");
        if (p->rule->line[i].flags & TN_MANY) snprintf(c->name + at, n - at, " x%d", p->many);
        comma = ", ";
    }
}

/* In all sizes, both phases, with each choice of slots read outside; where a form is the `variation`-th of another (from 1),
 * in half of the sizes with one choice. On a turn the first of these that fuses, from another one on every time. */
static tn_status check_form(run *r, const tn_pattern *p, int variation) {
    tn_check c = {0};
    int n_exposed = 1 << (p->rule->out ? strlen(p->rule->out) : 0), n = N_SIZES * n_exposed * 2, turn = r->rigs->turn;
    int first = turn && !r->collecting ? (r->n_forms++ * 5 + turn * (n / 4 + 1)) % n : 0;
    name_form(&c, p);
    for (int i = 0; i < n && !(turn && c.fused); i++) {
        int at = (first + i) % n, decode = at % 2, exposed = at / 2 % n_exposed, size = at / 2 / n_exposed;
        if (variation && (size + variation) % 2) continue;
        if (variation && exposed != size / 2 % n_exposed) continue;
        tn_status status = try_case(r, &c, p, size, (unsigned)exposed, decode);
        if (status != TN_OK) return status;
    }
    if (c.fused + c.refused == 0) return TN_OK; /* collecting; or a form that makes no sense */
    /* what a device has no kernel for in any case is its own affair, and told; the CPU has one for everything */
    bool covered = c.fused || (c.denied == c.refused && !r->rigs->device.exact);
    for (int i = 0; covered && i < TN_MAX_LINES && p->rule->line[i].slot; i++)
        if (!(p->absent >> i & 1)) r->line_fused[i][p->kind[i]] = true;
    if (covered) r->absent_fused[p->absent] = true;
    tn_report_check(r->report, &c);
    return TN_OK;
}

/* ---- enumeration ---- */

static int count_lines(const tn_rule *rule, unsigned absent) {
    int n = 0;
    for (int i = 0; i < TN_MAX_LINES && rule->line[i].slot; i++) n += !(absent >> i & 1);
    return n;
}

static unsigned optional_lines(const tn_rule *rule) {
    unsigned opt = 0;
    for (int i = 0; i < TN_MAX_LINES && rule->line[i].slot; i++)
        if (rule->line[i].flags & TN_OPT) opt |= 1u << i;
    return opt;
}

static const tn_rule *rule_at(int32_t i) {
    for (int32_t t = 0; t < tn_n_rule_tables; i -= tn_rule_tables[t++].n)
        if (i < tn_rule_tables[t].n) return &tn_rule_tables[t].rules[i];
    return NULL;
}

/* Whether a rule can make launches of a kind from single nodes. */
static bool makes(const tn_rule *maker, int kind, bool bare) {
    unsigned opt = optional_lines(maker);
    if (maker->emit != kind || (bare && !opt)) return false;
    bool merges = count_lines(maker, bare ? opt : 0) > 1 || maker->line[0].flags & TN_MANY;
    for (int i = 0; i < TN_MAX_LINES && maker->line[i].slot; i++)
        if (!(maker->line[i].kinds & ((UINT64_C(1) << TN_OP_COUNT) - 1))) return false;
    return merges;
}

/* The choices for a line: its ops, then its fused kinds with each rule that makes them. false: no choice of that number. */
static bool choose_kind(tn_pattern *p, int line, int number) {
    for (int kind = 0; kind < TN_KIND_LIMIT; kind++) {
        if (!(p->rule->line[line].kinds >> kind & 1)) continue;
        p->kind[line] = kind;
        if (kind < TN_KIND_FIRST) {
            if (number-- == 0) return true;
            continue;
        }
        for (int32_t m = 0; rule_at(m); m++)
            for (int bare = 0; bare < 2; bare++) {
                if (!makes(rule_at(m), kind, bare) || number-- > 0) continue;
                p->maker[line] = rule_at(m);
                p->bare[line] = bare;
                return true;
            }
    }
    return false;
}

/* All forms with these lines: the first choice everywhere, then one line at a time with its other choices. */
static tn_status check_lines(run *r, const tn_rule *rule, unsigned absent, int32_t many) {
    tn_pattern base = {.rule = rule, .absent = absent, .many = many};
    for (int i = 0; i < TN_MAX_LINES && rule->line[i].slot; i++) choose_kind(&base, i, 0);
    tn_status status = check_form(r, &base, 0);
    for (int i = 0; i < TN_MAX_LINES && rule->line[i].slot && status == TN_OK; i++) {
        if (absent >> i & 1) continue;
        tn_pattern p = base;
        for (int number = 1; choose_kind(&p, i, number) && status == TN_OK; number++)
            status = check_form(r, &p, number);
    }
    return status;
}

/* Every subset of OPT lines and every kind of every line must have fired in some form, or the rule is not what it says. */
static void check_coverage(run *r, const tn_rule *rule) {
    tn_check c = {0};
    unsigned opt = optional_lines(rule);
    snprintf(c.name, sizeof c.name, "rule %s: every form fires", rule->name);
    for (unsigned absent = 0;; absent = (absent - opt) & opt) {
        bool merges = count_lines(rule, absent) > 1 || rule->line[0].flags & TN_MANY;
        if (merges && !r->absent_fused[absent]) tn_check_fail(&c, "never without the lines of 0x%x", absent);
        c.cases++;
        if (absent == opt) break;
    }
    for (int i = 0; i < TN_MAX_LINES && rule->line[i].slot; i++)
        for (int kind = 0; kind < TN_KIND_LIMIT; kind++) {
            if (!(rule->line[i].kinds >> kind & 1)) continue;
            if (!r->line_fused[i][kind])
                tn_check_fail(&c, "never with %s as %c", tn_kind_name(kind), rule->line[i].slot);
            c.cases++;
        }
    tn_report_check(r->report, &c);
}

static tn_status check_rule(run *r, const tn_rule *rule) {
    static const int32_t members[] = {2, 3, 8};
    unsigned opt = optional_lines(rule);
    tn_status status = TN_OK;
    memset(r->line_fused, 0, sizeof r->line_fused);
    memset(r->absent_fused, 0, sizeof r->absent_fused);
    for (unsigned absent = 0; status == TN_OK; absent = (absent - opt) & opt) {
        bool many = rule->line[0].flags & TN_MANY;
        for (size_t k = 0; k < sizeof members / sizeof *members && status == TN_OK; k++)
            if (many || (k == 0 && count_lines(rule, absent) > 1)) status = check_lines(r, rule, absent, members[k]);
        if (absent == opt) break;
    }
    if (status == TN_OK && !r->collecting) check_coverage(r, rule);
    return status;
}

tn_status tn_verify_rules(tn_report *report, const tn_verify_rigs *rigs, const char *only, tn_error *err) {
    tn_error unheard;
    run r = {.report = report, .rigs = rigs, .err = err ? err : &unheard, .collecting = true};
    const tn_rig *rig[] = {&rigs->device, &rigs->reference};
    tn_status status = TN_OK;
    for (int round = 0; round < 2 && status == TN_OK; round++, r.collecting = false) {
        for (int k = 0; round == 1 && k < 2 && status == TN_OK; k++)
            status = rig[k]->backend->put_weights(rig[k]->device, r.weights.p, r.weights.n, NULL, NULL, err);
        for (int32_t i = 0; rule_at(i) && status == TN_OK; i++)
            if (!only || !strcmp(only, rule_at(i)->name)) status = check_rule(&r, rule_at(i));
    }
    tn_rig_weights_free(&r.weights);
    return status;
}
