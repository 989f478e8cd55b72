#!/usr/bin/env bash
# The tables and pictures of docs/ that name this script, a section each:
#   bash launch/docs_numbers.sh readme         README.md: docs/comparison.png
#   bash launch/docs_numbers.sh chain          docs/classical.md: networks beside the Markov chain
#   bash launch/docs_numbers.sh experiments    docs/experiments.md: six small trainings
#   bash launch/docs_numbers.sh scenarios      docs/evaluation.md: the published scenarios
#   bash launch/docs_numbers.sh limlam FOLDER  docs/infer.md, docs/infer.png: maps that limlam_mocker
#                                              painted, in FOLDER as tests/data/README.md describes
#                                              them
#   bash launch/docs_numbers.sh comap FOLDER   docs/comap.md: a map in COMAP's layout; FOLDER has
#                                              halos.npz, beam.txt and transfer.h5, see there
# Further arguments key=value are settings of every training, such as train.threads=1. Skies, runs and
# chains that are there already are used, and what was interrupted goes on.
# $STREAMTRAIN: a python that has the packages, instead of .venv, which is made where it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."
section="${1:-none}"
shift || true
case "$section" in
readme | chain | experiments | scenarios | limlam | comap) ;;
*)
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
  ;;
esac
if [ -z "${STREAMTRAIN:-}" ]; then
  extras=mcmc
  . launch/setup_venv.sh
  STREAMTRAIN=.venv/bin/python
fi

streamtrain() { "$STREAMTRAIN" -m streamtrain "$@"; }

skies() { # those of the quickstart, with twice as many for tests
  local make=(catalog make --out lightcones/docs --footprint-deg 1.0 --no-velocities)
  streamtrain "${make[@]}" 32 --prefix train --first-seed 0
  streamtrain "${make[@]}" 8 --prefix validation --first-seed 4000
  streamtrain "${make[@]}" 16 --prefix test --first-seed 2000
}
data=('data.train=[lightcones/docs/train_*.h5]' 'data.validation=[lightcones/docs/validation_*.h5]'
  'data.test=[lightcones/docs/test_*.h5]')

# From docs/comap.md, the block that a comment names.
named() { awk -v name="<!-- $1 -->" \
  'p && $0 == "```" {exit} p {print} $0 == name {on = 1} on && /^```[a-z]/ {p = 1; on = 0}' \
  docs/comap.md; }

# From docs/infer.md, the block of a language that follows a heading.
block() { awk -v head="$1" -v fence="\`\`\`$2" \
  '$0 == head {on = 1} p && $0 == "```" {exit} p {print} on && $0 == fence {p = 1}' \
  docs/infer.md; }

case "$section" in
readme)
  make=(catalog make --out lightcones/quickstart --footprint-deg 1.0 --no-velocities)
  streamtrain "${make[@]}" 32 --prefix train --first-seed 0
  streamtrain "${make[@]}" 8 --prefix validation --first-seed 1000
  streamtrain "${make[@]}" 8 --prefix test --first-seed 2000
  of=(configs/quickstart_comap.yaml "$@" run=runs/docs/readme)
  streamtrain train "${of[@]}"
  streamtrain evaluate "${of[@]}"
  cp runs/docs/readme/comparison.png docs/comparison.png
  ;;
chain)
  skies
  make=(catalog make --out lightcones/docs --footprint-deg 1.0 --no-velocities)
  streamtrain "${make[@]}" 128 --prefix some --first-seed 0
  streamtrain "${make[@]}" 384 --prefix more --first-seed 128
  of=(configs/quickstart.yaml "${data[@]}" test.samples=1024 train.optimiser=muon "$@")
  streamtrain train "${of[@]}" run=runs/docs/chain --print-config > lightcones/docs/chain.yaml
  streamtrain train "${of[@]}" 'data.train=[lightcones/docs/some_*.h5, lightcones/docs/more_*.h5]' \
    data.active=64 data.active_samples=8192 train.steps=4000 label.quantity=parameters \
    network.head=flow run=runs/docs/flow
  streamtrain train "${of[@]}" 'data.train=[lightcones/docs/some_*.h5]' train.steps=1000 run=runs/docs/joint
  streamtrain evaluate runs/docs/flow
  streamtrain evaluate runs/docs/joint --calibration
  OMP_NUM_THREADS=1 "$STREAMTRAIN" launch/beside_chain.py lightcones/docs/chain.yaml \
    --counts runs/docs/joint --parameters runs/docs/flow --maps 16 --out runs/docs/chains
  ;;
experiments)
  skies
  runs=()
  experiment() { # name of the configuration, of the run, settings
    local of=("configs/pfeffer2019/experiments/$1.yaml" "${data[@]}" 'grid.fov_deg=[0.35,0.35]'
      'grid.shape=[100,64,64]' train.steps=300 train.batch_size=16 test.samples=512
      "${@:3}" run="runs/docs/experiments/$2")
    streamtrain train "${of[@]}"
    streamtrain evaluate "${of[@]}"
    runs+=("runs/docs/experiments/$2")
  }
  experiment baseline baseline "$@"
  experiment baseline seed_2 "$@" seed=2 test.seed=1234
  for name in noise_none input_linear label_linear frequency_50; do
    experiment "$name" "$name" "$@"
  done
  rm -rf runs/docs/experiments/comparison
  streamtrain compare "${runs[@]}" --out runs/docs/experiments/comparison
  ;;
