#!/usr/bin/env bash
# The whole job on simulated patients, in minutes on two CPU cores: phantom cohorts, shards,
# pretraining, export, fine-tuning on 20 cases (pretrained, from scratch, random frozen encoder),
# evaluation on cases never seen, prediction of one case, HTML report.
#
#   launch/quickstart.sh [FOLDER]     results go to FOLDER, by default ./quickstart
#
# Run again, it continues: finished steps are recognised and left alone.
# Minutes of pretraining need not help; the table at the end shows what happened, without a claim.

case "${1:-}" in
    -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
if [ $# -gt 1 ]; then
    echo "quickstart.sh: takes at most one argument, a folder; see --help" >&2
    exit 2
fi
out=$(realpath -m "${1:-quickstart}")
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
mkdir -p "$out"
trap '[ $? = 0 ] || echo "quickstart.sh: stopped; the same command continues" >&2' EXIT

step() { # step TITLE COMMAND...: runs a command and notes how long it took
    local title=$1 start=$SECONDS
    shift
    printf '\n\033[1m%s\033[0m\n' "$title"
    "$@"
    printf '%s\t%d\n' "$title" $((SECONDS - start)) >>"$out/timings.tsv"
}

cohort() { # cohort NAME SUBJECTS PROTOCOL SEED [OPTIONS...]
    local name=$1 subjects=$2 protocol=$3 seed=$4
    shift 4
    gliomoe phantom "$out/cohorts/$name" --subjects "$subjects" --protocol "$protocol" \
        --seed "$seed" --spacing 3.5 "$@"
}

finetune() { # finetune NAME FROM [OPTIONS...]
    local name=$1 from=$2
    shift 2
    gliomoe finetune quickstart --from "$from" --out "$out/runs/$name" "$@" \
        --data "$out/cohorts/train_a" --labels "$out/cohorts/train_a/participants.tsv" \
        --cache "$out/shards/train_a"
}

evaluate() { # evaluate RUN COHORT
    local to=$out/evaluations/$1_on_$2
    [ ! -f "$to/metrics.json" ] || return 0
    gliomoe evaluate "$out/runs/$1" --out "$to" \
        --data "$out/cohorts/$2" --labels "$out/cohorts/$2/participants.tsv" \
        --cache "$out/shards/$2"
}

step "Phantoms without labels, for pretraining" cohort unlabelled 48 mixed 1 --unlabelled
step "Phantoms with labels: 20 to train" cohort train_a 20 A 2
step "Phantoms with labels: 12 to test, same protocol" cohort test_a 12 A 3
step "Phantoms with labels: 12 to test, another protocol" cohort test_b 12 B 4
step "Shards" gliomoe shards build "$out/cohorts/unlabelled" --out "$out/shards/unlabelled" \
    --spacing 3.5
step "Pretraining" launch/pretrain.sh quickstart --data.train "$out/shards/unlabelled" \
    --run.out "$out/runs/pretraining"
step "Export" gliomoe export "$out/runs/pretraining" --out "$out/checkpoint"
step "Fine-tuning from the checkpoint" finetune pretrained "$out/checkpoint"
step "Fine-tuning from scratch" finetune scratch scratch
step "Training heads on a random frozen encoder" finetune random_frozen scratch --freeze encoder
for run in pretrained scratch random_frozen; do
    for test in test_a test_b; do
        step "Evaluation of $run on $test" evaluate "$run" "$test"
    done
done
step "Prediction of one case" gliomoe predict "$out/runs/pretrained" \
    "$out/cohorts/test_b/sub-001" --out "$out/prediction"
step "Report" gliomoe report "$out/runs/pretrained" --out "$out/report.html" \
    --evaluations "$out"/evaluations/* --predictions "$out/prediction"

printf '\nSeconds per step: %s\nTraining curves:  tensorboard --logdir %s\nReport:           %s\n' \
    "$out/timings.tsv" "$out/runs" "$out/report.html"
