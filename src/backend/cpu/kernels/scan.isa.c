/* The recurrences, one set of functions for each instruction set. */
#include "backend/cpu/kernels/scan.h"
#include "backend/cpu/kernels/isa.h"

TN_CONV1D(TN_ISA_NAME(tn_conv1d))
TN_DELTA(TN_ISA_NAME(tn_delta))
