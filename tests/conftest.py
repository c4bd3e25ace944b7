"""Small real things: generated images, tiny networks, a temporary copy of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from isorobust.data.settings import Generated
from isorobust.data.sources import Splits, make
from isorobust.networks import settings as networks
from isorobust.networks.zoo import build

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "datasets"

NETWORKS = {
    "tanh-mlp": networks.TanhMLP(name="tanh-mlp", width=16, hidden_layers=3),
    "conv-features": networks.ConvFeatures(name="conv-features", channels=[4, 6], width=16, hidden_layers=2),
    "small-cnn": networks.SmallCNN(name="small-cnn", channels=[4, 6], width=16),
    "resnet18": networks.ResNet18(name="resnet18"),
}


def pytest_configure(config):
    torch.set_num_threads(2)


@pytest.fixture
def threads():
    """A function that sets the number of CPU threads for one test; with one, all work is done in this process."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def splits() -> Splits:
    """Five classes of 8x8 grey images, learnable but not robustly so."""
    source = Generated(source="generated", classes=5, size=8, train=400, val=60, test=80, noise=0.5, seed=3)
    return make("generated", source, Path("unused"))


@pytest.fixture(scope="session")
def trained(splits) -> torch.nn.Module:
    """An undefended MLP that is right on nearly all of `splits.test`."""
    from isorobust.objectives.settings import Arm, CrossEntropy
    from isorobust.training.fit import fit
    from isorobust.training.settings import TrainingSettings

    network = build(NETWORKS["tanh-mlp"], splits.train.images.shape[1:], 5, seed=0)
    options = TrainingSettings(epochs=15, batch_size=50, learning_rate=3e-3)
    state = fit([network], [0], splits.train, splits.val, Arm(CrossEntropy(objective="cross-entropy")), options).state
    network.load_state_dict({name: tensor[0] for name, tensor in state.items()})
    return network.eval()


@pytest.fixture
def test_tensors(splits) -> tuple[torch.Tensor, torch.Tensor]:
    """(pixels `[N, C, H, W]` in [0, 1], labels) of the test split."""
    return torch.from_numpy(splits.test.images).float() / 255, torch.from_numpy(splits.test.labels)


def tiny_recipe(params: dict, name: str, seed: int) -> None:
    """Add a data set that trains and attacks in seconds, and its recipe, to a parsed params.yaml."""
    recipe = {
        "seeds": [0, 1],
        "network": {"name": "tanh-mlp", "width": 12, "hidden_layers": 2},
        "training": {"epochs": 4, "batch_size": 50, "learning_rate": 0.005, "seeds": "auto"},
        "arms": {
            "baseline": {"objective": "cross-entropy"},
            "isometric": {"twin_of": "baseline", "isometry": {"beta": 0.1}},
            "isometric-published": "skip",
            "isometric-tuned": {"isometry_grid": {"beta": [0.1, 1.0], "scale": "skip", "layers": ["last", "all"]}},
            "adversarial": {"objective": "adversarial", "norm": "linf", "eps": 0.1, "steps": 2},
        },
        "sweep": {"seeds": [0], "images": 20, "min_clean": 0.1, "norm": "linf", "eps": 0.1, "steps": 3},
        "geometry": {
            "images": 40,
            "neighbours": 3,
            "jacobian_images": 4,
            "boundary_images": 20,
            "fab_steps": 10,
            "bins": 2,
        },
        "hierarchy": {
            "trees": {"two-level": ["0 1 | 2 3"]},
            "network": {"width": 8, "layers": 2},
            "epochs": 2,
            "isometry": {"beta": 0.1},
        },
        "hierarchy-attack": {"norm": "linf", "eps": [0.1], "steps": 3, "images": 20},
        "connectivity": {
            "arms": ["baseline", "untrained"],
            "pairs": 8,
            "points": 6,
            "seeds": 1,
            "thresholds": [0.1, 1.0],
            "threshold": 1.0,
            "connected": 0.9,
            "graph_images": 4,
            "bypass": {"rounds": 1, "steps": 3, "learning_rate": 0.01},
            "synthesis": {"steps": 5},
            "matched": {"steps": 5, "learning_rate": 0.01, "distortion": 1.0, "tolerance": 5.0},
        },
        "detection": {
            "arms": ["baseline", "untrained"],
            "seeds": 1,
            "references": 3,
            "points": 5,
            "images": 20,
            "eps": 0.1,
            "fitting": {"images": 40, "eps": [0.1, 0.3]},
            "attacks": {
                "pgd": {"steps": 3},
                "apgd-ce": {"steps": 3},
                "square": {"queries": 5},
                "fab": {"steps": 3},
                "cw": {"images": 10, "weight": 1.0, "steps": 3, "learning_rate": 0.1},
                "deepfool": {"images": 10, "steps": 3},
                "matched": {"steps": 5, "learning_rate": 0.01, "distortion": 1.0, "tolerance": 5.0},
            },
            "adaptive": {"images": 10, "steps": 3},
        },
        "percolation": {"sizes": [4, 8], "seeds": 2, "pairs": 6, "random": "skip"},
        "reclassifier": {
            "arms": ["reclassifier"],
            "epochs": 1,
            "learning_rate": 0.001,
            "ablation": {
                "mix": [1.0],
                "momentum": [0.5],
                "temperature": [1.0],
                "seeds": 1,
                "images": 20,
                "eps": 0.1,
                "steps": 2,
            },
        },
        "reclassifier-attack": {
            "eps": {"linf": [0.1]},
            "images": 20,
            "batch": 10,
            "apgd_steps": 3,
            "fab_steps": 3,
            "square_queries": 5,
            "adaptive_steps": 3,
            "adaptive_draws": 2,
            "batch_sizes": [1, 10],
            "shuffles": 2,
        },
        "attack": {
            "batch": 20,
            "eps": {"linf": [0.1], "l2": [0.5]},
            "attacks": {
                "paper-fgsm": {"gradient_batch": 10},
                "fgsm": {},
                "pgd": {"steps": 5},
                "noise": {"draws": 2, "eps": None},
                "transfer": {"steps": 5, "eps": None},
            },
            "worst-case": {
                "eps": {"linf": [0.1]},
                "images": 20,
                "batch": 10,
                "apgd_steps": 5,
                "fab_steps": 5,
                "square_queries": 20,
            },
            "check_images": 20,
            "examples": 4,
        },
        "compare": {
            "reference": "baseline",
            "primary": {"arm": "isometric", "attack": "worst-case", "norm": "linf", "eps": [0.1]},
        },
    }
    source = {"source": "generated", "classes": 4, "size": 8, "train": 200, "val": 40, "test": 40, "seed": seed}
    params["data"]["sets"][name] = source
    params["recipes"][name] = recipe


