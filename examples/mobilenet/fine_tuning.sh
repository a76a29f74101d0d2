#!/usr/bin/env bash
# What fine-tuning is worth: a network that has learned five classes of CIFAR-10 learns the other five from 100 images
# of each, and so does one that starts from nothing. Prints the test accuracy of each after its last epoch.
set -euo pipefail

if [[ $# -lt 2 ]]; then
  cat >&2 <<'TEXT'
usage: fine_tuning.sh PROGRAM CIFAR10 [FOLDER [RECIPE [SEED ...]]]

  PROGRAM   lamella-mobilenet
  CIFAR10   a folder with train/ and test/, each with a folder of images for each of CIFAR-10's classes
  FOLDER    for data and networks (default: fine-tuning)
  RECIPE    of the first training (default: recipes/cifar10_gpu.json)
  SEED      of the trainings that follow, each (default: 1 2 3)

In the environment, BASE_EPOCHS is how many passes the first training makes (default: the recipe's), and EPOCHS how many the
others make over their 500 images (default: 60).
TEXT
  exit 2
fi
program=$(realpath "$1")
images=$(realpath "$2")
folder=${3:-fine-tuning}
recipe=${4:-$(dirname "${BASH_SOURCE[0]}")/recipes/cifar10_gpu.json}
recipe=$(realpath "$recipe")
seeds=("${@:5}")
[[ ${#seeds[@]} -gt 0 ]] || seeds=(1 2 3)
mkdir -p "$folder"
cd "$folder"

# Links to the images: base/ has the first five classes, few/ the others, to train on 100 of each, to test on all.
first=(airplane automobile bird cat deer)
others=(dog frog horse ship truck)
mkdir -p base/train base/test few/train few/test
for class in "${first[@]}"; do
  ln -sfn "$images/train/$class" "base/train/$class"
  ln -sfn "$images/test/$class" "base/test/$class"
done
for class in "${others[@]}"; do
  ln -sfn "$images/test/$class" "few/test/$class"
  mkdir -p "few/train/$class"
  find -L "$images/train/$class" -type f | sort | sed -n 1,100p | while read -r image; do
    ln -sfn "$image" "few/train/$class/$(basename "$image")"
  done
done

# Trains and prints the last epoch's line. On standard error, its progress.
run() { # name options
  local name=$1
  shift
  "$program" train "$@" --checkpoint "$name.safetensors" >"$name.log"
  printf '%-28s %s\n' "$name" "$(grep '^epoch ' "$name.log" | tail -n 1)"
}

capture=()
"$program" info | grep -q '^device *cuda' && capture=(--capture)
if [[ ! -s base.log ]] || ! grep -q '^saved' base.log; then
  run base --data base --recipe "$recipe" ${BASE_EPOCHS:+--epochs "$BASE_EPOCHS"} "${capture[@]}"
fi
# As many passes for all three; each with the learning rate that suits it.
few=(--data few --recipe "$recipe" --epochs "${EPOCHS:-60}" --batch 50 --ema 0.99 "${capture[@]}")
for seed in "${seeds[@]}"; do
  run "from-nothing-$seed" "${few[@]}" --seed "$seed" --lr 0.05
  run "fine-tuned-$seed" "${few[@]}" --seed "$seed" --lr 0.01 --init base.safetensors
  run "classifier-alone-$seed" "${few[@]}" --seed "$seed" --lr 0.05 --init base.safetensors --freeze 'features.*'
done
