/* A folder of a test program's own, for its files: made before its tests, gone after them. */
#ifndef TESTS_TEMP_DIR_H
#define TESTS_TEMP_DIR_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char g_dir[] = "/tmp/tenon-test-XXXXXX";

static int make_dir(void **state) {
    (void)state;
    return mkdtemp(g_dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    (void)state;
    return rmdir(g_dir); /* fails, and with it the test, where a file was left behind */
}

/* A path in the test's folder; valid until the fourth call from here. */
static const char *temp(const char *name) {
    static char paths[4][300];
    static int next;
    char *p = paths[next++ % 4];
    snprintf(p, sizeof paths[0], "%s/%s", g_dir, name);
    return p;
}

#endif
