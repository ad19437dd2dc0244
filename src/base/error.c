#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

tn_status tn_fail(tn_error *err, tn_status code, const char *format, ...) {
    if (!err) return code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    for (char *p = err->text; *p; p++) /* one line, whatever names and other libraries' messages have in them */
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = ' ';
    err->code = code;
    return code;
}

tn_status tn_fail_memory(tn_error *err) {
    return tn_fail(err, TN_ERR_RESOURCES, "out of memory");
}
