"""What the samples of a training are made from must stay what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def refuse_other_samples(
    then: Mapping[str, Any], now: Mapping[str, Any], models: list[str]
) -> None:
    """Raise ValueError if a run would go on with other lightcones or another model.

    then, now: `Generator.identity` of the checkpoint and of this call; models: names for the
    message.
    """
    if then == now:
        return
    if then.get("lightcones") != now["lightcones"]:
        old, new = then.get("lightcones"), now["lightcones"]
        what = "the lightcones of data.train are not those the run was trained on"
        if isinstance(old, list) and isinstance(new, list):  # files, not made during training
            both = len({*map(str, old)} & {*map(str, new)})
            what += f": {len(old)} then, {len(new)} now, {both} in both (their order counts)"
    elif names := [
        name
        for name in {**then, **now}
        if isinstance(now.get(name), dict)
        and isinstance(then.get(name), dict)
        and now[name].get("lightcones") != then[name].get("lightcones")
    ]:
        what = f"the lightcones of emit.{names[0]}.train are not those the run began with"
    elif then.get("sfr") != now.get("sfr"):
        what = "the table of star-formation rates data.sfr is not the one the run began with"
    elif then.get("observe") != now.get("observe"):
        what = "the files that map operators read are not those the run began with"
    else:
        what = f"the luminosity model {', '.join(models)} was edited since the run began"
    raise ValueError(f"{what}; undo that, or give this run another folder (run=...)")
