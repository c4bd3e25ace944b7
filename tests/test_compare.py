"""From verdicts to tables: closed cases, paired differences, limits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from isorobust.common import artifacts
from isorobust.common.params import check
from isorobust.compare import cells, csv_rows, evidence, plots, reclassifiers, structure, tables
from isorobust.compare.analysis import HOLDS, REFUTED, UNDECIDED, add_reclassifiers, compare, summary, verdict
from isorobust.compare.publish import twins_of
from isorobust.compare.results import ArmResults, published_verdicts, verdict_bytes
from isorobust.compare.settings import CompareSettings
from isorobust.drawing import png
from isorobust.errors import UserError

TWINS = {"isometric": "baseline"}
PASSED, FAILED = ({"passed": flag, "value": 0.5, "limit": 0.1} for flag in (True, False))
SETTINGS = check(
    CompareSettings,
    {"reference": "baseline", "primary": {"arm": "isometric", "attack": "worst-case", "norm": "linf", "eps": [0.1]}},
    "compare",
)


def arm(name, share, seeds=(0, 1, 2), checks=None, count=200):
    """An arm that keeps `share` of the images, in tenths, under every attack, and is right on all clean ones."""
    labels = np.arange(count) % 4
    kept = np.broadcast_to(np.arange(count) % 10 < round(10 * share), (len(seeds), count))
    arrays = {
        "labels": labels,
        "seeds": np.array(seeds),
        "correct/clean": np.ones((len(seeds), count), bool),
        "predicted/clean": np.broadcast_to(labels, (len(seeds), count)),
        "correct/pgd/linf/0.1": kept,
        "predicted/pgd/linf/0.1": np.where(kept, labels, (labels + 1) % 4),
        "correct/paper-fgsm/linf/0.1": kept,
        "correct/strongest/linf/0.1": kept,
        "correct/worst-case/linf/0.1": kept[:, :100],
        "fallen/worst-case/linf/0.1": np.where(kept[:, :100], 0, 1).astype(np.int8),
        "parts/worst-case": np.array(["apgd-ce", "apgd-t", "fab-t", "square"]),
    }
    curves = [{"epoch": str(e), "val_accuracy": "0.5", "train_loss": "1.0", "val_accuracy_seed_0": "0.5"} for e in (1, 2)]
    return ArmResults(name, {}, {"checks": checks or {"x": PASSED}}, curves, arrays)


def test_rates_differences_and_checks_stand_where_they_should():
    tree = compare([arm("baseline", 0.5), arm("isometric", 0.8, checks={"x": FAILED})], SETTINGS, "d", TWINS)
    worst = tree["arms"]["isometric"]["robust"]["linf"]["0.1"]["worst-case"]
    assert worst["value"] == 0.8 and worst["n"] == 100
    assert tree["arms"]["baseline"]["robust"]["linf"]["0.1"]["pgd"]["value"] == 0.5
    assert tree["differences"]["isometric-vs-baseline"]["linf"]["0.1"]["pgd"]["value"] == pytest.approx(0.3)
    assert tree["checks"]["isometric"]["x"]["passed"] is False
    assert tree["primary"]["failed-checks"] == {"baseline": [], "isometric": ["x"]}
    assert tree["primary"]["eps"]["0.1"]["verdict"] == HOLDS
    assert tree["arms"]["baseline"]["felled-by"]["linf"]["0.1"]["apgd-ce"] == 0.5


def test_differences_are_paired_by_the_seeds_value_not_its_place():
    random = np.random.default_rng(0)
    first, second = arm("baseline", 0.5, seeds=(0, 1, 2)), arm("isometric", 0.5, seeds=(2, 0, 5))
    for result in (first, second):
        for seed in (0, 2):
            row = np.random.default_rng(seed).random(200) < 0.5
            flags = result.arrays["correct/pgd/linf/0.1"].copy()
            flags[result.seeds.index(seed)] = row
            result.arrays["correct/pgd/linf/0.1"] = flags
        flags[[s for s in range(3) if result.seeds[s] not in (0, 2)]] = random.random(200) < 0.5
    estimate = compare([first, second], SETTINGS, "d", TWINS)["differences"]["isometric-vs-baseline"]["linf"]["0.1"]["pgd"]
    assert estimate["value"] == 0.0


@pytest.mark.parametrize(
    ("lo", "hi", "expected"), [(0.01, 0.1, HOLDS), (-0.1, -0.01, REFUTED), (-0.1, 0.1, UNDECIDED), (0, 0.1, UNDECIDED)]
)
def test_a_verdict_needs_the_whole_interval(lo, hi, expected):
    assert verdict({"lo": lo, "hi": hi}) == expected


def published(tree):
    return json.loads(artifacts.json_bytes(tree))


def test_arms_without_verdicts_stand_as_they_were_published():
    arms = [arm("baseline", 0.5), arm("isometric", 0.8), arm("noise", 0.6)]
    before = published(compare(arms[:2], SETTINGS, "d", TWINS))
    bare = arms[1]._replace(arrays={})
    tree = compare([arms[0], bare, arms[2]], SETTINGS, "d", TWINS, before=before)
    assert published(tree) == published(compare(arms, SETTINGS, "d", TWINS))


def test_a_published_number_is_paired_with_nothing_that_it_was_not_measured_beside():
    arms = [arm("baseline", 0.5), arm("isometric", 0.8)]
    before = published(compare(arms, SETTINGS, "d", TWINS))
    bare = arms[1]._replace(arrays={})
    with pytest.raises(UserError, match="no verdicts of isometric are published, and baseline is not what it was"):
        compare([arm("baseline", 0.4), bare], SETTINGS, "d", TWINS, before=before)
    with pytest.raises(UserError, match="noise-vs-isometric: no verdicts of isometric are published, to pair them with"):
        compare([arms[0], bare, arm("noise", 0.6)], SETTINGS, "d", {**TWINS, "noise": "isometric"}, before=before)


def test_arms_are_paired_on_the_images_that_both_were_attacked_on():
    arms = [arm("baseline", 0.5), arm("isometric", 0.8)]
    key = "correct/worst-case/linf/0.1"
    few = arms[1]._replace(arrays={**arms[1].arrays, key: arms[1].arrays[key][:, :30]})
    change = compare([arms[0], few], SETTINGS, "d", TWINS)["differences"]["isometric-vs-baseline"]["linf"]["0.1"]["worst-case"]
    assert change["n"] == 30 and change["value"] == pytest.approx(0.3)
    more = arms[1]._replace(arrays={**arms[1].arrays, "labels": np.arange(1000) % 4})  # a plug-in knows those of the whole file
    assert compare([arms[0], more], SETTINGS, "d", TWINS)["differences"] == compare(arms, SETTINGS, "d", TWINS)["differences"]


def test_arms_attacked_on_other_images_are_refused():
    other = arm("isometric", 0.5)
    other.arrays["labels"] = other.arrays["labels"][::-1]
    with pytest.raises(UserError, match="isometric and baseline were attacked on other test images"):
        compare([arm("baseline", 0.5), other], SETTINGS, "d", TWINS)


def test_published_verdicts_are_those_that_comparisons_read(tmp_path):
    """Small, the same bytes for the same verdicts, and read like the stage's own file."""
    arrays = arm("baseline", 0.5).arrays
    arrays["correct/pgd/linf/0.1"] = np.random.default_rng(0).random((3, 200)) < 0.5
    content = verdict_bytes(arrays)
    assert content == verdict_bytes(dict(arrays)) and len(content) < 4000
    (tmp_path / "v.npz").write_bytes(content)
    found = published_verdicts(tmp_path / "v.npz")
    assert list(found) == [name for name in arrays if not name.startswith("predicted/")]
    assert all(np.array_equal(found[name], arrays[name]) and found[name].dtype == arrays[name].dtype for name in found)


