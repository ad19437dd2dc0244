/* Any bytes as the JSON that tn_chat_render takes: messages and, after a zero byte, more variables. The model is a tiny one with a
 * template of its own. */
#include "base/mem.h"
#include "engine.h"
#include "fuzz.h"
#include "tiny_model.h"

#include <string.h>

static const char source[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m['content'] | trim }}"
    "{% else %}{{ m.content | tojson }}{% endif %}<b>{% endfor %}"
    "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{% if x is defined %}{{ x }}{% endif %}";

static tn_model *open_model(void) {
    size_t n;
    tn_gguf *file;
    tn_model *model;
    tn_error err = {0};
    void *bytes = tn_tiny_bytes(&(tn_tiny_options){"llama", TN_TYPE_F32, 8, true}, &n, &err); /* lives on */
    FUZZ_CHECK(bytes && tn_gguf_open_memory(&file, bytes, n, &err) == TN_OK);
    FUZZ_CHECK(tn_engine_open_file(&model, &file, &(tn_model_options){.vocab_only = true}, &err) == TN_OK);
    return model;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static tn_model *model;
    if (!model) model = open_model();
    char *text = tn_strndup((const char *)data, n), *rendered;
    size_t first = strlen(text), n_ids;
    int32_t *ids;
    tn_error err = {0};
    tn_chat_options o = {.chat_template = source, .extra_json = first < n ? text + first + 1 : NULL};
    tn_status status = tn_chat_render(model, NULL, 0, text, &o, &rendered, &ids, &n_ids, &err);
    if (status == TN_OK) {
        for (size_t i = 0; i < n_ids; i++) FUZZ_CHECK(ids[i] >= 0 && ids[i] < TN_TINY_VOCAB);
        tn_free(rendered);
        tn_free(ids);
    } else {
        FUZZ_CHECK(status == TN_ERR_INPUT && err.code == status && err.text[0] && !strchr(err.text, '\n'));
    }
    tn_free(text);
    return 0;
}
