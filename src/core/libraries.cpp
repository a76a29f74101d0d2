// Only its version is wanted. Highway 1.0 refuses to choose among several vector targets where the compiler
// may use all of AVX-512, as on Sapphire Rapids.
#define HWY_COMPILE_ONLY_STATIC
#include <hwy/highway.h>
#include <jpeglib.h>
#include <png.h>
#include <spdlog/version.h>
#include <zlib.h>

#include <cstdio>  // jpeglib.h needs it
#include <nlohmann/json_fwd.hpp>

#include "lamella/core/version.h"

#define LAMELLA_TEXT_OF(x) #x
#define LAMELLA_TEXT(x) LAMELLA_TEXT_OF(x)

namespace lamella {

std::string library_versions() {
  const auto dotted = [](int major, int minor, int patch) {
    return std::to_string(major) + '.' + std::to_string(minor) + '.' + std::to_string(patch);
  };
  std::string text = "spdlog " + dotted(SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH);
  text += ", Highway " + dotted(HWY_MAJOR, HWY_MINOR, HWY_PATCH);
  text += ", nlohmann-json " +
          dotted(NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH);
#ifdef LIBJPEG_TURBO_VERSION
  text += ", libjpeg-turbo " LAMELLA_TEXT(LIBJPEG_TURBO_VERSION);
#else
  text += ", libjpeg " LAMELLA_TEXT(JPEG_LIB_VERSION);
#endif
  text += std::string(", libpng ") + png_get_libpng_ver(nullptr);
  return text + ", zlib " + zlibVersion();
}

}  // namespace lamella
