#pragma once

#include <lamella/lamella.h>

#include <filesystem>
#include <string>
#include <vector>

#include "recipe.h"

/// How images become the network's input; kept in checkpoints, so that `predict` does the same.
struct InputFormat {
  int channels = 3;
  int size = 32;  ///< height and width
  lamella::data::Normalize normalize = {};
  std::vector<std::string> classes = {};
};

/// Images to train on, images to test on.
struct ImageData {
  lamella::data::DatasetPtr train;
  lamella::data::DatasetPtr test;
  InputFormat format;
};

/// Opens `source`: "digits", the digits that come with this program; a folder with CIFAR-10's binary files; a
/// folder with MNIST's four IDX files (train-…, t10k-…, gzipped or not); or a folder with train/ and test/
/// (or val/), each with a folder of JPEG or PNG images per class, which are decoded once into a cache beside
/// it, where one can be written. Names of classes that a terminal or a file of text cannot have are made
/// visible(). Throws lamella::IoError saying what is missing.
ImageData open_images(const std::string& source, const Recipe& recipe);

/// The images to test on of such a source, or those of a folder that has a folder of images per class:
/// labelled as a network of `format` numbers its classes, found by their names. Training images need not be
/// there. Also says the largest value of a pixel. Throws lamella::IoError saying what is missing,
/// lamella::Error naming classes that the network does not know.
struct TestImages {
  lamella::data::DatasetPtr images;
  float brightest = 255;
};
TestImages open_test_images(const std::string& source, const InputFormat& format);

/// What the recipe says of images and weights.
lamella::MemoryFormat memory_format(const Recipe& recipe);

/// Batches to train on, on `device`, shuffled and changed at random as the recipe says. Each image is brought
/// to the network's size if it has another, whatever the others have.
lamella::data::DataLoader train_loader(const ImageData& data, const Recipe& recipe, int workers,
                                       lamella::Device device);
/// Batches to test on, on `device`, in order. Images become what to_input() makes of them.
lamella::data::DataLoader test_loader(const ImageData& data, const Recipe& recipe, int workers,
                                      lamella::Device device);

/// One image of any size, colour or grey, as the network's input [1,channels,size,size].
lamella::Tensor to_input(const lamella::data::Image& image, const InputFormat& format);
