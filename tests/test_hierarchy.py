"""Hierarchies: trees and their mistakes, whose gradients reach what, training, attacks per level."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

from isorobust import isometric_loss
from isorobust.claims import verdict
from isorobust.common.params import Params
from isorobust.errors import UserError
from isorobust.hierarchy.attack_settings import LevelAttack
from isorobust.hierarchy.evaluate import GroupLogits, attack_hierarchies, compare_mistakes, distances, uniform_mistake
from isorobust.hierarchy.network import LevelNetwork, build, hierarchical_loss, load
from isorobust.hierarchy.settings import BlockSettings, HierarchySettings
from isorobust.hierarchy.train import train_hierarchies
from isorobust.hierarchy.tree import parse_tree, tree_distance
from isorobust.networks import settings as networks
from isorobust.networks.checkpoint import Checkpoint
from isorobust.networks.stack import Stack
from isorobust.networks.zoo import TanhMLP
from isorobust.objectives.losses import Batch
from isorobust.objectives.settings import Arm, CrossEntropy, Isometry
from isorobust.schema import validate
from isorobust.training.arm import train_arm
from isorobust.training.fit import fit
from isorobust.training.settings import TrainingSettings

CPU = torch.device("cpu")
LEVELS = ["0 1 2 | 3 4", "0 | 1 2 | 3 4"]  # of the five classes of `splits`
TREE = parse_tree(LEVELS)
PLAIN = CrossEntropy(objective="cross-entropy")
TRAINING = TrainingSettings(epochs=1, batch_size=50, learning_rate=3e-3)


def level_attack(**changes):
    return LevelAttack(**{"norm": "linf", "eps": [0.05, 0.2], "steps": 5, "images": 40, **changes})


def options(head="own", epochs=2):
    block = {"width": 12, "layers": 2, "head": head}
    trees = {"three": LEVELS, "two": LEVELS[:1]}
    return HierarchySettings(trees=trees, network=block, epochs=epochs, isometry={"beta": 0.5})


def a_stack(head="own", size=2):
    return Stack([build(BlockSettings(width=12, layers=2, head=head), TREE, 64, seed) for seed in range(size)])


def batch_of(splits, size=2, count=30):
    images = torch.from_numpy(splits.train.images[:count]).float().div(255).expand(size, -1, -1, -1, -1)
    return Batch(images, torch.from_numpy(splits.train.labels[:count]).expand(size, -1), [])


def test_a_tree_holds_every_levels_groups():
    assert TREE.tolist() == [[0, 0, 0, 1, 1], [0, 1, 1, 2, 2], [0, 1, 2, 3, 4]]


BAD = {
    "missing": (["0 1 | 3 4"], "trees.x.0: found '0 1 | 3 4'; allowed: every class from 0 to 4 (missing: 2)"),
    "twice": (["0 1 2 | 2 3"], "allowed: every class from 0 up once (2 is wrong)"),
    "negative": (["0 1 | -1 2"], "allowed: every class from 0 up once (-1 is wrong)"),
    "no number": (["0 1 | two"], 'allowed: classes between spaces and groups between bars, as in "0 1 2 | 3 4"'),
    "not a text": ([[0, 1]], "trees.x.0: found [0, 1]; allowed: a valid string"),
    "empty group": (["0 1 | | 2"], "allowed: no empty group"),
    "one group": (["0 1 2"], "allowed: two groups or more"),
    "single classes": (["0 | 1 | 2"], "not all of them single classes (those are the implied last level)"),
    "no refinement": (["0 1 | 2 3 4", "0 | 1 2 | 3 4"], "split groups of the one before (level 2 joins 1 and 2)"),
    "the same again": (["0 1 | 2 3", "2 3 | 0 1"], "finer than the one before (level 2 is not)"),
    "other classes": (["0 1 | 2 3", "0 1 | 2 | 3 4"], "the same classes on every level (level 2 has 5, the one before 4)"),
    "no level": ([], "trees.x: found []"),
}


@pytest.mark.parametrize(("levels", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_partition_names_key_found_and_allowed(levels, message):
    params = copy.deepcopy(Params.read(ROOT / "params.yaml"))
    params.tree["recipes"]["mnist-5k"]["hierarchy"]["trees"] = {"x": levels}
    with pytest.raises(UserError) as caught:
        validate(params)
    assert "recipes.mnist-5k.hierarchy.trees.x" in str(caught.value) and message in str(caught.value)


def test_a_tree_of_other_classes_than_the_datas_is_refused(splits):
    wrong = options().model_copy(update={"trees": {"two": ["0 1 | 2 3"]}})
    with pytest.raises(UserError, match=r"hierarchy\.trees\.two: found 4 classes; allowed: 5, 0 to 4"):
        train_hierarchies(splits.train, splits.val, wrong, TRAINING, [0], CPU, "params.yaml: recipes.x.hierarchy", "x")


def test_tree_distance_equals_the_naive_walk_to_the_common_ancestor():
    def walk(a, b):
        if a == b:
            return 0
        steps = 0
        for row in TREE[::-1]:
            if row[a] == row[b]:
                break
            steps += 1
        return steps

    every = np.arange(5)
    ours = tree_distance(TREE, every[:, None], every[None])
    assert ours.tolist() == [[walk(a, b) for b in every] for a in every]
    assert (ours[1, 2], ours[0, 1], ours[0, 4]) == (1, 2, 3)


def test_mistakes_are_averaged_over_wrong_classes_alone():
    labels = np.array([0, 1, 3, 4])
    predicted = np.array([[0, 2, 0, 4], [0, 1, 3, 4], [4, 1, 3, 3]])  # distances: 1 and 3; none; 3 and 1
    assert distances(TREE, labels, predicted).tolist() == [[0, 1, 3, 0], [0, 0, 0, 0], [3, 0, 0, 1]]
    flat = np.array([[4, 1, 3, 4], [4, 1, 3, 4], [0, 4, 3, 4]])  # 3; 3; 3
    told = compare_mistakes(TREE, labels, predicted[None], flat[None])
    assert told["n"] == 2 and told["nearer"]["value"] == 1 and told["hierarchical"]["value"] == 2 and told["flat"]["value"] == 3
    every = told["per-image"]
    assert every["hierarchical"]["value"] == pytest.approx(8 / 12) and every["flat"]["value"] == pytest.approx(9 / 12)
    assert every["nearer"]["value"] == pytest.approx(1 / 12) and every["nearer"]["n"] == 4
    none = compare_mistakes(TREE, labels, predicted[None, 1:2], flat[None, 1:2])
    assert none["n"] == 0 and "nearer" not in none and none["per-image"]["hierarchical"]["value"] == 0


def test_of_the_answers_under_several_attacks_the_farthest_counts():
    random = np.random.default_rng(0)
    labels, (own, flat) = random.integers(0, 5, 30), random.integers(0, 5, (2, 3, 4, 30))
    told = compare_mistakes(TREE, labels, own, flat)["per-image"]
    for who, guesses in (("hierarchical", own), ("flat", flat)):
        naive = [max(tree_distance(TREE, guesses[a, s, i], labels[i]) for a in range(3)) for s in range(4) for i in range(30)]
        assert told[who]["value"] == pytest.approx(np.mean(naive))


def test_the_interval_of_mistakes_is_over_images_too():
    """Every seed errs on the same images, half of them far: there is no spread over seeds, and much over images."""
    labels = np.zeros(40, int)
    predicted = np.tile(np.where(np.arange(40) < 8, np.where(np.arange(40) % 2, 4, 1), 0), (3, 1))
    far = compare_mistakes(TREE, labels, np.where(predicted > 0, 1, 0)[None], predicted[None])
    assert far["hierarchical"]["value"] == 2 and far["flat"]["value"] == 2.5
    assert far["nearer"]["hi"] - far["nearer"]["lo"] > 0.5
    assert uniform_mistake(parse_tree(["0 1 | 2 3"]), np.arange(4)) == pytest.approx((1 + 2 + 2) / 3)


@pytest.mark.parametrize(
    ("lo", "hi", "told"), [(0.1, 0.2, "holds"), (-2, -1, "does not hold"), (-1, 1, "undecided"), (1, 1, "undecided")]
)
def test_a_verdict_needs_an_interval_beside_0(lo, hi, told):
    assert verdict(lo, hi) == told


def test_the_loss_equals_its_naive_twin(splits):
    """Block by block with plain modules, each fed with the detached output of the one before."""
    made = [build(BlockSettings(width=12, layers=2), TREE, 64, seed) for seed in (0, 1)]
    stack, batch = Stack(made), batch_of(splits)
    loss = hierarchical_loss(stack, batch, Arm(PLAIN, Isometry(beta=0.7, scale=2.0)))
    for seed, network in enumerate(made):
        total, x = 0.0, batch.images[seed].flatten(1)
        for block, head, groups in zip(network.blocks, network.heads, TREE):
            labels, start = torch.from_numpy(groups)[batch.labels[seed]], x.detach()
            x = start
            for layer in block:
                x = torch.tanh(F.linear(x, layer.weight, layer.bias))
            total = total + F.cross_entropy(head(x), labels) + 0.7 * isometric_loss(start, x, labels, scale=2.0)
        torch.testing.assert_close(loss.total[seed], total, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stack(batch.images)[seed], network(batch.images[seed]))


@pytest.mark.parametrize("head", ["own", "shared"])
def test_a_blocks_loss_reaches_no_other_block(splits, head):
    stack = a_stack(head)
    loss = hierarchical_loss(stack, batch_of(splits), Arm(PLAIN, Isometry(beta=0.5)))
    for number in (1, 2, 3):
        part = loss.parts[f"cross_entropy_{number}"].sum() + loss.parts[f"isometric_{number}"].sum()
        names = list(stack.weights)
        gradients = torch.autograd.grad(part, stack.parameters(), retain_graph=True, allow_unused=True)
        reached = {".".join(name.split(".")[:2]) for name, gradient in zip(names, gradients) if gradient is not None}
        assert reached == {f"blocks.{number - 1}", f"heads.{number - 1 if head == 'own' else 0}"}


def test_the_shared_head_is_one_and_its_first_outputs_serve_the_coarse_levels(splits):
    network = build(BlockSettings(width=12, layers=2, head="shared"), TREE, 64, 0)
    assert len(network.heads) == 1 and network.heads[0].weight.shape == (5, 12)
    levels = network.levels(batch_of(splits).images[0])
    assert [level.logits.shape[1] for level in levels] == [2, 3, 5]
    for level in levels:
        whole = network.heads[0](level.hidden[-1])
        torch.testing.assert_close(level.logits, whole[:, : level.logits.shape[1]])


def test_in_evaluation_gradients_run_through_all_blocks(splits):
    network, images = build(BlockSettings(width=12, layers=2), TREE, 64, 0), batch_of(splits).images[0].clone().requires_grad_()
    for level in range(3):
        (gradient,) = torch.autograd.grad(LevelNetwork(network, level)(images).sum(), images)
        assert gradient.abs().max() > 0


def test_the_first_block_learns_what_a_flat_network_on_coarse_labels_learns(splits):
    """Bit for bit: nothing of the finer levels leaks into it."""
    deep = build(BlockSettings(width=16, layers=3), TREE, 64, 0)
    flat = TanhMLP(networks.TanhMLP(name="tanh-mlp", width=16, hidden_layers=3), (1, 8, 8), 2)
    flat.hidden.load_state_dict(deep.blocks[0].state_dict())
    flat.head.load_state_dict(deep.heads[0].state_dict())
    arm, coarse = Arm(PLAIN, Isometry(beta=0.5)), [s._replace(labels=TREE[0][s.labels]) for s in (splits.train, splits.val)]
    ours = fit([deep], [0], splits.train, splits.val, arm, TRAINING, loss=hierarchical_loss).state
    plain = fit([flat], [0], *coarse, arm, TRAINING).state
    assert torch.equal(ours["blocks.0.0.weight"], plain["hidden.0.weight"])
    assert torch.equal(ours["heads.0.weight"], plain["head.weight"])


@pytest.fixture(scope="module")
def done(splits, tmp_path_factory):
    """(trained file, flat checkpoint, metrics) of a few epochs."""
    where, seeds = "params.yaml: recipes.x.hierarchy", [0, 3]
    trained = train_hierarchies(splits.train, splits.val, options(epochs=10), TRAINING, seeds, CPU, where, "x")
    size = networks.TanhMLP(name="tanh-mlp", width=12, hidden_layers=2)
    labels = {"arm": "baseline", "data": "x"}
    longer = TRAINING.model_copy(update={"epochs": 10})
    flat = train_arm(splits.train, splits.val, size, Arm(PLAIN), longer, seeds, CPU, labels).checkpoint
    path = tmp_path_factory.mktemp("models") / "hierarchy.safetensors"
    trained.checkpoint.save(path)
    return path, flat, trained


def test_training_learns_every_level_and_gives_the_same_bytes_again(splits, done, tmp_path):
    path, _, trained = done
    assert list(trained.metrics) == ["three", "two", "seeds", "epochs"]
    assert all(level["val_accuracy"]["value"] > 0.8 for name in ("three", "two") for level in trained.metrics[name].values())
    assert len(trained.rows) == 10 and trained.header[0] == "epoch" and len(trained.header) == len(trained.rows[0])
    again = train_hierarchies(splits.train, splits.val, options(epochs=10), TRAINING, [0, 3], CPU, "", "x")
    again.checkpoint.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes() and again.metrics == trained.metrics


def test_a_saved_network_is_loaded_by_its_name_and_seed(splits, done):
    checkpoint = Checkpoint.read(done[0])
    network = load(checkpoint, "three", 3)
    assert torch.equal(network.blocks[1][0].weight, checkpoint.tensors["three/blocks.1.0.weight"][1])
    with pytest.raises(UserError, match="hierarchy: found 'four'; allowed: three, two"):
        load(checkpoint, "four", 3)
    with pytest.raises(UserError, match="seed: found 1; allowed: 0, 3"):
        load(checkpoint, "three", 1)


def test_evaluation_tells_rates_and_mistakes_per_level(splits, done, threads):
    path, flat, _ = done
    told = []
    for count in (2, 1):
        threads(count)
        told.append(attack_hierarchies(Checkpoint.read(path), flat, splits.test, level_attack(), CPU, "x.hierarchy"))
    assert told[0] == told[1], "no number depends on how many processes there are"
    levels = told[0]["three"]["levels"]
    assert [level["groups"] for level in levels.values()] == [2, 3, 5]
    network = load(Checkpoint.read(path), "three", 0), load(Checkpoint.read(path), "three", 3)
    images = torch.from_numpy(splits.test.images).float() / 255
    right = [(n.levels(images)[1].logits.argmax(1).numpy() == TREE[1][splits.test.labels]).mean() for n in network]
    assert levels["level-2"]["hierarchical"]["clean"]["value"] == pytest.approx(np.mean(right))
    for level in levels.values():
        for who in ("hierarchical", "flat"):
            assert level[who]["clean"]["n"] == len(splits.test.labels) and level[who]["pgd"]["0.05"]["n"] == 40
            assert level[who]["pgd"]["0.2"]["value"] < level[who]["clean"]["value"]
            for eps in ("0.05", "0.2"):
                assert level[who]["pgd-on-any-level"][eps]["value"] <= level[who]["pgd-on-level"][eps]["value"]
        assert level["hierarchical"]["pgd"] == level["hierarchical"]["pgd-on-level"]
        # Attacked on its groups the flat network cannot be much better off than when attacked on its classes.
        assert level["flat"]["pgd-on-level"]["0.2"]["value"] <= level["flat"]["pgd"]["0.2"]["value"] + 0.05
    assert levels["level-3"]["flat"]["pgd"] == levels["level-3"]["flat"]["pgd-on-level"]
    mistakes = told[0]["three"]["mistakes"]["pgd-on-any-level"]["0.2"]
    assert 1 <= mistakes["hierarchical"]["value"] <= 3 and mistakes["n"] == 2 and "verdict" in mistakes["nearer"]
    for who in ("hierarchical", "flat"):
        wrong = 1 - levels["level-3"][who]["pgd-on-any-level"]["0.2"]["value"]
        assert wrong <= mistakes["per-image"][who]["value"] <= 3 * wrong, "a mistake is one to three levels far"
    with pytest.raises(UserError, match=r"x\.hierarchy\.images: found 999; allowed: at most 80"):
        attack_hierarchies(Checkpoint.read(path), flat, splits.test, level_attack(images=999), CPU, "x.hierarchy")


def test_group_logits_are_the_groups_log_probabilities(splits, trained):
    images = torch.from_numpy(splits.test.images).float() / 255
    ours = GroupLogits(trained, TREE[1])(images).softmax(1)
    each = trained(images).softmax(1)
    torch.testing.assert_close(ours, torch.stack([each[:, [0]].sum(1), each[:, [1, 2]].sum(1), each[:, [3, 4]].sum(1)], 1))
