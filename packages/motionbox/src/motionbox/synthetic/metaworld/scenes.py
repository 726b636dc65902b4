"""What is handled and how: pairs of opposite verbs, so that a single frame never tells which of the two it is.

An opposite is rendered from its own scripted policy where Meta-World has one, and from the other one's run played
backwards. Both verbs of a pair draw from the same tasks, half forwards and half backwards, so that the frames of
the two have the same distribution: the noun can be told from one frame, the verb only among the pair.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """One kind of thing and the two opposite things done to it.

    Attributes:
        noun: The thing.
        verbs: What is done, and the opposite.
        tasks: Meta-World's tasks, without their `-v3`, in which the first verb is seen.
        opposite_tasks: Those in which the second is seen; may be empty.
    """

    noun: str
    verbs: tuple[str, str]
    tasks: tuple[str, ...]
    opposite_tasks: tuple[str, ...] = ()


SCENES: tuple[Scene, ...] = (
    Scene("drawer", ("open", "close"), ("drawer-open",), ("drawer-close",)),
    Scene("door", ("open", "close"), ("door-open",), ("door-close",)),
    Scene("window", ("open", "close"), ("window-open",), ("window-close",)),
    Scene("faucet", ("open", "close"), ("faucet-open",), ("faucet-close",)),
    Scene("lock", ("lock", "unlock"), ("door-lock",), ("door-unlock",)),
    Scene("mug", ("push", "pull"), ("coffee-push",), ("coffee-pull",)),
    Scene("puck", ("push", "pull"), ("push", "push-wall"), ("push-back",)),
    Scene(
        "plate", ("push", "pull"), ("plate-slide", "plate-slide-side"), ("plate-slide-back", "plate-slide-back-side")
    ),
    Scene("stick", ("push", "pull"), ("stick-push",), ("stick-pull",)),
    Scene("nut", ("put on", "take off"), ("assembly",), ("disassemble",)),
    Scene("peg", ("put in", "take out"), ("peg-insert-side",), ("peg-unplug-side",)),
    Scene("block", ("put in", "take out"), ("hand-insert",), ("pick-out-of-hole",)),
    Scene("handle", ("press", "lift"), ("handle-press", "handle-press-side"), ("handle-pull", "handle-pull-side")),
    Scene(
        "button", ("press", "release"), ("button-press", "button-press-topdown", "button-press-wall", "coffee-button")
    ),
    Scene("dial", ("turn", "turn back"), ("dial-turn",)),
    Scene("lever", ("lift", "press"), ("lever-pull",)),
    Scene("box", ("close", "open"), ("box-close",)),
    Scene("basketball", ("put in", "take out"), ("basketball",)),
    Scene("cube", ("put in", "take out"), ("bin-picking",)),
    Scene("shelf", ("put on", "take off"), ("shelf-place",)),
    Scene("cylinder", ("lift", "put down"), ("pick-place", "pick-place-wall")),
    Scene("football", ("push", "pull"), ("soccer",)),
    Scene("brick", ("push", "pull"), ("sweep", "sweep-into")),
    Scene("hammer", ("push", "pull"), ("hammer",)),
)
VERBS: tuple[str, ...] = tuple(sorted({verb for scene in SCENES for verb in scene.verbs}))
NOUNS: tuple[str, ...] = tuple(scene.noun for scene in SCENES)
PARTS: tuple[str, ...] = ("all", "choose", "report")


def scenes_of(part: str) -> tuple[Scene, ...]:
    """Return the scenes of a part: `all`, or the halves to choose settings on and to report on.

    Raises:
        ValueError: Another part.
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    return SCENES if part == "all" else SCENES[PARTS.index(part) - 1 :: 2]


def part_of(scene: Scene) -> str:
    """Return the half that a scene is in: `choose` or `report`."""
    return PARTS[1 + SCENES.index(scene) % 2]
