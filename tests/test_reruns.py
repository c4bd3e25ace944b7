"""Which change runs which stages again, and what a switch of data sets leaves alone: real DVC on data that trains in seconds."""

from __future__ import annotations

import pytest
from conftest import KEPT

pytestmark = pytest.mark.slow


def test_a_new_beta_reruns_only_what_depends_on_it(copied):
    copied.edit_params(lambda tree: tree["recipes"]["tiny"]["arms"]["isometric"]["isometry"].update(beta=0.5))
    assert copied.repro() == {
        "train-isometric",
        *(f"{stage}@isometric" for stage in ("attack", "geometry", "connectivity", "detect")),
        "compare",
    }
    assert "beta" in copied.run("dvc", "params", "diff").stdout
    assert "summary.json" in copied.run("dvc", "metrics", "diff").stdout
    assert copied.run("dvc", "plots", "diff", "--json").returncode == 0


def test_a_new_grid_reruns_its_sweep_and_what_follows_the_choice(copied):
    copied.edit_params(lambda tree: tree["recipes"]["tiny"]["arms"]["isometric-tuned"]["isometry_grid"].update(beta=[3.0]))
    assert copied.repro() == {
        "sweep@isometric-tuned",
        "train-isometric-tuned",
        "attack@isometric-tuned",
        "geometry@isometric-tuned",
        "compare",
    }


def test_an_attack_setting_never_retrains(copied):
    copied.edit_params(lambda tree: tree["recipes"]["tiny"]["attack"]["attacks"]["pgd"].update(steps=6))
    assert copied.repro() == {f"attack@{arm}" for arm in KEPT} | {"compare"}


def test_the_other_attacks_settings_never_retrain(copied):
    def change(tree):
        tree["recipes"]["tiny"]["hierarchy-attack"].update(steps=4)
        tree["recipes"]["tiny"]["reclassifier-attack"].update(adaptive_steps=4)

    copied.edit_params(change)
    assert copied.repro() == {"attack-hierarchy", "attack@reclassifier", "compare"}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("src/isorobust/evaluation/checks.py", {f"attack@{arm}" for arm in (*KEPT, "reclassifier")}),
        ("src/isorobust/reclassifier/attack.py", {"attack@reclassifier"}),
        ("src/isorobust/compare/tables.py", {"compare"}),
        ("src/isorobust/tracking.py", set()),
        ("src/isorobust/schema.py", set()),
        ("src/isorobust/commands/verify.py", set()),
        ("src/isorobust/data/sources.py", {"download"}),
    ],
)
def test_a_comment_reruns_only_its_own_stages(copied, file, expected):
    path = copied.root / file
    path.write_text(path.read_text() + "# a remark\n")
    assert copied.repro() == expected  # outputs keep their bytes, so nothing downstream runs


def test_switching_the_data_set_loses_nothing(copied):
    """There and back twice with `exp run`, once more with `checkout`; both data sets' tracked files stay."""
    copied.run("dvc", "exp", "run", "-S", "data.name=other")
    copied.commit("other")
    tiny, other = copied.published("tiny"), copied.published("other")
    skipped = {"attack/reclassifier.npz"}  # what was not attacked has no verdicts
    assert other.keys() == tiny.keys() - skipped and len(other) > 15 and tiny != other
    for name in ("tiny", "other", "tiny", "other"):
        copied.run("dvc", "exp", "run", "-S", f"data.name={name}")
        assert (copied.published("tiny"), copied.published("other")) == (tiny, other), f"switching to {name}"
    assert copied.tracked() == ""
    copied.run("git", "checkout", "-q", "HEAD~1")
    copied.run("dvc", "checkout")
    assert copied.published("tiny") == tiny
    copied.run("git", "checkout", "-q", "main")
    copied.run("dvc", "checkout")
    assert (copied.published("tiny"), copied.published("other")) == (tiny, other)
    assert copied.tracked() == ""
