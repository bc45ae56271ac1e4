"""Which labelled cases a seed trains on."""

import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.splits import Case
from gliomoe.launch.studies.draws import draw


def cohort(count, mutant):
    """Cases of which the first ones are mutant."""
    return [
        Case(f"case-{n:02}", f"case-{n:02}", {"seg": 1.0, "idh": float(n < mutant)})
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_fewer_shots_are_among_more_and_have_both_classes(seed):
    cases = cohort(40, mutant=4)
    draws = draw(cases, (5, 20, 10), folds=5, seed=seed, tasks=("seg", "idh"))
    few, some, many = (set(draws[number].keys) for number in (5, 10, 20))
    assert (len(few), len(some), len(many)) == (5, 10, 20)
    assert few < some < many
    for number, splits in draws.items():
        assert len(splits.folds) == 5
        assert {int(key[-2:]) < 4 for key in splits.keys} == {True, False}
        assert set(splits.unused) == {case.key for case in cases} - set(splits.keys)
        assert draw(cases[::-1], (5, 10, 20), 5, seed, ("seg", "idh"))[number] == splits


def test_seeds_draw_other_cases():
    draws = [draw(cohort(40, 15), (5,), 5, seed, ("idh",))[5].keys for seed in range(6)]
    assert len(set(draws)) == 6


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UsageError, match="20 shots, but 10 labelled cases; give more cases"):
        draw(cohort(10, 5), (5, 20), 5, 0, ("idh",))
    with pytest.raises(UsageError, match="task idh: none of .* draws of 5 of 9 labelled cases"):
        draw(cohort(9, 9), (5,), 5, 0, ("seg", "idh"))
