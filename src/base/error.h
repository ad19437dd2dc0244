/* How a failure is told: a code to return, one line for the caller. */
#ifndef TN_BASE_ERROR_H
#define TN_BASE_ERROR_H

#include "tenon.h"

/* Fills err (may be NULL) and returns code: `return tn_fail(err, TN_ERR_INPUT, "...")`. */
tn_status tn_fail(tn_error *err, tn_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The one message for an allocation that failed. */
tn_status tn_fail_memory(tn_error *err);

#endif
