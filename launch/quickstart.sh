#!/usr/bin/env bash
# From nothing to a trained and judged network: bash launch/quickstart.sh [key=value ...]
# After the installation 3 to 6 minutes on 2 CPU cores. Stop it whenever you like: the same
# command continues. Uses an NVIDIA GPU if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=""
. launch/setup_venv.sh

config=configs/quickstart.yaml
make="streamtrain catalog make --out lightcones/quickstart --footprint-deg 1.0 --no-velocities"
echo "1/4 halo lightcones"
$make 32 --prefix train --first-seed 0
$make 8 --prefix validation --first-seed 1000
$make 8 --prefix test --first-seed 2000
echo "2/4 training on samples that are made as it goes"
streamtrain train "$config" "$@"
echo "3/4 the fixed test set, from its seed"
streamtrain testset make "$config" "$@"
echo "4/4 evaluation"
streamtrain evaluate "$config" "$@"

run="$(streamtrain train "$config" "$@" --print-config | sed -n 's/^run: //p')"
cat <<END

Everything is in $run: checkpoints, config.yaml, testset.json, evaluation.json, figures.
Lightcones are in lightcones/quickstart.
To see the training in a browser:
  .venv/bin/tensorboard --logdir $run
END
