# The commit that is built, for bench's tables: its hash and how many came before it; outside a checkout "unknown" and 0.
function(commit_of_checkout hash_out number_out)
    set(hash unknown)
    set(number 0)
    if(EXISTS ${PROJECT_SOURCE_DIR}/.git/logs/HEAD)
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/.git/logs/HEAD)
        execute_process(COMMAND git rev-parse --short=7 HEAD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                        OUTPUT_VARIABLE got OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
        execute_process(COMMAND git rev-list --count HEAD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                        OUTPUT_VARIABLE count OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
        if(got AND count)
            set(hash ${got})
            set(number ${count})
        endif()
    endif()
    set(${hash_out} ${hash} PARENT_SCOPE)
    set(${number_out} ${number} PARENT_SCOPE)
endfunction()
