# Run by every build: writes the header OUT with the commit for bench's tables, its hash and how many came before it; "-dirty" where
# the sources in this folder are not those of that commit; outside a checkout "unknown" and 0.
set(hash unknown)
set(number 0)
if(EXISTS ${SOURCE}/.git)
    execute_process(COMMAND git rev-parse --short=7 HEAD WORKING_DIRECTORY ${SOURCE}
                    OUTPUT_VARIABLE got OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    execute_process(COMMAND git rev-list --count HEAD WORKING_DIRECTORY ${SOURCE}
                    OUTPUT_VARIABLE count OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    execute_process(COMMAND git --no-optional-locks status --porcelain -- CMakeLists.txt cmake cli include src
                    WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE changed ERROR_QUIET)
    if(got AND count)
        set(hash ${got})
        set(number ${count})
        if(changed)
            string(APPEND hash -dirty)
        endif()
    endif()
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define TN_COMMIT \"${hash}\"\n#define TN_COMMIT_NUMBER ${number}\n") # where it is another
