"""Check of the shard sets by the size of their files, shared out among the processes."""

from collections.abc import Sequence

from gliomoe.pretrain.planning.preflight.facts import Facts
from gliomoe.pretrain.planning.preflight.finding import Finding


def check_data(facts: Sequence[Facts]) -> Finding:
    """Every file of the shard sets is there in its full size."""
    damage = [text for fact in facts for text in fact.damage]
    checked = sum(fact.checked for fact in facts)
    if damage:
        more = f" and {len(damage) - 1} more" if len(damage) > 1 else ""
        advice = "gliomoe shards verify names the studies; copy or build the set again"
        return Finding("data", "failed", f"{damage[0]}{more}", advice)
    if not checked:
        return Finding("data", "warning", "sizes not checked", "pipes do not tell theirs")
    return Finding("data", "ok", f"{checked} files have their size")
