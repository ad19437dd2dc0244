/* Programs: the launches of a plan, compiled and captured into a graph, one for each set of results that is wanted. Submitting
 * a step enqueues the copy of its inputs, the graph, and the copies of what is wanted of it; an event tells that they are done.
 * Positions, lengths and page tables lie in device memory, so a graph is captured once, and a step may be enqueued while the
 * one before it runs. */
#include "backend/cuda/cuda.h"
#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* A step under way. */
typedef struct slot {
    int32_t *step, *ids, *best_ids; /* its inputs; what it chose; its best */
    float *best;
    void *done;
    int want;
} slot;

enum { N_GRAPHS = 4 };
/* The graph that has what is wanted. */
static int graph_of(int want) {
    return (want & TN_WANT_CHOSEN ? 1 : 0) + (want & TN_WANT_BEST ? 2 : 0);
}

struct tn_program {
    tn_device *device;
    tn_memory *memory;
    const tn_plan *plan;
    tn_cuda_launch *launch;
    int32_t n;
    void **modules;
    int32_t n_modules;
    void *graph[N_GRAPHS]; /* see graph_of */
    uint64_t scratch;      /* shares of attention, then their counters */
    uint64_t step;         /* inputs of the step: counts, ids, positions, sequences, outputs, page tables */
    size_t step_ints;      /* but for the page tables */
    size_t step_bytes, max_rows;
    int32_t max_tokens;
    float *logits;             /* pinned, as all that is copied from or to */
    slot slots[TN_CUDA_AHEAD]; /* of outstanding steps, in turn */
    unsigned submitted, waited;
};

enum { COUNTS = 4 };

/* ---- building ---- */

static tn_k_step step_arguments(const tn_program *p) {
    uint64_t at = p->step, n = (uint64_t)p->max_tokens * 4;
    return (tn_k_step){at,
                       at + COUNTS * 4,
                       at + COUNTS * 4 + n,
                       at + COUNTS * 4 + 2 * n,
                       at + COUNTS * 4 + 3 * n,
                       at + COUNTS * 4 + 4 * n,
                       p->memory->chosen};
}

/* The source of every launch; equal ones are compiled once. of[i]: code of launch i. */
static tn_status write_sources(tn_program *p, tn_cuda_code *code, int32_t *of, tn_error *err) {
    for (int32_t i = 0; i < p->n; i++) {
        const tn_launch *l = &p->plan->partition.launch[i];
        tn_cuda_ask ask = {p->device, &p->plan->graph, l->nodes, l->n, p->plan, p->memory};
        tn_buf head = {0};
        const char *why = tn_cuda_build(&p->launch[i], &ask, &head);
        char *source = why ? NULL : tn_cuda_source(p->launch[i].kernel, &head);
        tn_buf_free(&head);
        if (why) return tn_fail(err, TN_ERR_INTERNAL, "cuda: %s: %s", p->plan->graph.nodes[l->nodes[0]].name, why);
        if (!source) return tn_fail_memory(err);
        of[i] = 0;
        while (of[i] < p->n_modules && strcmp(code[of[i]].source, source) != 0) of[i]++;
        if (of[i] < p->n_modules) {
            tn_free(source);
        } else {
            code[p->n_modules].source = source;
            code[p->n_modules++].name = p->launch[i].kernel->entry;
        }
    }
    return TN_OK;
}

static tn_status load_modules(tn_program *p, const tn_cuda_code *code, const int32_t *of, tn_error *err) {
    const tn_cu *cu = &p->device->cu;
    tn_status status = TN_OK;
    for (int32_t i = 0; i < p->n_modules && status == TN_OK; i++)
        status = tn_cu_check(cu, cu->module_load(&p->modules[i], code[i].cubin), "loading a kernel", err);
    for (int32_t i = 0; i < p->n && status == TN_OK; i++) {
        tn_cuda_launch *l = &p->launch[i];
        status = tn_cu_check(cu, cu->module_function(&l->function, p->modules[of[i]], l->kernel->entry),
                             "finding a kernel", err);
        if (status == TN_OK && l->shared_bytes > 47 << 10) /* 48 KiB need no asking: these and a kernel's variables */
            status = tn_cu_check(cu, cu->function_set(l->function, TN_CU_SHARED_BYTES, (int)l->shared_bytes),
                                 "asking for shared memory", err);
    }
    return status;
}

