#pragma once

#include <filesystem>
#include <string>

#include "dataset.h"
#include "train.h"

/// A page about a training that is over, in one HTML file that needs no other and no scripts: curves over the
/// epochs, the confusion matrix, the test images with the highest losses, the recipe and the machine. Every
/// string that comes from outside, such as a class's name, is escaped.
std::string report_html(const ImageData& data, const TrainOptions& options, const Trained& trained);

/// Whether the file is such a page.
bool is_report(const std::filesystem::path& path);
