#!/bin/sh
# From a folder of pictures, one sub-folder a class, to a served model. Run it where the Makefile is:
#   sh examples/pictures_to_server.sh FOLDER NAME [SIZE]
set -eu
folder=$1
name=$2
size=${3:-64}

make install
PATH="$PWD/.venv/bin:$PATH"
enas data import "$folder" --name "$name" --size "$size"
make search retrain export DATASET="$name" RUN="$name"
enas evaluate "runs/$name"
exec enas serve "runs/$name"