static tn_status make_launches(tn_program *p, tn_error *err) {
    tn_cuda_code *code = tn_alloc_zero((size_t)p->n, sizeof *code);
    int32_t *of = tn_alloc_zero((size_t)p->n, sizeof *of);
    p->launch = tn_alloc_zero((size_t)p->n, sizeof *p->launch);
    p->modules = tn_alloc_zero((size_t)p->n, sizeof *p->modules);
    tn_status status = code && of && p->launch && p->modules ? TN_OK : tn_fail_memory(err);
    if (status == TN_OK) status = write_sources(p, code, of, err);
    bool real = tn_cuda_is_real(p->device);
    if (status == TN_OK && real) status = tn_cuda_compile_all(p->device, code, p->n_modules, err);
    if (status == TN_OK && real) status = load_modules(p, code, of, err);
    for (int32_t i = 0; code && i < p->n_modules; i++) {
        tn_free((void *)(uintptr_t)code[i].source);
        tn_free(code[i].cubin);
    }
    tn_free(code);
    tn_free(of);
    return status;
}

static size_t best_of_row(const tn_program *p) {
    const tn_graph *g = &p->plan->graph;
    return g->best ? (size_t)g->nodes[g->best].out[0].cols : 0;
}

/* For the copies of a step to and from the device. */
static tn_status make_slots(tn_program *p, tn_error *err) {
    const tn_cu *cu = &p->device->cu;
    const tn_shape *out = &p->plan->graph.nodes[p->plan->graph.output].out[0];
    size_t ids_at = tn_align_up(p->step_bytes, 256);
    p->max_rows = (size_t)tn_shape_max_rows(&p->plan->graph, out);
    size_t best = p->max_rows * best_of_row(p);
    int result = cu->host_alloc((void **)&p->logits, tn_shape_row_bytes(out) * p->max_rows, 0);
    for (int i = 0; i < TN_CUDA_AHEAD && result == 0; i++) {
        result = cu->host_alloc((void **)&p->slots[i].step, ids_at + (p->max_rows + 2 * best) * 4, 0);
        if (result == 0) p->slots[i].ids = p->slots[i].step + ids_at / 4;
        if (result == 0) p->slots[i].best_ids = p->slots[i].ids + p->max_rows;
        if (result == 0) p->slots[i].best = (float *)(p->slots[i].best_ids + best);
        if (result == 0) result = cu->event_create(&p->slots[i].done, TN_CU_EVENT_UNTIMED);
    }
    return tn_cu_check(cu, result, "allocating pinned memory", err);
}

/* Memory of the program's own: step inputs, results, shares of attention. */
static tn_status make_buffers(tn_program *p, tn_error *err) {
    tn_device *d = p->device;
    size_t partial = 0, counters = 0;
    for (int32_t i = 0; i < p->n; i++) {
        if (p->launch[i].partial_bytes > partial) partial = p->launch[i].partial_bytes;
        if (p->launch[i].counters > counters) counters = p->launch[i].counters;
    }
    partial = tn_align_up(partial, 256);
    p->step_ints = COUNTS + 4 * (size_t)p->max_tokens;
    p->step_bytes = (p->step_ints + (size_t)p->memory->n_pages) * 4;
    tn_status status = tn_cuda_alloc(d, p->step_bytes, "a step's inputs", &p->step, err);
    if (status == TN_OK) status = tn_cuda_alloc_zero(d, partial + counters * 4 + 4, "attention", &p->scratch, err);
    if (status == TN_OK) status = make_slots(p, err);
    for (int32_t i = 0; i < p->n; i++) {
        p->launch[i].args.step = step_arguments(p);
        p->launch[i].args.partial = p->scratch;
        p->launch[i].args.counters = p->scratch + partial;
    }
    return status;
}

static tn_status can_run(const tn_device *d, tn_error *err) {
    if (!tn_cuda_is_real(d)) return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda:plan runs nothing");
    if (d->lost[0]) return tn_fail(err, TN_ERR_RESOURCES, "cuda: the device was lost: %s", d->lost);
    return TN_OK;
}

/* A failed call. What a kernel did wrong stays with the context, so that nothing can run on it any more: then the stream fails too. */
static tn_status lose(tn_device *d, int result, const char *what, tn_error *err) {
    tn_error own;
    tn_status status = tn_cu_check(&d->cu, result, what, &own);
    if (status == TN_OK) return TN_OK;
    if (!d->lost[0] && d->cu.stream_wait(d->stream)) snprintf(d->lost, sizeof d->lost, "%.199s", own.text);
    return tn_fail(err, status, "%s", own.text);
}

