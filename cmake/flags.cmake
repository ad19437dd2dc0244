# Compiler flags. No -march=native and no contraction: the same model gives the same bits from every build.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)

# Release: `make`. RelWithDebInfo: the tests; asserts stay in. Debug: for a debugger.
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, RelWithDebInfo or Debug" FORCE)
endif()
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-O0 -g")

add_compile_options(-ffp-contract=off -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla)
add_compile_options(-Wno-missing-field-initializers) # rows of tables leave out what is zero
if(TENON_WERROR)
    add_compile_options(-Werror)
endif()
if(TENON_SANITIZE)
    add_compile_options(-fsanitize=${TENON_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${TENON_SANITIZE})
endif()
if(TENON_FUZZ) # which branches an input takes is what guides the fuzzer
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# CPU kernels: optimised more, and those of one instruction set with its flags. Under sanitizers less: GCC takes minutes
# for the unrolled matmuls otherwise.
if(TENON_SANITIZE)
    set(TENON_KERNEL_OPTIONS -O1)
else()
    set(TENON_KERNEL_OPTIONS $<$<NOT:$<CONFIG:Debug>>:-O3>)
endif()
set(TENON_avx2_OPTIONS -mavx2 -mfma -mf16c -mbmi2)
set(TENON_avx512_OPTIONS -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mf16c -mbmi2)
set(TENON_neon_OPTIONS -march=armv8.2-a+dotprod)
if(TENON_FUZZ) # not run there, and clang needs minutes for them with sanitizers
    list(APPEND TENON_avx2_OPTIONS -fno-sanitize=all -w)
    list(APPEND TENON_avx512_OPTIONS -fno-sanitize=all -w)
endif()