def test_arms_without_common_seeds_are_refused():
    with pytest.raises(UserError, match="share no seeds"):
        compare([arm("baseline", 0.5), arm("isometric", 0.5, seeds=(7, 8, 9))], SETTINGS, "d", TWINS)


def test_a_missing_arm_or_endpoint_is_told():
    with pytest.raises(UserError, match="'isometric' was not trained; allowed: baseline"):
        compare([arm("baseline", 0.5)], SETTINGS, "d", TWINS)
    bare = arm("isometric", 0.5)
    del bare.arrays["correct/worst-case/linf/0.1"]
    with pytest.raises(UserError, match="worst-case did not run at linf 0.1"):
        compare([arm("baseline", 0.5), bare], SETTINGS, "d", TWINS)


def leaves(node):
    return sum(map(leaves, node.values())) if isinstance(node, dict) else 1


@pytest.mark.parametrize("count", [2, 4, 15])
def test_the_summary_has_at_most_20_numbers(count):
    results = [arm("baseline", 0.5), *(arm(f"other-{i}", 0.5) for i in range(count - 2)), arm("isometric", 0.8)]
    shown = summary(compare(results, SETTINGS, "d", TWINS))
    assert leaves(shown) <= 20 and {"baseline", "isometric"} <= shown.keys()