/* ---- the graph ---- */

static int launch_one(tn_program *p, int32_t i, bool programmatic) {
    tn_cuda_launch *l = &p->launch[i];
    tn_cu_attribute attribute = {.id = TN_CU_ATTRIBUTE_PROGRAMMATIC, .value.flag = 1};
    tn_cu_launch config = {.grid = {l->grid[0], l->grid[1], l->grid[2]},
                           .block = {TN_K_THREADS, 1, 1},
                           .shared_bytes = (unsigned)l->shared_bytes,
                           .stream = p->device->stream,
                           .attributes = &attribute,
                           .n_attributes = programmatic && i > 0 ? 1 : 0};
    void *arguments[] = {&l->args};
    return p->device->cu.launch(&config, l->function, arguments, NULL);
}

static int capture(tn_program *p, int want, bool programmatic) {
    const tn_cu *cu = &p->device->cu;
    void *graph = NULL, *exec = NULL;
    int result = cu->capture_begin(p->device->stream, 2 /* relaxed */);
    if (result) return result;
    for (int32_t i = 0; i < p->n && result == 0; i++)
        if (tn_launch_wanted(p->plan, i, want)) result = launch_one(p, i, programmatic);
    int end = cu->capture_end(p->device->stream, &graph);
    if (result == 0) result = end;
    if (result == 0) result = cu->graph_instantiate(&exec, graph, 0);
    if (result == 0) p->graph[graph_of(want)] = exec;
    if (graph) cu->graph_destroy(graph);
    return result;
}

/* Launches may begin before the last one ends where the hardware knows how. */
static tn_status make_graph(tn_program *p, int want, tn_error *err) {
    tn_device *d = p->device;
    if (p->graph[graph_of(want)]) return TN_OK;
    int result = d->cu.context_set(d->context);
    if (result == 0 && (d->arch < 90 || capture(p, want, true))) result = capture(p, want, false);
    return lose(d, result, "capturing a graph", err);
}

tn_status tn_cuda_compile(tn_device *device, const tn_plan *plan, tn_memory *memory, tn_program **program,
                          tn_error *err) {
    *program = NULL;
    if (plan->arena_bytes > memory->arena_bytes) return tn_fail(err, TN_ERR_INTERNAL, "cuda: the arena is too small");
    tn_program *p = tn_alloc_zero(1, sizeof *p);
    if (!p) return tn_fail_memory(err);
    *p = (tn_program){.device = device,
                      .memory = memory,
                      .plan = plan,
                      .n = plan->partition.n,
                      .max_tokens = plan->graph.max_tokens};
    bool real = tn_cuda_is_real(device);
    tn_status status = real ? can_run(device, err) : TN_OK;
    if (status == TN_OK && real)
        status = tn_cu_check(&device->cu, device->cu.context_set(device->context), "using the device", err);
    if (status == TN_OK) status = make_launches(p, err);
    if (status == TN_OK && real) status = make_buffers(p, err);
    if (status == TN_OK && real)
        status = make_graph(p, TN_WANT_CHOSEN, err); /* the others when they are first wanted */
    if (status != TN_OK) {
        tn_cuda_free_program(device, &p);
        return status;
    }
    *program = p;
    return TN_OK;
}

void tn_cuda_free_program(tn_device *device, tn_program **program) {
    tn_program *p = *program;
    if (!p) return;
    const tn_cu *cu = &device->cu;
    if (tn_cuda_is_real(device)) {
        cu->context_set(device->context);
        cu->stream_wait(device->stream); /* of a step that failed some copies may be under way */
    }
    for (int i = 0; i < N_GRAPHS; i++)
        if (p->graph[i]) cu->graph_exec_destroy(p->graph[i]);
    for (int i = 0; i < TN_CUDA_AHEAD; i++) {
        if (p->slots[i].done) cu->event_destroy(p->slots[i].done);
        if (p->slots[i].step) cu->host_free(p->slots[i].step);
    }
    for (int32_t i = 0; p->modules && i < p->n_modules; i++)
        if (p->modules[i]) cu->module_unload(p->modules[i]);
    if (p->scratch) cu->mem_free(p->scratch);
    if (p->step) cu->mem_free(p->step);
    if (p->logits) cu->host_free(p->logits);
    tn_free(p->modules);
    tn_free(p->launch);
    tn_free(p);
    *program = NULL;
}

/* ---- a step ---- */

