/* The matcher. It reads a pattern from its last line backwards: the last line is tried on a launch, whose sources bind
 * slots; a slot bound by a reader names the one launch that makes it, so that earlier lines need no search. The only
 * choices are the operand order of commutative ops, which source of a fused launch is meant, and who stands beside the others
 * as another reader of a source. Nothing is changed. */
#include "fuse/rule.h"

#include <string.h>

typedef struct search {
    tn_match *m;
    const tn_work *w;
    const tn_rule *rule;
    unsigned absent;
    tn_line line[TN_MAX_LINES];        /* of this variant: absent lines are gone, their slots renamed */
    char src[TN_MAX_LINES][8], out[8]; /* sources, and slots that may be used outside, renamed likewise */
    int n;
    int deepest; /* the lowest line that did not match; -1: all did, but the match was refused */
    const char *why;
    int32_t why_node;
} search;

static bool match_line(search *s, int i);
static bool accept(search *s);

/* The lines that are there; the slot of an absent one becomes its first source wherever it is read. */
static void choose_lines(search *s) {
    const tn_rule *rule = s->rule;
    char as[128];
    for (int c = 0; c < 128; c++) as[c] = (char)c;
    s->n = 0;
    for (int i = 0; i < TN_MAX_LINES && rule->line[i].slot; i++) {
        const tn_line *l = &rule->line[i];
        if (s->absent >> i & 1) {
            as[(int)l->slot] = as[(int)l->src[0]];
            continue;
        }
        size_t k = 0;
        for (; l->src[k]; k++) s->src[s->n][k] = as[(int)l->src[k]];
        s->src[s->n][k] = 0;
        s->line[s->n] = *l;
        s->line[s->n].src = s->src[s->n];
        s->n++;
    }
    for (size_t k = 0; rule->out && rule->out[k]; k++) s->out[k] = as[(int)rule->out[k]];
}

static bool in_match(const tn_match *m, int32_t launch) {
    for (int32_t i = 0; i < m->n; i++)
        if (m->launch[i] == launch) return true;
    return false;
}

static bool fail(search *s, int i, const char *why, int32_t node) {
    if (i < s->deepest) {
        s->deepest = i;
        s->why = why;
        s->why_node = node;
    }
    return false;
}

/* Binds slot to value v, or checks that it is bound to it; *fresh: it was not bound before. */
static bool bind(tn_match *m, char slot, tn_src v, bool *fresh) {
    int k = slot - 'A';
    *fresh = !m->bound[k];
    if (m->bound[k]) return tn_src_same(m->slot[k], v);
    m->bound[k] = true;
    m->slot[k] = v;
    return true;
}

static void unbind(tn_match *m, char slot, bool fresh) {
    if (fresh) m->bound[slot - 'A'] = false;
}

/* Sources of a one-node launch: in order, or swapped where the op commutes. */
static bool match_sources(search *s, int i, const tn_node *n, const char *slots) {
    int given = (int)strlen(slots), orders = tn_ops[n->op].commutes && given > 1 ? 2 : 1;
    if (given > n->n_src) given = n->n_src;
    for (int order = 0; order < orders; order++) {
        bool fresh[TN_MAX_SRC] = {0}, ok = true;
        int k = 0;
        for (; k < given && ok; k++) ok = bind(s->m, slots[k], n->src[order ? n->n_src - 1 - k : k], &fresh[k]);
        if (ok && match_line(s, i - 1)) return true;
        while (k-- > 0) unbind(s->m, slots[k], fresh[k]);
    }
    return false;
}

/* Sources of a fused launch: every slot may be any value that comes from outside it. */
static bool match_reads(search *s, int i, const tn_launch *l, int32_t id, const char *slots) {
    if (!slots[0]) return match_line(s, i - 1);
    for (int32_t k = 0; k < l->n; k++) {
        const tn_node *n = &s->w->g->nodes[l->nodes[k]];
        for (int j = 0; j < n->n_src; j++) {
            bool fresh;
            if (s->w->owner[n->src[j].node] == id || s->w->owner[n->src[j].node] < 0) continue;
            if (bind(s->m, slots[0], n->src[j], &fresh) && match_reads(s, i, l, id, slots + 1)) return true;
            unbind(s->m, slots[0], fresh);
        }
    }
    return false;
}

