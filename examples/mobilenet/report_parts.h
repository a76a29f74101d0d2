#pragma once

#include <string>
#include <vector>

#include "curve.h"
#include "dataset.h"
#include "evaluate.h"
#include "train.h"

// The parts of report_html(), each a piece of HTML whose classes report_style.h gives a look.

/// Curves, and their numbers as a table. `lines` holds at least one.
std::string curves_html(const std::vector<Curve::Line>& lines);

/// The confusion matrix as a coloured table; for many classes the most frequent confusions instead.
std::string confusion_html(const Evaluation& test, const std::vector<std::string>& classes);

/// The test images with the highest losses, worst first.
std::string worst_images_html(const Evaluation& test, const ImageData& data);

/// Each setting of the recipe, those that are not the default's marked.
std::string recipe_html(const Recipe& recipe);

/// Where and when: files, device, processor, library.
std::string run_html(const TrainOptions& options);