def test_tables_show_every_arm_its_interval_and_failed_checks():
    tree = compare([arm("baseline", 0.5), arm("isometric", 0.8, checks={"x": FAILED})], SETTINGS, "d", TWINS)
    accuracy = tables.accuracy_table(tree)
    assert "| L-infinity 0.1 | isometric (failed: x) | 3 | 100.0 [" in accuracy
    assert "| isometric (failed: x) over baseline | L-infinity 0.1 |" in tables.verdict_table(tree)
    assert "holds (primary) |" in tables.verdict_table(tree)
    assert "0.5 FAILED" in tables.checks_table(tree)
    rows = csv_rows.long_rows(tree)
    assert ["baseline", "linf", "0.1", "pgd"] == next(r for r in rows if r[3] == "pgd")[:4]
    header, wide = csv_rows.wide_rows(tree, ["baseline", "absent", "isometric"], "linf", "strongest")
    assert header == ["eps", "baseline", "absent", "isometric"]
    assert wide == [[0.0, 1.0, None, 1.0], [0.1, 0.5, None, 0.8]]


def test_figures_are_the_same_bytes_for_the_same_numbers():
    results = [arm("baseline", 0.5), arm("isometric", 0.8)]
    tree = compare(results, SETTINGS, "d", TWINS)
    for draw in (
        lambda: plots.robust_accuracy(tree),
        lambda: plots.training_curves(results),
        lambda: plots.confusion_matrices(results, "linf", "0.1"),
        lambda: plots.complementarity(tree, tables.factorial_entries(tree)),
        lambda: plots.sweep_heatmaps("tuned", SWEPT),
    ):
        first, second = png(draw()), png(draw())
        assert first == second and first.startswith(b"\x89PNG")
    assert plots.adversarial_images(results) is None and plots.confusion_matrices([], "linf", "0.1") is None


def test_a_sweep_without_scales_is_drawn_over_its_other_numbers():
    table = [{**row, "layers": "last"} for row in SWEPT if row["scale"] == "0.5"]
    for row in table:
        del row["scale"]
    clean, _ = plots.sweep_heatmaps("tuned", table).axes
    assert (clean.get_xlabel(), clean.get_ylabel(), len(clean.texts)) == ("layers", "beta", 2)


SWEPT = [
    {"beta": b, "scale": s, "val_clean": "0.9", "val_pgd": s, "chosen": str(int(b + s == "1.00.5"))}
    for b in ("0.1", "1.0")
    for s in ("0.5", "1.0")
]