/* Whether a launch has an op that a line asks for: it was there, but another rule took it. */
static bool took(const search *s, const tn_launch *l, const tn_line *line) {
    for (int32_t k = 0; k < l->n; k++)
        if (line->kinds >> s->w->g->nodes[l->nodes[k]].op & 1) return true;
    return false;
}

static bool match_launch(search *s, int i, int32_t id) {
    const tn_launch *l = &s->w->launch[id];
    const tn_line *line = &s->line[i];
    if (!(line->kinds >> l->kind & 1)) {
        if (i == s->n - 2 && !took(s, l, line)) return false; /* one line alone has matched: no near miss */
        return fail(s, i,
                    l->kind >= TN_KIND_FIRST ? "the value is made in a launch of another kind"
                                             : "the value is made by another op",
                    l->nodes[l->n - 1]);
    }
    if (in_match(s->m, id)) return false;
    s->m->launch[s->m->n++] = id;
    bool ok = l->kind < TN_KIND_FIRST ? match_sources(s, i, &s->w->g->nodes[l->nodes[0]], line->src)
                                      : match_reads(s, i, l, id, line->src);
    if (!ok) s->m->n--;
    return ok;
}

/* A line whose slot no later line reads: any reader of its first source, which a later line reads too. */
static bool match_beside(search *s, int i) {
    int k = s->line[i].src[0] - 'A';
    if (k < 0 || !s->m->bound[k]) return false; /* a pattern hangs together */
    int32_t x = s->m->slot[k].node;
    for (int32_t j = 0; j < s->w->n_users[x]; j++)
        if (match_launch(s, i, s->w->owner[s->w->users[x][j]])) return true;
    return false;
}

/* Matches line i and all before it. */
static bool match_line(search *s, int i) {
    if (i < 0) return accept(s);
    int k = s->line[i].slot - 'A';
    if (!s->m->bound[k]) return match_beside(s, i);
    int32_t id = s->w->owner[s->m->slot[k].node];
    if (id >= 0) return match_launch(s, i, id);
    return i < s->n - 2 && fail(s, i, "the value comes from outside the step", s->m->slot[k].node);
}

/* ---- legality ---- */

/* Whether the value of an inner line's slot is read outside the match, or is the graph's result. */
static bool leaks(const tn_match *m, const tn_work *w, tn_src v) {
    if (tn_is_result(w->g, v.node)) return true;
    for (int32_t k = 0; k < w->n_users[v.node]; k++)
        if (!in_match(m, w->owner[w->users[v.node][k]])) return true;
    return false;
}

/* The highest node from which a path may lead back into the set. Paths go up in the graph, but what goes into a launch of
 * several nodes may come out of an earlier one of them. */
static int32_t path_limit(const tn_match *m, const tn_work *w) {
    int32_t limit = 0;
    for (int32_t j = 0; j < m->n; j++) {
        const tn_launch *l = &w->launch[m->launch[j]];
        if (l->nodes[l->n - 1] > limit) limit = l->nodes[l->n - 1];
    }
    while (w->extent[limit] > limit) limit = w->extent[limit];
    return limit;
}

/* No path leaves the set and comes back: walks from the set along uses, every launch once. */
static bool convex(const tn_match *m, const tn_work *w) {
    int32_t n = 0, limit = path_limit(m, w);
    memset(w->seen, 0, (size_t)w->n);
    for (int32_t j = 0; j < m->n; j++) w->todo[n++] = m->launch[j];
    while (n > 0) {
        int32_t id = w->todo[--n];
        const tn_launch *l = &w->launch[id];
        for (int32_t i = 0; i < l->n; i++)
            for (int32_t k = 0; k < w->n_users[l->nodes[i]]; k++) {
                int32_t next = w->owner[w->users[l->nodes[i]][k]];
                bool inside = in_match(m, next);
                if (inside && !in_match(m, id)) return false;
                if (inside || w->seen[next] || w->launch[next].nodes[0] > limit) continue;
                w->seen[next] = 1;
                w->todo[n++] = next;
            }
    }
    return true;
}

