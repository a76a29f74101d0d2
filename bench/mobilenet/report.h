#pragma once

#include <cstddef>
#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "parts.h"
#include "peers.h"

/// The tables.
namespace lamella::bench {

/// Machine, types and versions, from describe_machine().
void print_machine(std::FILE* out, const nlohmann::json& machine, const std::string& peer);

void print_head(std::FILE* out, Device device);
/// A row of figures; `reserved` 0: unknown.
void print_row(std::FILE* out, Device device, const std::string& who, const Samples& samples,
               std::int64_t batch, std::size_t reserved);
void print_peer(std::FILE* out, Device device, const PeerResult& result, std::int64_t batch);
void print_parts(std::FILE* out, const Parts& parts, double step_ms);

}  // namespace lamella::bench
