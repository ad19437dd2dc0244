/* The driver of fusion: which rules are on, the passes, merging, the log, the final order. The one place that changes a
 * partition; matching only reads it. */
#include "base/mem.h"
#include "fuse/rule.h"

#include <string.h>

enum { MAX_RULES = 32 };
_Static_assert(TN_KIND_LIMIT <= 64, "kinds are bits of a 64-bit set");

typedef struct driver {
    tn_work w;
    tn_partition *out;
    const tn_rule *rules[MAX_RULES]; /* in table order */
    int32_t n_rules;
    int32_t pass;
    int32_t *told; /* of each launch: the round in which a variant's refusal was logged; the next one's is not */
} driver;

static const char *const kind_names[] = {
#define KIND(NAME, name, what) name,
#include "fuse/kinds.def"
#undef KIND
};

const char *tn_kind_name(int kind) {
    return kind < TN_KIND_FIRST ? tn_ops[kind].name : kind_names[kind - TN_KIND_FIRST - 1];
}

/* ---- which rules are on ---- */

static int32_t find_rule(const driver *d, tn_str name) {
    for (int32_t i = 0; i < d->n_rules; i++)
        if (tn_str_is(name, d->rules[i]->name)) return i;
    return -1;
}

static tn_status unknown_rule(const driver *d, tn_str name, tn_error *err) {
    char list[400] = "";
    for (int32_t i = 0; i < d->n_rules; i++) {
        size_t n = strlen(list), left = sizeof list - n;
        if (strlen(d->rules[i]->name) + 3 < left) strcat(strcat(list, i ? ", " : ""), d->rules[i]->name);
    }
    return tn_fail(err, TN_ERR_USAGE, "no fusion rule is called '%.*s'; there are: %s (or 'all' or 'none' alone)",
                   (int)name.n, name.p, list);
}

/* A list is either of rules to use or, each with a '-', of rules to leave out. */
static tn_status choose_rules(driver *d, const char *spec, tn_error *err) {
    tn_rule_log *log = d->out->log;
    bool all = !spec || !*spec || !strcmp(spec, "all") || *spec == '-';
    for (int32_t i = 0; i < d->n_rules; i++) log[i].on = all;
    if (!spec || !strcmp(spec, "all") || !strcmp(spec, "none")) return TN_OK;
    for (const char *p = spec; *p;) {
        size_t n = strcspn(p, ",");
        bool minus = *p == '-';
        if (minus != (*spec == '-'))
            return tn_fail(err, TN_ERR_USAGE,
                           "--fuse takes rules to use or, each with a '-', rules to leave out: not both");
        tn_str name = {p + minus, n - minus};
        int32_t i = find_rule(d, name);
        if (i < 0) return unknown_rule(d, name, err);
        log[i].on = !minus;
        const char *needs = d->rules[i]->needs;
        if (!minus && needs) log[find_rule(d, tn_str_of(needs))].on = true;
        p += n;
        if (*p == ',') p++;
    }
    return TN_OK;
}

/* ---- the log ---- */

static bool log_reject(driver *d, int32_t rule, const char *why, int32_t node) {
    tn_rule_log *log = &d->out->log[rule];
    const char *example = d->w.g->nodes[node].name;
    for (tn_reject *r = log->rejects; r; r = r->next) {
        if (strcmp(r->reason, why)) continue;
        r->count += r->pass == d->pass; /* a later pass meets most of them again */
        return true;
    }
    tn_reject *r = tn_arena_alloc(&d->out->arena, sizeof *r);
    const char *reason = tn_arena_printf(&d->out->arena, "%s", why);
    if (!r || !reason) return false;
    *r = (tn_reject){reason, example, 1, d->pass, log->rejects};
    log->rejects = r;
    return true;
}

/* ---- merging ---- */

/* All launches of the match become the first of them. */
static bool merge(driver *d, int32_t rule, const tn_match *m) {
    tn_work *w = &d->w;
    tn_arena *arena = &d->out->arena;
    int32_t into = m->launch[0], n = tn_match_nodes(m, w);
    int32_t *nodes = tn_arena_alloc(arena, (size_t)n * sizeof *nodes);
    const char *rules = d->rules[rule]->name;
    for (int32_t j = m->n - 1; j >= 0; j--) { /* "earlier, this": the history of the launch */
        const char *before = w->launch[m->launch[j]].rules;
        if (before && rules) rules = tn_arena_printf(arena, "%s, %s", before, rules);
    }
    if (!nodes || !rules) return false;
    memcpy(nodes, w->scratch, (size_t)n * sizeof *nodes);
    for (int32_t j = 0; j < m->n; j++) w->launch[m->launch[j]].n = 0;
    for (int32_t i = 0; i < n; i++) w->owner[nodes[i]] = into;
    for (int32_t i = nodes[0]; i < nodes[n - 1]; i++)
        if (w->extent[i] < nodes[n - 1]) w->extent[i] = nodes[n - 1];
    w->launch[into] = (tn_launch){d->rules[rule]->emit, n, nodes, rules};
    d->out->log[rule].fired++;
    return true;
}

