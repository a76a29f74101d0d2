# Installation: the library, its headers, a CMake package (find_package(lamella)) and a pkg-config file.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lamella)

install(TARGETS lamella EXPORT lamellaTargets)
install(EXPORT lamellaTargets NAMESPACE lamella:: DESTINATION ${package_dir})
if(TARGET lamella_testing)
  install(TARGETS lamella_testing EXPORT lamellaTestingTargets)
  install(EXPORT lamellaTestingTargets NAMESPACE lamella:: DESTINATION ${package_dir})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")

install(FILES ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/lamellaConfig.cmake.in ${PROJECT_BINARY_DIR}/lamellaConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lamellaConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lamellaConfig.cmake ${PROJECT_BINARY_DIR}/lamellaConfigVersion.cmake
        DESTINATION ${package_dir})

# A static library leaves its own dependencies to whoever links it.
set(pc_requires "")
set(pc_libs "")
if(NOT BUILD_SHARED_LIBS)
  set(pc_requires "spdlog libhwy libjpeg libpng zlib")
  set(pc_libs "-lstdc++ -pthread")
endif()
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${CMAKE_CURRENT_LIST_DIR}/lamella.pc.in ${PROJECT_BINARY_DIR}/lamella.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/lamella.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