KEPT = ("baseline", "isometric", "isometric-published", "isometric-tuned", "adversarial")


def keep_few_arms(root: Path) -> None:
    """Take all but five arms out of a copy, so that its pipeline runs in seconds."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(root / "params.yaml")) as tree:
        dropped = [arm for arm in tree["arms"] if arm not in KEPT]
        tree["arms"] = list(KEPT)
        tree["reclassifiers"].pop("reclassifier-isometric")
        dropped.append("reclassifier-isometric")
        for toy in tree["toys"].values():
            toy["seeds"], toy["training"]["epochs"] = [0, 1], 2
        for recipe in (tree["defaults"], *tree["recipes"].values()):
            recipe["arms"] = {arm: recipe["arms"][arm] for arm in KEPT}
        for recipe in tree["recipes"].values():
            if recipe["reclassifier"] != "skip":
                recipe["reclassifier"]["arms"] = ["reclassifier"]
    with modify_yaml(str(root / "dvc.yaml")) as tree:
        for arm in dropped:
            tree["stages"].pop(f"train-{arm}")
            tree["stages"]["sweep"]["foreach"].pop(arm, None)
            tree["stages"]["attack"]["foreach"].pop(arm, None)
        gone = tuple(f"/{arm}{ending}" for arm in dropped for ending in (".json", ".csv", "-ablation.csv", ".npz"))
        compare = tree["stages"]["compare"]
        compare["deps"] = [dep for dep in compare["deps"] if not dep.endswith(gone)]


class Project:
    """A git and DVC checkout of the present code in a folder of its own."""

    def __init__(self, root: Path):
        self.root = root
        self.ran_first: list[str] = []  # by the first `dvc repro`

    def run(self, *words: str, check: bool = True, **more) -> subprocess.CompletedProcess:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            **more.pop("env", {}),
        }
        for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
            if name not in more:
                environment.pop(name, None)
        environment |= {k: more.pop(k) for k in ("DVC_ROOT", "MLFLOW_TRACKING_URI") if k in more}
        done = subprocess.run(words, cwd=self.root, capture_output=True, text=True, env=environment, **more)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}: status {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done

    def stages_run(self, output: str) -> list[str]:
        """The stages that a `dvc repro` output says were run, not restored."""
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]

    def repro(self) -> set[str]:
        """Run what is out of date; the stages that ran."""
        return set(self.stages_run(self.run("dvc", "repro").stdout))

    def published(self, data: str) -> dict[str, bytes]:
        """The files of a data set under `metrics`, by path below it."""
        folder = self.root / "metrics" / data
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def tracked(self) -> str:
        return self.run("git", "status", "--porcelain").stdout

    def edit_params(self, change) -> None:
        from dvc.utils.serialize import modify_yaml

        with modify_yaml(str(self.root / "params.yaml")) as tree:
            change(tree)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", message)


def copy_project(target: Path) -> Project:
    """The files that git tracks or would track, without published metrics, under git in a new folder."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if not name.startswith("metrics/") and name != "dvc.lock" and (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    from dvc.utils.hydra import apply_overrides

    project = Project(target)
    project.run("git", "init", "-q", "-b", "main")
    project.run("git", "config", "user.name", "test")
    project.run("git", "config", "user.email", "test@example.invalid")

    keep_few_arms(target)

    def add(tree):
        tiny_recipe(tree, "tiny", 0)
        tiny_recipe(tree, "other", 1)
        # The second data set is there to be switched to; what the first one measures once is not measured again.
        spared = (
            "hierarchy",
            "hierarchy-attack",
            "reclassifier",
            "reclassifier-attack",
            "connectivity",
            "detection",
            "percolation",
        )
        tree["recipes"]["other"].update(dict.fromkeys(spared, "skip"))
        tree["data"]["name"] = "tiny"

    project.edit_params(add)
    for name in ("other", "tiny"):  # until the additions have the form in which `dvc exp run -S` rewrites them
        apply_overrides(str(target / "params.yaml"), [f"data.name={name}"])
    project.commit("start")
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    return copy_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A project after its first `dvc repro`, committed. Tests copy it."""
    project = copy_project(tmp_path_factory.mktemp("finished") / "project")
    project.run("dvc", "config", "core.analytics", "false")
    project.ran_first = project.stages_run(project.run("dvc", "repro").stdout)
    project.commit("results")
    return project


@pytest.fixture
def copied(finished, tmp_path) -> Project:
    """A copy of the finished project, cache and database included."""
    shutil.copytree(finished.root, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
