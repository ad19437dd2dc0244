/* The CUDA driver and NVRTC, found at run time: what of them is used, declared here, so that building needs no CUDA. */
#ifndef TN_CUDA_API_H
#define TN_CUDA_API_H

#include "base/error.h"

/* A launch and its attributes, in the driver's layout. */
typedef struct tn_cu_attribute {
    int id;
    char pad[4];
    union {
        char bytes[64];
        int flag;
    } value;
} tn_cu_attribute;

typedef struct tn_cu_launch {
    unsigned grid[3], block[3], shared_bytes;
    void *stream;
    tn_cu_attribute *attributes;
    unsigned n_attributes;
} tn_cu_launch;

enum { TN_CU_ATTRIBUTE_PROGRAMMATIC = 6 };             /* of a launch: may begin before the last one ends */
enum { TN_CU_SHARED_BYTES = 8 };                       /* of a function: dynamic shared memory */
enum { TN_CU_SHARED_STATIC = 1, TN_CU_REGISTERS = 4 }; /* of a function */
enum { TN_CU_SM_COUNT = 16, TN_CU_MAJOR = 75, TN_CU_MINOR = 76 }; /* of a device */
enum { TN_CU_SM_THREADS = 39 };                                   /* of a device: that a multiprocessor holds */
enum { TN_CU_SHARED_OPTIN = 97 };                                 /* of a device: shared memory of a block, at most */
enum { TN_CU_OUT_OF_MEMORY = 2 };
enum { TN_CU_EVENT_TIMED = 0, TN_CU_EVENT_UNTIMED = 2 };

typedef struct tn_cu {
    void *library;
#define CU(name, symbol, arguments) int(*name) arguments;
#define RTC(name, symbol, arguments)
#include "backend/cuda/api.def"
#undef CU
#undef RTC
} tn_cu;

typedef struct tn_rtc {
    void *library;
#define CU(name, symbol, arguments)
#define RTC(name, symbol, arguments) int(*name) arguments;
#include "backend/cuda/api.def"
#undef CU
#undef RTC
} tn_rtc;

/* TN_ERR_UNAVAILABLE says what is missing. */
tn_status tn_cu_load(tn_cu *cu, tn_error *err);
tn_status tn_rtc_load(tn_rtc *rtc, tn_error *err);
void tn_cu_unload(tn_cu *cu);
void tn_rtc_unload(tn_rtc *rtc);

/* A failed call of the driver as an error; TN_OK when it did not fail. */
tn_status tn_cu_check(const tn_cu *cu, int result, const char *what, tn_error *err);

#endif
