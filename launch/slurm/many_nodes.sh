#!/usr/bin/env bash
# A training on several nodes, for as many jobs as it takes:
#
#   sbatch --nodes=4 launch/slurm/many_nodes.sh configs/comap.yaml run=runs/mine
#
# Read one_node.sh first: this differs in the lines between srun and wait. All nodes need the same
# view of this folder (a shared file system): rank 0 writes the checkpoints there, and all ranks
# read the lightcones. train.batch_size is shared by all GPUs of all nodes and must be a multiple of
# their number. Another number of nodes may continue the same run.
#
#SBATCH --job-name=streamtrain
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --output=streamtrain-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
set -uo pipefail

if [ $# -eq 0 ]; then
  echo "usage: sbatch $0 CONFIG [key=value ...]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2

if [ -f .venv/bin/activate ]; then
  # shellcheck disable=SC1091
  . .venv/bin/activate
fi

processes="${SLURM_GPUS_ON_NODE:-1}"

# The torchruns of all nodes meet at the first one, at a port that no other job of this user has.
first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
port=$((29000 + SLURM_JOB_ID % 1000))

# srun starts one torchrun per node, torchrun one process per GPU. After the loss of a process all
# of them are started again, up to three times.
srun --kill-on-bad-exit=1 torchrun \
  --nnodes="$SLURM_JOB_NUM_NODES" \
  --nproc-per-node="$processes" \
  --max-restarts=3 \
  --rdzv-id="$SLURM_JOB_ID" \
  --rdzv-backend=c10d \
  --rdzv-endpoint="$first:$port" \
  launch/train.py "$@" &
training=$!

# The step ID.0 is the srun above; its torchruns pass SIGTERM on to their ranks.
warned=""
trap 'warned=yes; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1
trap 'scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM

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
