#!/bin/sh
exec timeout --foreground --preserve-status 30m ./ckpt run -o job.ckpt -- ./job input.dat >>job.out 2>>job.err