def test_the_factorial_view_pairs_every_twin_with_its_own_base():
    arms = [arm("baseline", 0.5), arm("isometric", 0.5), arm("jacobian", 0.4), arm("jacobian-isometric", 0.8)]
    twins = {"isometric": "baseline", "jacobian-isometric": "jacobian", "trades-isometric": "trades"}
    tree = compare(arms, SETTINGS, "d", twins)
    assert set(tree["differences"]) == {
        "isometric-vs-baseline",
        "jacobian-vs-baseline",
        "jacobian-isometric-vs-baseline",
        "jacobian-isometric-vs-jacobian",
    }
    entries = {(e["twin"], e["measure"]): e for e in tables.factorial_entries(tree)}
    assert list(entries) == [(t, m) for t in ("isometric", "jacobian-isometric") for m in ("clean", "0.1")]
    gained = entries["jacobian-isometric", "0.1"]
    assert gained["difference"]["value"] == pytest.approx(0.4) and gained["verdict"] == "gains"
    assert gained["smallest"] == pytest.approx((gained["difference"]["hi"] - gained["difference"]["lo"]) / 2)
    assert entries["isometric", "0.1"]["verdict"] == "undecided"
    assert "| jacobian | jacobian-isometric | worst case, L-infinity 0.1 | 40.0 [" in tables.factorial_table(tree)
    header, rows = csv_rows.factorial_rows(tree)
    assert len(rows) == 4 and rows[3][header.index("verdict")] == "gains"


def test_the_table_of_claims_says_of_every_interval_what_it_says():
    """A planted tree: one claim that holds, one that does not, one that is undecided."""
    good, bad, open_ = (
        {"value": v, "lo": lo, "hi": hi, "n": 9} for v, lo, hi in ((0.3, 0.1, 0.5), (-0.3, -0.5, -0.1), (0, -1, 1))
    )
    tree = {
        "primary": {
            **{"arm": "isometric", "reference": "baseline", "failed-checks": {"isometric": []}},
            **{"attack": "worst-case", "norm": "linf", "eps": {"0.1": {}}},
        },
        "twins": {"isometric": "baseline", "noise-isometric": "noise"},
        "differences": {
            "isometric-vs-baseline": {"linf": {"0.1": {"paper-fgsm": good, "worst-case": bad}}},
            "noise-isometric-vs-noise": {"linf": {"0.1": {"worst-case": open_}}},
        },
        "reclassifiers": {
            "plug": {
                "attacked": {
                    "claims": {
                        "improves-base": {"linf": {"0.1": bad}},
                        "direct-attack-overstates": {"linf": {"0.1": good}},
                        "fc-more-sensitive": {"worst": good, "per-margin": open_},
                    }
                }
            }
        },
    }
    other = {**tree, "twins": {}, "reclassifiers": {}, "primary": {**tree["primary"], "failed-checks": {"baseline": ["x"]}}}
    level = {"claims": dict.fromkeys(TOY_CLAIMS, {**good, "verdict": HOLDS}), "isometric": {"boundary_rank_correlation": bad}}
    toys = {"torus": {"levels": {"level-2": level}}}
    told = evidence.table({"digits": tree, "planes": other}, toys)
    assert evidence.failures({"digits": tree, "planes": other}) == "On `planes`: baseline (failed: x)"
    assert told.count("### ") == 3 and told.count("| under | digits | planes |") == 2
    lines = [line for line in told.splitlines() if line.startswith("|") and "---" not in line and "measured" not in line]
    plus, minus = "+30.0 [+10.0, +50.0] **holds**", "-30.0 [-50.0, -10.0] **does not hold**"
    ours = "isometric less baseline, points, L-infinity 0.1"
    assert lines[0].endswith(f"without the term | {ours} | paper's FGSM | {plus} | {plus}† |")
    assert lines[1] == f"|  |  | worst case | {minus} | {minus}† |"
    assert "regularisers: noise | noise-isometric less" in lines[2]
    assert lines[2].endswith("| worst case | +0.0 [-100.0, +100.0] **undecided** |  |")
    assert "improves" in lines[3] and lines[3].endswith(f"| mixed surrogates | {minus} |  |")
    assert "overstates" in lines[4] and lines[4].endswith(f"| attack on itself | {plus} |  |")
    assert "sensitive" in lines[5] and "+0.300 [+0.100, +0.500] **holds**" in lines[5]
    assert lines[6].startswith("|  | plug: the same per unit of margin") and "**undecided**" in lines[6]
    assert "| torus, level-2 |" in told and len(lines) == 9
    assert lines[7].endswith("|  | +0.30 [+0.10, +0.50] **holds** |")
    assert lines[8].endswith("(claimed: below 0) |  | -0.30 [-0.50, -0.10] **holds** |")


