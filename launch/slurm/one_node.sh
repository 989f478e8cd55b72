#!/usr/bin/env bash
# A training on one node, for as many jobs as it takes:
#
#   sbatch launch/slurm/one_node.sh configs/comap.yaml run=runs/mine train.steps=200000
#
# Change the lines that begin with #SBATCH to what your cluster has (sinfo shows its partitions);
# options given to sbatch itself count more. The training continues from its last checkpoint
# whenever the job is started again, so time limits, preemption and broken nodes cost minutes.
#
#SBATCH --job-name=streamtrain
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
# Standard output of all the jobs of this training in one file:
#SBATCH --output=streamtrain-%j.log
#SBATCH --open-mode=append
# Allowed to start again after preemption or the failure of a node:
#SBATCH --requeue
# Two minutes before the time is up, send SIGUSR1 to this script alone (B:):
#SBATCH --signal=B:USR1@120
set -uo pipefail

if [ $# -eq 0 ]; then
  echo "usage: sbatch $0 CONFIG [key=value ...]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2

# What your cluster needs before python is there: module load ..., or the virtual environment that
# launch/quickstart.sh makes.
if [ -f .venv/bin/activate ]; then
  # shellcheck disable=SC1091
  . .venv/bin/activate
fi

# One process per GPU; without a GPU, one process in all.
processes="${SLURM_GPUS_ON_NODE:-1}"

# Started in the background, so that this script can answer signals. A rank that is killed is
# started again, with the others, up to three times.
torchrun --standalone --nproc-per-node="$processes" --max-restarts=3 launch/train.py "$@" &
training=$!

# SIGTERM makes torchrun tell its ranks: they finish their step, write a checkpoint and leave,
# within 20 seconds.
warned=""
trap 'warned=yes; kill -TERM "$training"' USR1
trap 'kill -TERM "$training"' TERM

wait "$training"
status=$?
while kill -0 "$training" 2>/dev/null; do # a signal has ended the wait, not the training
  wait "$training"
  status=$?
done

if [ -n "$warned" ]; then
  echo "the time is up: back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
