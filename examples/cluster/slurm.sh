#!/bin/bash
# A search on the nodes of a SLURM job: a Ray cluster as long as the job, the search on its first node.
#
#   sbatch examples/cluster/slurm.sh runs/first       # again, when the time is over: it goes on where it was
#   scancel --batch --signal=USR1 JOBID               # end when the running trials have ended
#
# The checkout, with its .venv, and the run lie on a file system that all nodes see.
#SBATCH --job-name=nas
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@900
#SBATCH --output=nas-%j.log
set -euo pipefail

run=${1:-runs/slurm-$SLURM_JOB_ID}
gpus=${GPUS_PER_NODE:-4}
cpus=${SLURM_CPUS_PER_TASK:-16}
source .venv/bin/activate

# Other jobs on these nodes have ports, folders and a token of their own.
port=$((20000 + SLURM_JOB_ID % 5000))
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/nas-$SLURM_JOB_ID
mkdir -p "$HOME/.ray"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH")
leave() {
    kill $(jobs -p) 2> /dev/null || true
    wait || true
    srun --ntasks-per-node=1 rm -rf "$RAY_TMPDIR"
    rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap leave EXIT

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname -I | awk '{print $1}'):$port
ulimit -n 65536 2> /dev/null || true
srun --ntasks-per-node=1 mkdir -p "$RAY_TMPDIR"

begin() { # a node's part of the cluster: its name, options of `ray start`
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --overlap -w "$node" \
        ray start "$@" --num-cpus="$cpus" --num-gpus="$gpus" --disable-usage-stats --block &
}

begin "$head" --head --node-ip-address="${address%:*}" --port="$port" \
    --ray-client-server-port=$((port + 5000)) --include-dashboard=false
for _ in {1..60}; do
    ray status --address "$address" > /dev/null 2>&1 && break
    sleep 2
done
for node in "${nodes[@]:1}"; do
    begin "$node" --address="$address"
done

export RAY_ADDRESS=$address # what `auto` means, also for a run that was begun in another job
if [ -f "$run/config.yaml" ]; then
    nas resume "$run" &
else
    nas search --space nasbench201 --strategy regularized_evolution --data cifar10 --data-dir data \
        --executor ray --workers $((SLURM_JOB_NUM_NODES * gpus)) \
        --set executor.address=auto --set executor.gpus=1 --set executor.cpus=4 \
        --set executor.timeout=7200 --set executor.storage="$PWD/runs/trials" --set search.order=free \
        --budget 2000trials --controls 0 --run "$run" &
fi
search=$!
trap 'kill -INT "$search"' USR1 # what is running ends first
status=0
wait "$search" || status=$?
if [ "$status" -eq $((128 + $(kill -l USR1))) ]; then # the signal, not the search, has ended the waiting
    status=0
    wait "$search" || status=$?
fi
exit "$status"
