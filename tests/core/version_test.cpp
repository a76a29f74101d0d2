#include "lamella/core/version.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lamella {
namespace {

TEST(VersionTest, numbers_agree) {
  EXPECT_EQ(std::string(LAMELLA_VERSION), std::to_string(LAMELLA_VERSION_MAJOR) + "." +
                                              std::to_string(LAMELLA_VERSION_MINOR) + "." +
                                              std::to_string(LAMELLA_VERSION_PATCH));
  EXPECT_STREQ(version(), LAMELLA_VERSION);
}

TEST(VersionTest, build_info_is_one_line_with_all_parts) {
  const std::string info = build_info();
  EXPECT_THAT(info, testing::StartsWith("lamella " LAMELLA_VERSION "; "));
  EXPECT_THAT(info, testing::HasSubstr("; flags: "));
  EXPECT_THAT(info, testing::Not(testing::HasSubstr("flags: unknown")));
  EXPECT_THAT(info, testing::HasSubstr("; CPU: "));
  EXPECT_THAT(info, testing::Not(testing::HasSubstr("lacks")));
  EXPECT_THAT(info, testing::HasSubstr("; CUDA: "));
  EXPECT_EQ(info.find('\n'), std::string::npos);
}

TEST(VersionTest, libraries_have_versions) {
  const std::string libraries = library_versions();
  for (const char* library : {"spdlog", "Highway", "nlohmann-json", "libjpeg", "libpng", "zlib"})
    EXPECT_THAT(libraries, testing::ContainsRegex(std::string(library) + "[a-z-]* [0-9]+[0-9.]*"));
  EXPECT_EQ(libraries.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace lamella
