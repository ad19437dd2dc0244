/* A stranger's program: loads a model, runs three tokens, says which token is likeliest next. */
#include <stdio.h>
#include <tenon.h>

int main(int argc, char **argv) {
    tn_error err = {0};
    tn_model *model = NULL;
    tn_session *session = NULL;
    tn_sampler *sampler = NULL;
    int32_t ids[] = {1, 2, 3};
    tn_sampler_options greedy = tn_sampler_defaults();
    greedy.temp = 0;
    tn_model_info info = {0};
    if (argc != 2 || tn_model_open(&model, argv[1], NULL, &err)) goto done;
    tn_model_get_info(model, &info);
    if (tn_session_open(&session, model, NULL, &err)) goto done;
    if (tn_sampler_open(&sampler, &greedy, info.n_vocab, &err)) goto done;
    if (tn_step(session, &(tn_batch){.ids = ids, .n_tokens = 3}, &err)) goto done;
    printf("tenon %s: %d\n", tn_version(), tn_sampler_pick(sampler, tn_logits(session, 0)));
done:
    if (err.code) fprintf(stderr, "%s\n", err.text);
    tn_sampler_close(&sampler);
    tn_session_close(&session);
    tn_model_close(&model);
    return err.code;
}
