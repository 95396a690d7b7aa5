#!/bin/sh -e
# Train with checkpoints on a file system of 15 MB, which holds two checkpoints but not a third; then give it room and go on.
# Run in a mount namespace of its own: unshare --mount sh full_disk.sh RUN COMMAND…
run=$1
shift
mkdir -p "$run/checkpoints"
mount -t tmpfs -o size=15m tmpfs "$run/checkpoints"
"$@" && status=0 || status=$?
echo "first start: status $status"
ls -A "$run/checkpoints" | sed 's/^/left: /'
mount -o remount,size=100m "$run/checkpoints"
"$@"
cp "$run/checkpoints/last.ckpt" "$run/last.ckpt"