def test_the_claims_in_short_are_those_on_the_network_that_they_are_about():
    share = {"value": 0.97, "lo": 0.95, "hi": 0.99, "n": 60, "kind": "real", "verdict": HOLDS}
    shares = {"joined-straight": share, "level-straight": share}
    silent = {"joined-straight": {"n": 0, "kind": "synthetic"}, "level-straight": {**share, "kind": "synthetic"}}
    kinds = {"real": {}, "synthetic": {"distinct": share}}
    detected = {"barrier-beyond-loss": {"value": 0.1, "lo": 0.05, "hi": 0.15, "attacks": 7}}
    networks = ("baseline", "isometric", "untrained")
    tree = {
        "primary": {"arm": "isometric", "reference": "baseline", "failed-checks": {}, "norm": "linf", "eps": {}, "attack": "pgd"},
        "differences": {"isometric-vs-baseline": {}},
        "connectivity": {
            **{"threshold": "0.1", "connected": 0.9, "rounds": 3},
            "arms": {name: {"kinds": kinds, "claims": silent if name == "untrained" else shares} for name in networks},
        },
        "detection": {"arms": {name: {"claims": detected} for name in networks}},
    }
    whole, short = evidence.table({"digits": tree}, {}), evidence.main_table({"digits": tree})
    assert set(short.splitlines()) < set(whole.splitlines())
    assert whole.count("isometric: ") == 3 and "isometric: " not in short
    assert short.count("untrained: ") == 2 and short.count("| no pair has ends of such loss |") == 1
    assert short.count("97.0 [95.0, 99.0] **holds**") == 3 and short.count("+0.100 [+0.050, +0.150] **holds**") == 1


TOY_CLAIMS = ("correlation is higher than under cross-entropy", "isometric distortion is higher near boundaries")
INTERVAL = {"value": 0.5, "lo": 0.4, "hi": 0.6}
RATE = {**INTERVAL, "n": 100}


def mistakes(per_image=False):
    both = {"hierarchical": INTERVAL, "flat": INTERVAL, "nearer": {**INTERVAL, "verdict": HOLDS}, "n": 3}
    over = {"hierarchical": {**RATE, "value": 0.1234}, "flat": RATE, "nearer": {**RATE, "value": -0.0111, "verdict": REFUTED}}
    kind = {**both, **({"per-image": over} if per_image else {})}
    return {"uniform": 1.55, "clean": kind, "pgd-on-any-level": {"0.1": {"n": 0}}}


def hierarchy(per_image=False):
    level = {"clean": RATE, "pgd-on-any-level": {"0.1": RATE}}
    levels = {"level-1": {"groups": 2, "hierarchical": level, "flat": level}}
    return {"norm": "linf", "images": 100, "seeds": 3, "two-level": {"levels": levels, "mistakes": mistakes(per_image)}}