static unsigned optional_lines(const tn_rule *r) {
    unsigned opt = 0;
    for (int i = 0; i < TN_MAX_LINES && r->line[i].slot; i++)
        if (r->line[i].flags & TN_OPT) opt |= 1u << i;
    return opt;
}

/* One variant of one rule over all launches. */
static bool run_variant(driver *d, int32_t rule, unsigned absent, bool *changed) {
    int32_t round = d->pass * MAX_RULES + rule;
    for (int32_t i = 0; i < d->w.n; i++) {
        if (d->w.launch[i].n == 0) continue;
        tn_match m;
        const char *why;
        int32_t node;
        if (tn_match_rule(&m, &d->w, d->rules[rule], absent, i, &why, &node)) {
            if (!merge(d, rule, &m)) return false;
            *changed = true;
        } else if (why && (!absent || d->told[i] != round)) {
            if (absent) d->told[i] = round;
            if (!log_reject(d, rule, why, node)) return false;
        }
    }
    return true;
}

/* Every rule of a table that is on, its fullest variant first, until nothing changes. */
static bool run_table(driver *d, int32_t first, int32_t n) {
    for (bool changed = true; changed;) {
        changed = false;
        d->pass++;
        for (int32_t r = first; r < first + n; r++) {
            if (!d->out->log[r].on) continue;
            unsigned opt = optional_lines(d->rules[r]);
            for (unsigned absent = 0;; absent = (absent - opt) & opt) { /* all subsets of opt, from none */
                if (!run_variant(d, r, absent, &changed)) return false;
                if (absent == opt) break;
            }
        }
    }
    return true;
}

/* ---- set-up and the final order ---- */

static bool build_work(driver *d, const tn_graph *g, tn_kernel_query query) {
    tn_arena *a = &d->out->arena;
    size_t n = (size_t)g->n;
    tn_work *w = &d->w;
    *w = (tn_work){.g = g, .query = query};
    w->launch = tn_arena_alloc(a, n * sizeof *w->launch);
    w->owner = tn_arena_alloc(a, n * sizeof *w->owner);
    w->users = tn_arena_alloc(a, n * sizeof *w->users);
    w->n_users = tn_arena_alloc(a, n * sizeof *w->n_users);
    w->extent = tn_arena_alloc(a, n * sizeof *w->extent);
    w->seen = tn_arena_alloc(a, n);
    w->todo = tn_arena_alloc(a, n * sizeof *w->todo);
    w->scratch = tn_arena_alloc(a, n * sizeof *w->scratch);
    d->told = tn_arena_alloc(a, n * sizeof *d->told);
    int32_t *self = tn_arena_alloc(a, n * sizeof *self);
    if (!w->launch || !w->owner || !w->users || !w->n_users || !w->extent || !w->seen || !w->todo || !w->scratch ||
        !d->told || !self)
        return false;
    for (int32_t i = 0; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++) w->n_users[g->nodes[i].src[k].node]++;
    for (int32_t i = 0; i < g->n; i++) {
        w->users[i] = tn_arena_alloc(a, (size_t)w->n_users[i] * sizeof **w->users);
        if (!w->users[i]) return false;
        w->n_users[i] = 0;
        for (int k = 0; k < g->nodes[i].n_src; k++) {
            int32_t s = g->nodes[i].src[k].node;
            w->users[s][w->n_users[s]++] = i;
        }
        self[i] = w->extent[i] = i;
        w->owner[i] = tn_is_leaf(&g->nodes[i]) ? -1 : w->n;
        if (w->owner[i] >= 0) w->launch[w->n++] = (tn_launch){(int)g->nodes[i].op, 1, &self[i], NULL};
    }
    return true;
}

/* Whether every source of launch id comes from launches already placed (order[] >= 0). */
static bool ready(const tn_work *w, int32_t id, const int32_t *order) {
    const tn_launch *l = &w->launch[id];
    for (int32_t i = 0; i < l->n; i++) {
        const tn_node *n = &w->g->nodes[l->nodes[i]];
        for (int k = 0; k < n->n_src; k++) {
            int32_t from = w->owner[n->src[k].node];
            if (from >= 0 && from != id && order[from] < 0) return false;
        }
    }
    return true;
}

