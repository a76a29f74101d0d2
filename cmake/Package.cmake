# Packages of what is installed: `cpack -G "DEB;TGZ"` in the build folder, or ./dev package. Their version is
# project(VERSION), which VersionCheck compares with the public header.
set(CPACK_PACKAGE_NAME lamella)
set(CPACK_PACKAGE_VENDOR Lamella)
set(CPACK_PACKAGE_CONTACT "The Lamella developers")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGE_DESCRIPTION "Lamella has its own tensor, memory allocator and automatic differentiation, and treats depthwise
convolution as a first-class layer. The package holds the library, its headers and the files for CMake and
pkg-config, and lamella-mobilenet, which trains MobileNets from the command line.")
set(CPACK_STRIP_FILES ON)
set(CPACK_THREADS 0)
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_MONOLITHIC_INSTALL ON)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)  # what the program needs to run
if(NOT BUILD_SHARED_LIBS)
  # What find_package(lamella) looks for, and a static library is linked with.
  set(CPACK_DEBIAN_PACKAGE_DEPENDS "libspdlog-dev, libhwy-dev, libjpeg-dev, libpng-dev, zlib1g-dev")
endif()
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "g++, cmake, pkgconf")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "libgtest-dev, libgmock-dev, libeigen3-dev")  # lamella::testing, lamella/eigen.h
include(CPack)
