# The version stands in two places, project() and the public header; they may not drift apart.
set(version_header ${CMAKE_CURRENT_SOURCE_DIR}/include/lamella/core/version.h)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${version_header})
file(READ ${version_header} version_text)
foreach(definition IN ITEMS "_MAJOR ${PROJECT_VERSION_MAJOR}" "_MINOR ${PROJECT_VERSION_MINOR}"
                            "_PATCH ${PROJECT_VERSION_PATCH}" " \"${PROJECT_VERSION}\"")
  string(FIND "${version_text}" "#define LAMELLA_VERSION${definition}\n" position)
  if(position EQUAL -1)
    message(FATAL_ERROR "project(VERSION) says ${PROJECT_VERSION}, but ${version_header} lacks "
                        "'#define LAMELLA_VERSION${definition}'")
  endif()
endforeach()
