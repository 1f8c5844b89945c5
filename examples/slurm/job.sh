#!/bin/sh
#SBATCH --output=job.out --error=job.err --open-mode=append
#SBATCH --requeue --signal=B:TERM@120
requeue='[ "$(squeue -h -o %T -j "$SLURM_JOB_ID")" != RUNNING ] || scontrol requeue "$SLURM_JOB_ID"'
exec ckpt run -o "job-$SLURM_JOB_ID.ckpt" --every 10m --on-end "$requeue" -- ./job input.dat
