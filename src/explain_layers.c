/* Layers that differ in nothing but their number are shown once: which they are. */
#include "base/mem.h"
#include "explain.h"

#include <stdio.h>
#include <string.h>

void tn_add_shape(tn_buf *to, const char *text, int32_t layer) {
    char own[16], before[16], file[24];
    snprintf(own, sizeof own, "l%d.", layer);
    snprintf(before, sizeof before, "l%d.", layer - 1);
    snprintf(file, sizeof file, "blk.%d.", layer);
    for (const char *p = text; *p;) {
        if (!strncmp(p, own, strlen(own)))
            tn_buf_str(to, "l#."), p += strlen(own);
        else if (layer > 0 && !strncmp(p, before, strlen(before)))
            tn_buf_str(to, "l#-1."), p += strlen(before);
        else if (!strncmp(p, file, strlen(file)))
            tn_buf_str(to, "blk.#."), p += strlen(file);
        else if (*p == ' ') /* columns shift where a number gets longer */
            p++;
        else
            tn_buf_char(to, *p++);
    }
}

bool tn_launch_in_layer(const tn_plan *p, int32_t launch, int32_t layer) {
    const tn_launch *l = &p->partition.launch[launch];
    for (int32_t i = 0; i < l->n; i++)
        if (p->graph.nodes[l->nodes[i]].layer == layer) return true;
    return false;
}

/* All that is shown of a layer, without its number. */
static void add_layer(tn_buf *shape, tn_buf *line, const tn_plan *p, int32_t layer) {
    shape->n = 0;
    for (int32_t l = 0; l < p->partition.n; l++) {
        const tn_launch *launch = &p->partition.launch[l];
        if (!tn_launch_in_layer(p, l, layer)) continue;
        tn_buf_printf(shape, "%d %s %s\n", launch->kind, p->kernel[l], launch->rules ? launch->rules : "");
        for (int32_t i = 0; i < launch->n; i++) {
            line->n = 0;
            tn_print_node(line, &p->graph, &p->graph.nodes[launch->nodes[i]]);
            if (line->p) tn_add_shape(shape, line->p, layer);
            tn_buf_char(shape, '\n');
        }
    }
}

tn_status tn_alike_layers(const tn_plan *p, int32_t n_layer, int32_t **first_alike, tn_error *err) {
    tn_buf shape[2] = {0}, line = {0};
    int32_t *first = tn_alloc_zero((size_t)n_layer, sizeof *first);
    *first_alike = first;
    if (!first) return tn_fail_memory(err);
    for (int32_t i = 0; i < n_layer; i++) {
        tn_buf *now = &shape[i & 1], *before = &shape[~i & 1];
        add_layer(now, &line, p, i);
        bool same = i > 0 && now->n == before->n && now->n && !memcmp(now->p, before->p, now->n);
        first[i] = same ? first[i - 1] : i;
    }
    bool failed = shape[0].failed || shape[1].failed || line.failed;
    tn_buf_free(&shape[0]);
    tn_buf_free(&shape[1]);
    tn_buf_free(&line);
    return failed ? tn_fail_memory(err) : TN_OK;
}

int32_t tn_typical_layer(const int32_t *first_alike, int32_t n_layer) {
    int32_t best = 0, most = 0;
    for (int32_t i = 0, n = 0; i < n_layer; i++) {
        n = first_alike[i] == i ? 1 : n + 1;
        if (n > most) {
            most = n;
            best = first_alike[i];
        }
    }
    return best;
}
