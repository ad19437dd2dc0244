/* The backends of this build. */
#include "backend/backend.h"

#include <string.h>

extern const tn_backend tn_backend_cpu, tn_backend_cuda, tn_backend_webgpu, tn_backend_null;

static const tn_backend *const backends[] = {&tn_backend_cpu, &tn_backend_cuda, &tn_backend_webgpu, &tn_backend_null};

const tn_backend *tn_backend_at(int i) {
    return i >= 0 && (size_t)i < sizeof backends / sizeof *backends ? backends[i] : NULL;
}

const tn_backend *tn_backend_find(const char *name, const char **variant) {
    size_t n = strcspn(name, ":");
    *variant = name[n] == ':' ? name + n + 1 : NULL;
    for (int i = 0; tn_backend_at(i); i++)
        if (strlen(tn_backend_at(i)->name) == n && !memcmp(name, tn_backend_at(i)->name, n)) return tn_backend_at(i);
    return NULL;
}

bool tn_launch_wanted(const tn_plan *plan, int32_t launch, int want) {
    const tn_graph *g = &plan->graph;
    int32_t node = plan->partition.launch[launch].nodes[0]; /* of one of its own: inside another it comes with that */
    if (node == 0 || node == g->output) return true;
    return node == g->choice ? want & TN_WANT_CHOSEN : node == g->best ? want & TN_WANT_BEST : true;
}

void tn_caps_add_types(tn_caps *caps, bool (*holds)(tn_type type)) {
    for (uint32_t type = 0; type < TN_TYPE_LIMIT; type++) {
        if (!tn_type_get(type) || !holds((tn_type)type)) continue;
        caps->weight_types |= UINT64_C(1) << type;
        if (tn_type_get(type)->block > 1) caps->int8_types |= UINT64_C(1) << type;
    }
}