/* Legal for any graph: nothing inside is used outside but through `out` slots and the last line, and no path leaves the
 * set and comes back. NULL, or why not. */
static const char *illegal(const search *s) {
    const tn_match *m = s->m;
    for (int i = 0; i < s->n - 1; i++) {
        char slot = s->line[i].slot;
        if (strchr(s->out, slot)) continue;
        if (m->bound[slot - 'A'] && leaks(m, s->w, m->slot[slot - 'A'])) return "a value inside is also used outside";
    }
    return convex(m, s->w) ? NULL : "a path leaves the region and comes back";
}

int32_t tn_match_nodes(const tn_match *m, const tn_work *w) {
    int32_t n = 0;
    for (int32_t j = 0; j < m->n; j++) {
        const tn_launch *l = &w->launch[m->launch[j]];
        for (int32_t i = 0; i < l->n; i++) { /* insertion: launches are short */
            int32_t k = n++;
            for (; k > 0 && w->scratch[k - 1] > l->nodes[i]; k--) w->scratch[k] = w->scratch[k - 1];
            w->scratch[k] = l->nodes[i];
        }
    }
    return n;
}

/* The three questions, in order: legal for any graph, legal for this rule, runnable here. */
static const char *refused(const search *s) {
    const char *why = illegal(s);
    if (!why && s->rule->legal) why = s->rule->legal(s->w->g, s->m);
    if (why) return why;
    int32_t n = tn_match_nodes(s->m, s->w);
    if (n > TN_LAUNCH_MAX) return "too many nodes for one launch";
    return s->w->query.find(s->w->query.device, s->w->g, s->w->scratch, n);
}

/* MANY: every other launch of the line that reads the same first source joins, as long as nothing speaks against it. */
static void add_many(search *s) {
    tn_match *m = s->m;
    tn_src x = m->slot[s->line[0].src[0] - 'A'];
    for (int32_t k = 0; k < s->w->n_users[x.node] && m->n < TN_MAX_GROUP; k++) {
        int32_t user = s->w->users[x.node][k], id = s->w->owner[user];
        if (in_match(m, id) || !(s->line[0].kinds >> s->w->launch[id].kind & 1)) continue;
        if (!tn_src_same(s->w->g->nodes[user].src[0], x)) continue;
        m->launch[m->n++] = id;
        if (refused(s)) m->n--;
    }
}

/* Every line has matched: may the match be merged? If not, the search goes on with the next choice. */
static bool accept(search *s) {
    int32_t n = s->m->n;
    if (s->line[0].flags & TN_MANY) add_many(s);
    if (s->m->n == 1) return false; /* nothing to merge */
    const char *why = refused(s);
    if (!why) return true;
    s->m->n = n;
    const tn_launch *last = &s->w->launch[s->m->launch[0]];
    return fail(s, -1, why, last->nodes[last->n - 1]);
}

bool tn_match_rule(tn_match *m, const tn_work *w, const tn_rule *rule, unsigned absent, int32_t anchor,
                   const char **why, int32_t *why_node) {
    search s = {.m = m, .w = w, .rule = rule, .absent = absent};
    *m = (tn_match){0};
    choose_lines(&s);
    s.deepest = s.n - 1; /* failing on the last line itself is no news */
    bool ok = match_launch(&s, s.n - 1, anchor);
    *why = absent && s.deepest >= 0 ? NULL : s.why; /* that a line is missing is news only where none was left out */
    *why_node = s.why_node;
    return ok;
}