/* A stable topological sort: of the launches that can run, the one that comes first in the graph. */
static tn_status place(driver *d, tn_error *err) {
    tn_work *w = &d->w;
    tn_partition *p = d->out;
    int32_t *order = tn_arena_alloc(&p->arena, (size_t)w->n * sizeof *order), left = 0;
    p->launch = tn_arena_alloc(&p->arena, (size_t)w->n * sizeof *p->launch);
    p->owner = w->owner;
    if (!order || !p->launch) return tn_fail_memory(err);
    for (int32_t i = 0; i < w->n; i++) {
        order[i] = -1;
        left += w->launch[i].n > 0;
    }
    for (int32_t from = 0; left > 0; left--) {
        while (w->launch[from].n == 0 || order[from] >= 0) from++;
        int32_t next = from;
        while (next < w->n && (w->launch[next].n == 0 || order[next] >= 0 || !ready(w, next, order))) next++;
        if (next == w->n) return tn_fail(err, TN_ERR_INTERNAL, "fuse: launches wait for each other");
        order[next] = p->n;
        p->launch[p->n++] = w->launch[next];
    }
    for (int32_t i = 0; i < w->g->n; i++)
        if (p->owner[i] >= 0) p->owner[i] = order[p->owner[i]];
    return TN_OK;
}

tn_status tn_fuse(tn_partition *out, const tn_graph *g, const char *rules, tn_kernel_query query, tn_error *err) {
    *out = (tn_partition){0};
    driver d = {.out = out};
    tn_status status = TN_OK;
    out->log = tn_arena_alloc(&out->arena, MAX_RULES * sizeof *out->log);
    if (!out->log || !build_work(&d, g, query)) {
        status = tn_fail_memory(err);
        goto done;
    }
    for (int32_t t = 0; t < tn_n_rule_tables; t++)
        for (int32_t r = 0; r < tn_rule_tables[t].n; r++) {
            const tn_rule *rule = &tn_rule_tables[t].rules[r];
            if (d.n_rules == MAX_RULES) {
                status = tn_fail(err, TN_ERR_INTERNAL, "fuse: more than %d rules", MAX_RULES);
                goto done;
            }
            out->log[d.n_rules] = (tn_rule_log){.name = rule->name, .formula = rule->formula};
            d.rules[d.n_rules++] = rule;
        }
    out->n_rules = d.n_rules;
    status = choose_rules(&d, rules, err);
    for (int32_t t = 0, first = 0; status == TN_OK && t < tn_n_rule_tables; first += tn_rule_tables[t++].n)
        if (!run_table(&d, first, tn_rule_tables[t].n)) status = tn_fail_memory(err);
    if (status == TN_OK) status = place(&d, err);
    if (status == TN_OK) status = tn_partition_verify(out, g, err);
done:
    if (status != TN_OK) tn_partition_free(out);
    return status;
}

void tn_partition_free(tn_partition *p) {
    tn_arena_free(&p->arena);
    *p = (tn_partition){0};
}

tn_status tn_partition_verify(const tn_partition *p, const tn_graph *g, tn_error *err) {
    int32_t placed = 0, leaves = 0;
    for (int32_t i = 0; i < g->n; i++) leaves += tn_is_leaf(&g->nodes[i]);
    for (int32_t l = 0; l < p->n; l++) {
        const tn_launch *launch = &p->launch[l];
        if (launch->n < 1) return tn_fail(err, TN_ERR_INTERNAL, "launch %d is empty", l);
        for (int32_t i = 0; i < launch->n; i++, placed++) {
            const tn_node *n = &g->nodes[launch->nodes[i]];
            if (p->owner[launch->nodes[i]] != l || (i && launch->nodes[i] <= launch->nodes[i - 1]))
                return tn_fail(err, TN_ERR_INTERNAL, "launch %d: node %s is not its own, or out of order", l,
                               n->name);
            for (int k = 0; k < n->n_src; k++)
                if (p->owner[n->src[k].node] > l)
                    return tn_fail(err, TN_ERR_INTERNAL, "launch %d runs before what it reads (%s)", l, n->name);
        }
    }
    if (placed + leaves != g->n)
        return tn_fail(err, TN_ERR_INTERNAL, "%d nodes in no launch", g->n - placed - leaves);
    return TN_OK;
}

bool tn_value_stored(const tn_partition *p, const tn_graph *g, int32_t node, int32_t out) {
    if (tn_is_result(g, node)) return true;
    for (int32_t i = node + 1; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++)
            if (g->nodes[i].src[k].node == node && g->nodes[i].src[k].out == out && p->owner[i] != p->owner[node])
                return true;
    return false;
}
