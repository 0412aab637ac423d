// Roll a compiled surrogate out, without Python: rollout PROGRAM INPUT STEPS OUTPUT
//
// PROGRAM is what compile.py made of an exported surrogate. INPUT holds the tuple (frames, parameters) or (frames,), as
// torch.save wrote it; OUTPUT gets the frames that follow, for torch.load.

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

int main(int count, char** words) {
  if (count != 5) {
    std::cerr << "usage: rollout PROGRAM INPUT STEPS OUTPUT\n";
    return 2;
  }
  c10::InferenceMode inference;
  torch::inductor::AOTIModelPackageLoader program(words[1]);
  std::ifstream in(words[2], std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const torch::IValue given = torch::pickle_load(bytes);
  std::vector<torch::Tensor> inputs;
  for (const auto& value : given.toTupleRef().elements()) inputs.push_back(value.toTensor());
  const int64_t history = inputs[0].size(1), steps = std::stol(words[3]);

  std::vector<torch::Tensor> produced;
  for (int64_t done = 0; done < steps;) {
    const torch::Tensor next = program.run(inputs)[0];
    produced.push_back(next);
    done += next.size(1);
    inputs[0] = torch::cat({inputs[0], next}, 1).slice(1, -history).contiguous();  // as it was compiled for
  }

  const torch::Tensor frames = torch::cat(produced, 1).slice(1, 0, steps).contiguous();
  const std::vector<char> out = torch::pickle_save(frames);
  std::ofstream(words[4], std::ios::binary).write(out.data(), static_cast<std::streamsize>(out.size()));
  std::cout << "frames of shape " << frames.sizes() << " written to " << words[4] << "\n";
}