def test_a_failed_check_stands_beside_its_arm_in_every_table():
    checks = {"x": FAILED, "y": PASSED, "z": FAILED}
    tree = compare([arm("baseline", 0.5, checks={"w": FAILED}), arm("isometric", 0.8, checks=checks)], SETTINGS, "d", TWINS)
    pairs, boundary = dict.fromkeys(("correlation", "stress", "scale"), INTERVAL), {"correlation": INTERVAL, "verdict": HOLDS}
    measured = {"distances": pairs, "neighbours": {"overlap": INTERVAL}, "jacobian": {"largest": INTERVAL}, "boundary": boundary}
    tree |= {"geometry": {"isometric": measured, "baseline": measured}, "hierarchy": hierarchy(per_image=True)}
    ours, plain = "isometric (failed: x, z)", "baseline (failed: w)"
    assert (cells.named(tree, "isometric"), cells.named(tree, "baseline")) == (ours, plain)
    assert cells.named(tree, "isometric", "it") == "it (failed: x, z)" and cells.named(tree, "other") == "other"
    for draw in (
        tables.accuracy_table,
        tables.verdict_table,
        tables.clean_table,
        tables.factorial_table,
        structure.geometry_table,
    ):
        assert ours in draw(tree) and plain in draw(tree), draw
        for line in draw(tree).splitlines()[2:]:
            assert line.count("isometric") == line.count(ours) and line.count("baseline") == line.count(plain), draw
    for draw in (structure.hierarchy_table, structure.mistakes_table):
        assert "flat (failed: w)" in draw(tree).splitlines()[0], draw
    assert tables.checks_table(tree).count("FAILED") == 3
    labels = [text.get_text() for text in plots.robust_accuracy(tree).legends[0].get_texts()]
    assert labels[:2] == ["baseline\n(failed: w)", "isometric\n(failed: x,\nz)"]


@pytest.mark.parametrize(
    ("lo", "style", "expected"),
    [
        (0.00031, "+.1f", "+0.30 [+0.03, +0.60]"),
        (-0.00049, "+.1f", "+0.30 [-0.05, +0.60]"),
        (0.000004, "+.1f", "+0.3 [+0.0, +0.6]"),
        (0.0, "+.1f", "+0.3 [+0.0, +0.6]"),
        (-0.000004, "+.1f", "+0.3 [-0.0, +0.6]"),
        (0.00031, ".1f", "0.3 [0.0, 0.6]"),
    ],
)
def test_a_bound_next_to_zero_shows_its_sign(lo, style, expected):
    assert cells.interval({"value": 0.003, "lo": lo, "hi": 0.006}, style, 0.01) == expected


def test_titles_tell_the_images_and_cells_where_there_are_others():
    results = [arm("baseline", 0.5), arm("isometric", 0.8)]
    header = tables.accuracy_table(compare(results, SETTINGS, "d", TWINS)).splitlines()[0]
    assert "| clean (n = 200) | paper's FGSM (n = 200) | PGD (n = 200) | worst case (n = 100) |" in header
    tree = compare([*results, arm("noise", 0.5, count=200)], SETTINGS, "d", TWINS)
    tree["arms"]["noise"]["robust"]["linf"]["0.1"]["pgd"]["n"] = 150
    table = tables.accuracy_table(tree).splitlines()
    assert "| PGD (n = 200) | worst case (n = 100) |" in table[0]
    assert [line.count("(n = 150)") for line in table[2:]] == [0, 0, 1] and "| noise |" in table[4]


def test_the_line_of_counts_tells_the_worst_cases_seeds_of_every_arm():
    results = [arm("baseline", 0.5), arm("isometric", 0.8)]
    tree = compare(results, SETTINGS, "d", TWINS)
    assert "worst case the first 100 of them on the first 3 seeds. Percent" in tables.counts_line(tree)
    plugged = arm("plug", 0.5)  # its worst case is the mixed surrogate attack: no array tells what felled an image
    gone = [key for key in plugged.arrays if key.startswith(("fallen/", "parts/", "correct/pgd", "correct/strongest"))]
    for key in gone:
        del plugged.arrays[key]
    plugged.arrays["correct/worst-case/linf/0.1"] = plugged.arrays["correct/worst-case/linf/0.1"][:2, :50]
    baseline = results[0].arrays
    baseline["correct/worst-case/linf/0.1"] = baseline["correct/worst-case/linf/0.1"][:, :50]
    add_reclassifiers(tree, results, [plugged], SETTINGS)
    assert tree["arms"]["plug"]["worst-case-seeds"] == 2
    assert "on the first 3 seeds (plug: 50 images, 2 seeds). Percent" in tables.counts_line(tree)
    told = {**RATE, "n": 50}
    attacked = {"base-clean": RATE, "base": {"linf": {"0.1": told}}}
    tree["reclassifiers"] = {"plug": {"attacked": attacked}}
    plug, base = tables.accuracy_table(tree).splitlines()[-2:]
    assert "| plug |" in plug and plug.endswith("(n = 50) |")
    rate = "50.0 [40.0, 60.0]"
    assert base == f"| L-infinity 0.1 | base of plug, fine-tuned as long | 3 | {rate} (n = 100) |  |  | {rate} (n = 50) |"
    assert "(plug: 50 images, 2 seeds, mixed surrogates)" in tables.counts_line(tree)


