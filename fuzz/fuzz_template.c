/* Any bytes as a chat template and the variables it is rendered with: an error, or a text that its spans cover. The template
 * ends at the first zero byte; what follows is JSON. Without one, or where it is none, a conversation of our own is used. */
#include "base/mem.h"
#include "fuzz.h"
#include "text/template.h"

#include <string.h>

static const char conversation[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"},{\"role\":\"user\",\"content\":\"<|im_end|> 1 + "
    "1?\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":[1,"
    "2.5,true]}}}]},"
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\\u00e9\\u4f60\"}]}],"
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"eos_token\":\"</"
    "s>\",\"tools\":[{\"name\":\"f\"}],\"date_string\":\"1 Jan\"}";

static void check_rendered(const tn_rendered *r) {
    size_t at = 0;
    for (size_t i = 0; i < r->n_spans; i++) {
        FUZZ_CHECK(r->spans[i].begin == at && r->spans[i].end > at);
        at = r->spans[i].end;
    }
    FUZZ_CHECK(at == r->text.n);
}

static void check_error(tn_status status, const tn_error *err) {
    FUZZ_CHECK(status == TN_ERR_INPUT && err->code == status && err->text[0] && !strchr(err->text, '\n'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const uint8_t *zero = n ? memchr(data, 0, n) : NULL;
    size_t length = zero ? (size_t)(zero - data) : n;
    json_t *variables = zero ? json_loadb((const char *)zero + 1, n - length - 1, 0, NULL) : NULL;
    if (!json_is_object(variables)) {
        json_decref(variables);
        variables = json_loads(conversation, 0, NULL);
    }
    FUZZ_CHECK(variables);
    tn_template *t;
    tn_rendered r = {0};
    tn_error err = {0};
    tn_status status = tn_template_open(&t, (tn_str){(const char *)data, length}, &err);
    if (status == TN_OK) {
        status = tn_template_render(t, variables, &r, &err);
        if (status == TN_OK) check_rendered(&r);
        tn_rendered_free(&r);
        tn_template_close(&t);
    }
    if (status != TN_OK) check_error(status, &err);
    json_decref(variables);
    return 0;
}