/* Inputs into pinned memory; returns the bytes of it that the step needs. */
static size_t fill_step(const tn_program *p, int32_t *to, const tn_step_input *in) {
    size_t n = (size_t)in->n_tokens, max = (size_t)p->max_tokens;
    int32_t last = 0;
    to[0] = in->n_tokens, to[1] = in->n_outputs, to[2] = in->max_pages, to[3] = 0;
    memcpy(to + COUNTS, in->ids, n * 4);
    memcpy(to + COUNTS + max, in->pos, n * 4);
    memcpy(to + COUNTS + 2 * max, in->seq, n * 4);
    memcpy(to + COUNTS + 3 * max, in->outputs, (size_t)in->n_outputs * 4);
    for (int32_t i = 0; i < in->n_runs; i++)
        if (in->runs[i].seq > last) last = in->runs[i].seq;
    size_t pages = ((size_t)last + 1) * (size_t)in->max_pages;
    if (pages > (size_t)p->memory->n_pages) pages = (size_t)p->memory->n_pages;
    memcpy(to + p->step_ints, in->pages, pages * 4);
    return (p->step_ints + pages) * 4;
}

/* Copies the inputs of a step to the device. */
static int send_step(tn_program *p, int32_t *host, const tn_step_input *in) {
    const tn_cu *cu = &p->device->cu;
    size_t bytes = fill_step(p, host, in);
    int result = cu->context_set(p->device->context);
    return result ? result : cu->to_device_async(p->step, host, bytes, p->device->stream);
}

/* Enqueues the copies of what is wanted of a step of so many rows. */
static int fetch_results(tn_program *p, slot *s, size_t rows) {
    const tn_cu *cu = &p->device->cu;
    const tn_graph *g = &p->plan->graph;
    void *stream = p->device->stream;
    const int64_t *at = p->plan->offset;
    uint64_t arena = p->memory->arena, logits = arena + (uint64_t)at[g->output * TN_MAX_OUT];
    size_t best = rows * best_of_row(p) * 4;
    int result = 0;
    if (s->want & TN_WANT_CHOSEN) result = cu->to_host_async(s->ids, p->memory->chosen, rows * 4, stream);
    if (result == 0 && s->want & TN_WANT_BEST)
        result = cu->to_host_async(s->best_ids, arena + (uint64_t)at[g->best * TN_MAX_OUT], best, stream);
    if (result == 0 && s->want & TN_WANT_BEST)
        result = cu->to_host_async(s->best, arena + (uint64_t)at[g->best * TN_MAX_OUT + 1], best, stream);
    if (result == 0 && s->want & TN_WANT_LOGITS)
        result = cu->to_host_async(p->logits, logits, rows * tn_shape_row_bytes(&g->nodes[g->output].out[0]), stream);
    return result;
}

tn_status tn_cuda_submit(tn_program *p, const tn_step_input *in, int want, tn_error *err) {
    tn_device *d = p->device;
    const tn_cu *cu = &d->cu;
    const tn_graph *g = &p->plan->graph;
    tn_status status = can_run(d, err);
    if (status != TN_OK) return status;
    if (p->submitted - p->waited == TN_CUDA_AHEAD) return tn_fail(err, TN_ERR_INTERNAL, "cuda: too many steps ahead");
    slot *s = &p->slots[p->submitted % TN_CUDA_AHEAD];
    const tn_shape *out = &g->nodes[g->output].out[0];
    size_t rows = (size_t)(out->rows == TN_ROWS_OUTPUTS ? in->n_outputs : in->n_tokens);
    for (int32_t t = p->memory->n_chosen; t < in->n_tokens; t++)
        if (in->ids[t] == TN_ID_CHOSEN)
            return tn_fail(err, TN_ERR_INTERNAL, "cuda: the step before chose no token in row %d", t);
    s->want = want & ~(g->choice ? 0 : TN_WANT_CHOSEN) & ~(g->best ? 0 : TN_WANT_BEST);
    status = make_graph(p, s->want, err);
    if (status != TN_OK) return status;
    int result = send_step(p, s->step, in);
    if (result == 0) result = cu->graph_launch(p->graph[graph_of(s->want)], d->stream);
    if (result == 0) result = fetch_results(p, s, rows);
    if (result == 0) result = cu->event_record(s->done, d->stream);
    p->submitted += result == 0;
    p->memory->n_chosen = result == 0 && s->want & TN_WANT_CHOSEN ? (int32_t)rows : 0;
    return lose(d, result, "starting a step", err);
}

