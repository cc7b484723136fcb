#!/bin/sh
# Trains the shipped model, biored-minilm, as models/biored-minilm was made:
#
#   training/recipes/biored-minilm.sh CORPORA ENCODER OUT [OPTION…]
#
# CORPORA is the folder of AIONER's training sets (repository ncbi/AIONER), ENCODER that of MiniLM-L6, OUT the
# model directory to be made; options go to `litflow-train fit`, `--seed 2` or `--resume` for example.
set -eu
if [ $# -lt 3 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
corpora=$1 encoder=$2 out=$3
shift 3
root=$(cd "$(dirname "$0")/../.." && pwd)

# Threads that wait in a loop for one another lose a factor of ten where the cores are shared.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

litflow_train() {
    cargo run --release --manifest-path "$root/Cargo.toml" -p litflow-training -- "$@"
}

# Of copies of an article the first file has the say: BioRED stands first.
status=0
litflow_train fit \
    --data "$corpora/BioRED_TrainDev.PubTator" "$corpora/tmVar3_Train.PubTator" "$corpora/BC5CDR_TrainDev.PubTator" \
    "$corpora/NLMgene_Train.PubTator" "$corpora/GNormPlus_Train.PubTator" "$corpora/NCBIdisease_TrainDev.PubTator" \
    "$corpora/SPECIES_Train.PubTator" "$corpora/BioID_Train_revision.PubTator" \
    --recipe "$root/training/recipes/biored-minilm.toml" --encoder "$encoder" --out "$out" "$@" || status=$?
case $status in
0 | 3) ;; # 3: some annotations were left out, and told
*) exit $status ;;
esac
litflow_train golden --model "$out" "$root/demo/articles.jsonl" "$root/demo/pubmed.xml"
exit $status
