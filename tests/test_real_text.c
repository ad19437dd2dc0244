/* The tokenizer and chat template of a real model, as llama.cpp has them. */
#include "text_data.h"

#include "text/template.h"

typedef struct model {
    tn_gguf *gguf;
    tn_tokenizer *t;
} model;

static int open_model(void **state) {
    static model m;
    tn_error err = {0};
    *state = &m;
    if (tn_gguf_open(&m.gguf, MODELS_DIR "/SmolLM2-135M-Instruct.Q4_1.gguf", &err) ||
        tn_tokenizer_open(&m.t, m.gguf, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    return 0;
}

static int close_model(void **state) {
    model *m = *state;
    tn_tokenizer_close(&m->t);
    tn_gguf_close(&m->gguf);
    return 0;
}

static void strings(void **state) {
    model *m = *state;
    int n = 0;
    assert_int_equal(check_strings(m->t, TEXT_DATA "suites/smollm2.json", &n), 0);
    assert_int_equal(n, 184);
}

static void conversations(void **state) {
    model *m = *state;
    tn_error err = {0};
    tn_template *t = NULL;
    tn_str source;
    size_t i;
    json_t *file = load_json(TEXT_DATA "chat-smollm2.json"), *item;
    assert_true(tn_gguf_get_str(m->gguf, "tokenizer.chat_template", &source));
    if (tn_template_open(&t, source, &err)) fail_msg("%s", err.text);
    json_array_foreach(json_object_get(file, "items"), i, item) {
        tn_rendered r;
        tn_ids ids = {0};
        tn_encode_options options = {.parse_special = true};
        if (tn_template_render(t, item, &r, &err))
            fail_msg("%s", err.text); /* the item has just the variables it takes */
        assert_string_equal(r.text.p, json_string_value(json_object_get(item, "prompt")));
        assert_int_equal(
            tn_tokenizer_encode_spans(m->t, (tn_str){r.text.p, r.text.n}, r.spans, r.n_spans, options, &ids, &err),
            TN_OK);
        assert_true(same_ids(&ids, json_object_get(item, "ids")));
        tn_free(ids.p);
        tn_rendered_free(&r);
    }
    assert_int_equal(i, 3);
    tn_template_close(&t);
    json_decref(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(strings), cmocka_unit_test(conversations)};
    return cmocka_run_group_tests(tests, open_model, close_model);
}
