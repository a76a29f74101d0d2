#pragma once

#include <filesystem>
#include <string>

/// What stands behind a file's name while its next content is written. Always the same, so that the next
/// writer takes what a killed one left.
inline constexpr char kReplacing[] = ".tmp-new";

/// Gives a file a new content at once: readers, and whoever comes after a kill, see the old one or the new.
/// Writes straight to what is no regular file, such as a pipe. Throws lamella::IoError naming the path; an
/// old file is still there then.
void replace_file(const std::filesystem::path& path, const std::string& content);
