#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "lamella/core/export.h"
#include "lamella/layers/state_dict.h"

/// @file
/// The safetensors format: named tensors with a JSON header, no code in it; PyTorch, JAX and others read and
/// write it.
namespace lamella::io {

/// Free text that goes with the tensors.
using Metadata = std::map<std::string, std::string>;

/// What a safetensors file holds.
struct SafetensorsFile {
  StateDict tensors;     ///< in the header's order
  Metadata metadata;     ///< empty if there is none; without the checksum
  bool checked = false;  ///< a checksum was there, and right
};

/// How a file is written.
struct SafetensorsOptions {
  /// Write the CRC-32C of the whole file into its metadata, as "lamella.crc32c": loading then finds any
  /// changed bit and any mix of two files. Other programs read such a file as any other; one that changes it
  /// must leave this metadata out.
  bool checksum = false;
};

/// Writes the tensors (from any device, row-major) so that a reader sees the old file or the new one, never a
/// part: on any failure, a full disk too, the old file stays. Throws IoError naming the path; Error for an
/// undefined tensor, the name "__metadata__", the metadata "lamella.crc32c", a name or text that is not
/// UTF-8, or more of them than the 100 MB of a header that readers take.
LAMELLA_API void save_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                                  const Metadata& metadata = {}, const SafetensorsOptions& options = {});

/// Reads a file to tensors on the CPU, in the header's order: each straight into its own memory, the file
/// never as a whole. The file may come from anywhere: everything the header says is checked against the
/// file's size before memory is taken. Throws IoError naming the path and what is wrong: missing, no regular
/// file (a named pipe is not waited for), truncated, a header that is no JSON of the format, names twice,
/// types that Lamella lacks, sizes that overflow, shapes that do not agree with the bytes, bytes that belong
/// to two tensors or to none, a checksum that is not that of the file; and OutOfMemoryError.
///
/// The file is mapped into memory while it is read, and tensors are copies: replacing it afterwards changes
/// none of them. One that is cut short meanwhile is an IoError, unless that falls into the copy of a tensor,
/// which then ends the program (SIGBUS).
LAMELLA_API StateDict load_safetensors(const std::filesystem::path& path);
/// The same with the metadata. Throws likewise.
LAMELLA_API SafetensorsFile load_safetensors_file(const std::filesystem::path& path);

}  // namespace lamella::io
