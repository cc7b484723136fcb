#!/bin/sh
# What class weighting brings on rare types: trains on CRAFT with and without it, and scores CRAFT's own test articles.
#
#   training/recipes/craft-rare.sh CRAFT ENCODER OUT [SEED…]
#
# CRAFT is the folder of its release (articles/, concept-annotation/), OUT a new folder for the models; seeds are 1 2 3
# unless others are given. RARE_ARTICLES=30 trains on the first so many of CRAFT's other articles instead of all 67.
# Prints a line a model; the scores are beside it, in OUT/WEIGHTING-STRENGTH-SEED.json.
set -eu
if [ $# -lt 3 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
craft=$1 encoder=$2 out=$3
shift 3
[ $# -gt 0 ] || set -- 1 2 3
root=$(cd "$(dirname "$0")/../.." && pwd)
train="${LITFLOW_TRAIN:-$root/target/release/litflow-train}"
ids="$craft/articles/ids"
mkdir -p "$out"

# What training must not see: the test articles, and those beyond RARE_ARTICLES.
sed 's/^/pmid:/' "$ids/craft-ids-test.txt" >"$out/test.txt"
cat "$ids/craft-ids-train.txt" "$ids/craft-ids-dev.txt" | tail -n "+$((${RARE_ARTICLES:-67} + 1))" | sed 's/^/pmid:/' |
    cat "$out/test.txt" - >"$out/unseen.txt"

for seed; do
    # Class weighting and its strength.
    for variant in ${RARE_VARIANTS:-off:1.0 inverse-frequency:1.0 inverse-frequency:0.25}; do
        weighting=${variant%:*} strength=${variant#*:}
        model="$out/$weighting-$strength-$seed"
        sed "1i class_weighting = \"$weighting\"\nclass_weighting_strength = $strength" "$root/training/recipes/craft-rare.toml" >"$model.toml"
        # 3: done, but what CRAFT annotates in overlaps was left out.
        "$train" fit --data "$craft/concept-annotation" --hold-out "$out/unseen.txt" --recipe "$model.toml" \
            --encoder "$encoder" --out "$model" --seed "$seed" >"$model.log" 2>&1 || [ $? -eq 3 ]
        "$train" eval --model "$model" --data "$craft/concept-annotation" --hold-out "$out/test.txt" --json \
            >"$model.json" 2>>"$model.log" || [ $? -eq 3 ]
        python3 - "$model.json" <<'PYTHON'
import json, sys
strict = json.load(open(sys.argv[1]))["strict"]
types = {name: scores["f1"] for name, scores in strict["types"].items()}
print(sys.argv[1], "micro %.4f macro %.4f" % (strict["micro"]["f1"], strict["macro"]["f1"]),
      " ".join("%s %.4f" % item for item in types.items()), flush=True)
PYTHON
    done
done
