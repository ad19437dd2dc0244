# What `cmake --install` puts where: libraries, header, tenon.pc, the CMake package, the binary.
include(CMakePackageConfigHelpers)

install(TARGETS tenon EXPORT tenon)
install(TARGETS tenon_static)
install(FILES include/tenon.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TENON_CLI)
    install(TARGETS tenon_cli)
endif()

# The manual page and the shells' completions, written by the binary from its own tables (where it can run here).
if(TENON_CLI AND NOT CMAKE_CROSSCOMPILING)
    set(HELP ${PROJECT_BINARY_DIR}/help)
    file(MAKE_DIRECTORY ${HELP})
    foreach(format man bash zsh fish)
        add_custom_command(
            OUTPUT ${HELP}/tenon.${format}
            COMMAND tenon_cli help --format ${format} > ${HELP}/tenon.${format}
            DEPENDS tenon_cli VERBATIM)
        list(APPEND HELP_FILES ${HELP}/tenon.${format})
    endforeach()
    add_custom_target(tenon_help ALL DEPENDS ${HELP_FILES})
    install(FILES ${HELP}/tenon.man DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 RENAME tenon.1)
    install(FILES ${HELP}/tenon.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME tenon)
    install(FILES ${HELP}/tenon.zsh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions RENAME _tenon)
    install(FILES ${HELP}/tenon.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endif()

# pkg-config. The prefix is found from where the file lies, so that an install may be moved.
file(RELATIVE_PATH PC_TO_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/tenon.pc.in tenon.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tenon.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# find_package(tenon) gives the target tenon::tenon.
set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/tenon)
install(EXPORT tenon NAMESPACE tenon:: FILE tenonTargets.cmake DESTINATION ${PACKAGE_DIR})
configure_package_config_file(cmake/tenonConfig.cmake.in tenonConfig.cmake INSTALL_DESTINATION ${PACKAGE_DIR})
write_basic_package_version_file(tenonConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tenonConfig.cmake ${PROJECT_BINARY_DIR}/tenonConfigVersion.cmake
        DESTINATION ${PACKAGE_DIR})