tn_status tn_cuda_wait(tn_program *p, tn_result *result, tn_error *err) {
    tn_device *d = p->device;
    slot *s = &p->slots[p->waited % TN_CUDA_AHEAD];
    *result = (tn_result){0};
    if (p->waited == p->submitted) return tn_fail(err, TN_ERR_INTERNAL, "cuda: no step to wait for");
    p->waited++;
    tn_status status = lose(d, d->cu.event_wait(s->done), "a step", err);
    if (status == TN_OK && s->want & TN_WANT_LOGITS) result->logits = p->logits;
    if (status == TN_OK && s->want & TN_WANT_CHOSEN) result->ids = s->ids;
    if (status == TN_OK && s->want & TN_WANT_BEST)
        result->best = (tn_candidates){s->best_ids, s->best, (int32_t)best_of_row(p)};
    return status;
}

/* ---- a step with every launch timed: outside the graph, with events between ---- */

enum { QUEUE = 256 }; /* launches that are surely enqueued while the device is held back */

/* The device is held until launches stand in its queue, so that what lies between two events is the launch and not the host. */
static int enqueue_timed(tn_program *p, void **events, volatile uint32_t *gate, double *began) {
    const tn_cu *cu = &p->device->cu;
    void *stream = p->device->stream;
    *gate = 0;
    *began = tn_seconds();
    int result = cu->stream_hold(stream, (uint64_t)(uintptr_t)gate, 1, 0 /* >= */);
    bool held = result == 0;
    result = cu->event_record(events[0], stream);
    for (int32_t i = 0; i < p->n && result == 0; i++) {
        if (held && i == QUEUE) {
            *began = tn_seconds();
            *gate = 1;
        }
        result = launch_one(p, i, false);
        if (result == 0) result = cu->event_record(events[i + 1], stream);
    }
    if (held && p->n <= QUEUE) *began = tn_seconds();
    *gate = 1;
    int end = cu->stream_wait(stream);
    return result ? result : end;
}

/* What a launch's kernel takes of a multiprocessor. */
static int measure_kernel(const tn_program *p, int32_t i, tn_launch_time *to) {
    const tn_cu *cu = &p->device->cu;
    const tn_cuda_launch *l = &p->launch[i];
    int blocks = 0, registers = 0, shared = 0;
    int result = cu->function_get(&registers, TN_CU_REGISTERS, l->function);
    if (result == 0) result = cu->function_get(&shared, TN_CU_SHARED_STATIC, l->function);
    if (result == 0) result = cu->function_blocks(&blocks, l->function, TN_K_THREADS, l->shared_bytes);
    to->registers = registers;
    to->shared_bytes = shared + (int32_t)l->shared_bytes;
    to->occupancy = (double)blocks * TN_K_THREADS / p->device->sm_threads;
    return result;
}

tn_status tn_cuda_profile(tn_program *p, const tn_step_input *in, tn_launch_time *times, tn_error *err) {
    double entered = tn_seconds();
    tn_device *d = p->device;
    const tn_cu *cu = &d->cu;
    tn_status status = can_run(d, err);
    if (status != TN_OK) return status;
    if (p->submitted != p->waited) return tn_fail(err, TN_ERR_INTERNAL, "cuda: a step is under way");
    void **events = tn_alloc_zero((size_t)p->n + 1, sizeof *events);
    if (!events) return tn_fail_memory(err);
    p->memory->n_chosen = 0;
    int result = send_step(p, p->slots[0].step, in);
    for (int32_t i = 0; i <= p->n && result == 0; i++) result = cu->event_create(&events[i], TN_CU_EVENT_TIMED);
    if (result == 0) result = cu->stream_wait(d->stream);
    double began = 0;
    if (result == 0) result = enqueue_timed(p, events, (volatile uint32_t *)p->slots[1].step, &began);
    double from = began - entered; /* the first event is passed when the host lets it */
    for (int32_t i = 0; i < p->n && result == 0; i++) {
        float start = 0, end = 0;
        result = cu->event_elapsed(&start, events[0], events[i]);
        if (result == 0) result = cu->event_elapsed(&end, events[0], events[i + 1]);
        times[i] = (tn_launch_time){.start = from + (double)start * 1e-3, .end = from + (double)end * 1e-3};
        if (result == 0) result = measure_kernel(p, i, &times[i]);
    }
    for (int32_t i = 0; i <= p->n; i++)
        if (events[i]) cu->event_destroy(events[i]);
    tn_free(events);
    return lose(d, result, "a timed step", err);
}
