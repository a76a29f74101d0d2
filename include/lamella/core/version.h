#pragma once

#include <string>

#include "lamella/core/export.h"

/// The version of these headers. Before 1.0, a new minor number may change the interface.
#define LAMELLA_VERSION_MAJOR 0
#define LAMELLA_VERSION_MINOR 1
#define LAMELLA_VERSION_PATCH 0
#define LAMELLA_VERSION "0.1.0"

namespace lamella {

/// The version of the library that runs, "0.1.0"; differs from LAMELLA_VERSION if the program was
/// built against another.
LAMELLA_API const char* version();

/// One line for bug reports: version, compiler, its flags, the CPU instructions compiled for, those this
/// machine lacks (if any), and the CUDA version or "no".
LAMELLA_API std::string build_info();

/// The libraries that this one uses, with the versions that it was built with or, where they tell, that are
/// loaded: "spdlog 1.10.0, Highway 1.0.3, …". CUDA is in build_info().
LAMELLA_API std::string library_versions();

}  // namespace lamella
