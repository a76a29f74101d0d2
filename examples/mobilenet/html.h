#pragma once

#include <lamella/lamella.h>

#include <string>

/// Text as it stands between tags or in a quoted attribute of HTML: nothing in it is markup any more.
std::string escape(const std::string& text);

/// As printf() formats a number; "–" for one that is not finite.
std::string number(double value, const char* format);

/// An image as a PNG file in a data: URI. `brightest` is the byte that becomes white.
std::string data_uri(const lamella::data::Image& image, double brightest = 255);