def test_the_ablation_tells_the_plug_ins_that_were_ablated():
    row = {"changed": "mix", "to": "0.5"} | {f"{what}{end}": "0.5" for what in ("clean", "pgd") for end in ("", "_lo", "_hi")}
    parts = {"attacked": {"checks": {}}, "ablation": []}
    assert reclassifiers.ablation_table({"plug": parts}) == ""
    head, _, told = reclassifiers.ablation_table({"plug": parts, "other": {**parts, "ablation": [row]}}).splitlines()
    assert head == "| changed | to | other, clean (val) | other, PGD (val) |"
    assert told == "| mix | 0.5 | 50.0 [50.0, 50.0] | 50.0 [50.0, 50.0] |"


def test_the_line_of_counts_tells_the_networks_and_their_training():
    tree = compare([arm("baseline", 0.5), arm("isometric", 0.8)], SETTINGS, "d", TWINS)
    network = {"name": "conv-features", "channels": [32, 64], "width": 500, "hidden_layers": 4}
    tree["setup"] = {"network": network, "training": {"epochs": 10, "batch_size": 100, "learning_rate": 1e-3}}
    told = "Networks: conv-features, channels 32 64, width 500, hidden layers 4; 10 epochs, batches of 100, learning rate 0.001."
    assert tables.counts_line(tree).endswith(f"seeds and images. {told}")


def test_an_arm_whose_base_was_tuned_with_it_is_no_twin():
    blocks = {
        "baseline": {"objective": "cross-entropy"},
        "isometric": {"twin_of": "baseline", "isometry": {"beta": 0.1}},
        "isometric-tuned": {"twin_of": "baseline", "isometry_grid": {"beta": [0.1, 1.0]}},
        "jacobian": {"objective": "jacobian", "weight": 0.1},
        "jacobian-isometric-tuned": {"twin_of": "jacobian", "grid": {"weight": [0.1]}, "isometry_grid": {"beta": [0.1]}},
    }
    twins, tuned, retuned = twins_of(blocks)
    assert tuned == ["isometric-tuned", "jacobian-isometric-tuned"] and retuned == ["jacobian-isometric-tuned"]
    tree = compare([arm(name, 0.5) for name in blocks], SETTINGS, "d", twins, retuned)
    assert tree["twins"] == {"isometric": "baseline", "isometric-tuned": "baseline"}
    assert "jacobian-isometric-tuned-vs-jacobian" in tree["differences"]
    assert {entry["twin"] for entry in tables.factorial_entries(tree)} == {"isometric", "isometric-tuned"}
    assert "jacobian-isometric-tuned less" not in evidence.table({"d": {**tree, "geometry": {}}}, {})


