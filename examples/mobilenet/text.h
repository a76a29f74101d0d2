#pragma once

#include <cstddef>
#include <string>
#include <string_view>

// Names come from folders and files, which may hold any byte but 0 and '/'. What is made of them (pages,
// JSON, tables on a terminal) must be valid all the same.

/// Length of the character of UTF-8 that begins at `at`; 0 where there is none.
std::size_t character_length(std::string_view text, std::size_t at);

/// Whether the `length` bytes at `at` are a control character, which a terminal would obey.
bool is_control(std::string_view text, std::size_t at, std::size_t length);

/// Whether all of it is UTF-8.
bool is_utf8(std::string_view text);

/// `text` as UTF-8 without control characters: each byte of what is neither becomes \xHH, all else stays.
std::string visible(std::string_view text);

/// Characters of UTF-8: what `text` takes on a terminal where each has one column.
std::size_t columns(std::string_view text);

/// The first `count` characters.
std::string_view first_columns(std::string_view text, std::size_t count);

/// `text` and spaces behind it, up to `width` columns.
std::string padded(const std::string& text, std::size_t width);