scenarios)
  skies
  streamtrain train configs/pfeffer2019/published.yaml 'emit={line: {model: li16, prior: narrow}}' \
    "${data[@]}" 'grid.fov_deg=[0.7,0.7]' 'grid.shape=[100,128,128]' network.head=joint_counts \
    train.steps=600 train.batch_size=32 test.samples=256 "$@" run=runs/docs/scenarios
  streamtrain evaluate runs/docs/scenarios --scenarios pfeffer2019
  ;;
limlam)
  maps="${1:?the folder of the maps}"
  shift
  streamtrain catalog make 8 --out lightcones/wide --footprint-deg 1.6 --no-velocities --prefix train
  streamtrain catalog make 2 --out lightcones/wide --footprint-deg 1.6 --no-velocities \
    --prefix validation --first-seed 4000
  mkdir -p runs/docs
  heading="### A map painted by limlam_mocker"
  block "$heading" python >runs/docs/sparse.py
  block "$heading" yaml | sed s,sparse.py:,runs/docs/sparse.py:, >runs/docs/sparse.yaml
  streamtrain train runs/docs/sparse.yaml run=runs/docs/sparse "$@"
  "$STREAMTRAIN" - "$maps" <<'END'
import sys

import numpy as np

from streamtrain import Run

run = Run.open("runs/docs/sparse")
for name, options in (("v1_li_square", {}), ("v3_breysse_offset", {"regrid": True})):
    path = f"{sys.argv[1]}/{name}.npz"
    true = np.load(path)["lum_dN"].astype(float)
    posterior = run.infer(path, units="uK", **options)
    posterior.plot(f"runs/docs/{name}.png", title=f"{name}, a map painted by limlam_mocker", true=true)
    print(posterior)
    middle = posterior.quantiles([0.5])[0]
    for low, high in ((3.5, 4.5), (4.5, 5.5), (5.5, 6.0), (6.0, 7.0)):
        inside = (posterior.bin_edges[:-1] > low - 1e-9) & (posterior.bin_edges[1:] < high + 1e-9)
        drawn = posterior.samples[:, inside].sum(1)
        ends = np.percentile(drawn, (2.5, 16, 50, 84, 97.5))
        full = inside & (true > 0)
        apart = np.log10(np.maximum(middle[full], 1) / true[full])
        rms = f"{np.sqrt((apart**2).mean()):.3f}" if full.any() else "-"
        print(f"{low}-{high}: {true[inside].sum():.0f} halos, inferred {ends.round()}, rms {rms} dex")
    for level in (0.68, 0.95):
        for kind in ("interval", "band"):
            bottom, top = getattr(posterior, kind)(level)
            print(f"{kind} {level}: holds {np.mean((bottom <= true) & (true <= top)):.2f} of the bins")
END
  cp runs/docs/v1_li_square.png docs/infer.png
  ;;
comap)
  survey="$(cd "${1:?the folder of halos.npz, beam.txt and transfer.h5}" && pwd)"
  shift
  skies
  mkdir -p runs/docs/comap
  named survey_map.py >runs/docs/comap/survey_map.py
  "$STREAMTRAIN" runs/docs/comap/survey_map.py "$survey/halos.npz" "$survey/beam.txt" \
    "$survey/transfer.h5" runs/docs/comap/field.h5
  named survey.yaml | sed "s,beam.txt,$survey/beam.txt,; s,transfer.h5,$survey/transfer.h5,
    s,field.h5,$PWD/runs/docs/comap/field.h5," >runs/docs/comap/survey.yaml
  of=(runs/docs/comap/survey.yaml "${data[@]}" train.steps=4000 test.samples=4096 "$@")
  noise="noise: {rms: $PWD/runs/docs/comap/field.h5}"
  streamtrain train "${of[@]}" run=runs/docs/comap/with
  streamtrain train "${of[@]}" run=runs/docs/comap/without \
    "observe={beam: {profile: $survey/beam.txt}, $noise, asinh: {scale: 10.0}}"
  for run in with without; do
    streamtrain alarm "runs/docs/comap/$run" --maps 4000
    streamtrain evaluate "runs/docs/comap/$run" --calibration
  done
  streamtrain infer runs/docs/comap/with runs/docs/comap/field.h5 --check
  streamtrain infer runs/docs/comap/without runs/docs/comap/field.h5 --anyway
  "$STREAMTRAIN" - runs/docs/comap/without runs/docs/comap/survey.yaml "${data[@]}" <<'END'
import sys

from streamtrain import Generator, Run, load_config
from streamtrain.evaluate.alarm.alarm import alarm_scores
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.calibration.calibration import Prior, Ranking
from streamtrain.evaluate.calibration.report import numbers

folder, maps, *settings = sys.argv[1:]
generator = Generator(load_config(maps, settings), split="test")
with Run.open(folder) as run:
    watch = run.kept_watch()
    ranking = Ranking(run.network(generator), generator, 1000, Prior.of_run(run), watch)
    for first in range(0, 2048, 64):
        ranking.add(generator.generate(range(first, first + 64)))
    ranked = ranking.ranked()
    skies = Bootstrap.choose(ranked.skies, "auto")
    for row in numbers(ranked, skies, 6.0)["statistics"]:
        said = (
            f"{key} {row[key]:.3f} +- {row[f'{key}_error']:.3f}"
            for key in ("coverage_68", "coverage_95", "bias_sigma")
            if key in row
        )
        print(f"{row['name']:24s}", *said)
    print(alarm_scores(ranked.alarm, watch.reference, skies))
END
  ;;
esac