def test_mistakes_are_told_over_all_images_where_measured():
    plain = structure.mistakes_table({"hierarchy": hierarchy(), "primary": {}}).splitlines()
    assert "images | uniform wrong class | hierarchical | flat | flat less hierarchical | errs to nearer classes |" in plain[0]
    assert (
        plain[2] == "| two-level | clean images | 1.55 | 0.50 [0.40, 0.60] | 0.50 [0.40, 0.60] | +0.50 [+0.40, +0.60] | holds |"
    )
    assert plain[3] == "| two-level | PGD on any level, L-infinity 0.1 | 1.55 |  |  |  |  |"
    near = hierarchy()
    near["two-level"]["mistakes"]["clean"]["nearer"]["lo"] = 0.0024
    told = structure.mistakes_table({"hierarchy": near, "primary": {}}).splitlines()
    assert "+0.500 [+0.002, +0.600] | holds" in told[2], "a bound that decides does not read as 0"
    told = structure.mistakes_table({"hierarchy": hierarchy(per_image=True), "primary": {}}).splitlines()
    ending = "per image: hierarchical | per image: flat | per image: flat less hierarchical | nearer per image |"
    assert told[0].endswith(ending)
    assert told[2].endswith("| holds | 0.123 [0.400, 0.600] | 0.500 [0.400, 0.600] | -0.011 [+0.400, +0.600] | does not hold |")
    assert len({line.count("|") for line in told}) == 1


ARMS = [
    "baseline",
    "isometric",
    "isometric-tuned",
    "jacobian",
    "jacobian-isometric",
    "trades",
    "noise",
    "adversarial",
    "reclassifier",
]


def test_an_arm_looks_the_same_whichever_others_a_figure_shows():
    every = plots.styles(ARMS)
    for name in ARMS:
        assert plots.styles([name])[name] == every[name]
    assert len({every[name]["color"] for name in ARMS}) == 6
    looks = [(look["color"], look["linestyle"], look["marker"]) for look in every.values()]
    assert len(set(looks)) == len(ARMS)
    for twin, base in (("isometric", "baseline"), ("jacobian-isometric", "jacobian")):
        assert every[twin]["color"] == every[base]["color"]
        assert every[twin]["markerfacecolor"] == "white" != every[base]["markerfacecolor"]
        assert every[base]["linestyle"] == "-" != every[twin]["linestyle"]
    unknown = plots.styles([*ARMS, "mixup", "mixup-isometric", "cutout", "adversarial-long"])
    assert unknown["mixup"]["color"] == unknown["mixup-isometric"]["color"] not in {every[name]["color"] for name in ARMS}
    assert unknown["cutout"]["color"] not in {unknown[name]["color"] for name in [*ARMS, "mixup"]}
    assert unknown["mixup-isometric"]["linestyle"] == every["isometric"]["linestyle"]
    assert unknown["adversarial-long"]["color"] == every["adversarial"]["color"]
    assert unknown == plots.styles([*ARMS, "mixup", "mixup-isometric", "cutout", "adversarial-long"])


def test_the_worst_case_has_a_row_for_each_arm_and_a_marker_for_each_radius():
    tree = compare([arm("baseline", 0.5), arm("isometric", 0.5)], SETTINGS, "d", TWINS)
    *_, axis = plots.robust_accuracy(tree).axes[:3]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["baseline", "isometric"]
    told = [tuple(bar[0].get_xydata()[0]) for bar in axis.containers]
    worst = [100 * tree["arms"][name]["robust"]["linf"]["0.1"]["worst-case"]["value"] for name in ("baseline", "isometric")]
    assert told == [(worst[0], 0), (worst[1], 1)]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["L-infinity 0.1"]


def test_all_cells_of_a_sweep_are_told_and_which_was_chosen():
    rates = {"val_clean": "0.9699", "val_pgd": "0.0515"}
    swept = [{"beta": "0.1", "scale": "2", **rates, "chosen": "1"}, {"beta": "1", "scale": "2", **rates, "chosen": "0"}]
    assert tables.sweep_table({"table": swept}).split("\n") == [
        "| beta | scale | clean, val | PGD, val |  |",
        "| --- | --- | --- | --- | --- |",
        "| 0.1 | 2 | 97.0 | 5.1 | chosen |",
        "| 1 | 2 | 97.0 | 5.1 |  |",
    ]
