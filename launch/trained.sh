#!/usr/bin/env bash
# Makes a trained network that ships with streamtrain again: bash launch/trained.sh quickstart|comap
# Lightcones, training, test set, evaluation, calibration, alarm, and the packed copy in
# configs/trained/NAME. Stop it whenever you like: the same command continues. A GPU, or days of CPU
# cores, would do for `comap` what these few steps cannot: two cores take up to two hours.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=""
. launch/setup_venv.sh

name="${1:?quickstart or comap}"
case "$name" in
quickstart)
    config=configs/quickstart_freeform.yaml
    settings=(train.steps=45000 test.samples=2000) maps=10240
    make="streamtrain catalog make --out lightcones/quickstart --footprint-deg 1.0 --no-velocities"
    $make 128 --prefix train --first-seed 0
    $make 64 --prefix validation --first-seed 1000  # as many as the alarm needs
    $make 16 --prefix test --first-seed 2000
    ;;
comap)
    config=configs/comap_pathfinder.yaml
    # any depth that a field of the survey may have
    settings=('observe.noise.sigma_uK=[20, 60]' seed=2 train.steps=1800 train.batch_size=32
        train.validate_every=300 train.checkpoint_every=100 test.samples=1024) maps=6000
    streamtrain catalog make --for "$config" --number 32 32 8  # 17 GB of free memory
    ;;
*)
    echo "there is no network '$name': quickstart or comap" >&2
    exit 2
    ;;
esac
run="runs/$name"
streamtrain train "$config" run="$run" "${settings[@]}"
streamtrain evaluate "$run"
streamtrain evaluate "$run" --calibration
streamtrain alarm "$run" --maps "$maps"
rm -rf "configs/trained/$name"
mkdir -p configs/trained
streamtrain runs pack "$run" --out "configs/trained/$name"
